"""Votes against the formula of the design, written as loops."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.search.base import Neighbours
from index.vote import Votes, best, vote, vote_majority
from index.vote_rule import VoteRule


def neighbours(rows, scores):
    return Neighbours(np.array(rows, np.int64), np.array(scores, np.float32))


def labels(*values):
    return np.array(values, np.int32)


def flat(votes):
    return list(zip(votes.query.tolist(), votes.landmark.tolist(), votes.score.tolist(), strict=True))


def slow_vote(found, landmark, rule, row_background=None):
    """DESIGN section 5, step 3, term by term."""
    votes = []
    for q in range(len(found.rows)):
        sums = {}
        for row, score in list(zip(found.rows[q].tolist(), found.scores[q].tolist(), strict=True))[: rule.k]:
            if row < 0:
                continue
            corrected = score - (rule.beta * float(row_background[row]) if rule.beta else 0.0)
            label = int(landmark[row])
            sums[label] = sums.get(label, 0.0) + math.exp(corrected / rule.tau)
        for label, total in sums.items():
            n_rows = sum(1 for other in landmark if other == label)
            votes.append((q, label, rule.tau * math.log(total / n_rows**rule.r)))
    return sorted(votes, key=lambda v: (v[0], -v[2], v[1]))


@st.composite
def cases(draw):
    n_rows = draw(st.integers(1, 12))
    landmark = labels(*draw(st.lists(st.integers(0, 4), min_size=n_rows, max_size=n_rows)))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n_queries, k = draw(st.integers(0, 4)), draw(st.integers(1, 6))
    rows = rng.integers(-1, n_rows, (n_queries, k))
    scores = np.where(rows < 0, -np.inf, -np.sort(-rng.uniform(-1, 1, (n_queries, k)), axis=1))
    rule = VoteRule(
        k=draw(st.integers(1, 8)),
        tau=draw(st.sampled_from([0.02, 0.1, 1.0])),
        r=draw(st.sampled_from([0.0, 0.5, 1.0])),
        beta=draw(st.sampled_from([0.0, 0.5])),
    )
    return neighbours(rows, scores), landmark, rule, rng.uniform(0, 1, n_rows).astype(np.float32)


@given(cases())
@settings(max_examples=300, deadline=None)
def test_vote_is_the_formula_of_the_design(case):
    found, landmark, rule, row_background = case
    fast = flat(vote(found, landmark, rule, row_background=row_background))
    slow = slow_vote(found, landmark, rule, row_background)
    assert {v[:2]: v[2] for v in fast} == pytest.approx({v[:2]: v[2] for v in slow}, abs=1e-9)
    assert fast == sorted(fast, key=lambda v: (v[0], -v[2], v[1]))


def test_two_neighbours_of_one_landmark_beat_a_nearer_one_of_another():
    # tau log(2 e^(0.8/tau)) = 0.8 + 0.5 log 2 = 1.147 against 0.9
    votes = vote(neighbours([[0, 1, 2]], [[0.9, 0.8, 0.8]]), labels(0, 1, 1), VoteRule(tau=0.5, r=0.0))
    assert flat(votes) == [(0, 1, pytest.approx(0.8 + 0.5 * math.log(2))), (0, 0, pytest.approx(0.9))]


def test_a_landmark_with_many_rows_is_held_back_by_r():
    # label 1 has four rows: 0.5 + 0.1 log(1 / 4^0.5)
    votes = vote(neighbours([[1]], [[0.5]]), labels(0, 1, 1, 1, 1), VoteRule(tau=0.1, r=0.5))
    assert flat(votes) == [(0, 1, pytest.approx(0.5 - 0.1 * math.log(2)))]


def test_given_counts_replace_the_counted_ones():
    rule = VoteRule(tau=0.1, r=1.0)
    votes = vote(neighbours([[0]], [[0.5]]), labels(0), rule, counts=np.array([10]))
    assert votes.score[0] == pytest.approx(0.5 - 0.1 * math.log(10))


@pytest.mark.parametrize("tau", [1e-6, 1e-300])
def test_a_tiny_tau_is_the_nearest_neighbour(tau):
    found = neighbours([[0, 1, 2], [2, 1, 0]], [[0.9, 0.8, 0.8], [-0.2, -0.3, -0.9]])
    landmark, score = best(vote(found, labels(0, 1, 1), VoteRule(tau=tau, r=0.0)), 2)
    assert landmark.tolist() == [0, 1]
    assert score == pytest.approx(found.scores[:, 0])


def test_padding_rows_do_not_vote():
    votes = vote(neighbours([[1, -1], [-1, -1]], [[0.5, -np.inf], [-np.inf, -np.inf]]), labels(0, 1), VoteRule())
    assert flat(votes) == [(0, 1, pytest.approx(0.5))]


def test_only_the_first_k_neighbours_vote():
    votes = vote(neighbours([[0, 1]], [[0.5, 0.4]]), labels(3, 4), VoteRule(k=1))
    assert votes.landmark.tolist() == [3]


def test_equal_scores_are_ordered_by_lower_label():
    votes = vote(neighbours([[0, 1, 2]], [[0.5, 0.5, 0.5]]), labels(7, 2, 5), VoteRule())
    assert votes.landmark.tolist() == [2, 5, 7]


def test_beta_takes_the_background_of_a_row_off_its_score():
    rule = VoteRule(beta=0.5, r=0.0)
    found = neighbours([[0, 1]], [[0.9, 0.8]])
    votes = vote(found, labels(0, 1), rule, row_background=np.array([0.6, 0.1], np.float32))
    assert flat(votes) == [(0, 1, pytest.approx(0.75)), (0, 0, pytest.approx(0.6))]


def test_beta_without_a_background_is_refused():
    with pytest.raises(ValueError, match=re.escape("beta = 0.5 needs row_background")):
        vote(neighbours([[0]], [[0.9]]), labels(0), VoteRule(beta=0.5))


def test_a_row_outside_the_labels_is_refused():
    with pytest.raises(ValueError, match="neighbour row 2 lies outside the 2 labels"):
        vote(neighbours([[0, 2]], [[0.9, 0.1]]), labels(0, 0), VoteRule())


def test_a_row_without_a_landmark_is_refused():
    with pytest.raises(ValueError, match="neighbour row 1 has no landmark"):
        vote(neighbours([[0, 1]], [[0.9, 0.1]]), labels(0, -1), VoteRule())


def test_no_neighbours_give_no_votes():
    found = Neighbours(np.full((3, 2), -1), np.full((3, 2), -np.inf, np.float32))
    votes = vote(found, labels(), VoteRule())
    landmark, score = best(votes, 3)
    assert len(votes) == 0
    assert landmark.tolist() == [-1, -1, -1]
    assert np.isneginf(score).all()


def test_labels_of_google_landmarks_size_do_not_overflow():
    votes = vote(neighbours([[0, 1]] * 20_000, [[0.5, 0.4]] * 20_000), labels(203_093, 0), VoteRule())
    assert votes.landmark[-2:].tolist() == [203_093, 0]
    assert votes.query[-1] == 19_999


def test_a_majority_vote_counts_the_neighbours_of_each_landmark():
    votes = vote_majority(neighbours([[0, 1, 2, -1]], [[0.9, 0.8, 0.7, -np.inf]]), labels(4, 3, 3), 4)
    assert flat(votes) == [(0, 3, 0.5), (0, 4, 0.25)]


def test_a_majority_vote_of_equal_counts_prefers_the_lower_label():
    votes = vote_majority(neighbours([[0, 1]], [[0.9, 0.8]]), labels(4, 3), 2)
    assert votes.landmark.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k and m must lie in [1, 10,000], not 0 and 3"),
        ({"tau": 0.0}, "tau must be positive, not 0.0"),
        ({"tau": math.nan}, "tau must be positive, not nan"),
        ({"r": -0.1}, "r and beta must not be negative, not -0.1 and 0.0"),
        ({"beta": math.inf}, "r and beta must not be negative, not 0.5 and inf"),
    ],
)
def test_a_rule_outside_its_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        VoteRule(**settings)


def test_votes_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="must be equal"):
        Votes(np.zeros(1, np.int64), labels(1, 2), np.zeros(1))
