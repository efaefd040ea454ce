"""Landmarks by the classifier that a network was trained with, instead of by neighbours."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from retrieval.arrays import FloatArray, IntArray, LongArray
from retrieval.embed.torch_embedder import TorchEmbedder
from retrieval.errors import LmrError
from retrieval.files.atomic import write_bytes
from retrieval.files.digest import sha256_json
from retrieval.files.json_file import convert
from retrieval.files.utf8_path import utf8_path
from retrieval.images.bytes_source import Source
from retrieval.images.spec import ImageSpec
from retrieval.models.checkpoint import load_model, read_card
from retrieval.models.folder import CLASSIFIER
from retrieval.models.network import DescriptorModel
from retrieval.train.heads import CosineHead, LinearHead
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss

FORMAT_VERSION = 1
K = 10  # landmarks that are kept of each image


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained head in evaluation mode. labels: of its outputs; wants: `raw` features or unit descriptors."""

    head: nn.Module
    labels: tuple[str, ...]
    wants: Literal["unit", "raw"]

    def softmax(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, n_outputs) float64, the background's at the end where the head has such a class."""
        with torch.inference_mode():
            logits = self.head(features.float())
            logits = logits.cpu() if logits.device.type == "mps" else logits  # where there is no float64
            return torch.softmax(logits, dim=1, dtype=torch.float64)

    def probabilities(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, n_classes) float64 of the labels: `softmax` without the background."""
        return self.softmax(features)[:, : len(self.labels)]


@dataclass(frozen=True, slots=True)
class Classified:
    """The most probable landmarks of the images that could be read.

    row: (n,) of the images. label: (n, k) into labels, probability: (n, k), falling. doubt: (n, k), 1 - probability,
    with all its digits also where the probability is nearly 1. unreadable: row -> reason.
    """

    row: LongArray
    label: IntArray
    probability: FloatArray
    doubt: FloatArray
    labels: tuple[str, ...]
    unreadable: dict[int, str]


def save_classifier(folder: Path, loss: LandmarkLoss, labels: tuple[str, ...]) -> None:
    """Writes a loss's head beside the network that it was trained with, which is in the folder already.

    A loss without classes (contrastive, triplet, multi-similarity) writes none. LmrError: no model there, not writable.
    """
    head = loss.head()
    if head is None:
        return
    if len(labels) != loss.n_classes:
        raise ValueError(f"{len(labels)} labels for {loss.n_classes} classes")
    about: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "weights_sha256": read_card(folder).weights_sha256,
        "loss": asdict(loss.config),
        "labels": labels,
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    about["content_sha256"] = _digest(about, tensors)
    write_bytes(folder / CLASSIFIER, save(tensors, {"lmr": json.dumps(about)}))


def load_classifier(folder: Path) -> Classifier:
    """The head in a model folder.

    LmrError: none there, damaged, of another format version, trained with other weights than those in the folder.
    """
    path = folder / CLASSIFIER
    card = read_card(folder)
    if not path.is_file():
        raise LmrError(
            f"{folder} has no {CLASSIFIER}; lmr train writes one with every `loss` that has classes, or use the "
            "neighbours: lmr evaluate"
        )
    about, tensors = _read(path)
    if about["weights_sha256"] != card.weights_sha256:
        raise LmrError(f"{path} was trained with other weights than those beside it; run the same lmr train again")
    config, labels = LossConfig(**about["loss"]), tuple(about["labels"])
    try:
        head = _make_head(config, tensors)
        head.load_state_dict(tensors, strict=True)
    except (RuntimeError, KeyError, ValueError, IndexError) as error:
        raise LmrError(f"{path} is damaged (its tensors do not fit its loss); restore it or train again") from error
    return Classifier(head.eval().requires_grad_(False), labels, "raw" if config.name == "linear" else "unit")


@dataclass(frozen=True, slots=True)
class OpenClassifier:
    """A model folder that is ready to classify."""

    classifier: Classifier
    embedder: TorchEmbedder

    def classify(self, source: Source, rows: Sequence[int] | LongArray, k: int = K) -> Classified:
        """The k most probable landmarks of these images. Equal probabilities are ordered by lower label."""
        classifier, device = self.classifier, self.embedder.device
        k = min(k, len(classifier.labels))
        read: list[LongArray] = [np.zeros(0, np.int64)]
        label: list[IntArray] = [np.zeros((0, k), np.int32)]
        probability: list[FloatArray] = [np.zeros((0, k))]
        doubt: list[FloatArray] = [np.zeros((0, k))]
        unreadable: dict[int, str] = {}
        for batch in self.embedder.embed(source, rows):
            outputs = classifier.softmax(torch.from_numpy(batch.vectors).to(device))
            found = outputs[:, : len(classifier.labels)]
            chosen = most_probable(found.float(), k)
            top = found.gather(1, chosen).sort(dim=1, descending=True, stable=True)
            chosen = chosen.gather(1, top.indices)
            others = 1 - top.values
            others[:, 0] = outputs.scatter(1, chosen[:, :1], 0).sum(dim=1)  # only the first may be nearly 1
            read.append(batch.rows)
            label.append(chosen.cpu().numpy().astype(np.int32))
            probability.append(top.values.cpu().numpy())
            doubt.append(others.cpu().numpy())
            unreadable |= batch.unreadable
        tables = np.concatenate(probability), np.concatenate(doubt)
        return Classified(np.concatenate(read), np.concatenate(label), *tables, classifier.labels, unreadable)


def open_classifier(folder: Path, *, device: torch.device, n_workers: int) -> OpenClassifier:
    """The classifier in a model folder. LmrError: what load_model and load_classifier raise."""
    classifier = load_classifier(folder)
    model, card = load_model(folder)
    kind = RawEmbedder if classifier.wants == "raw" else TorchEmbedder
    classifier.head.to(device)
    how = card.as_trained
    embedder = kind(model, how.specs, device, flip=how.flip, part=how.descriptor, n_workers=n_workers)
    return OpenClassifier(classifier, embedder)


def most_probable(probability: Tensor, k: int) -> Tensor:
    """(b, k) int64 columns of the k largest of each line of (b, n) float32, not negative; equal ones by lower column.

    The bits of such a number, read as an integer, are ordered as it is; the column makes equal ones different.
    """
    column = torch.arange(probability.shape[1], device=probability.device)
    return ((probability.view(torch.int32).long() << 32) - column).topk(k, dim=1).indices


class RawEmbedder(TorchEmbedder):
    """Gives features that are not divided by their length."""

    def _forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self._model.raw(x)


def most_probable_raw(
    model: DescriptorModel,
    head: nn.Module,
    labels: tuple[str, ...],
    source: Source,
    rows: LongArray,
    *,
    spec: ImageSpec,
    device: torch.device,
    n_workers: int,
) -> tuple[LongArray, LongArray, FloatArray]:
    """The readable rows, the most probable class of each by a head of raw features, and its probability."""
    read, features = RawEmbedder(model, spec, device, n_workers=n_workers).embed_all(source, rows)
    probability = Classifier(head, labels, "raw").probabilities(torch.from_numpy(features).to(device))
    sure, answer = probability.max(dim=1)
    return read, answer.cpu().numpy(), sure.cpu().numpy()


class _About(TypedDict):
    """Account that a classifier file gives of itself."""

    weights_sha256: str
    labels: list[str]
    loss: LossConfig


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The file's account of itself, and its tensors."""
    try:
        with utf8_path(path) as place, safe_open(place, framework="pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["lmr"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except LmrError:
        raise
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror or error}; try again, the file may be whole") from error
    except MemoryError as error:
        raise LmrError(f"{path} cannot be read: not enough memory for its tensors") from error
    except Exception as error:  # whatever a damaged file makes safetensors say
        raise LmrError(f"{path} is damaged; restore it or train again") from error
    known = isinstance(about, dict) and isinstance(about.get("loss"), dict)
    if not known or about.get("format_version") != FORMAT_VERSION or set(about["loss"]) != set(asdict(LossConfig())):
        raise LmrError(f"{path} was written by another version of lmr; use that one, or train again elsewhere")
    convert(about, _About, str(path), "restore it or train again")
    if about.pop("content_sha256", None) not in (None, _digest(about, tensors)):  # None: of an earlier lmr
        raise LmrError(f"{path} is damaged: its sha256 differs; restore it or train again")
    return about, tensors


def _digest(about: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """sha256 (hex) over what a file says of itself, its tensors, and their names."""
    known = {
        name: [str(tensor.dtype), list(tensor.shape), hashlib.sha256(tensor.numpy().tobytes()).hexdigest()]
        for name, tensor in tensors.items()
    }
    return sha256_json({"about": about, "tensors": known})


def _make_head(config: LossConfig, tensors: dict[str, Tensor]) -> nn.Module:
    """A head for tensors of these shapes."""
    if config.name == "linear":
        weights = [tensors[name] for name in sorted(tensors) if tensors[name].ndim == 2]
        return LinearHead(weights[0].shape[1], weights[-1].shape[0], config)
    return CosineHead(tensors["directions"], float(tensors["scale"]))
