"""A model folder with its weights: saving a network, and loading it again, strictly."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor, nn

from retrieval.errors import LmrError
from retrieval.files.atomic import write_bytes
from retrieval.files.utf8_path import utf8_path
from retrieval.images.spec import ImageSpec
from retrieval.models.card import PLAIN_SCALES
from retrieval.models.card import ModelCard as ModelCard
from retrieval.models.config import DescriptorPart
from retrieval.models.folder import CARD as CARD
from retrieval.models.folder import read_card as read_card
from retrieval.models.folder import require_weights as require_weights
from retrieval.models.folder import write_card as write_card
from retrieval.models.network import DescriptorModel, build_model
from retrieval.models.page import PAGE, model_page


def save_model(
    folder: Path,
    model: DescriptorModel,
    spec: ImageSpec,
    *,
    flip: bool = False,
    descriptor: DescriptorPart = "neck",
    scales: tuple[float, ...] = PLAIN_SCALES,
    made_by: Mapping[str, Any],
) -> ModelCard:
    """Writes a model folder with a page for people; a kill leaves the model that was there or the new one.

    LmrError: not writable, full.
    """
    if model.started_from:
        made_by = {**made_by, "started_from": dict(model.started_from)}
    card = ModelCard(model.config, spec, "", flip, descriptor, made_by, scales, model.n_features)
    return write_model(folder, _packed(model), card)


def write_model(folder: Path, data: bytes, card: ModelCard) -> ModelCard:
    """As `save_model`, of the bytes of a weights file; the card with their digest."""
    card = replace(card, weights_sha256=hashlib.sha256(data).hexdigest())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / card.weights_name, data)
        write_bytes(folder / PAGE, model_page(card.to_json()).encode())
        write_card(folder, card)
        for old in folder.glob("weights-*.safetensors"):
            if old.name != card.weights_name:
                old.unlink()
    except OSError as error:
        raise LmrError(
            f"{folder}: the model cannot be written: {error.strerror}; make room or choose another `model`"
        ) from error
    return card


def read_weights(folder: Path, card: ModelCard) -> dict[str, Tensor]:
    """The tensors of the card's weights file by name. LmrError: missing or damaged."""
    with utf8_path(require_weights(folder, card)) as place:
        return load_file(place)


def weights_digest(model: DescriptorModel) -> str:
    """sha256 (hex) of the weights file that `save_model` would write."""
    return hashlib.sha256(_packed(model)).hexdigest()


def load_model(folder: Path) -> tuple[DescriptorModel, ModelCard]:
    """The network in evaluation mode with its weights, strictly, and its card.

    LmrError: what read_card raises; weights missing or damaged.
    """
    card = read_card(folder)
    return load_network(folder, card), card


def load_network(folder: Path, card: ModelCard) -> DescriptorModel:
    """The network of this card, of the model or ensemble in that folder. LmrError: weights missing or damaged."""
    weights, path = read_weights(folder, card), folder / card.weights_name
    model = build_model(card.config, image_size=card.image_spec.size)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        if model.image_size is not None:
            raise LmrError(
                f"{path} does not fit {card.config.backbone} for pictures of {model.image_size} pixels; "
                "leave out `size`, or train at the size you want"
            ) from error
        raise LmrError(
            f"{path} does not fit {card.config.backbone} as the installed library builds it; "
            "install the release that it was trained with or train again"
        ) from error
    return _frozen(model)


def _packed(model: DescriptorModel) -> bytes:
    return pack(model.state_dict())


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """The weights file of these tensors."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _frozen(model: DescriptorModel) -> DescriptorModel:
    nn.Module.requires_grad_(model, False)
    model.eval()
    return model
