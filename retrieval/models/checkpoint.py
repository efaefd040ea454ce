"""A model folder with its weights: saving a network, and loading it again, strictly."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import nn

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
    data = _packed(model)
    if model.started_from:
        made_by = {**made_by, "started_from": dict(model.started_from)}
    sha256, n = hashlib.sha256(data).hexdigest(), model.n_features
    card = ModelCard(model.config, spec, sha256, flip, descriptor, made_by, scales, n)
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
    path = require_weights(folder, card)
    model = build_model(card.config, image_size=card.image_spec.size)
    try:
        with utf8_path(path) as place:
            model.load_state_dict(load_file(place), strict=True)
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
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def _frozen(model: DescriptorModel) -> DescriptorModel:
    nn.Module.requires_grad_(model, False)
    model.eval()
    return model
