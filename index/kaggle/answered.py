"""Answers of a submission that is not finished: kept block by block beside it, so that the next run goes on.

sha256 of what they are made of | n | n answers | sha256 of all before, and so on for each block
"""

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.folder.folder import IndexFolder
from index.recognition import Answers, Predictions, answer_blocks, predict
from retrieval.arrays import FloatArray, ObjArray
from retrieval.errors import LmrError
from retrieval.files.atomic import write_error
from retrieval.files.digest import sha256_json
from retrieval.files.made_of import Inputs
from retrieval.progress import Progress
from retrieval.store.store import Descriptors

_ANSWER = np.dtype([("landmark", "<i4"), ("logit", "<f8"), ("confidence", "<f8")])  # landmark: -1 = none
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 32


class Answered:
    """The answers kept for one submission. inputs: what they are made of; those of others count for nothing."""

    def __init__(self, output: Path, inputs: Inputs) -> None:
        self.path = output.with_name(f".{output.name}.answered")
        self._head = bytes.fromhex(sha256_json(dict(inputs)))
        self._known = hashlib.sha256(self._head)
        self._end = 0

    def read(self) -> list[NDArray[np.void]]:
        """The blocks that are there and whole, up to the first that is not."""
        data = self.path.read_bytes() if self.path.is_file() else b""
        blocks: list[NDArray[np.void]] = []
        if not data.startswith(self._head):
            return blocks
        self._end = len(self._head)
        while len(data) >= self._end + _LENGTH.size:
            (n,) = _LENGTH.unpack_from(data, self._end)
            end = self._end + _LENGTH.size + n * _ANSWER.itemsize
            known = self._known.copy()
            known.update(data[self._end : end])
            if len(data) < end or data[end : end + _DIGEST_BYTES] != known.digest():
                break
            blocks.append(np.frombuffer(data, _ANSWER, n, self._end + _LENGTH.size))
            self._known, self._end = known, end + _DIGEST_BYTES
        return blocks

    def append(self, block: NDArray[np.void]) -> None:
        """Keeps one more block behind those that were read or kept. Raises LmrError where that is not possible."""
        begun = b"" if self._end else self._head
        content = _LENGTH.pack(len(block)) + block.tobytes()
        self._known.update(content)
        try:
            with self.path.open("r+b" if self._end else "wb") as file:
                file.seek(self._end)
                file.truncate()
                file.write(begun + content + self._known.digest())
                file.flush()
                os.fsync(file.fileno())
                self._end = file.tell()
        except OSError as error:
            raise write_error(self.path, error) from error

    def remove(self) -> None:
        """Forgets the answers. Raises LmrError where that is not possible."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise LmrError(f"{self.path} cannot be removed: {error.strerror}; remove it") from error


def predict_store(
    folder: IndexFolder, store: Descriptors, threshold_logit: float, answered: Answered, progress: Progress
) -> Predictions:
    """One prediction for each row of a store, as `predict`; nothing else of the answers is kept.

    Those that `answered` has are not asked again, and those of more than one block are kept there. Raises LmrError as
    `answer_store`.
    """
    blocks = answered.read()
    n_before = sum(map(len, blocks))
    progress.begin("answering", len(store))
    progress.add(n_before)
    for part, answers in answer_blocks(folder, store, n_before):
        blocks.append(_packed(answers, threshold_logit))
        if len(blocks[-1]) < len(store):
            answered.append(blocks[-1])
        progress.add(part.stop - part.start)
    progress.end()
    found = np.concatenate(blocks)
    names = np.array([*folder.rows.landmarks, ""], dtype=object)
    return Predictions(
        store.image_id[:], names[found["landmark"]], _column(found, "logit"), _column(found, "confidence")
    )


def _packed(answers: Answers, threshold_logit: float) -> NDArray[np.void]:
    told = predict(answers, _nameless(len(answers)), threshold_logit)
    block = np.empty(len(answers), _ANSWER)
    block["landmark"] = np.where(told.answered, answers.landmark, -1)
    block["logit"], block["confidence"] = told.logit, told.confidence
    return block


def _nameless(n: int) -> ObjArray:
    return np.full(n, "", dtype=object)


def _column(found: NDArray[np.void], name: str) -> FloatArray:
    return np.ascontiguousarray(found[name], dtype=np.float64)
