"""A small index folder of random descriptors, for the tests of this room."""

import json

import numpy as np
import pytest

from index.folder.build import BuildOptions, build_folder
from index.folder.folder import open_folder
from index.folder.inputs import BuildInputs
from retrieval.arrays import object_array
from retrieval.store.store import DONE, Descriptors, StoreInfo

MODEL = "ab" * 32
D = 8


@pytest.fixture(scope="session")
def make_store():
    """A finished store of random descriptors with these labels; '' = none."""

    def make(labels, *, seed, fingerprint=MODEL, source="train.h5", kind=None):
        names = tuple(sorted({label for label in labels if label}))
        return Descriptors(
            vectors=np.random.default_rng(seed).normal(size=(len(labels), D)).astype(np.float32),
            image_id=object_array([f"{source}-{i}" for i in range(len(labels))]),
            landmark=np.array([names.index(label) if label else -1 for label in labels], dtype=np.int32),
            landmarks=names,
            state=np.full(len(labels), DONE, dtype=np.uint8),
            path=object_array([""] * len(labels)),
            kind=None if kind is None else object_array(kind),
            info=StoreInfo(fingerprint, {}, {}, "0.1", "manifest", "float32", D),
            source=source,
        )

    return make


@pytest.fixture
def make_folder(tmp_path):
    """An opened index folder of these stores, not whitened unless the options say so."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.json").write_text(json.dumps({"fingerprint": MODEL}))

    def make(train, background=(), options=None):
        inputs = BuildInputs([train], model, background)
        build_folder(tmp_path / "landmarks", inputs, options or BuildOptions(whitening_power=None), device="cpu")
        return open_folder(tmp_path / "landmarks", device="cpu")

    return make
