"""Zip files with their digest in the comment."""

import io
import zipfile

import numpy as np
import pytest

from retrieval.files.sealed_zip import require_sealed, seal


def an_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(5))
    return buffer.getvalue()


def test_a_sealed_archive_is_still_one() -> None:
    sealed = seal(an_archive())
    assert require_sealed(sealed)
    assert np.load(io.BytesIO(sealed))["a"].tolist() == [0, 1, 2, 3, 4]
    assert zipfile.ZipFile(io.BytesIO(sealed)).comment.startswith(b"lmr sha256 ")


def test_a_flipped_bit_before_the_seal_is_noticed() -> None:
    sealed = seal(an_archive())
    for position in range(0, len(sealed) - 77, 7):  # the comment and its length are 77 bytes
        data = bytearray(sealed)
        data[position] ^= 1
        with pytest.raises(ValueError, match=r"^its sha256 is not the one at its end$"):
            require_sealed(bytes(data))


def test_an_archive_of_before_has_no_seal() -> None:
    assert not require_sealed(an_archive())


@pytest.mark.parametrize("data", [b"", b"x" * 100, seal(an_archive())])
def test_what_is_no_bare_archive_is_not_sealed(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^data must be a zip file without a comment$"):
        seal(data)
