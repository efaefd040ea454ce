"""`lmr build-index --engine spark`: the index that one machine builds, whatever becomes of executors and parts."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_embed_on_spark import kill_driver, wait_for
from test_embed_on_spark import small_disk as small_disk
from tiny_set import HERE, done

import lmr
from index.spark.staged import seal_of
from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.spark.cluster import Cluster
from retrieval.store.store import create_store, read_store_info
from retrieval.texts import Texts

N_ROWS, N_BEHIND = 40_000, 500
NETWORK = ("--backbone", "shufflenet_v2_x0_5", "--last-layer", "stage2", "--size", "32")
SPARK: dict[str, Any] = {"engine": "spark", "thumbnails": 0}
FLAT: dict[str, Any] = {"kind": "flat", "storage": "float16", "dimensions": 12}
INVERTED: dict[str, Any] = {"kind": "ivf-pq", "lists": 40, "recall": 0.9, "shards": 3, "whitening": "supervised"}
AUGMENTED: dict[str, Any] = {"kind": "ivf-sq8", "lists": 20, "recall": 0.5, "whitening_power": 0.0, "augment": 2}
WAYS = {"flat": FLAT, "inverted": INVERTED, "augmented": AUGMENTED}


@pytest.fixture(scope="module")
def world(finished_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, a store of many descriptors, which it might have made, and the indexes of one machine."""
    folder = make_world(finished_set, tmp_path_factory.mktemp("world"), N_ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, how in WAYS.items():
            build(f"local-{name}", thumbnails=0, **how)
    return folder


def make_world(finished_set: Path, folder: Path, n_rows: int) -> Path:
    """`model` and `many.h5` in the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished_set)
        done("embed", "val.csv", "--model", f"{folder}/model", "--output", f"{folder}/few.h5", *NETWORK, *HERE)
    info, _ = read_store_info(folder / "few.h5")
    (folder / "few.h5").unlink()
    names = [f"r{i}" for i in range(n_rows + N_BEHIND)]
    landmark = np.random.default_rng(0).integers(300, size=len(names)).astype(np.int32)
    landmark[np.random.default_rng(1).permutation(len(names))[:N_BEHIND]] = -1
    labels = tuple(f"l{i:03d}" for i in range(300))
    manifest = Manifest("many.csv", Texts.of(names), landmark, labels)
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((301, info.d))[landmark] + 0.8 * rng.standard_normal((len(names), info.d))
    with create_store(folder / "many.h5", manifest, [""] * len(names), info) as writer:
        writer.write(np.arange(len(names)), vectors.astype(np.float32))
        writer.finish()
    return folder


@pytest.fixture
def here(cluster: Cluster, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder of commands that join the cluster."""
    shutil.copytree(world, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    return tmp_path / "world"


def build(output: str, **words: Any) -> Any:
    return lmr.build_index(["many.h5"], output=output, **{"device": "cpu", **words})


def assert_same(one: Path, other: Path) -> None:
    """The same files, byte for byte, and the same index.json but for times and what was timed."""
    listed = []
    for folder in (one, other):
        content = json.loads((folder / "index.json").read_text())
        del content["built_at"], content["sha256"]
        for timed in ("n_probe", "n_candidates", "recall", "top1", "queries_per_s", "speedup"):
            (content["search"] or {}).pop(timed, None)
        content["recall"] = content["recall"] if content["search"] is None else None
        listed.append(content)
    assert listed[0]["files"].keys() == listed[1]["files"].keys()
    differing = [name for name in listed[0]["files"] if (one / name).read_bytes() != (other / name).read_bytes()]
    assert differing == []
    assert listed[0] == listed[1]


@pytest.mark.parametrize("way", WAYS)
def test_the_index_is_that_of_one_machine(here: Path, way: str) -> None:
    how = WAYS[way]
    local, on_spark = build(f"local-{way}", thumbnails=0, **how), build("spark", **how, **SPARK)
    assert (local.state, on_spark.state) == ("unchanged", "built")
    assert_same(here / f"local-{way}", here / "spark")
    assert (on_spark.n_unreadable, on_spark.info.shards) == (0, local.info.shards)
    assert not list(here.glob(".*"))
    assert build("spark", thumbnails=0, **how).state == "unchanged"
    assert build("spark", **how, **SPARK).state == "unchanged"
    assert lmr.index_verify(here / "spark").self_recall > 0.9


def test_an_executor_that_is_killed_in_the_middle_changes_nothing(here: Path, cluster: Cluster) -> None:
    staging = here / ".spark.spark"

    def kill() -> None:
        wait_for(lambda: bool(list(staging.glob("index.faiss-*.npz"))))
        os.kill(executor_of(cluster), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    build("spark", **INVERTED, **SPARK)
    killer.join()
    assert_same(here / "local-inverted", here / "spark")


def executor_of(cluster: Cluster) -> int:
    """The process of an executor of the cluster."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if b"CoarseGrainedExecutorBackend" in command and cluster.application.encode() in command:
            return int(place.name)
    raise AssertionError("there is no executor")


def test_damaged_parts_are_named_and_made_again(here: Path) -> None:
    staging, names = here / ".spark.spark", ["vectors-000001.npz", "index.faiss-000002.npz", "index.faiss"]
    stop = threading.Event()

    def spoil() -> None:
        """Damages each file as soon as it is there."""
        for name in names:
            place = staging / name
            ready = seal_of(place) if place.suffix == ".faiss" else place
            wait_for(lambda ready=ready: ready.exists() or stop.is_set())
            with place.open("r+b") as file:
                file.seek(place.stat().st_size // 2)
                file.write(b"damage" * 10)

    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    with pytest.warns(UserWarning, match=r"is made again") as warned:
        build("spark", **FLAT, **SPARK)
    stop.set()
    spoiler.join()
    told = {str(one.message).partition(" (on executor ")[0] for one in warned if "is made again" in str(one.message)}
    assert told == {f"{staging}/{name} was damaged or removed; it is made again" for name in names}
    assert_same(here / "local-flat", here / "spark")


def test_what_cannot_be_built_is_refused_as_on_one_machine(here: Path) -> None:
    with pytest.raises(LmrError, match=r"local-flat exists and was built from other descriptors or options"):
        build("local-flat", **{**FLAT, "dimensions": 6}, **SPARK)
    with pytest.raises(LmrError, match=r"^nowhere\.h5: there is no such file; lmr embed makes one$"):
        lmr.build_index(["nowhere.h5"], output="spark", **SPARK)
    with pytest.raises(LmrError, match="`device` cuda: a cluster builds an index on CPUs; leave `device` out"):
        build("spark", **{**SPARK, "device": "cuda"})
    assert sorted(path.name for path in here.iterdir()) == [*sorted(f"local-{way}" for way in WAYS), "many.h5", "model"]


def test_a_driver_that_is_killed_goes_on_with_what_was_finished(here: Path) -> None:
    staging = here / ".spark.spark"
    words = [f"--{word.replace('_', '-')}={value}" for word, value in INVERTED.items()]
    words += ["--output=spark", "--thumbnails=0", "--device=cpu"]
    kill_driver("build-index", "many.h5", *words, once=lambda: bool(list(staging.glob("index.faiss-*.npz"))))
    assert not (here / "spark").exists()
    left = {path: path.stat().st_ino for path in staging.glob("vectors-*.npz")}
    assert left
    found: list[dict[Path, int]] = []

    def look() -> None:
        wait_for(lambda: seal_of(staging / "index.faiss").exists())
        found.append({path: path.stat().st_ino for path in left})

    looker = threading.Thread(target=look)
    looker.start()
    build("spark", **INVERTED, **SPARK)
    looker.join()
    assert found == [left]
    assert_same(here / "local-inverted", here / "spark")
    assert not list(here.glob(".*"))


def test_a_full_disk_of_an_executor_is_one_line_and_what_is_finished_stays(
    here: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("1m")
    with pytest.raises(LmrError) as raised:
        build(f"{disk}/x", **FLAT, **SPARK)
    told = rf"{disk}/\.x\.spark/\S+ cannot be written: {os.strerror(28)}; .* \(on executor \S+, [a-z ]+\)"
    assert re.fullmatch(told, str(raised.value)), str(raised.value)
    finished = sorted((disk / ".x.spark").glob("*.npz"))
    assert finished
    subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
    build(f"{disk}/x", **FLAT, **SPARK)
    assert_same(here / "local-flat", disk / "x")
