"""Trainings that are finished, known again by what they were asked for, so that saying so needs no torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.network import network_request
from cli.progress import list_unreadable
from cli.reading import load_manifest
from cli.terminal import say, warn
from retrieval.errors import DamageError, LmrError
from retrieval.files.digest import sha256_file, sha256_json
from retrieval.files.json_file import convert, read_signed_json, write_signed_json
from retrieval.models.card import CARD, CLASSIFIER, STATE_NAME, read_card, require_weights
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.train.data import TrainingData

RECORD = "trained.json"
CURVES = "training.png"
_FORMAT_VERSION = 1
_NO_PART = ("output", "workers", "threads", "device", "overwrite", "tensorboard", "weights")  # of what is trained


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training. log: a row for each epoch. unreadable: name of a picture -> reason."""

    log: list[dict[str, float]]
    unreadable: dict[str, str]


def training_request(asked: Sequence[Mapping[str, Any]], sets: Iterable["TrainingData"]) -> str:
    """sha256 (hex) over everything that decides what is trained.

    asked: the options of each stage. sets: the pictures of each stage.
    """
    options = [{name: _plain(value) for name, value in stage.items() if name not in _NO_PART} for stage in asked]
    data = [[part.digest, part.teacher.identity if part.teacher else None] for part in sets]
    val = asked[0].get("val")
    content = {
        "options": options,
        "network": network_request(asked[0]),
        "data": data,
        "validation": None if val is None else load_manifest(val).digest,
    }
    return sha256_json(content)


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
    if not path.is_file() or not (output / CURVES).is_file():
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
        raise DamageError(f"{output} is trained already, but {path} {what}; restore it, or --overwrite trains anew")


def tell_trained_already(output: Path, trained: Trained, n_pictures: int) -> None:
    """Says that there is nothing to do, and again what the training came to. n_pictures: that it was on."""
    warn(f"{output} is trained already; nothing to do")
    list_unreadable(trained.unreadable, len(trained.unreadable), n_pictures)
    tell_end(output, trained)


def tell_end(output: Path, trained: Trained) -> None:
    """What the training came to, and which of its epochs is in the model folder."""
    log = trained.log
    last, kept = log[-1], _kept(log)
    text = (
        f"{output}: trained {counted(len(log), 'epoch')} in {last['seconds']:.0f} s, loss "
        f"{last['loss']:.3f}{_figures(last)}"
    )
    if "gap" in kept:
        whose = "the last epoch" if kept is last else f"epoch {kept['epoch']:.0f}"
        text += f"; the model is that of {whose}{_figures(kept) if kept is not last else ', the best'}"
    say(text)


def _kept(log: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The epoch whose weights are the model's: the last of those with the largest GAP, or, unvalidated, the last."""
    return max(log, key=lambda row: (row.get("gap", 0.0), row["epoch"]))


def _figures(row: Mapping[str, float]) -> str:
    return "".join(f", {name} {row[name]:.3f}" for name in ("gap", "top1") if name in row)


def _digests(output: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: sha256_file(output / name) for name in names}


def _plain(value: Any) -> Any:
    """A value of an option as JSON has it."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
