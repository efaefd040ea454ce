"""Record and log of a training in its model folder, by which the same request is answered without torch."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retrieval.errors import DamageError, LmrError
from retrieval.files.digest import sha256_file, sha256_json
from retrieval.files.json_file import convert, read_signed_json, write_signed_json
from retrieval.jobs import settings_of
from retrieval.models.folder import CARD, CLASSIFIER, STATE_NAME, read_card, require_weights
from retrieval.train.stored.request import NAMES as ADAPTER_NAMES

if TYPE_CHECKING:
    from retrieval.train.data import TrainingData
    from retrieval.train.job import TrainJob


RECORD = "trained.json"
_FORMAT_VERSION = 1
# Words of a job on which the network does not depend, or only through its content.
_NOT_ASKED = (
    *("output", "workers", "threads", "device", "overwrite", "wait", "tensorboard", "weights", "columns", "cells"),
)
_NEVER_ASKED = {"show_batch": None, "summary": False, "find_rate": None}  # part of every request, for the digest


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training. log: a row for each epoch. unreadable: name of an image -> reason."""

    log: list[dict[str, float]]
    unreadable: dict[str, str]
    state: Literal["trained", "unchanged"] = "unchanged"


def training_request(job: "TrainJob", data: Iterable["TrainingData"]) -> str:
    """sha256 (hex) over everything that decides what is trained. data: of each stage."""
    content = {
        "options": [_options(stage) for stage in job.stages],
        "network": job.network.identity(
            size=job.preparation.size, fit=job.preparation.fit, colors=job.preparation.colors
        ),
        "data": [[part.digest, part.teacher.identity if part.teacher else None] for part in data],
        "validation": None if job.val is None else _validation(job, job.val),
    }
    return sha256_json(content)


def _validation(job: "TrainJob", val: Path) -> str:
    """Digest of what is validated on."""
    if not job.is_on_store:
        return job.load(val, job.progress, job.column_names_beside).digest
    from retrieval.store.store import open_descriptors
    from retrieval.train.stored.rows import content_of

    return content_of(open_descriptors(val))


def record_trained(output: Path, request: str, trained: Trained) -> None:
    """Keeps in the model folder what was asked for, with digests of what came of it."""
    names = (CARD, STATE_NAME, *([CLASSIFIER] if (output / CLASSIFIER).exists() else []))
    content = {"format_version": _FORMAT_VERSION, "request": request, "files": _digests(output, names)}
    write_signed_json(output / RECORD, content | {"log": trained.log, "unreadable": trained.unreadable})


def forget_trained(output: Path) -> None:
    """Removes the record, before the training is another one."""
    (output / RECORD).unlink(missing_ok=True)


def find_trained(output: Path, request: str) -> Trained | None:
    """The training that is in a model folder, finished and of this very request; else None.

    Raises DamageError where it is that one and its classifier is not whole.
    """
    path = output / RECORD
    if not path.is_file():
        return None
    try:
        content = read_signed_json(path, _FORMAT_VERSION, "")
        files = content["files"]
        if content["request"] != request or files != files | _digests(output, (CARD, STATE_NAME)):
            return None
        require_weights(output, read_card(output))
        trained = convert({name: content.get(name) for name in ("log", "unreadable")}, Trained, str(path), "")
    except (LmrError, OSError, KeyError, TypeError):  # of no training that can be said to be finished
        return None
    _require_classifier(output, files)
    return trained


def _require_classifier(output: Path, files: Mapping[str, str]) -> None:
    if CLASSIFIER not in files:
        return
    path = output / CLASSIFIER
    if not path.is_file() or sha256_file(path) != files[CLASSIFIER]:
        what = "was changed since it was written" if path.is_file() else "is missing"
        raise DamageError(f"{output} is trained already, but {path} {what}; restore it, or `overwrite` trains anew")


def _options(stage: "TrainJob") -> dict[str, Any]:
    """The settings of a stage as JSON has them."""
    left_out = {*_NOT_ASKED, *({"model"} if stage.is_on_store else ADAPTER_NAMES)}
    asked = {item.name: _plain(value) for item, value in settings_of(stage) if item.name not in left_out}
    return {**asked, **_NEVER_ASKED}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _digests(output: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: sha256_file(output / name) for name in names}


def read_log(path: Path) -> list[dict[str, float]]:
    """The epochs of a training log; a cell that is empty is no key. Raises LmrError with the line."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror or error}; lmr train writes it") from error
    log = []
    for line, row in enumerate(rows, start=2):
        try:
            log.append({name: float(value) for name, value in row.items() if value})
        except (TypeError, ValueError):
            raise LmrError(f"{path}:{line}: not a row of numbers; the log of lmr train has nothing else") from None
    if not log or not all({"epoch", "loss"} <= row.keys() for row in log):
        raise LmrError(f"{path}: no rows with epoch and loss; is it the log of lmr train?")
    return log
