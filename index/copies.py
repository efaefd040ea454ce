"""Copies: images that are there twice, told by their descriptors or by sketches of these, whatever the names."""

import base64
import binascii
from collections.abc import Callable

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, LongArray, Matrix, ObjArray
from retrieval.data.near_duplicates import HashArray
from retrieval.errors import LmrError
from retrieval.texts import Texts, equal_pairs, to_texts
from retrieval.words import agreeing, counted

SAME_IMAGE = 0.999  # similarity above which two descriptors are of one image
# The same where the names agree too. An image embedded in bfloat16 and in float32 is at 0.998 after whitening.
SAME_NAME_TOO = 0.99
BLOCK_ROWS = 8192
N_NAMED = 5  # images that an error names
SKETCH_BITS = 64
MOST_SKETCHES = 50_000  # sketches kept; of more a sample


def same_named(
    image_id: Texts | ObjArray,
    vectors: Callable[[LongArray], FloatArray],
    known_id: Texts | ObjArray,
    known_vectors: Callable[[LongArray], FloatArray],
) -> list[str]:
    """Names of the images that are among the known ones: the same image_id, and a descriptor as of one image.

    The same image_id with another descriptor is another image: folders number their images alike.
    image_id: (n,); known_id: (k,) of the known ones, a name perhaps several times; vectors, known_vectors: from rows
    of them to their (rows, d) vectors. These need not have unit length, but none is zero.
    """
    found: list[str] = []
    for block in equal_pairs(to_texts(image_id), to_texts(known_id), BLOCK_ROWS):
        one, other = vectors(block[:, 0]).astype(np.float32), known_vectors(block[:, 1]).astype(np.float32)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        same = np.einsum("nd,nd->n", one, other) > SAME_NAME_TOO * lengths
        found += [str(name) for name in image_id[block[same, 0]]]
    return list(dict.fromkeys(found))


def refuse_known(
    image_id: Texts | ObjArray,
    vectors: Matrix,
    known_id: Texts | ObjArray,
    known_vectors: Callable[[LongArray], FloatArray],
    where: str,
) -> None:
    """Refuses calibration queries that are also in the index or the background: they would look too easy.

    As `same_named`. where: "the index" or "the background", for the message. Raises LmrError.
    """
    names = same_named(image_id, vectors.__getitem__, known_id, known_vectors)
    if names:
        raise LmrError(
            f"{len(names)} of {len(image_id)} calibration queries are also in {where}: {_first(names)}; "
            "leave them out of one or the other"
        )


def leave_out_copies(image_id: ObjArray, nearest: FloatArray) -> tuple[BoolArray, tuple[str, ...]]:
    """The queries to keep, (q,) bool, and a warning that names the others: copies of images that the index has.

    nearest: (q,) each query's largest similarity to the index rows and the background, -inf where there are none.
    A network that is trained on few landmarks makes images alike that are not copies, so these are left out one by
    one, and it is an LmrError only where nothing is left.
    """
    copies: BoolArray = np.asarray(nearest > SAME_IMAGE)
    names = [str(name) for name in image_id[copies]]
    if not names:
        return ~copies, ()
    text = (
        f"{counted(len(names), 'query', of=len(image_id))} {agreeing(len(names), 'is a copy', 'are copies')} of "
        f"pictures in the "
        f"index or its background (similarity > {SAME_IMAGE}) and {agreeing(len(names), 'was', 'were')} left out: "
        f"{_first(names)}"
    )
    if copies.all():
        raise LmrError(f"{text}; calibrate on other pictures")
    return ~copies, (text,)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more


def sketches(vectors: FloatArray) -> HashArray:
    """(n,) uint64, the sides of 64 planes on which each descriptor lies; nearly equal for one image embedded twice.

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
    kept = np.sort(np.random.default_rng(0).permutation(found)[:MOST_SKETCHES])
    return base64.b64encode(kept.astype("<u8").tobytes()).decode("ascii")


def unpack_sketches(packed: str) -> HashArray:
    """The sketches of a text. Raises LmrError when it is none."""
    try:
        return np.frombuffer(base64.b64decode(packed, validate=True), dtype="<u8").astype(np.uint64)
    except (binascii.Error, ValueError) as error:
        raise LmrError(
            f"the sketches of the calibration queries are damaged ({error}); run lmr calibrate again"
        ) from error
