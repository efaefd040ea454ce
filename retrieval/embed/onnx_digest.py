"""The digest of an ONNX file, at its end: one more entry of the metadata, over all bytes before it."""

import hashlib
import os
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.files.hdf5 import read_error

_KEY = b"lmr.sha256"
_HEX_BYTES = 64
_PIECE_BYTES = 1 << 20  # read at a time
_ENTRY = b"\x0a" + bytes([len(_KEY)]) + _KEY + b"\x12" + bytes([_HEX_BYTES])  # key and value, as protobuf writes them
_HEAD = b"\x72" + bytes([len(_ENTRY) + _HEX_BYTES]) + _ENTRY  # of field 14 of a ModelProto, metadata_props


def with_digest(model: bytes) -> bytes:
    """The bytes of an ONNX file with their digest behind them; protobuf reads the two as one file."""
    return model + _HEAD + hashlib.sha256(model).hexdigest().encode()


def require_as_written(path: Path) -> bool:
    """Reads an ONNX file. False where it carries no digest, as one of an earlier lmr.

    Raises LmrError: it cannot be read, or is not as it was written.
    """
    try:
        with path.open("rb") as file:
            left = file.seek(0, os.SEEK_END) - len(_HEAD) - _HEX_BYTES
            file.seek(max(0, left))
            end = file.read()
            if left < 0 or not end.startswith(_HEAD):
                return False
            known = hashlib.sha256()
            file.seek(0)
            while left:
                piece = file.read(min(_PIECE_BYTES, left))
                known.update(piece)
                left -= len(piece)
    except OSError as error:
        raise read_error(path, error) from error
    if known.hexdigest().encode() != end[len(_HEAD) :]:
        raise LmrError(
            f"{path} is damaged: its sha256 is not the one at its end; copy it again if it is a copy, else run "
            "lmr export `overwrite`"
        )
    return True
