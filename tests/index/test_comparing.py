"""Systems of different kinds measured by the same code; expected values by hand or by another way."""

import numpy as np
import pytest

from index.compare.measure import (
    Answered,
    Asked,
    Probabilities,
    ask,
    folds,
    join,
    log_odds,
    mean_probabilities,
    measure,
    spread,
    vote_of_members,
    votes_of,
)
from index.compare.systems import Chance, Classes, Majority, Part, answers_of
from index.evaluate.baselines import measure_votes
from index.metrics import gap
from index.queries import Queries
from index.vote import Votes, best
from retrieval.arrays import object_array
from retrieval.errors import LmrError

LANDMARKS = ("arch", "bridge", "castle")


def asked_for(truths: list[str]) -> Asked:
    """One query for each text, '' = a non-landmark."""
    names = np.array([f"q{i:02}" for i in range(len(truths))], dtype=object)
    labels = object_array([(text,) if text else () for text in truths])
    return ask(Queries(names, labels, np.full(len(truths), "", dtype=object)), LANDMARKS)


def table(rows: list[list[float]]) -> Probabilities:
    """From the probabilities of all three landmarks of each query."""
    p = np.array(rows)
    order = np.argsort(-p, axis=1, kind="stable")
    p = np.take_along_axis(p, order, axis=1)
    return Probabilities(order, p, 1 - p)


def whole(asked: Asked, name: str = "val") -> Part:
    return Part(name, np.arange(len(asked)), asked)


def test_a_system_is_measured_as_by_hand() -> None:
    asked = asked_for(["arch", "arch", "bridge", "unseen", ""])
    votes = Votes(np.array([0, 0, 1, 2, 3, 4]), np.array([0, 1, 1, 1, 0, 2], np.int32), np.zeros(6))
    key = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    found = measure(Answered(votes, key, np.full(5, 2.5)), asked)
    # Right are queries 0 and 2, at ranks 1 and 3, of four landmark queries.
    assert found.accuracy.gap == pytest.approx((1 + 2 / 3) / 4)
    assert found.accuracy.top1 == 0.5
    assert found.by_landmark.landmarks == ("arch", "bridge", "unseen")
    assert found.by_landmark.n_queries.tolist() == [2, 1, 1]
    assert found.by_landmark.accuracy.tolist() == [0.5, 1, 0]
    assert found.to_json()["mean_landmark_accuracy"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert (found.precision, found.recall, found.turned_away) == (pytest.approx(2 / 3), 0.5, 1.0)
    assert found.confusion.landmarks == ("arch", "bridge", "unseen")
    assert found.confusion.counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert found.gap_interval[0] <= found.accuracy.gap <= found.gap_interval[1]


def test_without_non_landmarks_nothing_can_be_turned_away() -> None:
    asked = asked_for(["arch", "bridge"])
    answered = Answered(votes_of(np.array([[0], [1]]), np.ones((2, 1))), np.array([2.0, 1.0]), np.zeros(2))
    assert measure(answered, asked).to_json()["turned_away"] is None


def test_probabilities_rank_answers_and_unread_queries_have_none() -> None:
    val = asked_for(["arch", "bridge", "castle", ""])
    said = table([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4], [0.4, 0.3, 0.3]])
    said.landmark[1] = -1
    answered = Classes({"val": said}, 0.95).answer(whole(val), whole(val))
    assert answered.key[1] == -np.inf
    assert np.allclose(1 / (1 + np.exp(-answered.key[[0, 2, 3]])), [0.9, 0.5, 0.4])
    assert best(answered.votes, 4)[0].tolist() == [0, -1, 0, 0]


def test_the_log_odds_of_certainty_are_finite_and_above_all_others() -> None:
    doubt = np.array([1.0, 1.0, 0.5, 2.0**-24, 2.0**-50, 2.0**-900, 2.0**-1000, 0.0])
    odds = log_odds(np.array([0.0, 2.0**-1000, *(1 - doubt[2:])]), doubt)
    assert np.isfinite(odds).all()
    assert odds[2] == 0
    assert (np.diff(odds) > 0).all()


def test_the_mean_of_members_counts_what_one_does_not_name_as_zero() -> None:
    a = Probabilities(
        np.array([[0, 1], [2, 0]]), np.array([[0.8, 0.2], [0.6, 0.4]]), np.array([[0.2, 0.8], [0.4, 0.6]])
    )
    b = Probabilities(np.array([[1, 2], [-1, -1]]), np.array([[0.9, 0.1], [0.0, 0.0]]), np.array([[0.1, 0.9], [1, 1]]))
    mean = mean_probabilities([a, b], 3)
    assert mean.landmark.tolist() == [[1, 0], [2, 0]]
    assert mean.probability == pytest.approx(np.array([[0.55, 0.4], [0.3, 0.2]]))
    assert mean.doubt == pytest.approx(np.array([[0.45, 0.6], [0.7, 0.8]]))


def test_the_mean_of_sure_members_does_not_saturate() -> None:
    def sure(*doubts: float) -> Probabilities:
        doubt = np.array(doubts)[:, None]
        return Probabilities(np.zeros((len(doubts), 1), dtype=np.int64), 1 - doubt, doubt)

    key = mean_probabilities([sure(1e-30, 1e-40), sure(1e-30, 1e-50)], 3).key
    assert key.tolist() == pytest.approx([30 * np.log(10), 40 * np.log(10) + np.log(2)])


def test_two_members_outvote_a_surer_third() -> None:
    def member(landmark: int, key: float) -> tuple[Votes, np.ndarray]:
        return votes_of(np.array([[landmark, 2]]), np.array([[1.0, 0.5]])), np.array([key])

    votes, key = vote_of_members([member(0, -2.0), member(0, -2.0), member(1, 9.0)], 1)
    assert votes.landmark.tolist() == [0, 1, 2]
    surer = vote_of_members([member(0, 3.0), member(0, 3.0), member(1, 9.0)], 1)[1]
    alone = vote_of_members([member(0, 9.0), member(1, 3.0), member(2, 3.0)], 1)
    assert surer[0] > key[0] > alone[1][0]
    surest = [vote_of_members([member(0, sure), member(0, sure)], 1)[1][0] for sure in (40.0, 60.0, 700.0)]
    assert surest == sorted(set(surest))
    equal = vote_of_members(
        [member(0, 2.0), member(1, 2.001), (votes_of(np.array([[2, 0]]), np.ones((1, 2))), np.zeros(1))], 1
    )
    assert equal[0].landmark[0] == 1
    assert alone[0].landmark[0] == 0


def test_a_majority_of_one_system_answers_as_it_does() -> None:
    val = asked_for(["arch", "bridge", "castle", "", "arch"])
    rows = [[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4], [0.4, 0.35, 0.25], [0.6, 0.3, 0.1]]
    system = Classes({"val": table(rows)}, 0.95)
    alone = measure(system.answer(whole(val), whole(val)), val)
    voted = measure(Majority([system], 0.95).answer(whole(val), whole(val)), val)
    assert voted.accuracy == alone.accuracy


def test_folds_judge_each_query_once_and_share_landmarks_and_others_evenly() -> None:
    asked = asked_for(["arch"] * 12 + [""] * 8)
    made = folds(asked, 0)
    assert sorted(np.concatenate([judged for _, judged in made]).tolist()) == list(range(20))
    for fit, judged in made:
        assert not set(fit.tolist()) & set(judged.tolist())
        assert 2 <= asked.truths.known[judged].sum() <= 3
    with pytest.raises(LmrError, match="val has 1 landmark queries; comparing needs 2 or more of them"):
        folds(asked_for(["arch", ""]), 0)


def test_answers_to_parts_join_to_answers_to_all() -> None:
    val = asked_for(["arch", "bridge", "castle", "", "arch", "castle"])
    rng = np.random.default_rng(3)
    system = Classes({"val": table(rng.dirichlet(np.ones(3), 6).tolist())}, 0.5)
    once = system.answer(whole(val), whole(val))
    parts = []
    for rows in (np.array([0, 3, 5]), np.array([1, 2, 4])):
        part = Part("val", rows, val.select(rows))
        parts.append((rows, system.answer(whole(val), part)))
    joined = join(parts, 6)
    for name in ("query", "landmark", "score"):
        assert np.array_equal(getattr(joined.votes, name), getattr(once.votes, name))
    assert np.array_equal(joined.key, once.key)
    assert np.array_equal(joined.threshold, once.threshold)


def test_no_query_helps_to_choose_the_threshold_it_is_judged_by() -> None:
    val = asked_for(["arch", "arch", "bridge", "bridge", "castle", "", "", "", "", ""])
    seen: list[tuple[list[str], list[str]]] = []

    class Spy:
        def answer(self, fit: Part, ask: Part) -> Answered:
            seen.append((fit.asked.queries.image_id.tolist(), ask.asked.queries.image_id.tolist()))
            n = len(ask.rows)
            return Answered(votes_of(np.zeros((n, 1), np.int64), np.ones((n, 1))), np.zeros(n), np.zeros(n))

    answers_of(Spy(), val, None)
    assert all(not set(fit) & set(judged) for fit, judged in seen)
    seen.clear()
    answers_of(Spy(), val, asked_for(["arch"]))
    assert [len(fit) for fit, _ in seen] == [10]


def test_chance_answers_as_the_baselines_of_evaluate_do() -> None:
    asked = asked_for(["arch", "bridge", "castle", ""])
    answered = Chance(np.array([1, 5, 2]), "most frequent", 0.95).answer(whole(asked), whole(asked))
    found = measure_votes(answered.votes, answered.key, asked.truths, asked.queries.image_id)
    # All say bridge, alike sure, so the ranks go by name: the second of four is right.
    assert found.top1 == pytest.approx(1 / 3)
    right = np.array([False, True, False, False])
    assert found.gap == gap(np.zeros(4), right, 3, asked.queries.image_id) == pytest.approx(1 / 6)
    assert measure(Chance(np.array([1, 5, 2]), "random", 0.95).answer(whole(asked), whole(asked)), asked).n_queries == 4


def test_the_spread_needs_two_runs_and_every_value() -> None:
    assert spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert spread([1.0]) == (1.0, None)
    assert spread([1.0, None]) == (None, None)
    assert spread([]) == (None, None)
