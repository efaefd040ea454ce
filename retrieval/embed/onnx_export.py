"""A model as one ONNX file: prepared images in, unit descriptors out, checked against torch."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.arrays import UInt8Array
from retrieval.embed.onnx_digest import with_digest
from retrieval.embed.onnx_embedder import CARD_KEY, INPUTS_KEY, OUTPUT, OnnxEmbedder
from retrieval.errors import LmrError
from retrieval.extras import require_extra
from retrieval.files.atomic import replacing, write_error
from retrieval.images.spec import ImageSpec
from retrieval.models.card import Card, Member
from retrieval.models.checkpoint import load_network
from retrieval.models.network import DescriptorModel, mean_descriptor, to_input

# Of the numbers of a unit descriptor, float32 in both. A store in float16 rounds them by up to 2.4e-4.
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 2, 5)  # images
TRACED_BATCH = 2  # one that torch.export does not take for a constant
CPU = torch.device("cpu")


class NotExportableError(LmrError):
    """A network that cannot be exported, or whose descriptors would not be torch's."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written. difference: the largest between ONNX and torch. d: length of a descriptor."""

    difference: float
    d: int
    n_bytes: int
    tolerance: float = TOLERANCE


class WholeNetwork(nn.Module):
    """uint8 images (b, size, size, 3) for each of the card's specs -> unit descriptors (b, d), as the card says."""

    def __init__(self, networks: Sequence[DescriptorModel], card: Card) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.members, self.specs = card.members, card.specs

    def forward(self, *images: Tensor) -> Tensor:
        """The members' descriptors, each times the root of its weight."""
        pairs = zip(self.networks, self.members, strict=True)
        parts = [self._embed(cast(DescriptorModel, network), member, images) for network, member in pairs]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _embed(self, network: DescriptorModel, member: Member, images: tuple[Tensor, ...]) -> Tensor:
        card = member.card
        given = [images[self.specs.index(spec)] for spec in card.specs]
        views = [to_input(x.permute(0, 3, 1, 2), spec, CPU) for x, spec in zip(given, card.specs, strict=True)]
        unit = mean_descriptor(lambda x: cast(Tensor, network(x, card.descriptor)), views, flip=card.flip)
        return cast(Tensor, network.adapted(unit) * member.weight**0.5)


def whole_network(model: Path, card: Card) -> WholeNetwork:
    """The network of a model folder as its card has it. LmrError: weights missing, or for images of another size."""
    networks = [load_network(model, member.card) for member in card.members]
    for network, member in zip(networks, card.members, strict=True):
        for spec in member.card.specs:
            network.require_size(spec.size)
    return WholeNetwork(networks, card).eval()


def export_onnx(model: Path, card: Card, output: Path) -> Exported:
    """Writes the model as ONNX, with any number of images at once, and its card in the metadata.

    Raises LmrError: no onnx or onnxscript, weights missing, a network for images of another size or one that cannot
    be exported, descriptors that differ from torch's by more than TOLERANCE; nothing is then left at `output`.
    """
    require_extra("lmr export", "onnx", "onnx", "onnxscript", "onnxruntime")
    whole = whole_network(model, card)
    data = _to_onnx(whole, card)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(output, error) from error
    with replacing(output) as file:
        file.write(data)
        file.flush()
        embedder = OnnxEmbedder(Path(file.name), card, ["CPUExecutionProvider"], None, 1)
        difference = largest_difference(embedder, whole)
        if not difference <= TOLERANCE:
            raise NotExportableError(
                f"{output}: not written: its descriptors would differ from torch's by up to {difference:.2g}, "
                f"more than {TOLERANCE:g}; serve this network with torch"
            )
    return Exported(difference, embedder.d, len(data))


def largest_difference(embedder: OnnxEmbedder, whole: WholeNetwork) -> float:
    """The largest difference of any number of a descriptor, over batches of random images; NaN counts."""
    differences = []
    for n in CHECKED_BATCHES:
        images = made_images(whole.specs, n)
        with torch.inference_mode():
            expected = whole(*map(torch.from_numpy, images)).numpy()
        differences.append(np.abs(embedder.embed_batch(*images) - expected).max())
    return float(np.max(differences))


def _to_onnx(whole: WholeNetwork, card: Card) -> bytes:
    """The file's bytes. torch's exporter traces with torch.export, which needs onnx and onnxscript."""
    import onnx

    given = tuple(map(torch.from_numpy, made_images(whole.specs, TRACED_BATCH)))
    names = [f"pictures_{spec.size}" if len(given) == 1 else f"pictures_{i}" for i, spec in enumerate(whole.specs)]
    try:
        with _quiet():
            program = torch.onnx.export(
                whole,
                given,
                input_names=names,
                output_names=[OUTPUT],
                dynamic_shapes=(tuple({0: torch.export.Dim("batch", min=1)} for _ in given),),
                dynamo=True,
                verbose=False,
            )
        assert program is not None, "the exporter that traces with torch.export returns a program"
        proto: Any = program.model_proto
    except Exception as error:  # torch.export raises almost anything for what it cannot trace
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:160]
        raise NotExportableError(f"this network cannot be exported to ONNX: {reason}; serve it with torch") from error
    _strip(proto.graph)
    del proto.metadata_props[:]
    specs = [spec.to_json() for spec in whole.specs]
    onnx.helper.set_model_props(proto, {CARD_KEY: json.dumps(card.to_json()), INPUTS_KEY: json.dumps(specs)})
    return with_digest(proto.SerializeToString())


def _strip(graph: Any) -> None:
    """Takes out what the exporter notes of this machine's source files."""
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def made_images(specs: Sequence[ImageSpec], n: int = max(CHECKED_BATCHES)) -> list[UInt8Array]:
    """n random images for each spec, (n, size, size, 3) uint8, the same ones whenever they are made."""
    rng = np.random.default_rng(n)
    return [rng.integers(0, 256, (n, spec.size, spec.size, 3), dtype=np.uint8) for spec in specs]


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter's progress and remarks are not for people who use lmr."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
