"""Compares the pictures of a download with its ledger."""

import sqlite3
from contextlib import closing
from pathlib import Path

from retrieval.download.ledger import LEDGER_NAME
from retrieval.download.places import Places
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_file

_REMEDY = "the same lmr download fetches again what is not there"


def verify_pictures(folder: Path) -> int:
    """Reads every picture that the ledger of a folder says is there; how many they are.

    Raises LmrError that names the first one that is missing or was changed, and for a ledger that is damaged.
    """
    path = folder / LEDGER_NAME
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            ((said,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if said != "ok":
                raise LmrError(f"{path} is damaged ({said.splitlines()[0]}); move it away, or choose another folder")
            done = "SELECT image_id, sha256 FROM pictures WHERE status = 'done'"
            rows = connection.execute(done).fetchall()
    except sqlite3.OperationalError as error:
        raise LmrError(f"{path} cannot be read: {error}; try again") from error
    except sqlite3.DatabaseError as error:
        raise LmrError(f"{path} is damaged ({error}); move it away, or choose another folder") from error
    for image_id, written in rows:
        picture = _find(folder, image_id)
        if picture is None:
            raise LmrError(f"{folder}: the picture {image_id} is missing; {_REMEDY}")
        if written is not None and sha256_file(picture) != written:
            raise LmrError(f"{picture} was changed since it was written; remove it: {_REMEDY}")
    return len(rows)


def _find(folder: Path, image_id: str) -> Path | None:
    """The file of a picture, in either layout."""
    for places in (Places(folder, "flat"), Places(folder, "google")):
        path = Path(places.path(image_id))
        if path.is_file():
            return path
    return None
