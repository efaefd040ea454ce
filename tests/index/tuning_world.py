"""Stores of a made-up world of landmarks, and what tuning compares of them."""

import json

import numpy as np

from index.folder.inputs import BuildInputs, gather
from index.queries import queries_of
from index.tune.material import draw_material
from retrieval.arrays import object_array
from retrieval.store.store import DONE, Descriptors, StoreInfo

MODEL, D, N_LANDMARKS = "ab" * 32, 8, 6


def make_store(name, landmark, rng, noise):
    """A store of views of landmarks, -1 = of none. noise: of the last three columns, which tell nothing."""
    centre = np.random.default_rng(7).standard_normal((N_LANDMARKS, D))
    shown = np.where(landmark[:, None] >= 0, centre[landmark], rng.standard_normal((len(landmark), D)))
    vectors = shown + 0.5 * rng.standard_normal((len(landmark), D))
    vectors[:, -3:] = noise * rng.standard_normal((len(landmark), 3))
    return Descriptors(
        vectors=vectors.astype(np.float32),
        image_id=object_array([f"{name}-{i:03d}" for i in rng.permutation(len(landmark))]),
        landmark=landmark.astype(np.int32),
        landmarks=tuple(f"landmark-{i}" for i in range(N_LANDMARKS)),
        state=np.full(len(landmark), DONE, dtype=np.uint8),
        path=object_array([""] * len(landmark)),
        kind=None,
        info=StoreInfo(MODEL, {}, {}, "0.1", "manifest", "float32", D),
        source=f"{name}.h5",
    )


def make_world(folder, noise=1.0):
    """Stores of an index, its background and its queries, and the model folder."""
    rng, every = np.random.default_rng(0), np.arange(N_LANDMARKS)
    model = folder / "model"
    model.mkdir()
    (model / "model.json").write_text(json.dumps({"fingerprint": MODEL}))
    return (
        make_store("train", np.repeat(every, 10), rng, noise),
        make_store("background", np.full(25, -1), rng, noise),
        make_store("val", np.append(np.repeat(every, 12), np.full(30, -1)), rng, noise),
        model,
    )


def make_material(train, background, val, model, *, seed=0):
    """What tuning compares."""
    gathered = gather(BuildInputs([train], model, [background]))
    return draw_material(gathered, train, val, queries_of(val), None, seed)
