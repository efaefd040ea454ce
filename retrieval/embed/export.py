"""Exporting a model to one ONNX file: by itself, unless that very model is there, or beside the weights of an index."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.embed.job import MODEL
from retrieval.embed.load import adjusted_card, onnx_path, open_card
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob, option
from retrieval.models.request import EmbedRequest

if TYPE_CHECKING:
    from retrieval.arrays import FloatArray
    from retrieval.embed.onnx_export import Exported
    from retrieval.models.card import Card


PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of the extra
ROWS_TOLERANCE = 1e-3  # by which the cosine of an image and its stored row may fall short of torch's on this machine


@dataclass(frozen=True)
class ExportJob(WritingJob):
    """Write a model as one ONNX file."""

    model: Path = option(MODEL, is_argument=True)
    output: Path = option(Path("model.onnx"), is_argument=True)
    _: KW_ONLY
    embedding: EmbedRequest = field(default_factory=EmbedRequest)


def export(job: ExportJob) -> "Exported | None":
    """Writes the file; None where it is there already.

    Raises LmrError for a model that cannot be used or exported, another model at `output`, and packages that lack.
    """
    if job.output.suffix != ".onnx":
        raise LmrError(f"{job.output}: the name of an exported model ends in .onnx")
    if onnx_path(job.model) is not None:
        raise LmrError(f"{job.model} is exported already; give the model folder that it was made of")
    with output_locks(job.output, wait=job.wait, progress=job.progress):
        card = adjusted_card(job.model, open_card(job.model), job.embedding.settings())
        if job.output.exists() and not job.overwrite:
            _require_same(job, card)
            return None
        from retrieval.embed.onnx_export import export_onnx

        return export_onnx(job.model, card, job.output)


def _require_same(job: ExportJob, card: "Card") -> None:
    """LmrError when what is there is not this very model, whole."""
    from retrieval.embed.onnx_digest import require_as_written

    try:
        found = open_card(job.output)
    except LmrError as error:
        raise LmrError(f"{error}; or give another OUTPUT") from error
    if found.fingerprint != card.fingerprint:
        raise LmrError(f"{job.output} exists and is another model; `overwrite` replaces it")
    if not require_as_written(job.output):
        job.progress.warn(
            f"{job.output} carries no digest (it is of an earlier lmr): what it says it is made of was compared alone"
        )


def export_like_rows(
    model: Path, output: Path, paths: Sequence[str], vectors: "FloatArray"
) -> "tuple[Exported, FloatArray]":
    """Writes a model folder as ONNX, and compares its descriptors with rows that were stored.

    paths: images of rows, those that cannot be read are left out. vectors: (n, d) of these rows. Gives also the cosines
    of those images with their rows. Rows are made in the number format in which torch computes on a machine, mostly
    this one: so the cosines may fall short of torch's by ROWS_TOLERANCE, and where there are no images those of made
    images with torch's descriptors of 1. Raises NotExportableError: descriptors that are not torch's, a network that
    cannot be exported.
    """
    import numpy as np

    from retrieval.embed.onnx_embedder import OnnxEmbedder
    from retrieval.embed.onnx_export import CPU, NotExportableError, export_onnx, made_images
    from retrieval.embed.torch_embedder import load_embedder
    from retrieval.images.given import GivenImages

    card = open_card(model)
    exported = export_onnx(model, card, output)
    by_onnx = OnnxEmbedder(output, card, ["CPUExecutionProvider"], None, 1)
    by_torch = load_embedder(model, card, CPU, n_workers=1)
    source, every = GivenImages(paths, allow_private=False), range(len(paths))
    rows, found = by_onnx.embed_all(source, every)
    cosines = _cosines(found, vectors[rows])
    if len(rows):
        short = float(np.max(_cosines(by_torch.embed_all(source, every)[1], vectors[rows]) - cosines))
    else:
        images = made_images(card.specs)
        short = 1 - float(_cosines(by_onnx.embed_batch(*images), by_torch.embed_batch(*images)).min())
    if not short <= ROWS_TOLERANCE:
        output.unlink()
        raise NotExportableError(
            f"cosines of images with their rows would be up to {short:.2g} below those of torch on this machine, which "
            f"does not compute in float32 (allowed {ROWS_TOLERANCE:g}); rows embedded with LMR_PRECISION=fp32 are near "
            "enough"
        )
    return exported, cosines


def _cosines(some: "FloatArray", others: "FloatArray") -> "FloatArray":
    """(n,) float64 of pairs of vectors of any length."""
    import numpy as np

    one, other = (np.asarray(vectors, dtype=np.float64) for vectors in (some, others))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray(np.einsum("nd,nd->n", one, other) / norms)
