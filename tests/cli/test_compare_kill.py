"""`kill -9` at any file operation of `lmr compare`: the same command then ends as if nothing had been."""

import json
import shutil
from pathlib import Path
from typing import Any

from tiny_set import done, n_file_operations, run_and_die

RECIPE = """
[answer]
by = "nearest"
[train]
backbone = "plain-cnn"
size = 32
epochs = 2
epoch-size = 8
batch-size = 4
loss = "linear"
dimensions = 0
"""
CLOCKED = ("training_s", "pictures_per_s")
COMPARE = ["compare", "small.toml", "small.toml:by=classifier", "--workers", "0", "--threads", "1", "--device", "cpu"]
N_MOMENTS = 3


def figures(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What a comparison found, without what a clock says."""
    found = json.loads((folder / "compare/comparison-val.json").read_text())
    return {
        system["system"]: [{key: run[key] for key in run if key not in CLOCKED} for run in system["runs"]]
        for system in found["systems"]
    }


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in (folder / "compare").rglob("*")}


def test_a_comparison_killed_at_any_write_ends_with_the_same_figures(images, monkeypatch):
    Path("small.toml").write_text(RECIPE)
    whole = Path(shutil.copytree(images, images.parent / "whole"))
    n = n_file_operations(whole, COMPARE)
    was_there = []
    for at in [1 + i * (n - 1) // N_MOMENTS for i in range(1, N_MOMENTS + 1)]:
        folder = Path(shutil.copytree(images, images.parent / f"killed-{at}"))
        run_and_die(folder, COMPARE, at)
        was_there.append((folder / "compare/comparison-val.html").exists())
        monkeypatch.chdir(folder)
        done(*COMPARE)
        assert figures(folder) == figures(whole)
        assert files(folder) == files(whole)
    assert was_there == [False, False, True]  # the last one is killed when all is in place
