"""A compact record of which labelled images something has seen, by which they are known again."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from retrieval.arrays import BoolArray, LongArray
from retrieval.errors import LmrError

MOST = 50_000  # images listed; of more a sample that is drawn by their digests: 400 kB as text
_BITS = 48


def record_seen(image_id: Iterable[str], landmark_id: Iterable[str]) -> dict[str, Any]:
    """The record of images: n, and 6 bytes of the sha256 of each name and label that is below `below`.

    landmark_id: '' = none. With at most 50,000 images all are below.
    """
    digests = np.unique(_digests(image_id, landmark_id))
    below = int(digests[MOST]) if len(digests) > MOST else 1 << _BITS
    listed = digests[digests < below].astype(">u8").tobytes()
    packed = np.frombuffer(listed, dtype=np.uint8).reshape(-1, 8)[:, 2:].tobytes()
    return {"n": len(digests), "below": below, "sha256_48": base64.b64encode(packed).decode("ascii")}


def was_seen(record: Mapping[str, Any], image_id: Iterable[str], landmark_id: Iterable[str]) -> BoolArray:
    """Finds those of these images that are in a record; of a record of a sample, only those that it would list.

    Raises LmrError for what is no record.
    """
    try:
        packed = np.frombuffer(base64.b64decode(record["sha256_48"], validate=True), dtype=np.uint8).reshape(-1, 6)
    except (KeyError, TypeError, ValueError) as error:
        raise LmrError(f"the record of the pictures that were seen is damaged ({error})") from error
    whole = np.zeros((len(packed), 8), dtype=np.uint8)
    whole[:, 2:] = packed
    listed = np.frombuffer(whole.tobytes(), dtype=">u8").astype(np.int64)
    seen: BoolArray = np.isin(_digests(image_id, landmark_id), listed)
    return seen


def _digests(image_id: Iterable[str], landmark_id: Iterable[str]) -> LongArray:
    """(n,) the first 48 bits of the sha256 of each name and label."""
    pairs = zip(image_id, landmark_id, strict=True)
    found = (
        hashlib.sha256(f"{name}\n{label}".encode("utf-8", "surrogateescape")).digest()[:6] for name, label in pairs
    )
    return np.fromiter((int.from_bytes(digest, "big") for digest in found), dtype=np.int64)
