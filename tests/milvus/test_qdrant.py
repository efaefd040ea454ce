"""The module for Qdrant that the documentation shows: an index on its local mode answers as its folder does."""

import ast
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from documents import ROOT, marked

from index.folder import served
from index.folder.folder import open_folder
from index.update import export
from index.update.inspect import IndexExportJob
from index.update.inspect import export as run_export
from retrieval.errors import LmrError

URL = "milvus://127.0.0.1/landmarks"
CODE = marked(ROOT / "docs" / "engines.md", "file", "qdrant.py", language="python")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """The engine of the documentation, on Qdrant in memory, at every address."""
    qdrant = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    module = ModuleType("qdrant")
    exec(compile(CODE, "docs/engines.md", "exec"), module.__dict__)
    made = module.QdrantEngine(qdrant.QdrantClient(":memory:"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for place in (served, export):
        monkeypatch.setattr(place, "open_engine", lambda _: made)
    monkeypatch.setattr(served, "_engines", {})
    return made


@pytest.mark.filterwarnings("ignore:Local mode")
def test_qdrant_answers_as_the_folder_does(engine: object, finished_set: Path) -> None:
    index = finished_set / "landmarks"
    assert run_export(IndexExportJob(URL, index=index)).state == "written"
    assert run_export(IndexExportJob(URL, index=index)).state == "unchanged"
    there, folder = open_folder(URL, on_server=True), open_folder(index, device="cpu")
    queries = np.random.default_rng(0).normal(size=(9, folder.index.d)).astype(np.float32)
    for k in (1, 5, len(folder.rows)):
        found, expected = there.search(queries, k)[0], folder.search(queries, k)[0]
        assert np.array_equal(found.rows, expected.rows)
        assert np.array_equal(found.scores, expected.scores)
    assert there.made_of == folder.made_of


def test_a_kind_that_the_module_has_not_is_refused(engine: object, finished_set: Path) -> None:
    with pytest.raises(LmrError, match="has no `kind` hnsw"):
        run_export(IndexExportJob(URL, index=finished_set / "landmarks", kind="hnsw"))


def test_the_module_is_as_short_as_the_documentation_says() -> None:
    imports = sum(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(CODE).body)
    n_docstrings = CODE.count('"""') // 2
    assert len([line for line in CODE.splitlines() if line.strip()]) - imports - n_docstrings <= 60
