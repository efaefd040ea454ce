"""Calibration of verified answers: what evidence is worth, what is kept beside the plain part, what is refused."""

import json
import re
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from calibration_world import make_queries
from verified_world import BY, Named, Table, verification

from index.calibrate.config import CalibrationSettings
from index.calibrate.fit import calibrate, calibrate_folder, calibration_of, fit_verified, verified_from
from index.calibrate.selection import Grid, VerifiedGrid, choose, tune
from index.calibration import Calibration, Origin
from index.confidence import ConfidenceModel, fit_confidence
from index.folder.changes import calibration_digest
from index.folder.folder import open_folder, read_calibration
from index.folder.verified import Computing, Verifying, open_verification, require_calibrated
from index.metrics import gap
from index.queries import queries_of
from index.recognition import answer
from index.rerank.config import VerifyJob
from index.rerank.evidence import UNVERIFIED, Evidence, EvidenceRule
from index.vote_rule import VoteRule
from retrieval.errors import DamageError, LmrError

SMALL = Grid(k=(5, 20), tau=(0.05,), r=(0.5,), beta=(0.0,))
ORIGIN = Origin(source="val.csv", fingerprint="3f9a", index_digest="71c2")
SETTINGS = CalibrationSettings(precision=0.8)


def evidence_of(inliers):
    """Evidence of inliers that surprise from eight on."""
    return Evidence(inliers, (np.maximum(inliers - 8, 0) / 10).astype(np.float32))


def make_verified(n=120, *, seed=0, top=10, telling=0.8):
    """Queries whose neighbours of the right landmark have many inliers, at this share; others as many as by chance."""
    queries = make_queries(n, seed=seed)
    rng = np.random.default_rng(seed + 1)
    rows = queries.neighbours.rows
    query = np.repeat(np.arange(n), rows.shape[1])
    right = queries.truths.holds(query, queries.landmark[rows.ravel()]).reshape(rows.shape)
    many = right & (rng.uniform(size=rows.shape) < telling)
    inliers = np.where(many, rng.integers(15, 80, rows.shape), rng.integers(0, 8, rows.shape)).astype(np.int32)
    inliers[:, top:] = UNVERIFIED
    return replace(queries, evidence=evidence_of(inliers))


@pytest.fixture(scope="module")
def calibration():
    return calibrate(make_verified(), ORIGIN, SETTINGS, SMALL, verified_by=BY)


def document(calibration):
    return json.loads(json.dumps(calibration.to_json(), allow_nan=False))


def test_the_plain_part_is_that_of_a_calibration_without_verification(calibration):
    plain = calibrate(make_queries(), ORIGIN, SETTINGS, SMALL)
    assert calibration.plain == plain
    assert "verified" not in plain.to_json()
    assert json.dumps(calibration.plain.to_json()) == json.dumps(plain.to_json())


def test_a_verified_calibration_is_the_same_after_writing_and_reading(calibration):
    assert Calibration.from_json(document(calibration), "calibration.json") == calibration


def test_a_verified_part_that_cannot_be_is_an_error_that_names_its_key(calibration):
    content = document(calibration)
    content["verified"]["evidence"]["weight"] = -1
    with pytest.raises(LmrError, match=re.escape("calibration.json: verified.evidence: weight must not be negative")):
        Calibration.from_json(content)


def test_telling_evidence_gains_and_what_it_gains_is_told(calibration):
    queries, verified = make_verified(), calibration.verified
    choice, known = verified.choice, queries.truths.known
    plain = tune(queries, SMALL, None, 0)
    tuned = choose(queries, VerifiedGrid().rules(VoteRule(), plain.rule), None, 0)
    assert (verified.by, verified.evidence, verified.rule) == (BY, tuned.rule.evidence, tuned.rule.vote)
    assert verified.confidence == tuned.confidence
    assert choice.plain_gap == calibration.cross_validated.gap
    assert choice.from_plain == pytest.approx(verified.cross_validated.gap - calibration.cross_validated.gap)
    assert choice.from_plain > 2 * choice.from_plain_error > 0
    assert verified.cross_validated.gap == pytest.approx(
        gap(tuned.answered.logit, tuned.answered.correct, int(known.sum()), queries.image_id)
    )
    assert verified.n_unverified == 0
    for row in verified.gain:
        assert row.recall > row.plain_recall
        assert row.turned_away is not None


def test_what_is_turned_away_at_a_precision_is_counted_down_to_where_it_still_holds(calibration):
    queries = make_verified()
    plain, known = tune(queries, SMALL, None, 0).answered, queries.truths.known
    order = np.argsort(-plain.logit)
    right = np.cumsum(plain.correct[order]) / np.arange(1, len(order) + 1)
    n = int(np.flatnonzero(right >= 0.95).max()) + 1
    answered = np.zeros(len(order), bool)
    answered[order[:n]] = True
    row = calibration.verified.gain[0]
    assert row.precision == 0.95
    assert row.plain_recall == pytest.approx((answered & plain.correct).sum() / known.sum())
    assert row.plain_turned_away == pytest.approx((~answered & ~known).sum() / (~known).sum())


def test_evidence_that_says_nothing_changes_nothing():
    queries = make_verified(telling=0.0)
    plain = tune(queries, SMALL, None, 0)
    found = fit_verified(queries, plain.rule, plain.answered, SETTINGS, BY, VerifiedGrid(vote=()))
    assert (found.evidence, found.rule, found.confidence) == (EvidenceRule(), plain.rule, plain.confidence)
    assert (found.choice.gain, found.choice.from_plain) == (0, 0)


def test_evidence_that_misleads_weighs_nothing():
    queries = make_verified()
    rows = queries.neighbours.rows
    query = np.repeat(np.arange(len(rows)), rows.shape[1])
    right = queries.truths.holds(query, queries.landmark[rows.ravel()]).reshape(rows.shape)
    misled = replace(queries, evidence=evidence_of(np.where(right, 0, 80).astype(np.int32)))
    plain = tune(misled, SMALL, None, 0)
    only = VerifiedGrid(weight=(0.1,), vote=())
    found = fit_verified(misled, plain.rule, plain.answered, SETTINGS, BY, only)
    assert (found.evidence.weight, found.confidence.h, found.rule) == (0.0, 0.0, plain.rule)
    assert found.choice.from_plain == 0.0


def test_the_final_model_is_fitted_with_the_evidence_of_all_queries(calibration):
    queries, verified = make_verified(), calibration.verified
    rule = VerifiedGrid((verified.evidence.weight,)).rules(verified.rule, verified.rule)
    found = queries.answer(next(one for one in rule if one.evidence == verified.evidence))
    weights = np.ones((1, len(found.score)))
    from index.confidence import fit_confidences

    expected = fit_confidences(found.score, found.correct, queries.background, found.evidence, weights=weights)[0]
    assert verified.confidence.h == pytest.approx(expected.h)
    assert verified.confidence.e == pytest.approx(expected.e)


def test_a_confidence_with_evidence_is_the_formula():
    model = ConfidenceModel(a=2.0, g=1.0, h=0.5, e=-1.0)
    logit = model.logit(np.array([0.5, -np.inf]), np.array([0.2, 0.2]), np.array([3.0, 3.0]))
    assert logit.tolist() == [pytest.approx(2 * 0.5 - 0.2 + 0.5 * 3 - 1), -np.inf]


def test_evidence_that_speaks_against_an_answer_is_left_out():
    rng = np.random.default_rng(0)
    score, correct = rng.normal(size=200), rng.uniform(size=200) < 0.5
    from index.confidence import fit_confidences

    weights = np.ones((1, 200))
    against = fit_confidences(score, correct, None, np.where(correct, 0.0, 1.0), weights=weights)[0]
    assert against.h == 0
    assert against.a == pytest.approx(fit_confidence(score, correct).a)


def test_a_neighbour_is_called_verified_from_where_nearly_all_are_right():
    queries = make_queries(60, k=1)
    right = queries.truths.holds(np.arange(60), queries.landmark[queries.neighbours.rows[:, 0]])
    good, bad = np.flatnonzero(right)[:19], np.flatnonzero(~right)[:2]
    inliers = np.full((60, 1), UNVERIFIED, np.int32)
    inliers[good, 0] = np.arange(12, 31)
    inliers[bad, 0] = (12, 5)  # of those with 12 or more 19 of 20 are right
    assert verified_from(queries, evidence_of(inliers)) == 12
    inliers[good[0], 0] = UNVERIFIED  # one pair fewer is too few
    inliers[bad, 0] = UNVERIFIED
    assert verified_from(queries, evidence_of(inliers)) == 35
    inliers[bad, 0] = (30, 13)
    assert verified_from(queries, evidence_of(inliers)) == 35
    assert verified_from(queries, evidence_of(np.full_like(inliers, UNVERIFIED))) == 35


def test_votes_and_weights_of_verified_answers_are_tried_together():
    default, chosen = VoteRule(), VoteRule(k=3)
    rules = VerifiedGrid((0.0, 0.2)).rules(default, chosen)
    votes = [chosen, default, VoteRule(tau=0.1), VoteRule(k=10, tau=0.1)]
    assert [(rule.vote, rule.evidence.weight) for rule in rules] == [
        (vote, weight) for vote in votes for weight in (0.1, 0.0, 0.2)
    ]


def test_warnings_of_verified_answers_say_that_they_are_of_these():
    found = calibrate(make_verified(60), ORIGIN, CalibrationSettings(), SMALL, verified_by=BY)
    assert found.told == (
        *found.warnings,
        "of verified answers: only 60 queries, fewer than 100: the thresholds and the inliers of a verified neighbour "
        "are rough",
        "of verified answers: a precision of 0.95, as asked, is not sure from a confidence of 0.794 on: 1.000 was "
        "measured, 0.988 is expected, 0.936 is sure; about 63 more held-out queries would make it sure",
    )
    assert found.plain.told == found.warnings


def test_queries_without_any_evidence_are_counted():
    queries = make_verified()
    inliers = queries.evidence.inliers.copy()
    inliers[:3] = UNVERIFIED
    found = calibrate(replace(queries, evidence=evidence_of(inliers)), ORIGIN, SETTINGS, SMALL, verified_by=BY)
    assert found.verified.n_unverified == 3


def test_a_rule_of_verified_neighbours_needs_evidence():
    queries = make_queries()
    with pytest.raises(ValueError, match="a rule of verified neighbours needs evidence"):
        queries.answer(VerifiedGrid().rules(VoteRule(), VoteRule())[0])
    with pytest.raises(ValueError, match="a calibration of verified answers needs evidence"):
        fit_verified(queries, VoteRule(), tune(queries, SMALL, None, 0).answered, SETTINGS, BY)
    with pytest.raises(ValueError, match=re.escape("evidence is of (120, 3), neighbours of (120, 20)")):
        replace(queries, evidence=evidence_of(np.zeros((120, 3), np.int32)))


LABELS = ["rome"] * 6 + ["paris"] * 6


@pytest.fixture
def folder(make_folder, make_store):
    return make_folder(make_store(LABELS, seed=0), [make_store([""] * 5, seed=1, source="background.h5")])


def verified_folder(folder, make_store):
    """The folder, calibrated with verified neighbours and opened again, and the table that they were verified by."""
    store = make_store(["rome", "paris", ""] * 10, seed=3, source="val.h5")
    table = Table(np.random.default_rng(5).integers(0, 50, (30, 12)))
    verifying = Verifying(verification(table), Named)
    calibrate_folder(folder, store, queries_of(store), SETTINGS, verifying)
    return open_folder(folder.path, device="cpu"), table


def local(fingerprint=BY.local):
    """Stands in for the local features of rows."""
    card = SimpleNamespace(fingerprint=fingerprint, kind="rootsift")
    return SimpleNamespace(card=card, features=Named, open=lambda: None)


def test_a_folder_that_was_calibrated_with_verification_answers_without_it_as_before(folder, make_store):
    vectors = make_store(["rome"] * 4, seed=8).vectors
    store = make_store(["rome", "paris", ""] * 10, seed=3, source="val.h5")
    plain = replace(folder, calibration=calibration_of(folder, store, queries_of(store), SETTINGS))
    opened, _ = verified_folder(folder, make_store)
    assert answer(opened, vectors).logit.tolist() == answer(plain, vectors).logit.tolist()
    assert opened.made_of == plain.made_of
    assert calibration_digest(opened.calibration) != calibration_digest(plain.calibration)


def test_verified_answers_go_by_the_verified_part(folder, make_store):
    opened, table = verified_folder(folder, make_store)
    opened = replace(opened, local=local())
    used, how = open_verification(opened, VerifyJob(verify=True), Computing(n_workers=2))
    part = opened.calibration.verified
    assert (how.rule, how.n_inliers, how.by, how.n_threads) == (part.evidence, part.n_inliers, BY, 2)
    assert (used.rule, used.calibration.threshold_precision) == (part.rule, part.threshold_precision)
    how = replace(how, verifier=table)
    found = answer(used, make_store(["rome"] * 4, seed=8).vectors, verifying=Verifying(how, Named))
    expected = part.confidence.logit(
        found.score, found.background, found.votes.evidence[np.searchsorted(found.votes.query, np.arange(4))]
    )
    assert found.logit == pytest.approx(expected)
    assert how.made_of != replace(how, rule=replace(how.rule, weight=9.0)).made_of


def test_a_folder_without_a_verified_part_counts_inliers_only(folder):
    opened = replace(folder, local=local())
    used, how = open_verification(opened, VerifyJob(verify=True), Computing(n_workers=1))
    assert used is opened
    assert (how.rule, how.by.top, how.n_inliers) == (None, 20, 35)
    assert open_verification(opened, VerifyJob(verify=True, n_verify_top=7), Computing(n_workers=1))[1].by.top == 7
    with pytest.raises(
        LmrError,
        match=re.escape(
            f"{folder.path} is not calibrated for verified answers; run lmr calibrate `index` {folder.path} `verify`"
        ),
    ):
        require_calibrated(opened)


@pytest.mark.parametrize(
    ("fingerprint", "words", "message"),
    [
        ("other", {}, "was calibrated with other local features than it has; run lmr calibrate `index` "),
        (BY.local, {"n_verify_top": 7}, "was calibrated with `verify_top` 3, not 7; run lmr calibrate `index` "),
        (
            BY.local,
            {"matcher": "lightglue"},
            "was calibrated with `matcher` nearest, not lightglue; run lmr calibrate `index` ",
        ),
    ],
)
def test_another_way_to_verify_than_that_of_the_calibration_is_refused(folder, make_store, fingerprint, words, message):
    opened, _ = verified_folder(folder, make_store)
    with pytest.raises(LmrError, match=re.escape(f"{folder.path} {message}{folder.path} `verify` again")):
        open_verification(
            replace(opened, local=local(fingerprint)), VerifyJob(verify=True, **words), Computing(n_workers=1)
        )


def test_a_folder_without_local_features_is_refused_with_what_makes_them(folder):
    with pytest.raises(LmrError) as error:
        open_verification(folder, VerifyJob(verify=True), Computing(n_workers=1))
    assert str(error.value) == (
        f"{folder.path} has no local features to verify by; make some with lmr embed `local`, then run "
        "lmr build-index `local`"
    )


def test_settings_of_a_verification_that_is_not_asked_for_are_refused():
    with pytest.raises(LmrError, match="`verify_top` needs `verify`"):
        VerifyJob(n_verify_top=5)
    with pytest.raises(LmrError, match="`matcher` needs `verify`"):
        VerifyJob(matcher="nearest")


def test_a_calibration_that_weighs_evidence_in_plain_answers_is_damaged(folder, make_store):
    opened, _ = verified_folder(folder, make_store)
    path = folder.path / "calibration.json"
    from retrieval.files.json_file import write_signed_json

    content = opened.calibration.to_json()
    content["confidence"]["h"] = 0.5
    write_signed_json(path, content)
    with pytest.raises(
        DamageError, match=re.escape(f"{path} weighs verified neighbours in plain answers; run lmr calibrate again")
    ):
        read_calibration(folder.path, folder.info)


def test_the_parts_of_a_verified_calibration_are_told(calibration):
    from index.info import _describe_calibration

    facts = _describe_calibration(calibration)["verified"]
    assert facts["by"] == asdict(BY)
    assert facts["evidence"] == asdict(calibration.verified.evidence)
    assert facts["inliers"] == calibration.verified.n_inliers
    assert facts["threshold_precision"] == calibration.verified.threshold_precision.confidence
    assert "verified" not in _describe_calibration(calibration.plain)
