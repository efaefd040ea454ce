import sys
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import LmrError
from retrieval.manifest import Manifest, read_manifest


def labels(manifest: Manifest) -> list[str]:
    return ["" if code < 0 else manifest.landmarks[code] for code in manifest.landmark]


def error_of(path: Path) -> str:
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    return str(caught.value).replace(str(path), path.name)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(8) + b"PAR1")
    assert error_of(tmp_path / "t.parquet") == (
        "t.parquet: 1 bad row; correct or remove, nothing of the file was used\nt.parquet:3: id a is also on line 1"
    )
