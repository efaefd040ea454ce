"""Calibration: what it reports, its file, its warnings, and the check that queries are new."""

import json
from dataclasses import replace

import numpy as np
import pytest
from calibration_world import make_queries

from index.calibrate.config import CalibrationSettings
from index.calibrate.fit import Further, calibrate
from index.calibrate.selection import Grid, tune
from index.calibration import Calibration, Origin
from index.confidence import sigmoid
from index.metrics import gap, make_truths
from retrieval.errors import LmrError

SMALL = Grid(k=(5, 20), tau=(0.05, 0.2), r=(0.5,), beta=(0.0, 1.0))
ORIGIN = Origin(source="val.csv", fingerprint="3f9a", index_digest="71c2")


@pytest.fixture(scope="module")
def calibration():
    return calibrate(make_queries(), ORIGIN, CalibrationSettings(precision=0.8), SMALL)


def document(calibration):
    return json.loads(json.dumps(calibration.to_json(), allow_nan=False))


def test_a_calibration_is_the_same_after_writing_and_reading(calibration):
    assert Calibration.from_json(document(calibration), "calibration.json") == calibration


def test_the_reported_figures_are_those_of_cross_validated_answers(calibration):
    queries = make_queries()
    tuned = tune(queries, SMALL, None, 0)
    known = queries.truths.known
    figures = calibration.cross_validated
    assert (calibration.rule, calibration.confidence) == (tuned.rule, tuned.confidence)
    assert figures.gap == pytest.approx(
        gap(tuned.answered.logit, tuned.answered.correct, int(known.sum()), queries.image_id)
    )
    assert figures.top1 == pytest.approx(tuned.answered.correct[known].mean())
    assert (figures.n_queries, figures.n_landmark_queries, figures.n_not_in_index) == (120, known.sum(), 0)
    assert figures.n_non_landmarks == 120 - known.sum()
    assert figures.gap_at_share is None


def test_the_thresholds_hold_on_the_cross_validated_answers(calibration):
    tuned = tune(make_queries(), SMALL, None, 0)
    for threshold in (calibration.threshold_gap, calibration.threshold_precision):
        answered = tuned.answered.logit >= threshold.logit
        assert threshold.precision == pytest.approx(tuned.answered.correct[answered].mean())
        assert threshold.confidence == pytest.approx(float(sigmoid(np.array([threshold.logit]))[0]))
        assert [figures.kind for figures in threshold.kinds] == ["landmark", "other"]
    assert calibration.threshold_precision.reached
    assert calibration.threshold_precision.precision_bound >= 0.8


def test_confidences_are_near_the_share_of_right_answers(calibration):
    means = [b for b in calibration.reliability if b.n_queries >= 15]
    assert means
    assert all(abs(b.mean_confidence - b.share_right) < 0.2 for b in means)
    assert sum(b.n_queries for b in calibration.reliability) == 120


def test_the_same_queries_give_the_same_calibration(calibration):
    assert calibrate(make_queries(), ORIGIN, CalibrationSettings(precision=0.8), SMALL) == calibration


def test_a_larger_share_of_non_landmarks_lowers_confidence_and_precision(calibration):
    settings = CalibrationSettings(precision=0.8, non_landmark_share=0.95)
    shared = calibrate(make_queries(), ORIGIN, settings, SMALL)
    assert shared.confidence.e < calibration.confidence.e
    assert shared.cross_validated.gap_at_share < shared.cross_validated.gap
    assert shared.curves.precision[-1] < calibration.curves.precision[-1]
    assert Calibration.from_json(document(shared)) == shared


def test_without_a_background_the_confidence_has_no_such_term():
    found = calibrate(make_queries(with_background=False), ORIGIN, grid=SMALL)
    assert (found.confidence.g, found.rule.beta) == (0.0, 0.0)


def test_a_sound_set_of_queries_has_no_warnings(calibration):
    assert calibration.warnings == ()


def test_few_queries_and_no_non_landmarks_are_warned_of():
    found = calibrate(make_queries(40, share=0.0), ORIGIN, CalibrationSettings(precision=0.6), SMALL)
    assert found.warnings == (
        "only 40 queries, fewer than 100: the thresholds are rough",
        "no non-landmarks among the queries: pictures of no known landmark will be answered too often",
    )
    assert found.threshold_precision.false_answer_rate is None


def test_landmarks_that_the_index_does_not_hold_are_counted_and_warned_of():
    queries = make_queries()
    truth = queries.truths.first.copy()
    truth[np.flatnonzero(truth >= 0)[:4]] = 1000
    found = calibrate(replace(queries, truths=make_truths([[c] for c in truth])), ORIGIN, grid=SMALL)
    n = found.cross_validated.n_landmark_queries
    assert found.cross_validated.n_not_in_index == 4
    assert f"4 of {n} landmark queries show a landmark that the index does not hold" in found.warnings


def test_a_query_with_two_landmarks_of_the_index_counts_once():
    queries = make_queries()
    truths = make_truths([[c, (c + 1) % 8] if c >= 0 else [] for c in queries.truths.first])
    assert calibrate(replace(queries, truths=truths), ORIGIN, grid=SMALL).cross_validated.n_not_in_index == 0


def test_a_precision_that_is_not_sure_is_warned_of_with_what_would_make_it_sure():
    found = calibrate(make_queries(), ORIGIN, CalibrationSettings(precision=0.96), SMALL)
    at = found.threshold_precision
    assert not at.reached
    assert at.precision_bound < 0.96 < at.expected_precision
    assert found.warnings == (
        f"a precision of 0.96, as asked, is not sure from a confidence of {at.confidence:.3f} on: "
        f"{at.precision:.3f} was measured, {at.expected_precision:.3f} is "
        f"expected, {at.precision_bound:.3f} is sure; about {at.n_more_queries:,} more held-out queries would make it "
        "sure",
    )


def test_a_precision_that_no_answer_is_confident_of_is_warned_of():
    found = calibrate(make_queries(), ORIGIN, CalibrationSettings(precision=0.9999), SMALL)
    assert found.warnings == (
        "a precision of 0.9999, as asked, is not sure from a confidence of 1.000 on: no held-out query is "
        "answered with such confidence; ask for less or add queries",
    )


def test_the_choice_tells_what_the_defaults_and_the_chosen_constants_are_worth(calibration):
    queries = make_queries()
    tuned = tune(queries, SMALL, None, 0)
    known = queries.truths.known
    choice = calibration.choice
    assert (choice.tried, choice.gain, choice.gain_error) == (tuned.tried, tuned.gain, tuned.gain_error)
    assert choice.held_out.gap_default == pytest.approx(
        gap(tuned.default.logit, tuned.default.correct, int(known.sum()), queries.image_id)
    )
    assert choice.held_out.top1_default == pytest.approx(tuned.default.correct[known].mean())
    assert (choice.held_out.gap, choice.leave_one_out) == (calibration.cross_validated.gap, None)


def test_leave_one_out_is_told_beside_the_held_out_queries(calibration):
    further = Further(make_queries(80, seed=5))
    choice = calibrate(make_queries(), ORIGIN, CalibrationSettings(precision=0.8), SMALL, further).choice
    assert (choice.leave_one_out.n_queries, choice.why_not) == (80, None)
    assert 0 < choice.leave_one_out.gap_default < 1
    why = calibrate(make_queries(), ORIGIN, grid=SMALL, further=Further(None, "borrowed")).choice
    assert (why.leave_one_out, why.why_not) == (None, "borrowed")


def test_a_calibration_from_before_there_was_a_trade_still_opens(calibration):
    old = document(calibration)
    del old["trade"], old["choice"]
    for name in ("threshold_gap", "threshold_precision"):
        for key in ("found_by", "named", "expected_precision", "n_answers", "n_wrong", "n_more_queries"):
            del old[name][key]
    opened = Calibration.from_json(old)
    assert (opened.rule, opened.curves, opened.trade, opened.choice) == (calibration.rule, calibration.curves, (), None)
    assert opened.threshold_precision.logit == calibration.threshold_precision.logit
    assert opened.threshold_precision.n_more_queries is None


@pytest.mark.parametrize("right", [True, False])
def test_answers_that_are_all_right_or_all_wrong_are_calibrated(right):
    queries = make_queries(50, share=0.0)
    from index.vote import best, vote

    answer, _ = best(vote(queries.neighbours, queries.landmark, SMALL.rules(20, 3, False)[0]), 50)
    truths = make_truths([[code if right else 1000] for code in answer])
    found = calibrate(replace(queries, truths=truths), ORIGIN, grid=Grid(k=(20,), tau=(0.05,), r=(0.5,), beta=(0.0,)))
    assert found.cross_validated.top1 == float(right)
    assert Calibration.from_json(document(found)) == found


def test_one_query_is_calibrated():
    found = calibrate(make_queries(1, share=0.0), ORIGIN, grid=SMALL)
    assert Calibration.from_json(document(found)) == found


def broken(calibration, change):
    values = document(calibration)
    change(values)
    with pytest.raises(LmrError) as error:
        Calibration.from_json(values, "landmarks/calibration.json")
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format_version=2), "format_version 2, this program reads 1"),
        (lambda v: v.pop("format_version"), "format_version None, this program reads 1"),
        (lambda v: v.update(rul=1), "rul is unknown"),
        (lambda v: v.pop("rule"), "rule is missing"),
        (lambda v: v["rule"].update(q=1), "rule.q is unknown"),
        (lambda v: v["confidence"].pop("a"), "confidence.a is missing"),
        (lambda v: v["rule"].update(k="20"), "rule.k cannot be '20'"),
        (lambda v: v["rule"].update(k=True), "rule.k cannot be True"),
        (lambda v: v["rule"].update(tau=float("nan")), "rule.tau cannot be nan"),
        (lambda v: v["rule"].update(tau=-1.0), "rule: tau must be positive, not -1.0"),
        (lambda v: v["curves"].update(gap=[0.1, "x"]), "curves.gap cannot be [0.1, 'x']"),
        (lambda v: v["curves"]["kinds"][0].pop("kind"), "curves.kinds[0].kind is missing"),
        (lambda v: v["threshold_gap"]["kinds"].append(3), "threshold_gap.kinds[2] is not an object"),
        (lambda v: v.update(reliability={}), "reliability is not a list"),
        (lambda v: v["threshold_gap"].update(recall=None), "threshold_gap.recall cannot be None"),
        (lambda v: v.update(warnings=[1]), "warnings cannot be [1]"),
    ],
)
def test_a_document_that_cannot_be_is_an_error_that_names_file_and_key(calibration, change, message):
    remedy = "use the lmr that made it" if message.startswith("format_version") else "run lmr calibrate again"
    assert broken(calibration, change) == f"landmarks/calibration.json: {message}; {remedy}"


def test_a_document_that_is_no_object_is_an_error():
    with pytest.raises(LmrError) as error:
        Calibration.from_json([1], "landmarks/calibration.json")
    assert str(error.value) == "landmarks/calibration.json: not a calibration; run lmr calibrate again"
