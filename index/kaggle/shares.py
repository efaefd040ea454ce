"""Shares of a submission: answers with what they are ranked by, from which all shares make one submission.

The scores of a submission are told apart among all of its answers, so a share cannot know them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from index.kaggle.submission import submission_lines
from index.recognition import Predictions
from retrieval.arrays import object_array
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.files.json_file import convert, read_signed_json, signed
from retrieval.files.made_of import is_made_of, require_no_folder, write_with_record
from retrieval.shard import Shard, parse_shard, require_all, require_lengths

FORMAT_VERSION = 1
_REMEDY = "make this share again with lmr submit `overwrite`"
_OWN = ("shard", "set of descriptors")  # inputs that differ between shares


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
class _Share:
    path: Path
    shard: Shard
    content: _Content


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
    read = [_read(path) for path in paths]
    shares = [(share.path, share.shard) for share in read]
    _require_alike(read)
    read = [read[at] for at in require_all(shares)]
    require_lengths([(share.path, share.shard) for share in read], [len(share.content["answers"]) for share in read])
    inputs = {name: value for name, value in read[0].content["made_with"].items() if name not in _OWN}
    inputs["set of descriptors"] = sha256_json([share.content["made_with"]["set of descriptors"] for share in read])
    rows = [row for share in read for row in share.content["answers"]]
    if not overwrite and is_made_of(output, inputs, "give `overwrite` or another `output`"):
        return "unchanged", len(rows)
    predictions = Predictions(
        object_array([row["id"] for row in rows]),
        object_array([row["landmark"] for row in rows]),
        np.array([-np.inf if row["logit"] is None else row["logit"] for row in rows], np.float64),
        np.array([np.nan if row["confidence"] is None else row["confidence"] for row in rows], np.float64),
    )
    write_with_record(output, submission_lines(predictions.image_id, predictions), inputs)
    return "joined", len(rows)


def _read(path: Path) -> _Share:
    content: _Content = convert(read_signed_json(path, FORMAT_VERSION, _REMEDY), _Content, str(path), _REMEDY)
    return _Share(path, parse_shard(content["shard"]), content)


def _require_alike(shares: Sequence[_Share]) -> None:
    """Raises LmrError where shares are of another manifest, index or threshold than the first."""
    first = shares[0]
    for share in shares:
        if share.content["manifest"] != first.content["manifest"]:
            raise LmrError(f"{share.path} is of another manifest than {first.path}; give shares of one test set")
        mine, others = share.content["made_with"], first.content["made_with"]
        for name in mine.keys() | others.keys():
            if name not in _OWN and mine.get(name) != others.get(name):
                raise LmrError(f"{share.path} was made with another {name} than {first.path}; make it again")


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
