"""Words of a training on stores: those that it has besides, those that it has no use for, and its own defaults."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from retrieval.embed.job import MODEL
from retrieval.embed.store_name import STORES
from retrieval.errors import LmrError
from retrieval.jobs import option, word_of, words_of
from retrieval.models.config import MOST_DIMENSIONS
from retrieval.models.request import NetworkRequest, PreparationRequest
from retrieval.train.config import AugmentConfig, DistillationConfig

OUTPUT = Path("adapted")
# Chosen on val of the photographs, for both networks and all seeds: docs/benchmarks.md.
DEFAULTS: Mapping[str, Any] = {"output": OUTPUT, "epochs": 30, "batch_size": 256}
_LENGTH = "dimensions"  # of a descriptor, which an adapter has too


@dataclass(frozen=True, kw_only=True)
class AdapterRequest:
    """An adapter that is to be learnt from stores. model: made them."""

    model: Path = option(MODEL, help="With stores: the model folder that made them.")
    n_hidden: int = option(
        0, low=0, high=MOST_DIMENSIONS, help="With stores: units of the adapter's hidden layer; 0 = a linear adapter."
    )
    start_power: float = option(
        0.5, low=0, high=1, help="With stores: power of the whitening that the adapter begins as."
    )
    noise: float = option(
        1.0,
        low=0,
        high=100,
        help="With stores: length of the noise added in training, as a share of a descriptor's.",
    )


WORDS = frozenset(word_of(item) for item in fields(AdapterRequest))
NAMES = frozenset(item.name for item in fields(AdapterRequest))
_OF_IMAGES = frozenset(
    word
    for kind in (NetworkRequest, PreparationRequest, AugmentConfig, DistillationConfig)
    for word, _, _ in words_of(kind)
) | {
    "network",
    "preparation",
    "teacher",
    "images",
    "cells",
    "freeze",
    "plain_pictures",
    "backbone_rate",
    "compile",
    "precision",
}


def is_store(path: Path) -> bool:
    """Tells by its name whether a path is a store of descriptors."""
    return path.suffix in STORES


def with_defaults(words: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a training on stores, with what it does when it is not told."""
    own = {word: value for word, value in DEFAULTS.items() if word == "output" or "training" not in words}
    return {**own, **words}


def require_words(given: Iterable[str], manifests: Mapping[str, Path | None]) -> None:
    """LmrError for a word that goes with images where there are stores, or with stores where there are images.

    manifests: by their words, the one that is trained on first; all of them are stores, or none.
    """
    of_stores, *_ = kinds = [is_store(path) for path in manifests.values() if path is not None]
    first, *_ = paths = [(word, path) for word, path in manifests.items() if path is not None]
    for (word, path), kind in zip(paths, kinds, strict=True):
        if kind != of_stores:
            remedy = "lmr embed makes one of it" if of_stores else "give the manifest that it was made of"
            what, other = ("no store", "a store") if of_stores else ("a store", "none")
            raise LmrError(f"`{word}` {path} is {what} of descriptors, {first[1]} is {other}; {remedy}")
    unused = _OF_IMAGES - {_LENGTH} if of_stores else WORDS
    for word in given:
        if word in unused and of_stores:
            raise LmrError(
                f"`{word}` goes with pictures, which training on the store {first[1]} does not look at; leave it out"
            )
        if word in unused:
            raise LmrError(f"`{word}` goes with a store of descriptors, {first[1]} is none; leave it out")
