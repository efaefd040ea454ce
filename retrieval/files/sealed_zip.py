"""Zip files, as torch and numpy write them, with a digest of all that they hold in their comment.

torch reads its own without comparing the checksums of the parts, so that a changed weight would be taken as it is.
"""

import hashlib
import struct

_END = struct.Struct("<4s4H2LH")  # of a zip file that has no comment yet
_SIGNATURE = b"PK\x05\x06"
_MARK = b"lmr sha256 "
_COMMENT_BYTES = len(_MARK) + 64


def seal(data: bytes) -> bytes:
    """A zip file without a comment, with its digest as one. ValueError: it is none, or has one."""
    end = data[-_END.size :]
    if len(end) < _END.size or not end.startswith(_SIGNATURE) or end[-2:] != b"\0\0":
        raise ValueError("data must be a zip file without a comment")
    return data[:-2] + struct.pack("<H", _COMMENT_BYTES) + _MARK + hashlib.sha256(data).hexdigest().encode()


def require_sealed(data: bytes) -> bool:
    """Tells whether a zip file carries its digest; one written without does not. ValueError where it differs."""
    comment = data[-_COMMENT_BYTES:]
    if not comment.startswith(_MARK):
        return False
    rest = data[: -_COMMENT_BYTES - 2] + b"\0\0"
    if hashlib.sha256(rest).hexdigest().encode() != comment[len(_MARK) :]:
        raise ValueError("its sha256 is not the one at its end")
    return True
