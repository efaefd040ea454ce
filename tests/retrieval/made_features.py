"""Made local features, and stores of them."""

from pathlib import Path

import numpy as np

from retrieval.local.config import LocalCard
from retrieval.local.features import PackedFeatures
from retrieval.local.store import LocalColumns, LocalInfo
from retrieval.local.writer import write_local
from retrieval.store.layout import DONE, UNREADABLE
from retrieval.texts import Texts

CARD = LocalCard("xfeat", 9, 640, 4, "float16", "ab" * 32)
NAMES = ("a", "b ü", "c", "d")
N_FEATURES = (3, 0, 0, 2)  # of each; the third cannot be read


def made(n: int, seed: int = 0) -> PackedFeatures:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 65_536, (n, 2)).astype(np.uint16)
    return PackedFeatures(points, rng.normal(0, 1, (n, CARD.d)).astype(np.float16), (40 + seed, 30))


def write_made(path: Path, info: LocalInfo | None = None) -> list[PackedFeatures | None]:
    """A store of four images; what it holds."""
    features = [None if name == "c" else made(n, i) for i, (name, n) in enumerate(zip(NAMES, N_FEATURES, strict=True))]
    columns = LocalColumns(
        image_id=Texts.of(NAMES),
        state=np.array([UNREADABLE if one is None else DONE for one in features], np.uint8),
        n_features=np.array(N_FEATURES, np.int64),
        size=np.array([(0, 0) if one is None else one.size for one in features], np.int32),
        reason=Texts.of(["", "", "no picture", ""]),
    )
    write_local(path, info or LocalInfo(CARD, "m" * 64), columns, [one for one in features if one is not None])
    return features
