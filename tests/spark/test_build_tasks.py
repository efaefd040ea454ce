"""Tasks of `lmr build-index --engine spark`, one after the other in this process, and what happens between them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from one_by_one import OneByOne
from test_build_index_on_spark import AUGMENTED, FLAT, INVERTED, assert_same, build, make_world
from tiny_set import write_csv

import lmr
from index.build_index import BuildJob
from index.spark import driver
from retrieval.errors import LmrError
from retrieval.jobs import build as job_of
from retrieval.progress import SILENT
from retrieval.spark.cluster import Cluster
from retrieval.spark.staging import Staging

STAGING = Path(".made.spark")
N_ROWS = 17_000  # two parts


@pytest.fixture(scope="module")
def world(finished_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, and a store of descriptors in several parts."""
    return make_world(finished_set, tmp_path_factory.mktemp("world"), N_ROWS)


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small model and the many descriptors, as the working folder."""
    shutil.copytree(world, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    return tmp_path / "world"


def build_in_tasks(before: Callable[[str], None], **words: Any) -> None:
    """Builds the index `made`."""
    usual = {"stores": ["many.h5"], "output": "made", "thumbnails": 0, "device": "cpu"}
    job = job_of(BuildJob, {**usual, **words})
    with Staging(Path("made"), wait=False, progress=SILENT) as staging:
        driver.build_in(cast(Cluster, OneByOne(before)), staging, replace(job, engine="spark"))


def spoil(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"damage" * 10)


SEARCH_FILES = [
    ("products-000002.npz", "learning the whitening"),
    ("background.npz", "whitening rows"),
    ("whiten.h5", "whitening rows"),
    ("index.faiss-000002.npz", "joining rows"),
    ("ivf-sq8/coder.faiss", "coding rows"),
    ("ivf-sq8/coder.faiss", "packing shards"),
    ("ivf-sq8/codes-000001.npz", "packing shards"),
    ("ivf-sq8/search-2-of-3.faiss", "measuring"),
    ("ivf-sq8/search-2-of-3.faiss", "writing the index"),
    ("whiten.h5", "writing the index"),
]
ROWS = [("index.faiss", "augmenting rows"), ("index.faiss", "learning IVF"), ("augmented.faiss", "coding rows")]


@pytest.mark.parametrize("damages", [SEARCH_FILES, ROWS], ids=["search", "rows"])
def test_files_that_are_damaged_between_two_tasks_are_named_and_made_again(
    here: Path, damages: list[tuple[str, str]]
) -> None:
    how = {**AUGMENTED, "whitening": "supervised", "whitening_power": 0.5, "shards": 3}
    build("local", thumbnails=0, **how)
    left, rounds = list(damages), [0]

    def damage(what: str) -> None:
        """One file in each round."""
        rounds[0] += what == "reading descriptors"
        if rounds[0] == len(damages) - len(left) + 1 and left and what.startswith(left[0][1]):
            spoil(STAGING / left.pop(0)[0])

    with pytest.warns(UserWarning, match=r"is made again") as warned:
        build_in_tasks(damage, **how)
    assert left == []
    named = {str(one.message) for one in warned if "is made again" in str(one.message)}
    assert named == {f"{here}/.made.spark/{name} was damaged or removed; it is made again" for name, _ in damages}
    assert_same(here / "local", here / "made")
    assert not STAGING.exists()


def test_a_file_that_is_damaged_again_and_again_ends_the_build(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MOST_ROUNDS", 3)
    rounds = []

    def damage(what: str) -> None:
        if what == "packing shards":
            rounds.append(what)
            spoil(STAGING / "ivf-pq" / "codes-000001.npz")

    with (
        pytest.warns(UserWarning, match="codes-000001.npz was damaged"),
        pytest.raises(LmrError, match=r"^files in \.made\.spark are damaged again and again; look at the disk, or "),
    ):
        build_in_tasks(damage, **INVERTED)
    assert len(rounds) == 3
    assert not Path("made").exists()
    build_in_tasks(lambda _: None, **INVERTED)
    build("local", thumbnails=0, **INVERTED)
    assert_same(here / "local", here / "made")


def test_a_store_that_is_replaced_in_the_middle_ends_the_build_in_a_line(here: Path) -> None:
    def replace_store(what: str) -> None:
        if what == "learning the spread":
            Path("many.h5").rename("before.h5")
            shutil.copyfile("before.h5", "many.h5")

    told = r"^many\.h5 was changed while the index was built; run the command again$"
    with pytest.raises(LmrError, match=told):
        build_in_tasks(replace_store, **FLAT)
    build_in_tasks(lambda _: None, **FLAT)
    build("local", thumbnails=0, **FLAT)
    assert_same(here / "local", here / "made")


def test_a_build_that_is_stopped_before_any_of_its_tasks_goes_on(
    finished_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_set, tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")
    write_csv(Path("other.csv"), "id,landmark_id", [f"val-other-{i}," for i in range(4)])
    lmr.embed("other.csv", device="cpu")
    words: dict[str, Any] = {"stores": ["train.h5"], "names": "names.csv", "background": ["other.h5"], "thumbnails": 32}
    words |= {"kind": "ivf-sq8", "lists": 2, "recall": 0.5, "shards": 2, "augment": 1}
    lmr.build_index(output="local", device="cpu", **words)
    stages: list[str] = []
    build_in_tasks(stages.append, **words)
    assert_same(Path("local"), Path("made"))
    shutil.rmtree("made")
    stop_before = list(dict.fromkeys(stages))
    assert len(stop_before) > 8

    def stop(what: str) -> None:
        if stop_before and what == stop_before[0]:
            del stop_before[0]
            raise KeyboardInterrupt

    while stop_before:
        with pytest.raises(KeyboardInterrupt):
            build_in_tasks(stop, **words)
        assert not Path("made").exists()
    build_in_tasks(stop, **words)
    assert_same(Path("local"), Path("made"))
    assert json.loads(Path("made/index.json").read_text())["thumbnails"]["n"] == 32
    assert not STAGING.exists()
