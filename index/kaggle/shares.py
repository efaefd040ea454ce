"""Answers that are kept beside a submission: those of a share of it, and those of one that is not finished.

The scores of a submission are told apart among all of its answers, so a share cannot know them: it holds what they
are ranked by, and all shares make one submission. Answers of an unfinished one are kept block by block, so that the
next run goes on.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from index.folder.folder import IndexFolder
from index.folder.verified import LOCAL_SET, Verifying
from index.kaggle.submission import submission_lines
from index.recognition import Answers, Predictions, answer_blocks, confidence_or_nan, named_at
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.files.json_file import convert, read_signed_json, signed
from retrieval.files.kept import Kept
from retrieval.files.made_of import (
    Inputs,
    holds_text,
    is_made_of,
    recorded_inputs,
    require_no_folder,
    write_with_record,
)
from retrieval.progress import Progress
from retrieval.shard import MOST_SHARES, Shard, parse_shard, require_all, require_lengths
from retrieval.store.store import Descriptors
from retrieval.texts import Texts

FORMAT_VERSION = 1
_REMEDY = "make this share again with lmr submit `overwrite`"
_SETS = ("set of descriptors", LOCAL_SET)
_OWN = ("shard", *_SETS)  # inputs that differ between shares


class _Row(TypedDict):
    """An answer. landmark: '' = none. logit: None where nothing was found; confidence: None without a calibration."""

    id: str
    landmark: str
    logit: float | None
    confidence: float | None


class _Content(TypedDict):
    format_version: int
    shard: str
    manifest: str
    made_with: dict[str, Any]
    answers: list[_Row]


@dataclass(frozen=True, slots=True)
class Share:
    """A share that was read. made_with: all that its answers depend on."""

    path: Path
    shard: Shard
    manifest: str
    made_with: Inputs
    predictions: Predictions


def share_path(output: Path, shard: Shard) -> Path:
    """The file of a share, by that of the submission: `submission.csv` -> `submission-1-of-4.json`."""
    return shard.beside(output).with_suffix(".json")


def share_lines(
    shard: Shard, predictions: Predictions, manifest_digest: str, made_with: Mapping[str, Any]
) -> Iterator[str]:
    """The text of a share's file. made_with: all that its answers depend on."""
    rows = [
        _Row(id=image_id, landmark=landmark, logit=_finite(logit), confidence=_finite(confidence))
        for image_id, landmark, logit, confidence in zip(
            predictions.image_id,
            predictions.landmark,
            predictions.logit.tolist(),
            predictions.confidence.tolist(),
            strict=True,
        )
    ]
    content = _Content(
        format_version=FORMAT_VERSION,
        shard=str(shard),
        manifest=manifest_digest,
        made_with=dict(made_with),
        answers=rows,
    )
    yield json.dumps(signed(dict(content)), ensure_ascii=False, allow_nan=False) + "\n"


def join_submissions(
    paths: Sequence[Path], output: Path, *, overwrite: bool
) -> tuple[Literal["joined", "unchanged"], int]:
    """Writes the submission of all shares; what was done, and how many lines it has.

    Raises LmrError for files that are not all shares of one submission, each once, and for another file in the
    place of the output.
    """
    require_no_folder(output)
    read = [read_share(path) for path in paths]
    shares = [(share.path, share.shard) for share in read]
    _require_alike(read)
    read = [read[at] for at in require_all(shares)]
    require_lengths([(share.path, share.shard) for share in read], [len(share.predictions) for share in read])
    inputs = {name: value for name, value in read[0].made_with.items() if name not in _OWN}
    inputs["shares"] = len(read)
    for name in read[0].made_with.keys() & _SETS:
        inputs[name] = sha256_json([share.made_with[name] for share in read])
    predictions = _joined([share.predictions for share in read])
    if not overwrite and (
        holds_text(output, submission_lines(predictions))
        or is_made_of(output, inputs, "give `overwrite` or another `output`")
    ):
        return "unchanged", len(predictions)
    write_with_record(output, submission_lines(predictions), inputs)
    return "joined", len(predictions)


def inputs_of(output: Path, made_with: Inputs, store: Descriptors, verifying: Verifying | None) -> dict[str, Any]:
    """Everything that a submission is made of, as the file that is there tells it: its descriptors whole, or by shares.

    So one that was joined is found finished. Raises LmrError as `Descriptors.digest`.
    """
    n = recorded_inputs(output).get("shares")
    if not isinstance(n, int) or not 1 <= n <= MOST_SHARES:
        return {**made_with, **sets_of(store, verifying, range(len(store)))}
    parts = [sets_of(store, verifying, Shard(i + 1, n).rows(len(store))) for i in range(n)]
    return {**made_with, "shares": n, **{name: sha256_json([part[name] for part in parts]) for name in parts[0]}}


def sets_of(store: Descriptors, verifying: Verifying | None, rows: range) -> dict[str, str]:
    """Digests of what some rows of a store are answered by, by the words that tell them to people."""
    digests = [store.select(np.array(rows, np.int64)).digest]
    if verifying is not None:
        digests.append(verifying.digest(slice(rows.start, rows.stop)))
    return dict(zip(_SETS, digests, strict=False))


def _joined(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(
        Texts.joined([part.image_id for part in parts]),
        Texts.joined([part.landmark for part in parts]),
        np.concatenate([part.logit for part in parts]),
        np.concatenate([part.confidence for part in parts]),
    )


def read_share(path: Path) -> Share:
    """The answers of a share. Raises LmrError for a file that is missing, damaged or of another version."""
    content: _Content = convert(read_signed_json(path, FORMAT_VERSION, _REMEDY), _Content, str(path), _REMEDY)
    rows = content["answers"]
    predictions = Predictions(
        Texts.of(row["id"] for row in rows),
        Texts.of(row["landmark"] for row in rows),
        np.array([-np.inf if row["logit"] is None else row["logit"] for row in rows], np.float64),
        np.array([np.nan if row["confidence"] is None else row["confidence"] for row in rows], np.float64),
    )
    return Share(path, parse_shard(content["shard"]), content["manifest"], content["made_with"], predictions)


def _require_alike(shares: Sequence[Share]) -> None:
    """Raises LmrError where shares are of another manifest, index or threshold than the first."""
    first = shares[0]
    for share in shares:
        if share.manifest != first.manifest:
            raise LmrError(f"{share.path} is of another manifest than {first.path}; give shares of one test set")
        for name in share.made_with.keys() | first.made_with.keys():
            here, there = share.made_with.get(name), first.made_with.get(name)
            if here != there and (name not in _OWN or None in (here, there)):
                raise LmrError(f"{share.path} was made with another {name} than {first.path}; make it again")


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


_ANSWER = np.dtype([("landmark", "<i4"), ("logit", "<f8"), ("confidence", "<f8")])  # landmark: -1 = none


def answered_beside(output: Path, inputs: Inputs) -> Kept:
    """The answers kept for one submission. inputs: what they are made of."""
    head = bytes.fromhex(sha256_json(dict(inputs)))
    return Kept(output.with_name(f".{output.name}.answered"), head, _ANSWER)


def predict_store(
    folder: IndexFolder,
    store: Descriptors,
    threshold_logit: float,
    answered: Kept,
    progress: Progress,
    *,
    verifying: Verifying | None = None,
) -> Predictions:
    """One prediction for each row of a store; nothing else of the answers is kept.

    It is the best landmark where the ranking key reaches the threshold, else none. Those that `answered` has are not
    asked again, and those of more than one block are kept there. Raises LmrError as `answer_store`.
    """
    blocks = answered.read()
    n_before = sum(map(len, blocks))
    progress.begin("answering", len(store))
    progress.add(n_before)
    for part, answers in answer_blocks(folder, store, n_before, verifying=verifying):
        blocks.append(_packed(answers, threshold_logit))
        if len(blocks[-1]) < len(store):
            answered.append(blocks[-1])
        progress.add(part.stop - part.start)
    progress.end()
    landmark, logit, confidence = (_column(blocks, name) for name in _ANSWER.names or ())
    named = Texts.of([*folder.rows.landmarks, ""]).select(landmark)
    return Predictions(store.image_id, named, logit, confidence)


def _packed(answers: Answers, threshold_logit: float) -> NDArray[np.void]:
    block = np.empty(len(answers), _ANSWER)
    block["landmark"], block["logit"] = named_at(answers, threshold_logit), answers.logit
    block["confidence"] = confidence_or_nan(answers)
    return block


def _column(blocks: Sequence[NDArray[np.void]], name: str) -> NDArray[Any]:
    return np.concatenate([block[name] for block in blocks])
