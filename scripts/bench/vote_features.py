"""What could beat the nearest neighbour: rules of the vote and features of an answer, by nested cross-validation.

    python scripts/bench/vote_features.py --set photos=FOLDER --set demo-1=OTHER [--folds-seeds 3]

A FOLDER holds train.h5, val.h5, background.h5 and, where class directions are to be asked, the model/ that made them
with its classifier. The index is that of `lmr build-index` (half whitening, background). Every system has its constants
chosen, and its confidence fitted, without the fold that it answers; a feature enters the score with a weight, or the
confidence with a slope that is not negative, or takes rows back as their b(i) does. Prints JSON: GAP and top-1 of each
system, the difference to the vote as it is and to the nearest neighbour, with standard errors over queries.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from index.calibrate.queries import CalibrationQueries, Found
from index.calibrate.selection import Answered, Judge, answered, difference, judged, make_folds
from index.confidence import SMALLEST_SLOPE, fit_logistic
from index.folder.inputs import BuildInputs, gather
from index.queries import queries_of
from index.tune.material import Finder, draw_material
from index.tune.spaces import spaces_of
from index.vote import Votes, vote
from index.vote_rule import VoteRule
from retrieval.arrays import BoolArray, FloatArray
from retrieval.store.store import read_store

N_NEAREST = 3  # rows of other landmarks whose mean similarity is a row's density
N_MUTUAL = 5  # a neighbour is mutual where the query would be among this many nearest of it
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0)
RULES = [VoteRule(k, tau, r) for k, tau, r in product((5, 10, 20, 50), (0.05, 0.1), (0.0, 0.5))]
ALL_RULES = [
    VoteRule(k, tau, r, beta)
    for beta, k, tau, r in product((0.0, 0.5, 1.0), (1, 3, 5, 10, 20, 50), (0.02, 0.05, 0.1, 0.2), (0.0, 0.5, 1.0))
]


@dataclass(frozen=True)
class Candidate:
    """A rule with features. scored: (feature, weight) in the score; told: in the confidence; held: of rows."""

    rule: VoteRule
    scored: tuple[str, float] | None = None
    told: tuple[str, ...] = ()
    held: tuple[str, float] | None = None


@dataclass(frozen=True)
class FeatureQueries:
    """Held-out queries with features. rows: (n,) by name. pairs: (q, landmarks) by name."""

    base: CalibrationQueries
    rows: dict[str, FloatArray]
    pairs: dict[str, FloatArray]
    votes: dict[tuple[VoteRule, Any], Votes]

    @property
    def truths(self) -> Any:
        """Of the queries."""
        return self.base.truths

    @property
    def image_id(self) -> Any:
        """Of the queries."""
        return self.base.image_id

    @property
    def kind(self) -> None:
        """None of them."""
        return None

    def answer(self, candidate: Candidate) -> Found:
        """S of each query's best landmark, whether that is right, and its features (q, f)."""
        votes = self._votes(candidate)
        score = votes.score
        if candidate.scored:
            name, weight = candidate.scored
            score = score + weight * self.pairs[name][votes.query, votes.landmark]
        order = np.lexsort((votes.landmark, -score, votes.query))
        query, first = np.unique(votes.query[order], return_index=True)
        best = order[first]
        n = self.truths.n_queries
        landmark, found = np.full(n, -1, np.int32), np.full(n, -np.inf)
        landmark[query], found[query] = votes.landmark[best], score[best]
        features = np.zeros((n, len(candidate.told)))
        for i, name in enumerate(candidate.told):
            if name == "margin":
                features[query, i] = _margins(votes.query[order], score[order])
            else:
                features[query, i] = self.pairs[name][query, landmark[query]]
        return Found(found, self.truths.holds(np.arange(n), landmark), features)

    def _votes(self, candidate: Candidate) -> Votes:
        key = (candidate.rule, candidate.held)
        if key not in self.votes:
            rule, held = candidate.rule, self.base.row_background
            if candidate.held:
                name, weight = candidate.held
                back = 0.0 if held is None else rule.beta * held
                rule, held = replace(rule, beta=1.0), back + weight * self.rows[name]
            self.votes[key] = vote(self.base.neighbours, self.base.landmark, rule, row_background=held)
        return self.votes[key]

    def _columns(self, found: Found) -> FloatArray:
        assert found.evidence is not None
        background = [] if self.base.background is None else [-self.base.background]
        return np.column_stack([found.score, *background, found.evidence])

    def fit(self, found: Found, members: BoolArray, weight: float | None) -> list[tuple[FloatArray, float]]:
        """Slopes, none negative, and intercept of each line of members."""
        there = np.isfinite(found.score)
        slopes, intercepts = fit_logistic(
            self._columns(found)[there], found.correct[there], members[:, there].astype(float)
        )
        slopes[:, 0] = np.maximum(slopes[:, 0], SMALLEST_SLOPE)
        return list(zip(slopes, intercepts.tolist(), strict=True))

    def logit(self, found: Found, model: tuple[FloatArray, float], here: BoolArray) -> FloatArray:
        """The logits of some of the answers."""
        logit: FloatArray = self._columns(found)[here] @ model[0] + model[1]
        return logit


def main() -> None:
    """Prints what each system comes to on each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", required=True, metavar="NAME=FOLDER", help="Stores of a set.")
    parser.add_argument("--folds-seeds", type=int, default=3, help="Draws of the folds; figures are their means.")
    parser.add_argument(
        "--only", action="append", default=[], help="Systems whose name holds this text, and the votes."
    )
    args = parser.parse_args()
    report = {}
    for given in args.set:
        name, _, folder = given.partition("=")
        report[name] = measure(Path(folder), args.folds_seeds, args.only)
        print(f"{name}: done", file=sys.stderr)
    print(json.dumps(report, indent=1))


def measure(folder: Path, n_seeds: int, only: Sequence[str]) -> dict[str, Any]:
    """The figures of the systems on one set. only: texts in the names of those that are asked; none = all."""
    queries = read_queries(folder)
    names = sorted(queries.pairs)
    systems: dict[str, list[Candidate]] = {
        "nearest neighbour": [Candidate(VoteRule(k=1, r=0.0))],
        "default vote": [Candidate(VoteRule())],
        "tuned vote": [Candidate(rule) for rule in [VoteRule(), *ALL_RULES]],
        "tuned vote of few rules": [Candidate(rule) for rule in [VoteRule(), *RULES]],
        **{f"{name} in the score": scored(name) for name in names},
        **{
            f"{name} in the confidence": [Candidate(rule, told=(name,)) for rule in RULES]
            for name in (*names, "margin")
        },
        **{
            f"{name} of rows": [Candidate(rule, held=(name, w)) for rule in RULES for w in WEIGHTS]
            for name in queries.rows
        },
        "all in the confidence": [Candidate(rule, told=(*names, "margin")) for rule in RULES],
    }
    systems["margin and nearest in the confidence"] = [Candidate(rule, told=("margin", "nearest")) for rule in RULES]
    if "background of the landmark" in names:
        both = ("background of the landmark", "margin")
        systems["background of the landmark and margin in the confidence"] = [Candidate(r, told=both) for r in RULES]
    if "centroid" in names:
        systems["centroid in both"] = [replace(one, told=("centroid",)) for one in scored("centroid")]
    asked = [*only, "neighbour", "vote"] if only else [""]
    systems = {name: ones for name, ones in systems.items() if any(text in name for text in asked)}
    found: dict[str, list[tuple[Judge, Answered]]] = {}
    for name, candidates in systems.items():
        found[name] = [nested(queries, candidates, seed) for seed in range(n_seeds)]
        print(f"  {name}: {gap_of(found[name]):.4f}", file=sys.stderr)
    known = queries.truths.known
    return {
        "n_queries": len(known),
        "n_landmark_queries": int(known.sum()),
        "systems": {
            name: {
                "gap": round(gap_of(runs), 4),
                "top1": round(
                    float(np.mean([answers.correct[judge.queries.truths.known].mean() for judge, answers in runs])), 4
                ),
                "over_tuned_vote": over(runs, found["tuned vote"]),
                "over_nearest_neighbour": over(runs, found["nearest neighbour"]),
            }
            for name, runs in found.items()
        },
    }


def scored(name: str) -> list[Candidate]:
    """Every rule with a feature in its score, by every weight."""
    return [Candidate(rule, scored=(name, weight)) for rule in RULES for weight in WEIGHTS]


def nested(queries: FeatureQueries, candidates: Sequence[Candidate], seed: int) -> tuple[Judge, Answered]:
    """Answers to each fold by the candidate that did best without it."""
    fold = make_folds(queries, Candidate(VoteRule()), seed)  # type: ignore[arg-type]
    judge, n_folds = Judge(queries, fold, None), int(fold.max()) + 1  # type: ignore[arg-type]
    gaps = np.array([judged([judge], one, n_folds)[0] for one in candidates])  # type: ignore[arg-type]
    chosen = [int(gaps[:, f + 1].argmax()) for f in range(n_folds)]
    return judge, answered([judge], candidates, chosen)[0]  # type: ignore[arg-type]


def gap_of(runs: Sequence[tuple[Judge, Answered]]) -> float:
    """Mean GAP."""
    nothing = [Answered(np.full(len(one.logit), -np.inf), np.zeros(len(one.logit), bool)) for _, one in runs]
    pairs = zip(runs, nothing, strict=True)
    return float(np.mean([difference(judge, one, none)[0] for (judge, one), none in pairs]))


def over(new: Sequence[tuple[Judge, Answered]], old: Sequence[tuple[Judge, Answered]]) -> list[float]:
    """Mean difference of GAP, and the standard error over queries."""
    pairs = [difference(judge, one, other) for (judge, one), (_, other) in zip(new, old, strict=True)]
    return [round(float(value), 4) for value in np.mean(pairs, axis=0)]


def read_queries(folder: Path) -> FeatureQueries:
    """Held-out queries of a set in the space of `lmr build-index`, with all features."""
    train, val, background = (read_store(folder / f"{name}.h5") for name in ("train", "val", "background"))
    gathered = gather(BuildInputs([train], folder / "model", [background]))
    material = draw_material(gathered, train, val, queries_of(val), None, 0)
    space = spaces_of(material.choices(may_leave_background=False))[0]
    finder = Finder(material, space, 0)
    rows, _, asked = finder.vectors(space)
    base = finder.judge(space, with_rows=True).queries
    of_rows = row_features(rows, base.landmark)
    pairs = pair_features(rows, asked, base, of_rows)
    if (folder / "model" / "classifier.safetensors").exists():
        pairs["class direction"] = class_directions(folder / "model", finder.material.queries, gathered.landmarks)
    used = {"density": of_rows["density"], "impurity": of_rows["impurity"]}
    return FeatureQueries(base, used, pairs, {})


def row_features(rows: FloatArray, landmark: Any) -> dict[str, FloatArray]:
    """Of each row: its density among other landmarks, its nearest sibling, how far its neighbours are others."""
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    same = landmark[:, None] == landmark
    others = np.sort(np.where(same, -np.inf, similarity), axis=1)[:, -N_NEAREST:]
    siblings = np.where(same, similarity, -np.inf).max(axis=1)
    nearest = np.argsort(-similarity, axis=1)[:, :10]
    return {
        "density": others.mean(axis=1),
        "sibling": np.where(np.isfinite(siblings), siblings, others.max(axis=1)),
        "impurity": (landmark[nearest] != landmark[:, None]).mean(axis=1),
        "mutual from": np.sort(similarity, axis=1)[:, -N_MUTUAL],
    }


def pair_features(
    rows: FloatArray, asked: FloatArray, base: CalibrationQueries, of_rows: dict[str, FloatArray]
) -> dict[str, FloatArray]:
    """Of each query and landmark; the larger, the more it speaks for it."""
    landmark, found = base.landmark, base.neighbours
    n = int(landmark.max()) + 1
    counts = np.bincount(landmark, minlength=n)

    def mean_of(values: FloatArray) -> FloatArray:
        return np.bincount(landmark, values, minlength=n) / np.maximum(counts, 1)

    centroid = np.stack([rows[landmark == c].mean(axis=0) if counts[c] else np.zeros(rows.shape[1]) for c in range(n)])
    centroid /= np.maximum(np.linalg.norm(centroid, axis=1, keepdims=True), 1e-12)
    nearest, mutual, share = (np.zeros((len(asked), n)) for _ in range(3))
    query = np.repeat(np.arange(len(asked)), found.k)
    row, score = found.rows.ravel(), found.scores.ravel()
    there = row >= 0
    query, row, score = query[there], row[there], score[there].astype(np.float64)
    np.maximum.at(nearest, (query, landmark[row]), score)
    np.add.at(share, (query, landmark[row]), 1.0)
    np.add.at(mutual, (query, landmark[row]), score > of_rows["mutual from"][row])
    most = np.minimum(np.maximum(counts, 1), found.k)
    rank = np.sort(np.asarray(asked @ rows.T), axis=1)
    return {
        "nearest": nearest,
        "centroid": asked @ centroid.T,
        "mutual": mutual / np.minimum(np.maximum(counts, 1), N_MUTUAL),
        "share of its rows": share / most,
        "density of the landmark": np.broadcast_to(-mean_of(of_rows["density"]), nearest.shape),
        "spread of the landmark": np.broadcast_to(-mean_of(of_rows["sibling"]), nearest.shape),
        "number of its rows": np.broadcast_to(np.log(np.maximum(counts, 1)), nearest.shape),
        **({} if base.row_background is None else _backgrounds(base, query, row, score, mean_of)),
        "density of the query": np.broadcast_to(-rank[:, -50:-40].mean(axis=1)[:, None], nearest.shape),
    }


def _backgrounds(
    base: CalibrationQueries, query: Any, row: Any, score: FloatArray, mean_of: Callable[[FloatArray], FloatArray]
) -> dict[str, FloatArray]:
    """The background similarity of a landmark's rows, and of its row that is nearest to the query; less is better."""
    assert base.row_background is not None
    b, n_queries = base.row_background.astype(np.float64), base.neighbours.n_queries
    of_landmark = np.broadcast_to(-mean_of(b), (n_queries, int(base.landmark.max()) + 1))
    of_nearest = of_landmark.copy()
    order = np.argsort(score, kind="stable")  # the nearest is written last
    of_nearest[query[order], base.landmark[row[order]]] = -b[row[order]]
    return {"background of the landmark": of_landmark, "background of the nearest row": of_nearest}


def class_directions(model: Path, descriptors: FloatArray, landmarks: Sequence[str]) -> FloatArray:
    """(q, landmarks) cosines of descriptors with the directions that ArcFace learnt; 0 of a landmark without one."""
    from safetensors.numpy import load_file

    from retrieval.train.classifier import load_classifier

    labels = load_classifier(model).labels
    directions = load_file(model / "classifier.safetensors")["directions"][: len(labels)]  # (c, sub-centres, d)
    unit = directions / np.linalg.norm(directions, axis=2, keepdims=True)
    part = descriptors[:, : unit.shape[2]]  # the neck is first where a store is of both
    part = part / np.linalg.norm(part, axis=1, keepdims=True)
    found = np.zeros((len(part), len(landmarks)))
    place = {label: i for i, label in enumerate(labels)}
    known = [(c, place[label]) for c, label in enumerate(landmarks) if label in place]
    codes, places = np.array(known).T
    found[:, codes] = np.einsum("qd,csd->qcs", part, unit[places]).max(axis=2)
    return found


def _margins(query: Any, score: FloatArray) -> FloatArray:
    """(q,) the best score less the second best of each query; 1 where there is none. query: ascending."""
    first = np.flatnonzero(np.diff(query, prepend=-1))
    n = np.diff(first, append=len(query))
    second = np.where(n > 1, score[np.minimum(first + 1, len(score) - 1)], score[first] - 1.0)
    margins: FloatArray = score[first] - second
    return margins


if __name__ == "__main__":
    main()
