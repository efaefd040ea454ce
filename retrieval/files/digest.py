"""SHA-256 of files and of JSON objects."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(content: Any) -> str:
    """sha256 (hex) of a JSON value as it reads back from a file, the same for any order of keys."""
    read_back = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(read_back, sort_keys=True).encode()).hexdigest()


def update_json(total: "hashlib._Hash", content: Any) -> None:
    """Hashes json.dumps(content, sort_keys=True); in it arrays and columns stand for the lists of them.

    These are taken in parts, so that the text of millions of values is never held whole.
    """
    from retrieval.texts import BLOCK  # not at the top: it imports numpy, which help does not need

    if isinstance(content, Mapping):
        for i, key in enumerate(sorted(content)):
            total.update(f"{', ' if i else '{'}{json.dumps(key)}: ".encode())
            update_json(total, content[key])
        total.update(b"}" if content else b"{}")
    elif isinstance(content, list | tuple):
        for i, value in enumerate(content):
            total.update(b", " if i else b"[")
            update_json(total, value)
        total.update(b"]" if content else b"[]")
    elif hasattr(content, "tolist"):
        for start in range(0, len(content), BLOCK):
            part = json.dumps(content[start : start + BLOCK].tolist())
            total.update((", " if start else "[").encode() + part[1:-1].encode())
        total.update(b"]" if len(content) else b"[]")
    else:
        total.update(json.dumps(content).encode())
