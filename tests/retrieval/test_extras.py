"""The commands that install what is missing are those that work here."""

import re
from pathlib import Path

import pytest

from retrieval.extras import anywhere, install_hint

ROOT = Path(__file__).parents[2]


def test_an_installed_lmr_is_extended_by_its_name(tmp_path: Path) -> None:
    assert install_hint("heic", tmp_path) == "pip install 'lmr[heic]'"


def test_a_checkout_is_installed_with_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert install_hint("heic", tmp_path) == 'pip install -e ".[heic]"'


def test_elsewhere_the_hint_names_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir("/")
    assert install_hint("heic", tmp_path) == f'pip install -e "{tmp_path}[heic]"'


def test_a_message_that_is_passed_on_names_no_place(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    told = f"saliency needs captum; {install_hint('explain', tmp_path)}, or do without"
    assert anywhere(told) == "saliency needs captum; pip install 'lmr[explain]', or do without"


def test_every_hint_in_the_program_is_made_here_and_names_an_extra() -> None:
    extras = re.search(r"\[project.optional-dependencies\](.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.S)
    assert extras is not None
    for package in ("retrieval", "index", "cli"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert path.name == "extras.py" or "pip install" not in text, path
            for extra in re.findall(r"install_hint\(['\"](\w+)", text):
                assert f"\n{extra} = [" in extras[1], (path, extra)
