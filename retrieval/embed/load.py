"""Opening models for embedding: weights with torch, ONNX with onnxruntime, each imported only where it is needed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.embed.engine import ONNX_NAME, Engine, asked_engine, exported_beside
from retrieval.errors import LmrError
from retrieval.models.card import Card, EmbedSettings, EnsembleCard, ModelCard
from retrieval.models.folder import no_model, read_any_card, require_weights
from retrieval.parallel import threads_within_quota
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.arrays import FloatArray
    from retrieval.embed.embedder import Embedder
    from retrieval.models.config import DescriptorPart
    from retrieval.store.info import StoreInfo
    from retrieval.store.store import Descriptors


def onnx_path(model: Path) -> Path | None:
    """The ONNX file that a model is: the file itself, or that of a folder without weights; None for weights."""
    if model.suffix == ".onnx":
        return model
    inside = model / ONNX_NAME
    return inside if inside.is_file() and not any(model.glob("weights-*.safetensors")) else None


def open_card(model: Path) -> Card:
    """The card of a model folder or an ONNX file. LmrError: missing, damaged, of another version."""
    if model.suffix == ".onnx":
        from retrieval.embed.onnx_embedder import read_onnx_card

        return read_onnx_card(model)
    return read_any_card(model)


def adjusted_card(model: Path, card: Card, how: EmbedSettings) -> Card:
    """The card with another way of embedding. LmrError for an ONNX file, which has one way only."""
    changed = card.adjusted(how)
    if onnx_path(model) is not None and changed != card:
        raise LmrError(f"{model} describes pictures as it was exported; run lmr export with the same options")
    return changed


def card_of_store(model: Path, store: "Descriptors") -> "Card":
    """The model's card with the preparation, flip and part of the store. LmrError when another model made the store."""
    from retrieval.store.info import model_difference

    card = open_card(model)
    if onnx_path(model) is None:
        card = card.as_stored(store.info.model, store.info.image_spec)
    if card.fingerprint != store.info.fingerprint:
        what = model_difference(store.info.made_by, card.to_json())
        raise LmrError(f"{store.source} does not fit {model}: {what}; give the model that made it")
    if card.d not in (None, store.info.d):
        raise LmrError(
            f"{store.source} has descriptors of {counted(store.info.d, 'column')}, {model} makes {card.d}; it "
            "is damaged or was made by another program: embed again into another file"
        )
    return card


def plan_adapter(
    model: Path, given: "StoreInfo", source: Path, *, device: str, threads: int | None
) -> "tuple[ModelCard, Callable[[FloatArray], FloatArray]]":
    """The card by which a model embeds as a store was, and its adapter, from unit descriptors of the store to its own.

    given: of the store, source: where it is. Raises LmrError for a model without an adapter, or with one for another
    model's descriptors.
    """
    from retrieval.store.info import model_difference

    card = open_card(model)
    if isinstance(card, EnsembleCard) or onnx_path(model) is not None or (config := card.config.adapter) is None:
        raise LmrError(
            f"{source} is a store already, and {model} has no adapter to make another of it; give a model that lmr "
            "train made of a store, or a manifest"
        )
    card = card.as_stored(given.model, given.image_spec)
    if card.before_adapter.fingerprint != given.fingerprint:
        if card.fingerprint == given.fingerprint:
            raise LmrError(f"{source} was made by {model} itself; give the store that its adapter was learnt on")
        what = model_difference(given.made_by, card.before_adapter.to_json())
        raise LmrError(f"{source} does not fit the adapter of {model}: {what}; give a store of the model before it")
    from retrieval.models.adapter import ADAPTER, Adapter, adapted
    from retrieval.models.checkpoint import read_weights
    from retrieval.models.device import limit_threads, resolve_device

    adapter = Adapter(config)
    weights = read_weights(model, card)
    own = {name.removeprefix(ADAPTER): tensor for name, tensor in weights.items() if name.startswith(ADAPTER)}
    adapter.load_state_dict(own, strict=True)
    adapt = adapted(adapter.to(resolve_device(device)).eval())

    def on_threads(vectors: "FloatArray") -> "FloatArray":
        with limit_threads(threads):
            return adapt(vectors)

    return card, on_threads


def plan_part(
    model: Path, given: "StoreInfo", source: Path, part: "DescriptorPart"
) -> "tuple[ModelCard, Callable[[FloatArray], FloatArray]]":
    """The card by which a model embeds a part of what a store holds both of, and what takes that part out.

    given: of the store, source: where it is. Raises LmrError for a store of another model, or not of both parts.
    """
    from retrieval.store.info import model_difference

    card = open_card(model)
    if isinstance(card, ModelCard) and card.config.adapter is not None:
        raise LmrError(f"`descriptor` {part}: descriptors of {model} come from its adapter whole; leave it out")
    if isinstance(card, EnsembleCard) or given.model.get("descriptor") != "both":
        raise LmrError(f"`descriptor` {part}: {source} does not hold neck and pooled features; give a manifest")
    card = card.as_stored(given.model, given.image_spec)
    if card.fingerprint != given.fingerprint:
        what = model_difference(given.made_by, card.to_json())
        raise LmrError(f"{source} does not fit {model}: {what}; give the model that made it")
    n_neck = card.config.n_dimensions
    columns = {"neck": slice(0, n_neck), "pooled": slice(n_neck, None), "both": slice(None)}[part]

    def take(vectors: "FloatArray") -> "FloatArray":
        taken = vectors[:, columns].astype("float32")
        lengths = (taken**2).sum(axis=1, keepdims=True) ** 0.5
        unit: FloatArray = taken / lengths.clip(min=1e-12)
        return unit

    return replace(card, descriptor=part), take


def plan_embedder(
    model: Path, card: Card, *, device: str, threads: int | None, n_workers: int, engine: Engine | None = None
) -> "Callable[[], Embedder]":
    """A function that loads the embedder of a card; it raises LmrError for a device or an engine that is not there.

    engine: of the network of an index folder, as `exported_beside`; None = torch for weights, onnxruntime for an
    exported model. Nothing is imported for it before it is called.
    """

    n_threads = threads_within_quota() if threads is None else threads

    def with_onnx(path: Path) -> "Embedder":
        from retrieval.embed.onnx_embedder import OnnxEmbedder, providers_of

        return OnnxEmbedder(path, card, providers_of(device), n_threads, n_workers)

    def with_torch() -> "Embedder":
        from retrieval.embed.torch_embedder import load_embedder
        from retrieval.models.device import limit_threads, resolve_device

        with limit_threads(n_threads):
            return load_embedder(model, card, resolve_device(device), n_workers=n_workers, threads=n_threads)

    def load() -> "Embedder":
        onnx = onnx_path(model)
        if onnx is not None:
            if engine == "torch":
                raise LmrError(f"`engine` torch: {model} has no weights, it is of lmr export; use `engine` onnx")
            return with_onnx(onnx)
        beside = None if engine is None else exported_beside(model, engine, device)
        if beside is None:
            return with_torch()
        try:
            return with_onnx(beside)
        except LmrError as error:
            if asked_engine(engine) == "onnx":
                raise
            embedder = with_torch()
            embedder.note = f"{error}; torch computes in its place"
            return embedder

    return load


def plan_openvino(
    model: Path, card: Card, *, device: str, threads: int | None, n_workers: int
) -> "Callable[[], Embedder]":
    """As `plan_embedder`, by OpenVINO. LmrError for an exported model."""
    if onnx_path(model) is not None:
        raise LmrError(f"`engine` openvino: {model} has no weights, it is of lmr export, which onnxruntime computes")
    n_threads = threads_within_quota() if threads is None else threads

    def load() -> "Embedder":
        from retrieval.embed.torch_embedder import OpenVinoEmbedder

        return OpenVinoEmbedder(model, card, device=device, threads=n_threads, n_workers=n_workers)

    return load


def told_engine(model: Path) -> str:
    """The engine that a model folder of an index is asked by on this machine, unless told otherwise: onnx or torch."""
    try:
        return "torch" if (onnx_path(model) or exported_beside(model, "auto", "auto")) is None else "onnx"
    except LmrError as error:  # what LMR_ENGINE asks for is not there
        return f"none: {error}"


def model_files(model: Path, card: Card) -> dict[str, Path]:
    """The files beside the card that make a descriptor, by their names in a folder. LmrError: missing or damaged."""
    onnx = onnx_path(model)
    if onnx is not None:
        return {ONNX_NAME: onnx}
    if not model.is_dir():
        raise LmrError(no_model(model))
    return {member.card.weights_name: require_weights(model, member.card) for member in card.members}
