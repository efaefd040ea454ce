"""The result of an evaluation: the figures, which queries leak, the figures without these, and what it was made of."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from index.evaluate.evaluation import Evaluation, evaluate
from index.evaluate.leakage import KINDS, Leaks, find_leaks
from index.evaluate.leave_one_out import leave_one_out
from index.folder.folder import IndexFolder
from index.metrics import LIST_LENGTH
from index.queries import Queries
from index.recognition import Answers, answer_store, select_answers
from index.vote_rule import VoteRule
from retrieval.files.digest import sha256_json
from retrieval.progress import SILENT, Progress
from retrieval.store.store import Descriptors
from retrieval.words import agreeing, counted

LEAVE_ONE_OUT = "leave-one-out"
FEW_ROWS = 3  # times the dimensions: fewer rows than that are nearly at right angles once they are whitened
N_NAMED = 5  # images that a warning names
_WITHOUT = ("gap", "top1", "top5", "top10", "n_queries", "n_landmark_queries")
_WITHOUT_AT = ("precision_at_threshold", "recall_at_precision", "gap_interval", "top1_interval")


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The measures of an index on queries.

    source: file of the queries, or `leave-one-out`. without: on the queries that do not leak, None where all do or
    none does, or where no landmark query is left. n_single: rows that are their landmark's only image. measured_at:
    ISO 8601, UTC. lmr_version: of this program. inputs: digests of the queries, by what they are for people.
    """

    folder: IndexFolder
    source: str
    evaluation: Evaluation
    answers: Answers
    queries: Queries
    leaks: Leaks
    without: Evaluation | None
    warnings: tuple[str, ...]
    measured_at: str
    lmr_version: str
    inputs: Mapping[str, str]

    @property
    def is_left_out(self) -> bool:
        """True where the queries are the index's own images, its rows first, each left out when it is asked."""
        return self.source == LEAVE_ONE_OUT

    def to_json(self) -> dict[str, Any]:
        """JSON object that `lmr evaluate` prints."""
        leaked: dict[str, Any] = {"n": int(self.leaks.any.sum()), "training_unknown": self.leaks.training_unknown}
        for kind in KINDS:
            found = getattr(self.leaks, kind)
            leaked[kind] = {"n": int(found.sum()), "images": [str(name) for name in self.queries.image_id[found]]}
        without = None
        if self.without is not None:
            content = self.without.to_json()
            without = {name: content[name] for name in (*_WITHOUT, *_WITHOUT_AT)}
        about = {"source": self.source, "at": self.measured_at, "lmr_version": self.lmr_version}
        return {
            **self.evaluation.to_json(),
            "measured": about,
            "leaked": leaked,
            "without_leaked": without,
            "warnings": list(self.warnings),
        }


def evaluate_store(
    folder: IndexFolder, store: Descriptors, queries: Queries, *, n_workers: int = 1, progress: Progress = SILENT
) -> EvaluationResult:
    """Evaluates the answers to a store's rows. queries: of the rows in their order.

    n_workers, progress: as `find_leaks`. LmrError as `evaluate` and `find_leaks`.
    """
    answers = answer_store(folder, store, n_neighbours=LIST_LENGTH)
    evaluation = evaluate(folder, answers, queries)
    leaks = find_leaks(folder, answers, queries, store, n_workers=n_workers, progress=progress)
    return _measured(folder, store.source, evaluation, answers, queries, leaks, store=store)


def evaluate_left_out(folder: IndexFolder, *, n_workers: int = 1, progress: Progress = SILENT) -> EvaluationResult:
    """Every row and background image, asked against the others and measured. n_workers, progress: as `find_leaks`.

    LmrError as `leave_one_out` and `find_leaks`.
    """
    left = leave_one_out(folder)
    leaks = find_leaks(folder, left.answers, left.queries, n_workers=n_workers, progress=progress)
    return _measured(folder, LEAVE_ONE_OUT, left.evaluation, left.answers, left.queries, leaks, n_single=left.n_single)


def _measured(
    folder: IndexFolder,
    source: str,
    evaluation: Evaluation,
    answers: Answers,
    queries: Queries,
    leaks: Leaks,
    *,
    n_single: int = 0,
    store: Descriptors | None = None,
) -> EvaluationResult:
    kept = np.flatnonzero(~leaks.any)
    without = None
    if len(kept) < len(queries) and any(len(labels) for labels in queries.landmarks[kept]):
        n_left_out = 1 if source == LEAVE_ONE_OUT else 0
        without = evaluate(folder, select_answers(answers, kept), queries.select(kept), n_left_out=n_left_out)
    return EvaluationResult(
        folder=folder,
        source=source,
        evaluation=evaluation,
        answers=answers,
        queries=queries,
        leaks=leaks,
        without=without,
        warnings=tuple(_warnings(folder, source, queries, leaks, n_single)),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        lmr_version=importlib.metadata.version("lmr"),
        inputs=_digests(queries, store),
    )


def _digests(queries: Queries, store: Descriptors | None) -> dict[str, str]:
    labels = [list(names) for names in queries.landmarks]
    kinds = None if queries.kind is None else queries.kind.tolist()
    content = [queries.image_id.tolist(), queries.path.tolist(), labels, kinds]
    return {
        "set of queries": sha256_json(content),
        "set of descriptors": sha256_json(None) if store is None else store.digest,
    }


def _warnings(folder: IndexFolder, source: str, queries: Queries, leaks: Leaks, n_single: int) -> list[str]:
    """Warnings of what makes the figures too good, or too bad, a line each."""
    left_out, n = source == LEAVE_ONE_OUT, len(queries)
    what = "picture" if left_out else "query"
    said = {
        "same_picture": ("has a copy in the index", "have a copy in the index")
        if left_out
        else ("is a picture of the index itself", "are pictures of the index itself"),
        "near_duplicate": (
            "looks the same as another picture of the index",
            "look the same as other pictures of the index",
        )
        if left_out
        else ("looks the same as a picture of the index", "look the same as pictures of the index"),
        "calibrated_on": ("is one that the index was calibrated on", "are those that the index was calibrated on"),
        "trained_on": (
            "has the name and label of a picture that the network was trained on",
            "have the name and label of pictures that the network was trained on",
        ),
    }
    lines = []
    for kind in KINDS:
        names = [str(name) for name in queries.image_id[getattr(leaks, kind)]]
        if names:
            lines.append(
                f"{counted(len(names), what, of=n)} {said[kind][len(names) > 1]}: {_first(names)}; the figures "
                f"are too good"
            )
    calibration = folder.calibration
    if leaks.calibrated_on.any() and calibration is not None:
        seen = calibration.cross_validated
        lines.append(f"cross-validation of the calibration gave GAP {seen.gap:.3f}, top-1 {seen.top1:.3f}")
    if leaks.training_unknown:
        lines.append("the network was trained on pictures that it has no record of; figures on these would be too good")
    if left_out and calibration is not None and calibration.choice is not None:
        is_default = calibration.rule == VoteRule(m=calibration.rule.m)
        if calibration.choice.leave_one_out is not None and not is_default:
            lines.append(
                "the constants of the vote were chosen by these pictures too; the figures are a little too good"
            )
    few = folder.whitening is not None and len(folder.rows) < FEW_ROWS * folder.info.d
    if left_out and calibration is not None and few:
        lines.append(
            f"{counted(len(folder.rows), 'row')} are few for the {counted(folder.info.d, 'dimension')} of the "
            f"whitening, which knows them: "
            "what is left out scores lower than a new picture would, and the figures at a threshold are too bad"
        )
    if n_single:
        lines.append(
            f"{counted(n_single, 'picture')} {agreeing(n_single, 'is', 'are')} the only one of "
            f"{agreeing(n_single, 'its landmark and counts', 'their landmark and count')} as wrong"
        )
    return lines


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more
