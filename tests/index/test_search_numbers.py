"""Numbers of the search: float16 made float32, and the matrix products of FAISS."""

import os
import sys

import numpy as np
import pytest

from index.search import base, library
from index.search.base import to_float32


@pytest.mark.parametrize("keeps", [True, False])
def test_every_float16_becomes_the_float32_that_numpy_makes_of_it(monkeypatch, keeps):
    monkeypatch.setattr(base, "_keeps_small_numbers", lambda: keeps)
    monkeypatch.setattr(base, "HALVES", 1000)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    assert to_float32(every).tobytes() == every.astype(np.float32).tobytes()
    finite = np.where(np.isfinite(every), every, np.float16(0))
    assert to_float32(finite).tobytes() == finite.astype(np.float32).tobytes()


def test_shapes_stay_and_float32_is_not_copied():
    halves = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    assert to_float32(halves).tolist() == halves.tolist()
    assert to_float32(halves[:, ::2, 1:]).tolist() == halves[:, ::2, 1:].tolist()
    assert to_float32(halves[:0]).shape == (0, 3, 4)
    whole = np.ones((2, 3), np.float32)
    assert to_float32(whole) is whole


def numpy_chose(name):
    folder = os.path.dirname(np.__file__)
    return [
        {"architecture": "Barcelona", "filepath": "/lib/faiss_cpu.libs/libopenblas.so"},
        {"filepath": "/lib/libgomp.so"},
        {"architecture": name, "filepath": f"{folder}.libs/libopenblas.so"},
    ]


@pytest.mark.parametrize(
    ("of_numpy", "told"),
    [
        ("Haswell", "Haswell"),
        ("Zen", "Haswell"),
        ("SapphireRapids", "SkylakeX"),
        ("Prescott", None),
        ("neoversen1", None),
    ],
)
def test_faiss_is_told_the_kernels_that_numpy_chose_where_it_has_them(of_numpy, told):
    assert library.kernels_for(numpy_chose(of_numpy)) == told
    assert library.kernels_for(numpy_chose(of_numpy)[:2]) is None


@pytest.mark.parametrize(("before", "seen"), [(None, "SkylakeX"), ("Zen", "Zen")])
def test_it_is_told_while_it_is_imported_only_and_never_against_the_environment(monkeypatch, tmp_path, before, seen):
    (tmp_path / "faiss.py").write_text("import os\nkernels = os.environ['OPENBLAS_CORETYPE']\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.setattr(library.threadpoolctl, "threadpool_info", lambda: numpy_chose("SkylakeX"))
    monkeypatch.setenv("OPENBLAS_CORETYPE", before or "")
    if before is None:
        monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert library._load().kernels == seen
    assert os.environ.get("OPENBLAS_CORETYPE") == before
