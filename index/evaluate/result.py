"""The result of an evaluation: the figures, which queries leak, the figures without these, and what it was made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from index.calibration import AtPrecision
from index.evaluate.evaluation import Evaluation, evaluate
from index.evaluate.leakage import KINDS, Leaks, trained_on
from index.evaluate.leave_one_out import ask_left_out
from index.evaluate.outcome import Outcomes, Questions, find_outcomes
from index.evaluate.shares import Asking
from index.folder.folder import IndexFolder
from index.queries import Queries
from index.thresholds import HeldOut, with_and_without
from index.vote_rule import VoteRule
from retrieval.version import program_version
from retrieval.words import agreeing, counted

LEAVE_ONE_OUT = "leave-one-out"
FEW_ROWS = 3  # times the dimensions: fewer rows than that are nearly at right angles once they are whitened
N_NAMED = 5  # images that a warning names
_WITHOUT = ("gap", "top1", "top5", "top10", "n_queries", "n_landmark_queries")
_UNVERIFIED = ("mean_landmark_accuracy", "map_at_100", "threshold_precision", "false_answer_rate", "trade")
_WITHOUT_AT = ("precision_at_threshold", "recall_at_precision", "gap_interval", "top1_interval")


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The measures of an index on queries.

    source: file of the queries, or `leave-one-out`. without: on the queries that do not leak, None where all do or
    none does, or where no landmark query is left. measured_at:
    ISO 8601, UTC. lmr_version: of this program. inputs: digests of the queries, by what they are for people. plain: the
    figures without verification, and gain: what that gains; None and () where neighbours are not verified.
    """

    folder: IndexFolder
    source: str
    evaluation: Evaluation
    outcomes: Outcomes
    queries: Queries
    leaks: Leaks
    without: Evaluation | None
    warnings: tuple[str, ...]
    measured_at: str
    lmr_version: str
    inputs: Mapping[str, str]
    plain: Evaluation | None = None
    gain: tuple[AtPrecision, ...] = ()

    @property
    def is_left_out(self) -> bool:
        """True where the queries are the index's own images, its rows first, each left out when it is asked."""
        return self.source == LEAVE_ONE_OUT

    def to_json(self) -> dict[str, Any]:
        """JSON object that `lmr evaluate` prints."""
        leaked: dict[str, Any] = {"n": int(self.leaks.any.sum()), "training_unknown": self.leaks.training_unknown}
        for kind in KINDS:
            found = getattr(self.leaks, kind)
            leaked[kind] = {"n": int(found.sum()), "images": self.queries.image_id.select(found).tolist()}
        without = None
        if self.without is not None:
            content = self.without.to_json()
            without = {name: content[name] for name in (*_WITHOUT, *_WITHOUT_AT)}
        about = {"source": self.source, "at": self.measured_at, "lmr_version": self.lmr_version}
        verification = {}
        if self.plain is not None:
            content = self.plain.to_json()
            figures = {name: content[name] for name in (*_WITHOUT, *_WITHOUT_AT, *_UNVERIFIED)}
            gain = [asdict(row) for row in self.gain]
            verification = {"without_verification": figures, "verification_at_precision": gain}
        return {
            **self.evaluation.to_json(),
            **verification,
            "measured": about,
            "leaked": leaked,
            "without_leaked": without,
            "warnings": list(self.warnings),
        }


def evaluate_left_out(folder: IndexFolder) -> EvaluationResult:
    """Every row and background image, asked against the others and measured. LmrError as `ask_left_out`."""
    questions = ask_left_out(folder)
    return measure(Asking(questions, folder.info.inputs_digest), find_outcomes(questions), LEAVE_ONE_OUT)


def measure(
    asking: Asking, outcomes: Outcomes, source: str, plain: tuple[Questions, Outcomes] | None = None
) -> EvaluationResult:
    """Measures what the answers to queries come to. source: what these are called. LmrError as `evaluate`.

    plain: the same queries without verification, where neighbours are verified.
    """
    questions = asking.questions
    queries = questions.queries
    if plain is not None:
        outcomes = outcomes.beside(plain[1])
    leaks = _leaks(questions, outcomes)
    kept = np.flatnonzero(~leaks.any)
    without = None
    if len(kept) < len(queries) and queries.landmarks.n_shown[kept].any():
        without = evaluate(questions.select(kept), outcomes.select(kept))
    return EvaluationResult(
        folder=questions.folder,
        source=source,
        evaluation=evaluate(questions, outcomes),
        outcomes=outcomes,
        queries=queries,
        leaks=leaks,
        without=without,
        warnings=tuple(_warnings(questions.folder, source, queries, leaks)),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        lmr_version=program_version(),
        inputs={**asking.sets(slice(None)), **asking.verification},
        plain=None if plain is None else evaluate(*plain),
        gain=() if plain is None else with_and_without(_held(questions, outcomes), _held(*plain)),
    )


def _held(questions: Questions, outcomes: Outcomes) -> HeldOut:
    truths, queries = questions.truths[0], questions.queries
    correct = truths.holds(np.arange(len(queries)), outcomes.landmark)
    return HeldOut(outcomes.logit, correct, truths.known, queries.image_id, queries.kind)


def _leaks(questions: Questions, outcomes: Outcomes) -> Leaks:
    queries = questions.queries
    labels = [" ".join(labels) for labels in queries.landmarks]
    trained, unknown = trained_on(questions.folder, queries.image_id, labels)
    return Leaks(outcomes.is_row, outcomes.is_near, outcomes.is_calibrated_on, trained, unknown)


def _warnings(folder: IndexFolder, source: str, queries: Queries, leaks: Leaks) -> list[str]:
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
        names = queries.image_id.select(getattr(leaks, kind)).tolist()
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
    rows = folder.rows
    if left_out and (n_single := int((rows.counts[rows.landmark] == 1).sum())):
        lines.append(
            f"{counted(n_single, 'picture')} {agreeing(n_single, 'is', 'are')} the only one of "
            f"{agreeing(n_single, 'its landmark and counts', 'their landmark and count')} as wrong"
        )
    return lines


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more
