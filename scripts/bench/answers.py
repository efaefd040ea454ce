"""Answers to labelled queries: how far their confidence can be trusted, and the GAP of systems with its interval.

A module of quality.py and curve.py.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

N_BINS = 10  # of the reliability, as lmr calibrate has them
N_RESAMPLES = 1000
DECIMALS = 4


@dataclass(frozen=True)
class Answers:
    """Answers to the public half, (q,) each. kind: "" = a landmark."""

    confidence: np.ndarray
    correct: np.ndarray
    known: np.ndarray
    kind: np.ndarray


def read_answers(submission: Path, solution: Path) -> Answers:
    """Every answer beside what is true."""
    with solution.open(newline="", encoding="utf-8") as file:
        truth = sorted(csv.DictReader(file), key=lambda row: row["id"])
    with submission.open(newline="", encoding="utf-8") as file:
        said = {row["id"]: row["landmarks"].split() for row in csv.DictReader(file)}
    cells = [said[row["id"]] or ("", "0") for row in truth]
    known = np.array([bool(row["landmarks"]) for row in truth])
    right = [cell[0] in row["landmarks"].split() for cell, row in zip(cells, truth, strict=True)]
    kind = np.array(["" if row["landmarks"] else row["kind"] for row in truth])
    return Answers(np.array([float(cell[-1]) for cell in cells]), np.array(right), known, kind)


def weights_at(known: np.ndarray, share: float) -> np.ndarray:
    """How often each query counts where non-landmarks are this share."""
    return np.where(known, 1.0, share / (1 - share) * known.sum() / (~known).sum())


def reliability(answers: Answers, weights: np.ndarray) -> dict[str, Any]:
    """Expected calibration error (Naeini et al., 2015) in bins of equal width, and the bins.

    ece: mean distance of a bin's mean confidence from the share of its answers that are right, by queries.
    """
    place = np.minimum((answers.confidence * N_BINS).astype(int), N_BINS - 1)
    bins, error = [], 0.0
    for i in range(N_BINS):
        here, weight = place == i, weights[place == i]
        if here.any():
            mean = float(np.average(answers.confidence[here], weights=weight))
            share = float(np.average(answers.correct[here], weights=weight))
            error += abs(mean - share) * weight.sum() / weights.sum()
            bins.append({"n": int(here.sum()), "mean_confidence": rounded(mean), "share_right": rounded(share)})
    return {"ece": rounded(error), "bins": bins}


def gap_of(answers: Answers, drawn: np.ndarray) -> float:
    """GAP of queries drawn with replacement; equal confidences in the order of the names."""
    times = np.bincount(drawn, minlength=len(answers.known))
    order = np.argsort(-answers.confidence, kind="stable")
    right = np.repeat(answers.correct[order], times[order])
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].sum() / answers.known[drawn].sum())


def interval(systems: Sequence[Answers]) -> list[float]:
    """95 % bootstrap interval over queries of the mean GAP of several systems that answer the same ones."""
    n, rng = len(systems[0].known), np.random.default_rng(0)
    drawn = (rng.integers(0, n, n) for _ in range(N_RESAMPLES))
    means = [np.mean([gap_of(answers, rows) for answers in systems]) for rows in drawn]
    return [rounded(float(edge)) for edge in np.quantile(means, [0.025, 0.975])]


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
