"""The answers of a system to a part and figures about it, kept in files."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.errors import LmrError

if TYPE_CHECKING:
    from index.comparing import Answered


def write_answers(path: Path, answered: "Answered") -> None:
    """Replaces the file. LmrError when it cannot be written."""
    from retrieval.files.atomic import write_bytes

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
    write_bytes(path, buffer.getvalue())


def read_answers(path: Path) -> "Answered":
    """What `write_answers` wrote. LmrError when it is damaged."""
    from index.comparing import Answered
    from index.voting import Votes

    try:
        with np.load(path, allow_pickle=False) as kept:
            votes = Votes(kept["query"], kept["landmark"], kept["score"])
            return Answered(votes, kept["key"], kept["threshold"])
    except Exception as error:
        raise LmrError(f"{path} is damaged; remove it and run the same command again") from error


def read_facts(path: Path) -> dict[str, Any]:
    """The figures in a JSON file. LmrError when it is damaged."""
    from retrieval.files.json_file import read_json

    return read_json(path, "remove it and run the same command again")
