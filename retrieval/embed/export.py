"""Exporting a model to one ONNX file, unless that very model is there."""

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
    from retrieval.embed.onnx_export import Exported
    from retrieval.models.card import Card


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
