"""Evaluation: its metrics against literal versions, its baselines, thresholds and mistakes by hand."""

import json
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest

from index.confidence import ConfidenceModel
from index.evaluate.baselines import measure_baselines, plain_votes
from index.evaluate.evaluation import evaluate
from index.evaluate.outcome import OUTCOME, ask_store, find_outcomes
from index.folder.rows import Rows
from index.metrics import make_truths
from index.queries import Queries, queries_of
from index.recognition import answer_store
from index.search.base import Neighbours
from index.vote_rule import VoteRule
from retrieval.arrays import object_array
from retrieval.errors import LmrError
from retrieval.files.kept import Kept
from retrieval.store.store import DONE, UNREADABLE
from retrieval.texts import Texts

LABELS = ["rome", "paris", "", "oslo", "rome", "", "atlantis", "paris"]
KINDS = ["landmark", "landmark", "street", "landmark", "landmark", "food", "other", "landmark"]


@pytest.fixture
def train(make_store):
    return make_store(["rome"] * 5 + ["paris"] * 4 + ["oslo"] * 3, seed=0)


@pytest.fixture
def folder(make_folder, make_store, train):
    return make_folder(train, [make_store([""] * 7, seed=1, source="background.h5")])


@pytest.fixture
def queries(make_store, train):
    """Noisy copies of rows, so that some are answered rightly; rows without a landmark are noise alone."""
    store = make_store(LABELS, seed=2, source="queries.h5", kind=KINDS)
    rows = {0: 0, 1: 5, 3: 9, 4: 1, 7: 6}
    vectors = store.vectors.copy()
    for query, row in rows.items():
        vectors[query] = train.vectors[row] + 0.7 * vectors[query]
    return replace(store, vectors=vectors)


def calibrated(folder, threshold_logit, trade=()):
    threshold = SimpleNamespace(logit=threshold_logit, confidence=1 / (1 + np.exp(-threshold_logit)))
    parts = SimpleNamespace(
        rule=VoteRule(),
        confidence=ConfidenceModel(a=20.0, g=15.0, h=0.0, e=-1.0),
        threshold_gap=threshold,
        threshold_precision=threshold,
        trade=trade,
        query_names=None,
    )
    return replace(folder, calibration=parts)


def run(folder, store, queries=None):
    questions = ask_store(folder, store, queries or queries_of(store))
    return evaluate(questions, find_outcomes(questions))


def test_metrics_equal_a_literal_version(folder, queries):
    answers = answer_store(folder, queries, n_neighbours=100)
    content = run(folder, queries).to_json()
    named = [folder.rows.landmarks[code] for code in answers.landmark]
    right = [name == label for name, label in zip(named, LABELS, strict=True)]
    order = np.argsort(-answers.logit)
    terms = [sum(right[j] for j in order[: i + 1]) / (i + 1) for i in range(8) if right[order[i]]]
    known = [i for i, label in enumerate(LABELS) if label]
    assert 0 < sum(right) < len(known)
    assert content["gap"] == pytest.approx(sum(terms) / 6)
    assert content["top1"] == pytest.approx(sum(right) / 6)
    # All three landmarks of the index get votes of the 12 rows, so only the unknown one is missed.
    assert content["top5"] == content["top10"] == pytest.approx(5 / 6)
    shares = [np.mean([right[i] for i in known if LABELS[i] == name]) for name in set(LABELS) - {""}]
    assert content["mean_landmark_accuracy"] == pytest.approx(np.mean(shares))
    order = [i for i in order if LABELS[i]]
    terms = [sum(right[j] for j in order[: i + 1]) / (i + 1) for i in range(6) if right[order[i]]]
    assert content["gap_ignoring_non_landmarks"] == pytest.approx(sum(terms) / 6)
    assert (content["n_queries"], content["n_landmark_queries"], content["n_unreadable"]) == (8, 6, 0)


def test_retrieval_measures_equal_a_literal_version(folder, queries):
    answers = answer_store(folder, queries, n_neighbours=100)
    content = run(folder, queries).to_json()
    precisions, firsts = [], []
    for i, label in enumerate(LABELS):
        if label in folder.rows.landmarks:
            row_labels = [folder.rows.landmarks[folder.rows.landmark[r]] for r in answers.neighbours.rows[i] if r >= 0]
            places = [place for place, name in enumerate(row_labels, start=1) if name == label]
            precisions.append(np.mean([(j + 1) / place for j, place in enumerate(places)]))
            firsts.append(places[0])
    assert content["n_retrieval_queries"] == 5
    assert content["map_at_100"] == pytest.approx(np.mean(precisions))
    assert content["mean_position"] == pytest.approx(np.mean(firsts))
    assert content["median_position"] == np.median(firsts)
    assert content["precision_at"]["100"] == pytest.approx(np.mean([5, 4, 3, 5, 4]) / 100)


def test_intervals_hold_the_value_and_repeat(folder, queries):
    first, second = run(folder, queries), run(folder, queries)
    assert first.gap_interval == second.gap_interval
    assert first.gap_interval[0] < first.accuracy.gap < first.gap_interval[1]
    assert first.top1_interval[0] < first.accuracy.top1 < first.top1_interval[1]


def test_thresholds_are_measured_on_these_queries(folder, queries):
    folder = calibrated(folder, 0.0)
    answers = answer_store(folder, queries, n_neighbours=100)
    threshold = float(np.sort(answers.logit)[3])
    folder = calibrated(folder, threshold)
    content = run(folder, queries).to_json()
    answered = answers.logit >= threshold
    right = [folder.rows.landmarks[c] == label for c, label in zip(answers.landmark, LABELS, strict=True)] & answered
    assert answered.sum() == 5
    assert content["threshold_precision"] == pytest.approx(1 / (1 + np.exp(-threshold)))
    assert content["precision_at_threshold"] == pytest.approx(right.sum() / 5)
    assert content["recall_at_precision"] == pytest.approx(right.sum() / 6)
    assert content["false_answer_rate"] == {
        "all": pytest.approx(answered[[2, 5]].mean()),
        "food": float(answered[5]),
        "street": float(answered[2]),
    }


def test_what_each_precision_of_the_calibration_costs_is_measured_on_these_queries(folder, queries):
    logit = answer_store(calibrated(folder, 0.0), queries, n_neighbours=100).logit
    low, high = float(logit.min()), float(logit.max()) + 1
    trade = [SimpleNamespace(asked=asked, logit=at, confidence=0.5) for asked, at in ((0.9, low), (0.99, high))]
    content = run(calibrated(folder, 0.0, trade), queries).to_json()
    n_right = round(content["top1"] * 6)
    assert n_right >= 4
    assert content["trade"] == [
        {
            "asked": 0.9,
            "threshold": 0.5,
            "named": 1.0,
            "n_answers": 8,
            "n_wrong": 8 - n_right,
            "precision": n_right / 8,
        },
        {"asked": 0.99, "threshold": 0.5, "named": 0.0, "n_answers": 0, "n_wrong": 0, "precision": None},
    ]


def test_without_calibration_there_are_no_thresholds(folder, queries):
    content = run(folder, queries).to_json()
    names = ["threshold_gap", "threshold_precision", "recall_at_precision", "false_answer_rate"]
    assert [content[name] for name in names] == [None] * 4
    assert content["trade"] == []
    assert run(folder, queries).reliability is None


def test_the_json_is_valid_and_has_the_documented_keys(folder, queries):
    content = run(calibrated(folder, 0.0), queries).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    documented = """gap gap_ignoring_non_landmarks top1 top5 top10 n_queries n_landmark_queries map_at_100 precision_at
        mean_position median_position mean_landmark_accuracy threshold_gap threshold_precision recall_at_precision
        false_answer_rate baselines"""
    assert set(documented.split()) <= set(content)


def test_unreadable_queries_count_as_blank(folder, queries):
    whole = run(folder, queries)
    wrong = {error.query for error in whole.error_analysis.errors}
    was_right = next(i for i, label in enumerate(LABELS) if label and i not in wrong)
    state = np.full(8, DONE, dtype=np.uint8)
    state[[was_right, 2]] = UNREADABLE
    evaluation = run(folder, replace(queries, state=state))
    assert evaluation.n_unreadable == 2
    assert (evaluation.n_queries, evaluation.n_landmark_queries) == (8, 6)
    assert evaluation.accuracy.top1 == pytest.approx(whole.accuracy.top1 - 1 / 6)


def test_all_queries_unreadable_scores_zero(folder, queries):
    evaluation = run(folder, replace(queries, state=np.full(8, UNREADABLE, dtype=np.uint8)))
    assert (evaluation.accuracy.gap, evaluation.accuracy.top1, evaluation.curves) == (0.0, 0.0, None)
    assert evaluation.error_analysis.errors == ()


def test_queries_without_a_landmark_are_a_clear_error(folder, make_store):
    with pytest.raises(LmrError) as error:
        run(folder, make_store(["", ""], seed=5))
    expected = "GAP needs at least one query with a known landmark; all of these queries are blank"
    assert str(error.value) == expected


def test_landmarks_that_the_index_lacks_count_as_wrong(folder, make_store):
    evaluation = run(folder, make_store(["atlantis", "lyonesse"], seed=5))
    content = evaluation.to_json()
    assert (content["gap"], content["top10"], content["n_landmark_queries"]) == (0.0, 0.0, 2)
    assert (content["map_at_100"], content["n_retrieval_queries"]) == (None, 0)
    assert [(b.first, b.last, b.n_queries, b.top1) for b in evaluation.error_analysis.by_count] == [(0, 0, 2, 0.0)]


def test_any_of_several_true_landmarks_is_right(folder, queries):
    every = tuple(folder.rows.landmarks)
    asked = Queries(queries.image_id[:], object_array([every] * 8), queries.path[:])
    assert run(folder, queries, asked).accuracy.top1 == 1.0


def test_too_few_neighbours_are_refused(folder, queries):
    answers = answer_store(folder, queries)
    cut = Neighbours(answers.neighbours.rows[:, :5], answers.neighbours.scores[:, :5])
    questions = replace(ask_store(folder, queries, queries_of(queries)), ask=lambda _: replace(answers, neighbours=cut))
    with pytest.raises(ValueError, match="answers with 5 neighbours; a list of rows has 100"):
        find_outcomes(questions)


def test_mistakes_name_the_confused_pairs_and_the_most_confident_errors(folder, make_store):
    # Copies of three rows of rome and one of paris, labelled as another landmark.
    wrong = make_store(["oslo", "oslo", "oslo", "rome", ""], seed=6)
    vectors = folder.index.vectors(np.array([0, 1, 2, 5, 9]))
    evaluation = run(folder, replace(wrong, vectors=vectors))
    assert [(c.true, c.predicted, c.n_queries) for c in evaluation.error_analysis.confusions] == [
        ("oslo", "rome", 3),
        ("rome", "paris", 1),
    ]
    errors = evaluation.error_analysis.errors
    assert [error.logit for error in errors] == sorted((error.logit for error in errors), reverse=True)
    by_query = {error.query: error for error in errors}
    assert sorted(by_query) == [0, 1, 2, 3, 4]
    assert (by_query[4].true, by_query[4].predicted, by_query[4].rows[0]) == ((), "oslo", 9)
    assert (by_query[3].true, by_query[3].confidence) == (("rome",), None)
    assert by_query[3].scores[0] == pytest.approx(1.0)
    assert [(b.first, b.last, b.n_queries, b.top1) for b in evaluation.error_analysis.by_count] == [
        (3, 4, 3, 0.0),
        (5, 9, 1, 0.0),
    ]
    assert evaluation.n_same_picture == 5


def test_baselines_equal_the_hand_computed_ones():
    rows = Rows(
        image_id=object_array(list("abcd")),
        landmark=np.array([0, 1, 1, 2], dtype=np.int32),
        landmarks=("x", "y", "z"),
        path=object_array([""] * 4),
        background=None,
    )
    # Query 0 shows x: nearest is x, but y has two of the three neighbours. Query 1 shows z, its nearest is y.
    # Query 2 shows nothing and is nearest to z. Query 3 could not be read and shows y.
    neighbours = Neighbours(
        np.array([[0, 1, 2], [1, 3, 0], [3, 0, 1], [-1, -1, -1]]),
        np.array([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.95, 0.2, 0.1], [-np.inf] * 3], dtype=np.float32),
    )
    truths = make_truths([[0], [2], [], [1]])
    found = measure_baselines(plain_votes(neighbours, rows, truths, k=3), rows, truths, Texts.of("abcd"))
    nearest = found["nearest_neighbour"]
    # Ranks: query 2 (wrong), 0 (right), 1 (wrong).
    assert nearest.gap == pytest.approx((1 / 2) / 3)
    assert (nearest.top1, nearest.top5) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    majority = found["majority_vote"]
    # Query 0: y with 2/3, wrong. Queries 1 and 2: x, the lowest of three equal labels, wrong.
    assert (majority.gap, majority.top1, majority.top5) == (0.0, 0.0, pytest.approx(2 / 3))
    frequent = found["most_frequent"]
    # y, then x, then z for everyone that could be read.
    assert (frequent.gap, frequent.top1, frequent.top5) == (0.0, 0.0, pytest.approx(2 / 3))
    assert found["random"].top5 == pytest.approx(2 / 3)


def test_random_guesses_find_each_landmark_equally_often():
    n, n_landmarks = 4000, 40
    rows = Rows(
        object_array([str(i) for i in range(n_landmarks)]),
        np.arange(n_landmarks, dtype=np.int32),
        tuple(f"{i:02d}" for i in range(n_landmarks)),
        object_array([""] * n_landmarks),
        None,
    )
    neighbours = Neighbours(np.zeros((n, 1), dtype=np.int64), np.ones((n, 1), dtype=np.float32))
    truths = make_truths([[i % n_landmarks] for i in range(n)])
    plain = plain_votes(neighbours, rows, truths, k=1)
    random = measure_baselines(plain, rows, truths, Texts.of(str(i) for i in range(n)))["random"]
    # Shares of 4,000 queries; three standard errors.
    assert random.top1 == pytest.approx(1 / 40, abs=3 * np.sqrt(1 / 40 / n))
    assert random.top5 == pytest.approx(5 / 40, abs=3 * np.sqrt(5 / 40 / n))
    assert random.top10 == pytest.approx(10 / 40, abs=3 * np.sqrt(10 / 40 / n))


def kept_at(path, head=b"of this"):
    return Kept(path, head, OUTCOME)


@pytest.mark.parametrize("how", ["whole", "cut", "changed", "of another"])
def test_queries_whose_outcome_was_kept_are_not_asked_again(folder, queries, tmp_path, monkeypatch, how):
    monkeypatch.setattr("index.evaluate.outcome.BLOCK_QUERIES", 3)
    questions = ask_store(folder, queries, queries_of(queries))
    whole = find_outcomes(questions)
    path = tmp_path / ".answered"
    asked = []

    def ask(rows):
        asked.append(rows[0])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return questions.ask(rows)

    watched = replace(questions, ask=ask)
    with pytest.raises(KeyboardInterrupt):
        find_outcomes(watched, kept_at(path))
    if how != "whole":
        data = bytearray(path.read_bytes())
        data[-1] ^= how == "changed"
        path.write_bytes(data[:-1] if how == "cut" else data)
    again = find_outcomes(watched, kept_at(path, b"of that" if how == "of another" else b"of this"))
    left = {"whole": [6], "cut": [3, 6], "changed": [3, 6], "of another": [0, 3, 6]}[how]
    assert asked == [0, 3, 6, *left]
    for item in fields(whole):
        np.testing.assert_array_equal(getattr(again, item.name), getattr(whole, item.name))
    assert evaluate(questions, again).to_json() == evaluate(questions, whole).to_json()


def test_random_guesses_are_ranked_in_blocks_as_at_once(folder, queries, monkeypatch):
    whole = run(folder, queries).baselines
    monkeypatch.setattr("index.evaluate.baselines._QUERIES_AT_ONCE", 3)
    assert run(folder, queries).baselines == whole
