"""Tasks of `lmr embed --engine spark`, one after the other in this process."""

import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from one_by_one import OneByOne
from tiny_set import NETWORK, done

from retrieval.embed import shares
from retrieval.embed.job import EmbedJob
from retrieval.embed.spark import embed_in
from retrieval.jobs import build
from retrieval.progress import SILENT
from retrieval.spark.cluster import Cluster
from retrieval.spark.staging import Staging


def embed_in_tasks(manifest: str, output: str, model: str = "model") -> None:
    words: dict[str, Any] = {"manifest": manifest, "output": output, "model": model, "engine": "spark", "tasks": 4}
    job = build(EmbedJob, {**words, "device": "cpu", "threads": 1, "workers": 1, "progress": SILENT})
    with Staging(Path(output), wait=False, progress=SILENT) as staging:
        embed_in(cast(Cluster, OneByOne()), staging, job)


def test_a_process_loads_a_network_once_for_all_of_its_shares_and_commands(
    finished_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_set, tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")
    loaded: list[int] = []
    planned = shares.plan_loading

    def plan_loading(*given: Any, **words: Any) -> Any:
        workers, load = planned(*given, **words)
        return workers, lambda n: loaded.append(n) or load(n)

    monkeypatch.setattr(shares, "plan_loading", plan_loading)
    shares._embedders.clear()
    embed_in_tasks("train.csv", "tasks.h5")
    assert len(loaded) == 1
    embed_in_tasks("val.csv", "others.h5")
    assert len(loaded) == 1
    done("embed", "val.csv", "--model", "m", "--output", "few.h5", *NETWORK[:2], "--size", "64", "--device", "cpu")
    embed_in_tasks("val.csv", "of-m.h5", "m")
    assert len(loaded) == 2
