"""The names of folders for landmarks, where images are sorted by them."""

import hashlib

UNKNOWN = "_no_known_landmark"

_ESCAPED = frozenset('%/\\:*?"<>|')  # what some file system takes for more than a letter
_NAME_BYTES = 200  # of a folder's name, of the 255 that file systems take


def folder_name(label: str) -> str:
    """Name of a folder for a landmark_id: what leads elsewhere or is not allowed everywhere becomes %XX.

    Different landmarks have different names; very long ones end in a part of their sha256.
    """
    escaped = "".join(f"%{ord(c):02X}" if c in _ESCAPED or ord(c) < 32 else c for c in label)
    if escaped[0] == "." or escaped == UNKNOWN:
        escaped = f"%{ord(escaped[0]):02X}{escaped[1:]}"
    if escaped[-1] == ".":
        escaped = escaped[:-1] + "%2E"
    if len(escaped.encode()) > _NAME_BYTES:
        start = escaped.encode()[:_NAME_BYTES].decode(errors="ignore")
        escaped = f"{start}%{hashlib.sha256(label.encode()).hexdigest()[:16]}"
    return escaped
