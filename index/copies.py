"""Which pictures are there twice: the same descriptor, whatever the name."""

from collections.abc import Callable

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, LongArray, ObjArray
from retrieval.errors import LmrError

SAME_PICTURE = 0.999  # similarity above which two descriptors are of one picture
N_NAMED = 5  # pictures that an error names


def refuse_known(
    image_id: ObjArray,
    vectors: FloatArray,
    known_id: ObjArray,
    known_vectors: Callable[[LongArray], FloatArray],
    where: str,
) -> None:
    """Refuses calibration queries that are also in the index or the background: they would look too easy.

    The same image_id with another descriptor is another picture: folders number their pictures alike.
    image_id: (q,), vectors: (q, d) unit length; known_id: of the index rows or the background, known_vectors: from
    rows of it to their vectors; where: "the index" or "the background", for the message. Raises LmrError.
    """
    row_of = {name: row for row, name in enumerate(known_id.tolist())}
    shared = [(i, row_of[name]) for i, name in enumerate(image_id.tolist()) if name in row_of]
    if not shared:
        return
    own, known = np.array(shared, dtype=np.int64).T
    same = np.einsum("nd,nd->n", vectors[own], known_vectors(known), dtype=np.float64) > SAME_PICTURE
    names = [str(name) for name in image_id[own[same]]]
    if names:
        raise LmrError(
            f"{len(names)} of {len(image_id)} calibration queries are also in {where}: {_first(names)}; "
            "leave them out of one or the other"
        )


def leave_out_copies(image_id: ObjArray, nearest: FloatArray) -> tuple[BoolArray, tuple[str, ...]]:
    """Which queries to keep, (q,) bool, and a warning that names the others: copies of pictures that the index has.

    nearest: (q,) each query's largest similarity to the index rows and the background, -inf where there are none.
    A network that is trained on few landmarks makes pictures alike that are not copies, so these are left out one by
    one, and it is an LmrError only where nothing is left.
    """
    copies: BoolArray = np.asarray(nearest > SAME_PICTURE)
    names = [str(name) for name in image_id[copies]]
    if not names:
        return ~copies, ()
    text = (
        f"{len(names)} of {len(image_id)} queries are copies of pictures in the index or its background "
        f"(similarity > {SAME_PICTURE}) and were left out: {_first(names)}"
    )
    if copies.all():
        raise LmrError(f"{text}; calibrate on other pictures")
    return ~copies, (text,)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more
