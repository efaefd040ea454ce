"""Sketches of descriptors: eight bytes by which a picture that was described before is known again."""

import base64
import binascii

import numpy as np

from retrieval.arrays import FloatArray
from retrieval.data.near_duplicates import HashArray
from retrieval.errors import LmrError

SKETCH_BITS = 64
MOST = 50_000  # sketches kept; of more a sample


def sketches(vectors: FloatArray) -> HashArray:
    """(n,) uint64: on which side of 64 planes a descriptor lies; nearly the same for one picture described again.

    At an angle of t two descriptors differ in 64 t / pi bits (Charikar, Similarity estimation techniques from rounding
    algorithms, 2002). The planes are of random signs, from a stream of bits that numpy keeps as it is.
    """
    d = vectors.shape[1]
    bits = np.unpackbits(np.asarray(np.random.PCG64(0).random_raw(d)).astype("<u8").view(np.uint8))
    planes = bits.reshape(d, SKETCH_BITS).astype(np.float32) * 2 - 1
    sides = np.packbits(vectors.astype(np.float32) @ planes > 0, axis=1)
    return np.ascontiguousarray(sides).view("<u8")[:, 0].astype(np.uint64)


def pack_sketches(found: HashArray) -> str:
    """Sketches as text; of more than 50,000 a sample."""
    kept = np.sort(np.random.default_rng(0).permutation(found)[:MOST])
    return base64.b64encode(kept.astype("<u8").tobytes()).decode("ascii")


def unpack_sketches(packed: str) -> HashArray:
    """The sketches of a text. Raises LmrError when it is none."""
    try:
        return np.frombuffer(base64.b64decode(packed, validate=True), dtype="<u8").astype(np.uint64)
    except (binascii.Error, ValueError) as error:
        raise LmrError(
            f"the sketches of the calibration queries are damaged ({error}); run lmr calibrate again"
        ) from error
