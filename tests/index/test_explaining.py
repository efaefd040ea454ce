"""The arithmetic of an answer: parts that sum to scores, terms that sum to logits."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from verified_world import Named, Table, verification

from index.answer import Neighbour
from index.confidence import ConfidenceModel
from index.explain.votes import confidence_terms, explain_votes
from index.folder.verified import Verifying
from index.recognition import answer
from index.rerank.evidence import EvidenceRule
from index.vote_rule import VoteRule


class Calibrated:
    """Stands in for a calibration: the parts of one that answers use."""

    rule = VoteRule(k=7, tau=0.1, r=0.5, beta=0.4, m=2)
    confidence = ConfidenceModel(a=20.0, g=15.0, h=0.0, e=-1.0)


class ByHand:
    """One that holds back a landmark by the whole number of its rows."""

    rule = VoteRule(k=3, tau=0.1, r=1.0, beta=0.0)
    confidence = ConfidenceModel(a=1.0, g=0.0, h=0.0, e=0.0)


@pytest.fixture
def queries(make_store):
    return make_store(["rome", "paris", "", "oslo", "rome"], seed=2, source="queries.h5").vectors


@pytest.fixture
def folder(make_folder, make_store):
    train = make_store(["rome"] * 5 + ["paris"] * 4 + ["oslo"] * 3, seed=0)
    return make_folder(train, [make_store([""] * 7, seed=1, source="background.h5")])


def neighbours_of(folder, found, query):
    """As an opened index lists them."""
    return tuple(
        Neighbour(str(folder.rows.image_id[row]), folder.rows.landmarks[folder.rows.landmark[row]], float(score), "")
        for row, score in zip(found.neighbours.rows[query], found.neighbours.scores[query], strict=True)
        if row >= 0
    )


def explained(folder, queries):
    found = answer(folder, queries)
    return found, [
        explain_votes(folder, found, query, neighbours_of(folder, found, query)) for query in range(len(queries))
    ]


@pytest.mark.parametrize("calibration", [None, Calibrated()])
def test_parts_and_what_is_held_back_sum_to_the_score_of_every_landmark(folder, queries, calibration):
    folder = replace(folder, calibration=calibration)
    found, votes = explained(folder, queries)
    rule = folder.rule
    for query, one in enumerate(votes):
        own = found.votes.query == query
        assert [of.landmark_id for of in one.landmarks] == [found.landmarks[c] for c in found.votes.landmark[own]]
        assert [of.score for of in one.landmarks] == found.votes.score[own].tolist()
        assert sum(len(of.contributions) for of in one.landmarks) == min(rule.k, 12)
        for of in one.landmarks:
            assert of.n_rows == {"rome": 5, "paris": 4, "oslo": 3}[of.landmark_id]
            assert of.held_back == pytest.approx(rule.tau * rule.r * math.log(of.n_rows), abs=1e-15)
            assert sum(part.part for part in of.contributions) - of.held_back == pytest.approx(of.score, abs=1e-12)
            assert sum(part.share for part in of.contributions) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("calibration", [None, Calibrated()])
def test_the_terms_sum_to_the_logit_to_the_last_bit(folder, queries, calibration):
    found, votes = explained(replace(folder, calibration=calibration), queries)
    for query, one in enumerate(votes):
        assert sum(term.amount for term in one.terms) == one.logit == found.logit[query]
        assert one.landmarks[0].logit == one.logit


def test_what_neighbours_give_by_hand(make_folder, make_store):
    """Cosines 0.6 and 0.5 of one landmark, 0.8 of another, at tau 0.1: the first two have weights e and 1."""
    store = make_store(["rome", "rome", "oslo"], seed=0)
    vectors = np.zeros((3, 8), np.float32)
    vectors[:, 0], vectors[[0, 1, 2], [1, 2, 3]] = (0.6, 0.5, 0.8), (0.8, math.sqrt(0.75), 0.6)
    folder = make_folder(replace(store, vectors=vectors))
    folder = replace(folder, calibration=ByHand())
    _, (one,) = explained(folder, np.eye(1, 8, dtype=np.float32))
    rome = next(of for of in one.landmarks if of.landmark_id == "rome")
    soft_maximum = 0.1 * math.log(math.exp(6) + math.exp(5))
    first = math.e / (math.e + 1)
    assert [part.neighbour.score for part in rome.contributions] == pytest.approx([0.6, 0.5], abs=1e-7)
    assert [part.share for part in rome.contributions] == pytest.approx([first, 1 - first], abs=1e-6)
    expected = [first * soft_maximum, (1 - first) * soft_maximum]
    assert [part.part for part in rome.contributions] == pytest.approx(expected, abs=1e-6)
    assert rome.held_back == pytest.approx(0.1 * math.log(2))
    assert [of.landmark_id for of in one.landmarks] == ["oslo", "rome"]
    assert one.decisive.neighbour.landmark_id == "oslo"


def test_the_background_of_a_row_is_taken_from_its_score(folder, queries):
    folder = replace(folder, calibration=Calibrated())
    found, votes = explained(folder, queries)
    by_id = {str(name): row for row, name in enumerate(folder.rows.image_id)}
    for one in votes:
        for part in (part for of in one.landmarks for part in of.contributions):
            b = float(folder.rows.background[by_id[part.neighbour.image_id]])
            assert part.background == pytest.approx(0.4 * b, abs=1e-7)
            assert part.corrected == part.neighbour.score - part.background
    assert found.background is not None


def test_the_neighbour_that_decided_gave_most_to_the_best_landmark(folder, queries):
    _, votes = explained(replace(folder, calibration=Calibrated()), queries)
    for one in votes:
        assert one.decisive.neighbour.landmark_id == one.landmarks[0].landmark_id
        assert one.decisive.part == max(part.part for part in one.landmarks[0].contributions)


def test_neighbours_beyond_those_that_vote_give_nothing(folder, queries):
    folder = replace(folder, calibration=Calibrated())
    found = answer(folder, queries, n_neighbours=12)
    few = explain_votes(folder, answer(folder, queries), 0, neighbours_of(folder, answer(folder, queries), 0))
    many = explain_votes(folder, found, 0, neighbours_of(folder, found, 0))
    assert many.to_json() == few.to_json()


def test_without_neighbours_there_is_nothing_to_explain(folder, queries):
    assert explain_votes(folder, answer(folder, queries), 0, ()) is None


def test_terms_of_a_confidence_by_hand():
    model = ConfidenceModel(a=20.0, g=15.0, h=0.0, e=-1.0)
    terms = confidence_terms(model, 0.5, 0.25)
    assert [(term.name, term.amount) for term in terms] == [("score", 10.0), ("constant", -1.0), ("background", -3.75)]
    assert [term.name for term in confidence_terms(replace(model, g=0.0), 0.5, None)] == ["score", "constant"]
    uncalibrated = confidence_terms(None, 0.5, 0.25)
    assert [(term.name, term.amount) for term in uncalibrated] == [("score", 0.5), ("background", -0.1875)]
    assert np.sum([term.amount for term in uncalibrated]) == 0.3125


class Verified:
    """A calibration of verified answers, as a folder holds it while they are given."""

    rule, confidence = Calibrated.rule, ConfidenceModel(a=20.0, g=15.0, h=0.7, e=-1.0)

    @property
    def verified(self):
        return SimpleNamespace(evidence=EvidenceRule(weight=0.2, enough=4.0))


def test_what_verified_neighbours_gain_is_told_and_summed(folder, queries):
    folder = replace(folder, calibration=Verified())
    inliers = np.random.default_rng(0).integers(0, 60, (len(queries), len(folder.rows)))
    table = verification(Table(inliers), top=4, rule=EvidenceRule(weight=0.2, enough=4.0))
    found = answer(folder, queries, verifying=Verifying(table, Named))
    assert found.votes.evidence.max() > 0
    for query in range(len(queries)):
        near = neighbours_of(folder, found, query)
        one = explain_votes(folder, found, query, near)
        assert [term.name for term in one.terms] == ["score", "constant", "background", "evidence"]
        assert sum(term.amount for term in one.terms) == one.logit == found.logit[query]
        for of in one.landmarks:
            assert sum(part.part for part in of.contributions) - of.held_back == pytest.approx(of.score, abs=1e-12)
            for part in of.contributions:
                surprise = float(found.evidence.surprise[query][found.neighbours.rows[query] == part.row][0])
                assert part.evidence == pytest.approx(0.2 * math.log1p(min(surprise, 4.0)))
                assert part.corrected == pytest.approx(part.neighbour.score - part.background + part.evidence)
