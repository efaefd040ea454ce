"""Verified neighbours: what they are worth, which are compared, and when an answer is settled without the rest."""

import math
from dataclasses import replace

import numpy as np
import pytest
from local_world import write_local_store
from verified_world import Calibrated, Named, Table, verification

from index.folder.verified import LOCAL_SET, Verifying
from index.kaggle.shares import inputs_of
from index.recognition import answer, answer_blocks, join_answers, judge
from index.rerank.evidence import UNVERIFIED, Evidence, EvidenceRule, rerank_verified
from index.search.base import Neighbours
from index.vote import best_evidence, vote
from index.vote_rule import VoteRule
from retrieval.local.store import open_local


def evidence(*surprise):
    return Evidence(np.zeros((len(surprise), len(surprise[0])), np.int32), np.array(surprise, np.float32))


def neighbours(rows, scores):
    return Neighbours(np.array(rows, np.int64), np.array(scores, np.float32))


def test_surprising_inliers_are_worth_their_logarithm_up_to_enough():
    rule = EvidenceRule(enough=5)
    found = evidence([0, 1, 5, 400]).worth(rule)
    assert found[0].tolist() == pytest.approx([0, math.log(2), math.log(6), math.log(6)])
    assert rule.most == pytest.approx(math.log(6))


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"weight": -0.1}, "weight must not be negative, not -0.1"),
        ({"enough": 0.0}, "enough must be positive, not 0.0"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(constants, message):
    with pytest.raises(ValueError, match=message):
        EvidenceRule(**constants)


def test_neighbours_are_ordered_by_their_score_and_evidence_and_keep_their_scores():
    found, worths, order = rerank_verified(
        neighbours([[4, 7, 9, -1]], [[0.9, 0.8, 0.8, -np.inf]]), np.array([[0.0, 2.0, 2.0, 0.0]]), 0.1
    )
    assert (found.rows.tolist(), order.tolist()) == ([[7, 9, 4, -1]], [[1, 2, 0, 3]])
    assert found.scores[0, :3].tolist() == pytest.approx([0.8, 0.8, 0.9])
    assert worths.tolist() == [[2.0, 2.0, 0.0, 0.0]]


def test_a_verified_neighbour_outweighs_many_that_are_not():
    near = neighbours([[0, 1, 2, 3, 4]], [[0.7, 0.69, 0.68, 0.67, 0.5]])
    labels = np.array([0, 0, 0, 0, 1], np.int32)
    worths = evidence([0, 0.3, 0.4, 0.1, 6]).worth(EvidenceRule())
    plain = vote(near, labels, VoteRule())
    votes = vote(near, labels, VoteRule(), evidence=worths, weight=0.2)
    assert (plain.landmark.tolist(), plain.evidence) == ([0, 1], None)
    assert votes.landmark.tolist() == [1, 0]
    # One row of the landmark, so S is s' itself.
    assert votes.score[0] == pytest.approx(0.5 + 0.2 * math.log(7))
    assert votes.evidence.tolist() == pytest.approx([math.log(7), math.log(1.4)])
    assert best_evidence(votes, 2).tolist() == pytest.approx([math.log(7), 0])


def test_the_evidence_of_a_landmark_is_that_of_its_best_neighbour_that_votes():
    near = neighbours([[0, 1, 2, -1]], [[0.7, 0.6, 0.5, -np.inf]])
    worths = np.array([[1.0, 3.0, 9.0, 0.0]])
    votes = vote(near, np.zeros(3, np.int32), VoteRule(k=2), evidence=worths, weight=0.0)
    assert votes.evidence.tolist() == [3.0]


@pytest.mark.parametrize("n_threads", [1, 4])
def test_the_best_neighbours_are_compared_and_no_others(n_threads):
    table = Table([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    near = neighbours([[4, 0, 2, 1], [3, -1, -1, -1]], np.zeros((2, 4)))
    how = verification(table, top=3, n_threads=n_threads)
    assert how.verify(Named, near).inliers.tolist() == [[5, 1, 3, UNVERIFIED], [9, UNVERIFIED, UNVERIFIED, UNVERIFIED]]
    assert sorted(table.asked) == [(0, 0), (0, 2), (0, 4), (1, 3)]
    assert (how.ledger.n_pairs, how.ledger.n_spared) == (4, 0)


class Heard:
    """A progress that keeps what it is warned of."""

    def __init__(self):
        self.lines = []

    def warn(self, line):
        self.lines.append(line)


def test_images_without_local_features_are_not_compared_and_are_told_of():
    near = neighbours([[0, 1], [1, 0], [2, 1], [-1, -1]], np.zeros((4, 2)))
    how = verification(Table(np.full((4, 3), 30)), without=(1,))
    found = how.verify(lambda i: None if i in (1, 3) else Named(i), near)
    no = UNVERIFIED
    assert found.inliers.tolist() == [[30, no], [no, no], [30, no], [no, no]]
    heard = Heard()
    how.ledger.tell(heard)
    assert heard.lines == [
        "1 image of the index could not be compared: it has no local features of it",
        "1 image could not be verified: it has no local features",
    ]


@pytest.fixture
def train(make_store):
    return make_store(["rome"] * 5 + ["paris"] * 4 + ["oslo"] * 3, seed=0)


@pytest.fixture
def folder(make_folder, train):
    return make_folder(train)


def asked(folder, vectors, table, *, rule, cut=None, top=12, n_threads=1):
    how = verification(table, top=top, rule=rule, n_threads=n_threads)
    return answer(folder, vectors, verifying=Verifying(how, Named, cut)), how.ledger


def test_inliers_change_no_answer_without_a_rule(folder, make_store):
    vectors = make_store(["rome"] * 3, seed=2).vectors
    plain = answer(folder, vectors)
    found, _ = asked(folder, vectors, Table(np.arange(36).reshape(3, 12)), rule=None)
    assert found.logit.tolist() == plain.logit.tolist()
    assert found.neighbours.rows.tolist() == plain.neighbours.rows.tolist()
    rows = found.neighbours.rows[:, :12]
    assert found.evidence.inliers[:, :12].tolist() == (rows + 12 * np.arange(3)[:, None]).tolist()
    assert (found.evidence.inliers[:, 12:] == UNVERIFIED).all()  # padding


def test_answers_by_evidence_are_those_of_the_formula(folder, make_store):
    vectors = make_store(["rome"] * 4, seed=2).vectors
    inliers = np.random.default_rng(3).integers(0, 60, (4, 12))
    verified = replace(folder, calibration=Calibrated)
    plain = answer(folder, vectors)
    found, _ = asked(verified, vectors, Table(inliers), rule=Calibrated.evidence)
    for q in range(4):
        pairs = list(zip(plain.neighbours.rows[q], plain.neighbours.scores[q], strict=True))
        near = sorted(
            (
                (-(score + 0.2 * e), place, row, score, e)
                for place, (row, score) in enumerate(pairs[:12])
                for e in (math.log1p(min(inliers[q, row] / 10, 6.4)),)
            )
        )
        sums, most = {}, {}
        for _, _, row, score, e in near[: Calibrated.rule.k]:
            label = folder.rows.landmark[row]
            sums[label] = sums.get(label, 0) + math.exp((score + 0.2 * e) / 0.1)
            most[label] = max(most.get(label, 0), e)
        score = {c: 0.1 * math.log(total / folder.rows.counts[c] ** 0.5) for c, total in sums.items()}
        best = max(score, key=score.get)
        assert found.landmark[q] == best
        assert found.score[q] == pytest.approx(score[best], abs=1e-5)
        assert found.logit[q] == pytest.approx(10 * score[best] + 0.7 * most[best] - 6, abs=1e-4)
        assert found.neighbours.rows[q, :12].tolist() == [row for _, _, row, *_ in near]
        assert found.evidence.inliers[q, :12].tolist() == [inliers[q, row] for _, _, row, *_ in near]


def test_no_landmark_is_surer_than_the_answer_which_has_the_best_score(folder):
    model = replace(Calibrated.confidence, h=8.0)
    verified = replace(folder, calibration=type("Sure", (Calibrated,), {"confidence": model}))
    rng = np.random.default_rng(5)
    vectors, inliers = rng.normal(size=(40, 8)).astype(np.float32), rng.choice([0, 7, 200], (40, 12), p=[0.7, 0.2, 0.1])
    found, _ = asked(verified, vectors, Table(inliers), rule=Calibrated.evidence)
    votes, n_capped = found.votes, 0
    for q in range(40):
        own = votes.query == q
        assert found.landmark[q] == votes.landmark[own][votes.score[own].argmax()]
        expected = model.logit(votes.score[own], None, votes.evidence[own])
        assert found.logit[q] == expected[0]
        assert found.vote_logit[own].tolist() == np.minimum(expected, expected[0]).tolist()
        n_capped += (expected > expected[0]).sum()
    assert n_capped > 0


def test_rows_without_a_descriptor_have_no_evidence_and_blocks_change_nothing(folder, make_store, monkeypatch):
    store = make_store(["rome"] * 5, seed=2)
    state = store.state.copy()
    state[1] = 2
    store = replace(store, state=state)
    verified = replace(folder, calibration=Calibrated)
    inliers = np.random.default_rng(3).integers(0, 60, (5, 12))
    found = []
    for size in (256, 2):
        monkeypatch.setattr("index.recognition.BLOCK_VERIFIED", size)
        verifying = Verifying(verification(Table(inliers), top=12, rule=Calibrated.evidence), Named)
        found.append(join_answers([part for _, part in answer_blocks(verified, store, verifying=verifying)]))
    assert (found[0].evidence.inliers[1] == UNVERIFIED).all()
    assert found[0].evidence.inliers.tolist() == found[1].evidence.inliers.tolist()
    assert found[0].logit == pytest.approx(found[1].logit)
    assert found[0].votes.evidence == pytest.approx(found[1].votes.evidence)
    used = [0, 2, 3, 4]
    assert np.sort(found[0].evidence.inliers[used, :12]).tolist() == np.sort(inliers[used]).tolist()


def test_what_is_spared_changes_neither_the_landmark_nor_whether_it_is_named(folder):
    n_spared = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        vectors = rng.normal(size=(4, 8)).astype(np.float32)
        inliers = rng.choice([0, 3, 7, 20, 200], (4, 12), p=[0.5, 0.2, 0.1, 0.1, 0.1])
        rule = replace(Calibrated.evidence, enough=float(rng.choice([0.7, 6.4])))
        rule_of_vote, model = replace(Calibrated.rule, k=int(rng.choice([3, 4, 12]))), Calibrated.confidence
        model = replace(model, h=float(rng.choice([model.h, 8])))
        calibrated = type("Other", (Calibrated,), {"rule": rule_of_vote, "confidence": model})
        verified, cut = replace(folder, calibration=calibrated), float(rng.uniform(-8, 8))
        whole, all_ = asked(verified, vectors, Table(inliers), rule=rule)
        some, spared = asked(verified, vectors, Table(inliers), rule=rule, cut=cut)
        assert some.landmark.tolist() == whole.landmark.tolist()
        assert (some.logit >= cut).tolist() == (whole.logit >= cut).tolist()
        assert spared.n_pairs + spared.n_spared == all_.n_pairs == 48
        n_spared += spared.n_spared
    assert n_spared > 100


def test_an_answer_that_is_settled_spares_the_rest(folder, make_store):
    verified = replace(folder, calibration=Calibrated)
    vectors = make_store(["rome"], seed=2).vectors
    first = answer(folder, vectors).neighbours.rows[0]
    inliers = np.zeros((1, 12), int)
    inliers[0, first[:4]] = 500
    rule = EvidenceRule(weight=0.2, enough=2)
    found, ledger = asked(verified, vectors, Table(inliers), rule=rule, cut=-100.0)
    assert (ledger.n_pairs, ledger.n_spared) == (4, 8)
    assert (found.evidence.inliers != UNVERIFIED).sum() == 4


def test_a_submission_is_told_by_the_local_features_of_its_images(make_store, tmp_path):
    store = make_store(["rome"] * 5, seed=2)
    names = [str(name) for name in store.image_id]
    files = {name: bytes([i] * 32) for i, name in enumerate(names)}

    def verifying(stored, sha256):
        local = open_local(write_local_store(tmp_path / "x.local.h5", stored, sha256=sha256))
        return Verifying.of_store(verification(Table([])), local, names)

    def told(stored, sha256):
        return inputs_of(tmp_path / "submission.csv", {}, store, verifying(stored, sha256))[LOCAL_SET]

    whole = told(names, files)
    assert told(names[::-1], files) == whole
    others = told(names[:4], files), told(names, {**files, names[2]: bytes([9] * 32)}), told(names, None)
    assert len({whole, *others}) == 4
    found = verifying(names, files)
    assert found.of(np.array([3, 1])).digest(slice(1, 2)) == found.digest(slice(1, 2)) != found.digest(slice(3, 4))
    assert LOCAL_SET not in inputs_of(tmp_path / "submission.csv", {}, store, None)


def test_evidence_of_other_neighbours_is_refused(folder, make_store):
    found = answer(folder, make_store(["rome"], seed=2).vectors)
    with pytest.raises(ValueError, match=r"evidence is of \(1, 2\), neighbours of \(1, 20\)"):
        judge(folder, found.neighbours, found.votes, None, None, evidence([1, 2]))
