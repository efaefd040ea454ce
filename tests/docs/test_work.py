"""The recipes of work: each walk is run from its beginning to its end on a small set."""

import os
import subprocess
from contextlib import chdir
from pathlib import Path

import pytest
from docs_world import run
from documents import ROOT, links, lmr_commands, marked
from work_world import MADE

WORK = ROOT / "docs" / "recipes-of-work"
RECIPES = sorted(path.stem for path in WORK.glob("*.md") if path.stem != "README")


def test_every_recipe_is_in_the_index_and_has_a_set_to_run_on() -> None:
    assert {link.removesuffix(".md") for link in links(WORK / "README.md") if "/" not in link} == set(RECIPES)
    assert set(MADE) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a busy disk takes a second for each file
    MADE[name].make(tmp_path)
    with chdir(tmp_path):
        walk(marked(WORK / f"{name}.md", "run", name))
    MADE[name].check(tmp_path)


def walk(text: str) -> None:
    """Runs the lines of a shell, those of lmr in this process."""
    for line in text.replace("\\\n", " ").splitlines():
        commands = list(lmr_commands(line))
        if not commands and line.strip():
            subprocess.run(line, shell=True, check=True)
        for arguments in commands:
            result = run(arguments)
            assert result.exit_code == 0, f"lmr {' '.join(arguments)}: {result.output}"
