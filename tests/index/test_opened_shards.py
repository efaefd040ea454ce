"""Shards of an index folder that are opened alone: what they find is that of the whole, and nothing else is read."""

import re
from pathlib import Path

import numpy as np
import pytest

from index.folder.build import BuildOptions
from index.folder.searching import Searching, open_shard
from index.rerank.config import Refinement
from index.search.config import SearchOptions
from index.search.shards import merge_neighbours

CPU = Searching("cpu", 1)
AUGMENTED = BuildOptions(whitening_power=None, refinement=Refinement(n_augment=3))
INVERTED = BuildOptions(whitening_power=None, search=SearchOptions(kind="ivf-flat", n_lists=4, recall=0.5))


def found_in_shards(folder, n, queries, k, *, own=False):
    shards = [open_shard(folder.path, i, n, CPU, own=own)[1] for i in range(n)]
    return merge_neighbours([shard.search(queries, k) for shard in shards], k)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("options", [None, AUGMENTED], ids=["plain", "augmented"])
def test_shards_that_are_opened_alone_find_together_what_the_folder_finds(make_folder, make_store, options, n):
    train = make_store(["rome"] * 20 + ["oslo"] * 13, seed=0)
    folder = make_folder(train, options=options)
    queries = folder.index.vectors(np.arange(0, 33, 4))
    for own, whole in ((False, folder.searched), (True, folder.index)):
        found, expected = found_in_shards(folder, n, queries, 9, own=own), whole.search(queries, 9)
        assert found.rows.tolist() == expected.rows.tolist()
        assert found.scores.tolist() == expected.scores.tolist()


def test_an_inverted_file_is_opened_with_its_own_shards_alone(make_folder, make_store):
    folder = make_folder(make_store(["rome"] * 200 + ["oslo"] * 200, seed=0), options=INVERTED)
    assert folder.ivf is not None
    queries = folder.index.vectors(np.arange(5))
    found, expected = found_in_shards(folder, 1, queries, 9), folder.ivf.search(queries, 9)
    assert found.rows.tolist() == expected.rows.tolist()
    with pytest.raises(ValueError, match=re.escape("has 1 shard, not 2")):
        open_shard(folder.path, 0, 2, CPU)
    found, expected = found_in_shards(folder, 3, queries, 9, own=True), folder.index.search(queries, 9)
    assert found.rows.tolist() == expected.rows.tolist()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="a system that does not tell what is mapped")
def test_a_shard_reads_its_own_rows_and_no_other_file(make_folder, make_store):
    n_rows, n = 1 << 16, 8
    train = make_store(["rome"] * n_rows, seed=0)
    path = make_folder(train).path
    n_bytes = (path / "index.faiss").stat().st_size
    before = mapped_bytes(path)
    info, shard = open_shard(path, 2, n, CPU)
    shard.search(np.eye(8, dtype=np.float32), 5)
    now = mapped_bytes(path)
    assert (info.n_rows, len(shard), shard.first) == (n_rows, n_rows // n, 2 * n_rows // n)
    assert now.keys() == {"index.faiss"}
    # A page that is read brings those of 64 KiB around it.
    assert n_bytes // n - 4096 <= now["index.faiss"] - before.get("index.faiss", 0) <= n_bytes // n + (3 << 16)


def mapped_bytes(folder: Path) -> dict[str, int]:
    """Bytes in memory of each file of a folder that is mapped into this process."""
    found: dict[str, int] = {}
    name = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", words[0]):
            place = Path(words[5]) if len(words) > 5 else Path()
            name = place.name if place.parent == folder.resolve() else None
        elif name is not None and words[0] == "Rss:":
            found[name] = found.get(name, 0) + 1024 * int(words[1])
    return found
