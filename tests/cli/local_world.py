"""Local stores of made-up features, for the tests of what an index keeps of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from retrieval.local.config import LocalCard
from retrieval.local.features import PackedFeatures
from retrieval.local.store import LocalColumns, LocalInfo
from retrieval.local.writer import write_local
from retrieval.store.store import DONE, UNREADABLE, ImageFacts
from retrieval.texts import Texts

CARD = LocalCard("rootsift", 1000, 640, 128, "uint8")


def made_features(image_id: str, n: int = 0) -> PackedFeatures:
    """Features that tell an image from others by its name; n = 0: a number of them that hangs on the name, too."""
    rng = np.random.default_rng(list(image_id.encode()))
    n = n or int(rng.integers(1, 6))
    points = rng.integers(0, 10_000, (n, 2)).astype(np.uint16)
    frames = rng.integers(1, 10_000, (n, 2)).astype(np.uint16)
    return PackedFeatures(points, rng.integers(1, 200, (n, CARD.d)).astype(np.uint8), (640, 480), frames)


def write_local_store(
    path: Path, image_ids: list[str], *, card: LocalCard = CARD, unreadable: tuple[str, ...] = (), sha256=None
) -> Path:
    """A local store of these images. sha256: of their files, by image_id; None = it does not know them."""
    features = [None if name in unreadable else made_features(name) for name in image_ids]
    if not card.has_frames:
        features = [None if one is None else replace(one, frames=None) for one in features]
    n = len(image_ids)
    facts = None
    if sha256 is not None:
        content = np.array([list(sha256[name]) for name in image_ids], dtype=np.uint8).reshape(n, 32)
        facts = ImageFacts(np.ones(n, np.int64), np.ones(n, np.int64), content)
    columns = LocalColumns(
        image_id=Texts.of(image_ids),
        state=np.array([UNREADABLE if one is None else DONE for one in features], dtype=np.uint8),
        n_features=np.array([0 if one is None else len(one) for one in features], dtype=np.int64),
        size=np.array([(0, 0) if one is None else one.size for one in features], dtype=np.int32).reshape(n, 2),
        reason=Texts.of([""] * n),
        facts=facts,
    )
    write_local(path, LocalInfo(card), columns, (one for one in features if one is not None))
    return path


def features_of(folder) -> dict[str, bytes | None]:
    """The descriptors of each row of an opened index folder, by image_id."""
    found = {}
    for row, name in enumerate(folder.rows.image_id):
        features = None if folder.local is None else folder.local.features(row)
        found[name] = None if features is None else features.descriptors.tobytes()
    return found


def expected(names) -> dict[str, bytes]:
    """What `features_of` gives of these images."""
    from retrieval.local.packing import unpack

    return {name: unpack(CARD, made_features(name)).descriptors.tobytes() for name in names}
