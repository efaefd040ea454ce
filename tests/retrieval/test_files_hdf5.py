import contextlib
import os
import resource
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from retrieval.errors import LmrError
from retrieval.files.hdf5 import new_hdf5, open_hdf5

TEXTS = [f"a text of some length {i}" for i in range(3000)]


def fill(path: Path) -> None:
    with new_hdf5(path) as file:
        file["numbers"] = np.arange(5000)
        file.create_dataset("texts", data=TEXTS, dtype=h5py.string_dtype("utf-8"))
        file.attrs["name"] = "x"
        assert file["texts"].asstr()[2999] == TEXTS[2999]


def test_a_new_file_holds_what_was_put_in(tmp_path: Path) -> None:
    fill(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r") as file:
        assert file["numbers"][:].tolist() == list(range(5000))
        assert file["texts"].asstr()[:].tolist() == TEXTS
        assert file.attrs["name"] == "x"


def test_an_error_inside_comes_out(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"), new_hdf5(tmp_path / "x.h5"):
        raise KeyError("mine")


def test_a_full_disk_is_an_error_wherever_it_happens(tmp_path: Path) -> None:
    """In child processes, which HDF5 would end where it saw the error itself; what fills them is all still readable."""
    for n_bytes in (0, 2000, 20_000, 60_000, 120_000, 180_000):
        child = os.fork()
        if child == 0:
            code = 1
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            with contextlib.suppress(BaseException):
                resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))
                try:
                    fill(tmp_path / "x.h5")
                except OSError as error:
                    code = 0 if str(error) == "[Errno 27] File too large" else 2
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0, n_bytes


def test_too_little_memory_is_not_called_damage(tmp_path: Path) -> None:
    fill(tmp_path / "x.h5")
    with pytest.raises(LmrError) as caught, open_hdf5(tmp_path / "x.h5", "a store", "make it again"):
        raise MemoryError
    assert str(caught.value) == (
        f"{tmp_path / 'x.h5'} cannot be read: it asks for more memory than there is here; "
        "free some, or use a larger machine"
    )
