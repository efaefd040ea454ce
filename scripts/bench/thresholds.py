"""How far a threshold of few held-out queries keeps the precision that was asked, and how much it names.

Draws sets as scripts/bench/calibrate.py does, of as many landmarks as the size needs, calibrates each once, takes the
threshold of a precision by several rules, and asks photographs that had no part in it. Prints JSON.

    python scripts/bench/thresholds.py --stores FOLDER --sets 60

Rules: `best` is the lowest threshold that is sure, or where none is the one with the best bound; `confidence` names
what is by itself as confident; `mean` takes the lowest at which the mean confidence less its own standard error
reaches the precision and at most one answer more is wrong than it allows; `mean2` twice that error, and half that of
the count; `lmr` is `lmr calibrate`. missed: share of the sets in which the precision on the unseen is below the one
asked by more than its standard error there; short: by how much it is below, 0 where it is not.

Under `gap` stands what the threshold of submissions, which is to keep 99.9 % of the GAP, loses of it on the unseen and
how many non-landmarks it turns away: `measured` heeds the GAP of the held-out queries alone.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from calibrate import Drawn, build, mean, pooled, select

from index.calibrate.config import CalibrationSettings
from index.calibrate.fit import calibrate, held_out_queries, leave_one_out
from index.calibrate.precision import precision_threshold
from index.calibrate.selection import Grid, tune
from index.calibration import Origin
from index.confidence import logit_of, sigmoid
from index.queries import queries_of
from index.recognition import answer_store
from index.thresholds import KEPT_GAP, HeldOut, Sweep, gap_threshold, sweep
from retrieval.arrays import BoolArray, FloatArray
from retrieval.store.store import Descriptors, read_store

PRECISIONS = (0.8, 0.9, 0.95, 0.98, 0.99)
SIZES = (21, 50, 88, 110, 133, 150)  # held-out queries; the index is twice as large
FEWEST = 12  # photographs of a landmark that a set may hold
OTHERS = 0.3  # non-landmarks among the held-out and the unseen queries
N_BACKGROUND = 60

Rule = Callable[[HeldOut, Sweep, float], float]


@dataclass(frozen=True)
class Case:
    """One calibrated set: its held-out answers, and those to the unseen by the model that the calibration keeps."""

    held: HeldOut
    logit: FloatArray
    correct: BoolArray
    known: BoolArray


def main() -> None:
    """Calibrates sets of each size and prints what each rule keeps and names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=Path, required=True, help="Folder with train.h5, val.h5 and background.h5.")
    parser.add_argument("--sets", type=int, default=60, help="Sets of each size.")
    parser.add_argument("--size", action="append", type=int, help="Held-out queries. [default: all sizes]")
    args = parser.parse_args()
    pool = pooled([read_store(args.stores / f"{name}.h5") for name in ("train", "val", "background")])
    result = {}
    for n_held in args.size or SIZES:
        cases = [one_case(pool, drawn) for drawn in draw(pool, n_held, args.sets)]
        result[str(n_held)] = {
            f"{precision:g}": {name: judged(cases, rule, precision) for name, rule in RULES.items()}
            for precision in PRECISIONS
        } | {"gap": {name: kept(cases, rule) for name, rule in GAP_RULES.items()}}
    print(json.dumps(result, indent=1))


def draw(pool: Descriptors, n_held: int, n_sets: int) -> Iterator[Drawn]:
    """Sets of 5 to 10 landmarks, or as many as give the index and the queries two thirds of their photographs."""
    counts = np.bincount(pool.landmark[pool.landmark >= 0])
    n_index, n_others = 2 * n_held, round(OTHERS * n_held)
    for seed in range(1000, 1000 + n_sets):
        rng = np.random.default_rng(seed)
        order = rng.permutation(np.flatnonzero(counts >= FEWEST))
        n = int(rng.integers(5, 11))
        while counts[order[:n]].sum() < 1.5 * (n_index + n_held - n_others) and n < len(order):
            n += 1
        known = rng.permutation(np.flatnonzero(np.isin(pool.landmark, order[:n])))
        others = rng.permutation(np.flatnonzero(pool.landmark < 0))
        index, rest = np.split(known, [n_index])
        held, unseen = np.split(rest, [n_held - n_others])
        parts = np.cumsum([N_BACKGROUND, n_others, round(len(unseen) * OTHERS / (1 - OTHERS))])
        background, held_others, unseen_others, _ = np.split(others, parts)
        yield Drawn(index, background, np.append(held, held_others), np.append(unseen, unseen_others))


def one_case(pool: Descriptors, drawn: Drawn) -> Case:
    """An index of the set, calibrated on its held-out queries and asked the unseen."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = build(select(pool, drawn.index, "train.h5"), select(pool, drawn.background, "b.h5"), Path(scratch))
        held_out, unseen = select(pool, drawn.held_out, "held-out.h5"), select(pool, drawn.unseen, "unseen.h5")
        queries, _ = held_out_queries(folder, held_out, queries_of(held_out))
        tuned = tune(queries, Grid(), None, 0, leave_one_out(folder, 0).queries)
        origin = Origin(held_out.source, folder.fingerprint, folder.info.inputs_digest)
        rule = tuned.rule
        plain = calibrate(queries, origin, CalibrationSettings(), Grid((rule.k,), (rule.tau,), (rule.r,), (rule.beta,)))
        calibration = replace(plain, rule=rule, confidence=tuned.confidence)
        answers = answer_store(replace(folder, calibration=calibration), unseen)
        named = np.array([*folder.rows.landmarks, ""], dtype=object)[answers.landmark]
    truth = np.array([unseen.landmarks[c] if c >= 0 else "" for c in unseen.landmark], dtype=object)
    held = HeldOut(tuned.answered.logit, tuned.answered.correct, queries.truths.known, queries.image_id)
    return Case(held, answers.logit, (named == truth) & (truth != ""), truth != "")


def judged(cases: list[Case], rule: Rule, precision: float) -> dict[str, Any]:
    """What a rule names and keeps on the unseen: means over the sets with their standard errors."""
    figures: dict[str, list[float]] = {"named": [], "precision": [], "missed": [], "short": []}
    for case in cases:
        answered = case.logit >= rule(case.held, sweep(case.held), precision)
        figures["named"].append(float((answered & case.known).sum() / case.known.sum()))
        if n := int(answered.sum()):
            kept = float(case.correct[answered].mean())
            error = np.sqrt(precision * (1 - precision) / n)
            figures["precision"].append(kept)
            figures["missed"].append(float(kept < precision - error))
            figures["short"].append(max(0.0, precision - kept))
    return {name: mean(values) for name, values in figures.items()}


def kept(cases: list[Case], rule: Callable[[HeldOut], float]) -> dict[str, Any]:
    """Share of the GAP that a threshold of submissions loses on the unseen, and of non-landmarks it turns away."""
    lost, away = [], []
    for case in cases:
        names = np.array([f"{i:06d}" for i in range(len(case.logit))], dtype=object)
        found, threshold = sweep(HeldOut(case.logit, case.correct, case.known, names)), rule(case.held)
        answered = found.gap[found.logit >= threshold]
        lost.append(1 - (answered[-1] if len(answered) else 0.0) / found.gap[-1])
        away.append(float((case.logit[~case.known] < threshold).mean()))
    return {"lost": mean(lost), "lost_at_most": max(lost), "turned_away": mean(away)}


def by_measured_gap(held: HeldOut) -> float:
    """The highest threshold that keeps 99.9 % of the GAP of the held-out queries."""
    found = sweep(held)
    return float(found.logit[np.argmax(found.gap >= KEPT_GAP * found.gap[-1])])


def by_best_bound(held: HeldOut, found: Sweep, precision: float) -> float:
    """The lowest threshold that is sure, else the one with the best bound."""
    sure = np.flatnonzero(found.bound >= precision)
    return float(found.logit[sure[-1] if len(sure) else np.argmax(found.bound)])


def by_mean(n_errors: float, n_count_errors: float) -> Rule:
    """The mean confidence less the larger of its own standard errors and those of the count, or the bound."""

    def rule(held: HeldOut, found: Sweep, precision: float) -> float:
        confidence = sigmoid(np.sort(held.logit[held.logit > -np.inf])[::-1])
        n = np.arange(1, len(confidence) + 1)
        average = np.cumsum(confidence) / n
        spread = np.maximum(np.cumsum(confidence**2) / n - average**2, 0)
        own = np.sqrt(spread / np.maximum(n - 1, 1))[found.n_answers.astype(int) - 1]
        room = np.maximum(n_errors * own, n_count_errors * found.error)
        counted = found.n_wrong - 1 <= (1 - precision) * found.n_answers
        cuts = [logit_of(precision)]
        for allowed in (found.bound >= precision, (found.expected - room >= precision) & counted):
            cuts += found.logit[np.flatnonzero(allowed)[-1:]].tolist()
        return min(cuts)

    return rule


RULES: dict[str, Rule] = {
    "best": by_best_bound,
    "confidence": lambda held, found, precision: logit_of(precision),
    "mean": by_mean(1, 0),
    "mean2": by_mean(2, 0.5),
    "lmr": lambda held, found, precision: precision_threshold(held, precision).logit,
}
GAP_RULES: dict[str, Callable[[HeldOut], float]] = {
    "measured": by_measured_gap,
    "lmr": lambda held: gap_threshold(held).logit,
}


if __name__ == "__main__":
    main()
