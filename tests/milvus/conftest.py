"""A server of Milvus Lite in a process of its own, and an index on it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lite_server import LITE, Lite
from tiny_set import HERE, done

from retrieval.extras import missing


@pytest.fixture(scope="session")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lite]:
    """A server that runs."""
    if missing("pymilvus"):
        pytest.skip("pymilvus is not installed")
    if not LITE.exists():
        pytest.skip(f"there is no {LITE}; python3 scripts/run.py milvus makes it")
    server = Lite(tmp_path_factory.mktemp("lite"))
    server.start()
    yield server
    server.end()


@pytest.fixture(scope="session")
def world(finished_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished set, its index with local features; not to be changed."""
    pytest.importorskip("cv2", reason="local features need the extra local")
    folder = tmp_path_factory.mktemp("world") / "set"
    shutil.copytree(finished_set, folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        done("embed", *HERE, "--local", "rootsift", "--keypoints", "50")
        done("build-index", "--local", "--overwrite", "--device", "cpu")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The set as the working folder, and an empty cache."""
    folder = tmp_path / "set"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder
