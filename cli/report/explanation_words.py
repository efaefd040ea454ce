"""The words and numbers of an explanation, as its page and its images show them."""

from typing import TYPE_CHECKING

import numpy as np

from cli.report.html import file_name
from index.answer import verification
from index.confidence import logit_of, sigmoid
from retrieval.data.names import shown_name
from retrieval.words import counted

if TYPE_CHECKING:
    from index.answer import Answer
    from index.explain.explanation import Explanation
    from index.explain.votes import Contribution, LandmarkVotes, Term, VoteExplanation

SHOWN_LANDMARKS = 5
TERM_NAMES = {
    "score": "the votes, a · S",
    "constant": "a constant, e",
    "background": "the background, −g · c(q)",
    "evidence": "the inliers, h · v",
}


def vote_words(votes: "VoteExplanation") -> str:
    """Sentences on who voted for the best landmark, and what was held back."""
    best, rule = votes.best, votes.rule
    n = len(best.contributions)
    words = (
        f"The {counted(rule.k, 'nearest picture')} of the index may vote. Those of one landmark add up by a soft "
        f"maximum, in which the nearest counts most: {landmark_name(best)} has {counted(n, 'neighbour')}, whose parts "
        f"add up to {best.soft_maximum:.4f}."
    )
    if best.held_back:
        words += f" {best.held_back:.4f} is held back, as the index has {counted(best.n_rows, 'picture')} of it."
    if rule.beta:
        words += " Before that, pictures of the index that resemble everything are held back by their background, βb."
    if any(one.evidence for landmark in votes.landmarks for one in landmark.contributions):
        words += " Neighbours whose local features agree with those of the picture gain by their inliers, w · e."
    return words


def verification_words(answer: "Answer") -> str:
    """Whether an answer is verified, and from how many inliers on a neighbour is; '' where nothing was to be."""
    told = verification(answer)
    if not told or answer.n_enough is None:
        return ""
    return f"{told[0].upper()}{told[1:]}. A neighbour is verified from {counted(answer.n_enough, 'inlier')} on."


def confidence_words(votes: "VoteExplanation") -> str:
    """Sentences on the confidence, and what the background took of it."""
    background = next((term for term in votes.terms if term.name == "background"), None)
    if not votes.is_calibrated:
        words = "The index is not calibrated, so there is no confidence; lmr calibrate makes one."
    else:
        words = "The confidence is fitted on held-out queries, of which it is known whether they were answered rightly."
    if background is None:
        return f"{words} The index has no background to compare the picture with."
    words += f" The picture resembles pictures without a landmark by c(q) = {background.value:.4f}"
    if not background.amount:
        return f"{words}, which counts for nothing."
    words += f", which takes {-background.amount:.3f}"
    if not votes.is_calibrated:
        return f"{words}."
    without = float(sigmoid(np.asarray(votes.logit - background.amount)))
    return f"{words}: without it the confidence would be {without:.3f}."


def threshold_words(explained: "Explanation", mark: float) -> str:
    """A sentence on how far the logit is from the one that a landmark is named from on, `mark`."""
    votes = explained.votes
    assert votes is not None
    distance = votes.logit - mark
    what = f"{distance:.3f} more than that" if distance >= 0 else f"{-distance:.3f} less than that"
    return (
        f"A landmark is named from a confidence of {explained.answer.threshold:.3f} on, a logit of {mark:.3f} "
        f"(the upright line); here it is {what}."
    )


def formulas(votes: "VoteExplanation") -> list[tuple[str, str]]:
    """The formulas of this answer and their constants, each with its name."""
    rule = votes.rule
    is_verified = any(term.name == "evidence" for term in votes.terms)
    score = "s(q, i)" + (" − β b(i)" if rule.beta else "") + (" + w e(q, i)" if is_verified else "")
    shown = [
        ("score of a neighbour", f"s′(q, i) = {score}" if rule.beta or is_verified else "s(q, i), the cosine"),
        ("score of a landmark", "S(q, c) = τ log( sum over its neighbours i of exp(s′(q, i) / τ) ) − τ r log(n_c)"),
        ("share of a neighbour", "w(i) = exp(s′(q, i) / τ) / sum over the neighbours of its landmark"),
        ("part of a neighbour", "w(i) · (s′(q, i) − τ log w(i)); the parts add up to S before anything is held back"),
    ]
    if votes.is_calibrated:
        shown.append(("confidence", f"sigmoid(a S − g c(q) + {'h v + ' if is_verified else ''}e)"))
    constants = f"k = {rule.k}, τ = {rule.tau:g}, r = {rule.r:g}, β = {rule.beta:g}, m = {rule.m}"
    if votes.is_calibrated:
        names = {"score": "a", "background": "g", "constant": "e", "evidence": "h"}
        weights = {names[term.name]: -term.weight if term.name == "background" else term.weight for term in votes.terms}
        constants += "".join(f", {name} = {number(value)}" for name, value in weights.items())
    return [*shown, ("constants", constants)]


def formula(term: "Term") -> str:
    """The product that a term is."""
    return "" if term.name == "constant" else f"{signed(term.weight)} × {term.value:.4f}"


def landmark_name(votes: "LandmarkVotes") -> str:
    """A landmark as people call it."""
    return shown_name(votes.landmark_id, votes.name)


def number(value: float) -> str:
    """A number with four digits."""
    return f"{value:.4f}".replace("-", "−")


def signed(value: float) -> str:
    """A number with its sign."""
    return f"{value:+.4f}".replace("-", "−")


def named_from(explained: "Explanation") -> float | None:
    """The logit from which on a landmark is named; None where there is none to draw."""
    threshold = explained.answer.threshold
    return None if threshold is None or threshold in (0.0, 1.0) else logit_of(threshold)


def nearest(votes: "VoteExplanation") -> "list[Contribution]":
    """All neighbours that voted, the nearest first."""
    near = [one for landmark in votes.landmarks for one in landmark.contributions]
    return sorted(near, key=lambda one: -one.neighbour.score)


def neighbour_name(one: "Contribution") -> str:
    """A neighbour's landmark as people call it."""
    return shown_name(one.neighbour.landmark_id, one.neighbour.name)


def neighbour_file(one: "Contribution") -> str:
    """The name of a neighbour's file."""
    return file_name(one.neighbour.path) or one.neighbour.image_id
