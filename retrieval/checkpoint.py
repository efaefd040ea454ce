"""A model folder: weights as safetensors, everything else that makes a descriptor as JSON, and its fingerprint.

`model.json` names its weights file, which is named by its own hash: a reader sees the old model or the new one.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import nn

from retrieval.errors import LmrError
from retrieval.images import ImageSpec
from retrieval.model import DescriptorModel, build_model
from retrieval.model_config import DescriptorPart, ModelConfig
from retrieval.model_page import PAGE, model_page

FORMAT_VERSION = 1
CARD = "model.json"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything of a model but the values of its weights.

    weights_sha256: of the weights file. flip: descriptors are averaged with those of the mirrored picture.
    descriptor: which part of the network makes them. made_by: how it was made, for people; not part of the fingerprint.
    """

    config: ModelConfig
    image_spec: ImageSpec
    weights_sha256: str
    flip: bool = False
    descriptor: DescriptorPart = "neck"
    made_by: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over everything that changes a descriptor."""
        content: dict[str, Any] = {"config": self.config.to_json(), "image_spec": self.image_spec.to_json()}
        content |= {"weights": self.weights_sha256, "flip": self.flip, "descriptor": self.descriptor}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def weights_name(self) -> str:
        """File name of the weights beside the card."""
        return f"weights-{self.weights_sha256[:12]}.safetensors"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `read_card` gives it back."""
        return {
            "format_version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "config": self.config.to_json(),
            "image_spec": self.image_spec.to_json(),
            "weights_sha256": self.weights_sha256,
            "flip": self.flip,
            "descriptor": self.descriptor,
            "made_by": dict(self.made_by),
        }


def save_model(
    folder: Path,
    model: DescriptorModel,
    spec: ImageSpec,
    *,
    flip: bool = False,
    descriptor: DescriptorPart = "neck",
    made_by: Mapping[str, Any],
) -> ModelCard:
    """Writes a model folder with a page for people; a kill leaves the model that was there or the new one.

    LmrError: not writable, full.
    """
    data = _packed(model)
    if model.started_from:
        made_by = {**made_by, "started_from": dict(model.started_from)}
    card = ModelCard(model.config, spec, hashlib.sha256(data).hexdigest(), flip, descriptor, made_by)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / card.weights_name, data)
        write_atomically(folder / PAGE, model_page(card.to_json()).encode())
        write_card(folder, card)
        for old in folder.glob("weights-*.safetensors"):
            if old.name != card.weights_name:
                old.unlink()
    except OSError as error:
        raise LmrError(
            f"{folder}: the model cannot be written: {error.strerror}; make room or choose another --model"
        ) from error
    return card


def weights_digest(model: DescriptorModel) -> str:
    """sha256 (hex) of the weights file that `save_model` would write."""
    return hashlib.sha256(_packed(model)).hexdigest()


def write_card(folder: Path, card: ModelCard) -> None:
    """Writes `model.json`."""
    write_atomically(folder / CARD, json.dumps(card.to_json(), indent=1).encode())


def read_card(folder: Path) -> ModelCard:
    """Reads `model.json`. LmrError: no model there, damaged, of another format version."""
    path = folder / CARD
    if not path.is_file():
        raise LmrError(f"{folder}: there is no model (no {CARD}); lmr train makes one")
    try:
        given = json.loads(path.read_bytes())
        version = given.pop("format_version")
        if version != FORMAT_VERSION:
            raise LmrError(f"{path} has format_version {version}, this program reads {FORMAT_VERSION}; train again")
        fingerprint = given.pop("fingerprint")
        card = _parse_card(path, given)
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LmrError(f"{path} is damaged ({error}); train again or restore it") from error
    if card.fingerprint != fingerprint:
        raise LmrError(
            f"{path} was changed by hand: its fingerprint is {card.fingerprint[:8]}, it says {str(fingerprint)[:8]}; "
            "restore it or train again"
        )
    return card


def load_model(folder: Path) -> tuple[DescriptorModel, ModelCard]:
    """The network in evaluation mode with its weights, strictly, and its card.

    LmrError: what read_card raises; weights missing or damaged.
    """
    card = read_card(folder)
    path = require_weights(folder, card)
    model = build_model(card.config, image_size=card.image_spec.size)
    try:
        model.load_state_dict(load_file(path), strict=True)
    except RuntimeError as error:
        raise LmrError(
            f"{path} does not fit {card.config.backbone} as the installed library builds it; "
            "install the release that it was trained with or train again"
        ) from error
    return _frozen(model), card


def require_weights(folder: Path, card: ModelCard) -> Path:
    """The weights file of the card. LmrError: missing or damaged."""
    path = folder / card.weights_name
    if not path.is_file():
        raise LmrError(f"{path} is missing; restore it beside {CARD} or train again")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != card.weights_sha256:
            raise LmrError(f"{path} is damaged: its sha256 is not the one in {CARD}; restore it or train again")
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file by way of a temporary one that is on disk before it gets the name."""
    beside = path.with_name(path.name + ".tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _parse_card(path: Path, given: dict[str, Any]) -> ModelCard:
    config, spec = given.pop("config"), given.pop("image_spec")
    try:
        return ModelCard(ModelConfig.from_json(config), ImageSpec.from_json(spec), **given)
    except LmrError as error:
        raise LmrError(f"{path}: {error}") from error


def _packed(model: DescriptorModel) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def _frozen(model: DescriptorModel) -> DescriptorModel:
    nn.Module.requires_grad_(model, False)
    model.eval()
    return model
