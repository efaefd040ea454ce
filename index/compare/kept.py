"""The answers of a system to a part and figures about it, kept in files."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import LmrError

if TYPE_CHECKING:
    from index.compare.measure import Answered

_REMEDY = "remove it and run the same command again"  # what is kept can be made again


def write_answers(path: Path, answered: "Answered") -> None:
    """Replaces the file. LmrError when it cannot be written."""
    from retrieval.files.atomic import write_bytes
    from retrieval.files.sealed_zip import seal

    buffer = io.BytesIO()
    votes = answered.votes
    np.savez_compressed(
        buffer,
        query=votes.query,
        landmark=votes.landmark,
        score=votes.score,
        key=answered.key,
        threshold=answered.threshold,
    )
    write_bytes(path, seal(buffer.getvalue()))


def read_answers(path: Path, n: int | None = None) -> "Answered":
    """Answers to n queries, None = any number, that `write_answers` wrote.

    LmrError when the file is damaged or cannot be read.
    """
    from index.compare.measure import Answered
    from index.vote import Votes
    from retrieval.files.sealed_zip import require_sealed

    try:
        data = path.read_bytes()
        require_sealed(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as kept:
            votes = Votes(kept["query"], kept["landmark"], kept["score"])
            answered = Answered(votes, kept["key"], kept["threshold"])
        found = len(answered.key)
        if n not in (None, found) or (len(votes.query) and not 0 <= votes.query.min() <= votes.query.max() < found):
            raise ValueError(f"it is not of {found if n is None else n:,} queries")
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "not enough memory"
        raise LmrError(f"{path} cannot be read: {reason}; try again, the file may be whole") from error
    except Exception as error:  # whatever a damaged archive makes numpy say
        reason = (str(error).splitlines() or ["no archive"])[0][:100]
        raise LmrError(f"{path} is damaged ({reason}); {_REMEDY}") from error
    return answered


def write_facts(path: Path, facts: Mapping[str, float | None]) -> None:
    """Writes figures as JSON with their digest. LmrError when the file cannot be written."""
    from retrieval.files.json_file import signed, write_json

    write_json(path, signed(facts))


def read_facts(path: Path) -> dict[str, float | None]:
    """The figures in a JSON file. LmrError when it is damaged."""
    from retrieval.files.json_file import convert, read_json, require_signed

    content = require_signed(read_json(path, _REMEDY), str(path), _REMEDY, may_lack=True)
    return convert(content, dict[str, float | None], str(path), _REMEDY)
