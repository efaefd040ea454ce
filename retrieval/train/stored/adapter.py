"""Adapters as networks that are trained: their input is a stored descriptor, their output the one that is compared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from retrieval.arrays import FloatArray, LongArray, Matrix
from retrieval.embed.load import card_of_store, onnx_path, open_card
from retrieval.errors import LmrError
from retrieval.images.spec import ImageSpec
from retrieval.models.adapter import ADAPTER, Adapter, adapted
from retrieval.models.backbones import Backbone
from retrieval.models.card import ModelCard
from retrieval.models.checkpoint import pack, read_weights, write_model
from retrieval.models.config import AdapterConfig, ModelConfig
from retrieval.models.network import DescriptorModel
from retrieval.store.store import Descriptors
from retrieval.train.stored.request import AdapterRequest
from retrieval.train.stored.rows import StoredRows
from retrieval.words import counted

MOST_FITTED = 100_000  # rows that a whitening is fitted on, drawn evenly
BLOCK_ROWS = 8192
_OF_IMAGES = ("augment", "freeze", "plain_pictures", "backbone_rate", "compile", "precision", "distillation")


class Whitening(Protocol):
    """x -> (x - mean) @ matrix. mean: (d,), matrix: (d, d_out)."""

    @property
    def mean(self) -> FloatArray: ...

    @property
    def matrix(self) -> FloatArray: ...


FitWhitening = Callable[[Matrix, float, int | None], Whitening]  # of vectors, power and number of dimensions


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The model folder that made the stores. card: with the preparation of the first of them."""

    folder: Path
    card: ModelCard

    def save(self, folder: Path, model: DescriptorModel, spec: ImageSpec, made_by: Mapping[str, Any]) -> None:
        """Writes the model with an adapter behind it, a network of `adapter_network`. LmrError as `save_model`."""
        adapter = model.neck
        assert isinstance(adapter, Adapter)
        tensors: dict[str, Tensor] = dict(read_weights(self.folder, self.card))
        tensors |= {ADAPTER + name: tensor for name, tensor in adapter.state_dict().items()}
        before = dict(self.card.made_by)
        training = {name: value for name, value in made_by["training"].items() if name not in _OF_IMAGES}
        told = {
            **made_by,
            "training": training | dict(model.config.backbone_options),
            "adapted_from": self.card.fingerprint,
        }
        if "started_from" in before:
            told["started_from"] = before["started_from"]
        if before.get("training"):
            told["earlier_stages"] = [*before.pop("earlier_stages", ()), before]
        config = replace(self.card.config, adapter=adapter.config)
        write_model(folder, pack(tensors), replace(self.card, config=config, image_spec=spec, made_by=told))


def open_base(folder: Path, stores: tuple[Descriptors, ...]) -> BaseModel:
    """The model of these stores.

    Raises LmrError for a folder that did not make them, and for a model that can have no adapter.
    """
    card = open_card(folder)
    if onnx_path(folder) is not None:
        raise LmrError(f"{folder} has no weights, it is of lmr export; give the model folder that it was made of")
    if not isinstance(card, ModelCard):
        raise LmrError(
            f"{folder} is an ensemble of {counted(len(card.members), 'model')}; train an adapter on a store of each, "
            "and join the models that come of it with lmr ensemble"
        )
    if card.config.adapter is not None:
        raise LmrError(f"{folder} has an adapter already; train on a store of the model before it")
    first, *others = [card_of_store(folder, store) for store in stores]
    for store, other in zip(stores[1:], others, strict=True):
        if other.fingerprint != first.fingerprint:
            raise LmrError(f"{store.source} was embedded otherwise than {stores[0].source}; embed both in the same way")
    assert isinstance(first, ModelCard)
    return BaseModel(folder, first)


def adapter_network(
    base: BaseModel, rows: StoredRows, asked: AdapterRequest, n_dimensions: int | None, fit: FitWhitening
) -> DescriptorModel:
    """A network whose images are stored descriptors (b, d) and whose neck is an adapter that begins as a whitening.

    n_dimensions: of the whitening, which is fitted on rows drawn evenly from all of them.
    """
    step = max(1, -(-len(rows) // MOST_FITTED))
    whitening = fit(rows.select(np.arange(0, len(rows), step)), asked.start_power, n_dimensions)
    d, d_out = whitening.matrix.shape
    adapter = Adapter(AdapterConfig(base.card.descriptor, d, d_out, asked.n_hidden, base.card.weights_sha256))
    adapter.begin(whitening.mean, whitening.matrix)
    adapter.noise = asked.noise
    spec = base.card.image_spec
    given = Backbone(nn.Identity(), d, 0, (), spec.mean, spec.std)
    told = {"noise": asked.noise, "start_power": asked.start_power}
    model = DescriptorModel(ModelConfig("stored descriptors", "avg", n_dimensions=0, backbone_options=told), given)
    model.neck, model.d = adapter, d_out
    return model


def adapt_rows(model: DescriptorModel, rows: Matrix, chosen: LongArray) -> FloatArray:
    """The unit descriptors (n, d_out) that a network of `adapter_network` makes of some rows, block by block."""
    assert isinstance(model.neck, Adapter)
    adapt = adapted(model.neck)
    parts = [adapt(rows[chosen[i : i + BLOCK_ROWS]]) for i in range(0, len(chosen), BLOCK_ROWS)]
    return np.concatenate([np.zeros((0, model.d), np.float32), *parts])
