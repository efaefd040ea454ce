"""What calibration is worth on small sets: constants and thresholds judged on photographs that had no part in them.

Draws many sets of labelled photographs from stores of descriptors, as a person with some folders has them: an index of
a few landmarks, held-out queries with some non-landmarks, and further photographs of the same landmarks that nobody
saw. Calibrates each in three ways and asks it the unseen ones. Prints JSON.

    lmr embed train.csv --backbone timm:tf_efficientnet_lite0 --weights WEIGHTS --dimensions 0 --size 224
    lmr embed val.csv --size 224 ; lmr embed background.csv --size 224
    python scripts/bench/calibrate.py --stores FOLDER

Ways: `default` keeps the constants, `best` takes the best of the grid on the held-out queries and the threshold with
the best bound, `lmr` is `lmr calibrate`. --whole calibrates an index of train on val alone, judged by cross-validation.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from index.calibrate.config import CalibrationSettings
from index.calibrate.fit import calibrate, held_out_queries, leave_one_out
from index.calibrate.selection import NONE, Contest, Grid, Judge, Tuned, answered, make_folds, tune
from index.calibration import Calibration, Origin
from index.evaluate.result import evaluate_left_out
from index.folder.build import build_folder
from index.folder.folder import IndexFolder, open_folder
from index.folder.inputs import BuildInputs
from index.metrics import gap
from index.queries import queries_of
from index.recognition import answer_store
from index.thresholds import HeldOut, sweep, threshold_at
from retrieval.arrays import FloatArray, LongArray
from retrieval.store.store import Descriptors, read_store

PRECISIONS = (0.8, 0.9, 0.95)
FEWEST = 24  # photographs of a landmark that a set may hold
SIZES = {"21": (42, 21), "50": (100, 50), "90": (200, 90), "150": (300, 150)}  # of the index, of the held-out queries
OTHERS = 0.3  # non-landmarks among the held-out and the unseen queries
N_BACKGROUND = 60


@dataclass(frozen=True)
class Drawn:
    """The rows of one set, into the pooled photographs. index, held_out and unseen show its landmarks or none."""

    index: LongArray
    background: LongArray
    held_out: LongArray
    unseen: LongArray


def main() -> None:
    """Calibrates many sets and prints means with their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=Path, required=True, help="Folder with train.h5, val.h5 and background.h5.")
    parser.add_argument("--sets", type=int, default=20, help="Sets of each size.")
    parser.add_argument("--size", action="append", choices=list(SIZES), help="Held-out queries. [default: all sizes]")
    parser.add_argument("--whole", action="store_true", help="An index of all of train, calibrated on all of val.")
    args = parser.parse_args()
    stores = [read_store(args.stores / f"{name}.h5") for name in ("train", "val", "background")]
    if args.whole:
        print(json.dumps(whole(*stores), indent=1))
        return
    pool = pooled(stores)
    result: dict[str, Any] = {}
    for size in args.size or SIZES:
        began = time.process_time()
        rows = [one_set(pool, drawn) for drawn in draw_sets(pool, SIZES[size], args.sets)]
        result[size] = {"n_sets": len(rows), "cpu_s": round(time.process_time() - began, 1), **summary(rows)}
    print(json.dumps(result, indent=1))


def pooled(stores: list[Descriptors]) -> Descriptors:
    """All photographs as one store."""
    names = tuple(sorted({name for store in stores for name in store.landmarks}))
    code = {name: i for i, name in enumerate(names)}
    landmark = [[code[store.landmarks[c]] if c >= 0 else -1 for c in store.landmark] for store in stores]
    return replace(
        stores[0],
        vectors=np.concatenate([store.vectors for store in stores]),
        image_id=np.concatenate([store.image_id for store in stores]),
        landmark=np.concatenate(landmark).astype(np.int32),
        landmarks=names,
        state=np.concatenate([store.state for store in stores]),
        path=np.concatenate([store.path for store in stores]),
        reason=None,
        kind=None,
        facts=None,
        columns={},
        source="pool",
    )


def draw_sets(pool: Descriptors, size: tuple[int, int], n_sets: int) -> Iterator[Drawn]:
    """Sets of 5 to 10 landmarks; each landmark has photographs in the index, most among the held-out and unseen too."""
    counts = np.bincount(pool.landmark[pool.landmark >= 0])
    n_index, n_held = size
    for seed in range(n_sets):
        rng = np.random.default_rng(seed)
        landmarks = rng.permutation(np.flatnonzero(counts >= FEWEST))[: rng.integers(5, 11)]
        known = rng.permutation(np.flatnonzero(np.isin(pool.landmark, landmarks)))
        others = rng.permutation(np.flatnonzero(pool.landmark < 0))
        n_others = round(OTHERS * n_held)
        # A third of the photographs at least stay unseen, so that small collections are scaled down.
        scale = min(1.0, len(known) * 2 / 3 / (n_index + n_held - n_others))
        held_known = round(scale * (n_held - n_others))
        index = known[: round(scale * n_index)]
        rest = known[len(index) :]
        unseen = rest[held_known:]
        split = np.cumsum([N_BACKGROUND, round(scale * n_others), round(len(unseen) * OTHERS / (1 - OTHERS))])
        background, held_others, unseen_others, _ = np.split(others, split)
        yield Drawn(index, background, np.append(rest[:held_known], held_others), np.append(unseen, unseen_others))


def select(store: Descriptors, rows: LongArray, source: str) -> Descriptors:
    """Some rows of a store as a store."""
    rows = np.sort(rows)
    columns = {name: getattr(store, name)[rows] for name in ("vectors", "image_id", "landmark", "state", "path")}
    return replace(store, **columns, reason=None, source=source)


def build(train: Descriptors, background: Descriptors, scratch: Path) -> IndexFolder:
    """An index folder of these stores, without the weights that nobody asks for here."""
    (scratch / "model").mkdir()
    (scratch / "model" / "model.json").write_text(json.dumps({"fingerprint": train.info.fingerprint}))
    build_folder(scratch / "landmarks", BuildInputs([train], scratch / "model", [background]), device="cpu")
    return open_folder(scratch / "landmarks", device="cpu")


def one_set(pool: Descriptors, drawn: Drawn) -> dict[str, Any]:
    """The figures of each way on the unseen queries, and leaving one out."""
    with tempfile.TemporaryDirectory() as scratch:
        background = select(pool, drawn.background, "background.h5")
        folder = build(select(pool, drawn.index, "train.h5"), background, Path(scratch))
        held_out, unseen = select(pool, drawn.held_out, "held-out.h5"), select(pool, drawn.unseen, "unseen.h5")
        return {
            "n_index": len(drawn.index),
            "n_held_out": len(drawn.held_out),
            "n_unseen": len(drawn.unseen),
            **{way: judged(found, folder, unseen) for way, found in ways(folder, held_out).items()},
        }


@dataclass(frozen=True)
class Way:
    """A calibration, and the logit from which on a precision is reached."""

    calibration: Calibration
    thresholds: dict[float, float]


def ways(folder: IndexFolder, held_out: Descriptors) -> dict[str, Way]:
    """The calibrations of the same held-out queries."""
    queries, _ = held_out_queries(folder, held_out, queries_of(held_out))
    origin = Origin(held_out.source, folder.fingerprint, folder.info.inputs_digest)
    ours = calibrate(queries, origin, CalibrationSettings(), further=leave_one_out(folder, 0))
    alone = calibrate(queries, origin, CalibrationSettings())
    default = calibrate(queries, origin, CalibrationSettings(), Grid((20,), (0.05,), (0.5,), (0.0,)))
    best, held = best_of_grid(queries)
    return {
        "default": Way(default, by_trade(default)),
        "best": Way(replace(default, rule=best.rule, confidence=best.confidence), by_best_bound(held)),
        "held_out_alone": Way(alone, by_trade(alone)),
        "lmr": Way(ours, by_trade(ours)),
    }


def by_trade(calibration: Calibration) -> dict[float, float]:
    """The thresholds of a calibration."""
    return {row.asked: row.logit for row in calibration.trade if row.asked in PRECISIONS}


def best_of_grid(queries: Any) -> tuple[Tuned, HeldOut]:
    """The plain best of the grid on the held-out queries, and their answers by rules chosen on other folds."""
    rules = Grid().rules(queries.neighbours.k, queries.m, queries.row_background is not None)
    queries = queries.select(np.argsort(queries.image_id, kind="stable"))
    judge = Judge(queries, make_folds(queries, rules[0], 0), None)
    n_folds = int(judge.fold.max()) + 1
    contest = Contest([judge], rules, n_folds)
    chosen = [contest.best[frozenset({f})] for f in range(n_folds)]
    (found,) = answered([judge], rules, chosen)
    rule = rules[contest.best[NONE]]
    fixed = tune(queries, Grid((rule.k,), (rule.tau,), (rule.r,), (rule.beta,)), None, 0)
    model = queries.fit(queries.answer(rule), np.ones((1, len(judge.fold)), dtype=np.bool_), None)[0]
    held = HeldOut(found.logit, found.correct, queries.truths.known, queries.image_id)
    return replace(fixed, rule=rule, confidence=model), held


def by_best_bound(held: HeldOut) -> dict[float, float]:
    """The lowest threshold whose bound reaches each precision, else the one with the best bound."""
    found = sweep(held)
    thresholds = {}
    for precision in PRECISIONS:
        enough = np.flatnonzero(found.bound >= precision)
        thresholds[precision] = float(found.logit[enough[-1] if len(enough) else np.argmax(found.bound)])
    return thresholds


def judged(way: Way, folder: IndexFolder, unseen: Descriptors) -> dict[str, float]:
    """GAP, top-1 and what is named and wrong at each precision on the unseen queries; GAP leaving one out."""
    folder = replace(folder, calibration=way.calibration)
    answers = answer_store(folder, unseen)
    truth = np.array([unseen.landmarks[c] if c >= 0 else "" for c in unseen.landmark], dtype=object)
    named = np.array([*folder.rows.landmarks, ""], dtype=object)[answers.landmark]
    known, correct = truth != "", (named == truth) & (truth != "")
    figures = {
        "gap": gap(answers.logit, correct, int(known.sum()), unseen.image_id),
        "top1": float(correct[known].mean()),
    }
    left = evaluate_left_out(folder).evaluation.accuracy
    figures |= {"gap_leave_one_out": left.gap, "top1_leave_one_out": left.top1}
    for precision, logit in way.thresholds.items():
        figures |= at(answers.logit >= logit, known, correct, f"at_{precision:g}")
    figures["left_the_defaults"] = float(
        (way.calibration.rule.tau, way.calibration.rule.r, way.calibration.rule.beta) != (0.05, 0.5, 0.0)
        or way.calibration.rule.k != min(20, len(folder.rows))
    )
    return figures


def at(answered: FloatArray, known: FloatArray, correct: FloatArray, name: str) -> dict[str, float]:
    """Share of landmark queries named, wrong answers of all queries, precision of the answers."""
    n = int(answered.sum())
    return {
        f"{name}_named": float((answered & known).sum() / known.sum()),
        f"{name}_wrong": float((answered & ~correct).sum() / len(known)),
        f"{name}_precision": float(correct[answered].mean()) if n else float("nan"),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard error of every figure, and of the differences to the default."""
    found: dict[str, Any] = {
        name: round(float(np.mean([row[name] for row in rows])), 1) for name in rows[0] if name.startswith("n_")
    }
    for way in (name for name in rows[0] if not name.startswith("n_")):
        found[way] = {figure: mean([row[way][figure] for row in rows]) for figure in rows[0][way]}
        for figure in ("gap", "gap_leave_one_out", "top1", "top1_leave_one_out"):
            found[way][f"{figure}_less_default"] = mean([row[way][figure] - row["default"][figure] for row in rows])
    return found


def mean(values: list[float]) -> list[float | None]:
    """Mean and standard error over sets, of those where the figure exists."""
    real = np.array([value for value in values if value == value])
    if not len(real):
        return [None, None]
    return [
        round(float(real.mean()), 4),
        round(float(real.std(ddof=1) / np.sqrt(len(real))), 4) if len(real) > 1 else None,
    ]


def whole(train: Descriptors, val: Descriptors, background: Descriptors) -> dict[str, Any]:
    """An index of train and background calibrated on val: nested cross-validation of each way."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = build(train, background, Path(scratch))
        queries, _ = held_out_queries(folder, val, queries_of(val))
        origin = Origin(val.source, folder.fingerprint, folder.info.inputs_digest)
        began = time.process_time()
        ours = calibrate(queries, origin, CalibrationSettings(), further=leave_one_out(folder, 0))
        seconds = time.process_time() - began
        _, held = best_of_grid(queries)
        found = sweep(held)
        content = ours.to_json()
        bounds = by_best_bound(held)
        return {
            "cpu_s": round(seconds, 1),
            "best": {
                "gap": round(float(found.gap[-1]), 4),
                **{str(p): threshold_at(held, found, logit, reached=True).recall for p, logit in bounds.items()},
            },
            "lmr": {name: content[name] for name in ("rule", "choice", "trade")},
        }


if __name__ == "__main__":
    main()
