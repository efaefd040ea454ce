"""The tiny set, made once for all tests of this room and copied for each."""

import shutil
from pathlib import Path

import pytest
from tiny_set import make_images


@pytest.fixture
def tiny_set(finished_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished set that is the working folder."""
    folder = tmp_path / "set"
    shutil.copytree(finished_set, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def bare_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and manifests alone; not to be changed."""
    folder = tmp_path_factory.mktemp("pictures")
    make_images(folder)
    return folder


@pytest.fixture
def images(bare_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the images and manifests that is the working folder."""
    folder = tmp_path / "set"
    shutil.copytree(bare_images, folder)
    monkeypatch.chdir(folder)
    return folder
