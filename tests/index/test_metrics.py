"""GAP, top-k, mAP@100 and their relatives against hand-computed values and slow, literal versions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.metrics import (
    Truths,
    bootstrap_interval,
    first_hit_position,
    first_right_rank,
    gap,
    list_hits,
    make_truths,
    map_at_100,
    mean_landmark_accuracy,
    precision_at_k,
    ranking,
    top_k_accuracy,
)
from retrieval.errors import LmrError


def names(*values):
    return np.array(values, dtype=object)


def slow_gap(predictions, n_landmark_queries):
    """predictions: (confidence, correct, image_id); the formula of DESIGN section 5, term by term."""
    ranked = sorted(predictions, key=lambda p: (-p[0], p[2]))
    total = 0.0
    for i in range(1, len(ranked) + 1):
        rel = 1 if ranked[i - 1][1] else 0
        p = sum(1 for prediction in ranked[:i] if prediction[1]) / i
        total += p * rel
    return total / n_landmark_queries


def test_gap_of_a_small_ranking_is_the_hand_computed_one():
    # right, wrong, right, wrong: (1/1 + 2/3) / 4 landmark queries
    value = gap(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False]), 4, names(*"abcd"))
    assert value == pytest.approx((1 + 2 / 3) / 4)


def test_gap_orders_equal_confidences_by_image_id_as_text():
    confidence = np.array([0.5, 0.5])
    right_is_first = gap(confidence, np.array([True, False]), 1, names("10", "9"))
    right_is_second = gap(confidence, np.array([True, False]), 1, names("9", "10"))
    assert (right_is_first, right_is_second) == (1.0, 0.5)


def test_gap_tells_apart_logits_whose_sigmoid_is_one():
    assert gap(np.array([800.0, 900.0]), np.array([True, False]), 1, names("a", "b")) == 0.5


def test_gap_without_predictions_is_zero():
    assert gap(np.zeros(0), np.zeros(0, bool), 3, names()) == 0.0


def test_gap_without_landmark_queries_is_a_clear_error():
    with pytest.raises(LmrError) as error:
        gap(np.array([0.5]), np.array([False]), 0, names("a"))
    expected = "GAP needs at least one query with a known landmark; all of these queries are blank"
    assert str(error.value) == expected


def test_more_right_predictions_than_landmark_queries_are_refused():
    with pytest.raises(ValueError, match="2 right predictions of 1 landmark queries"):
        gap(np.array([0.5, 0.6]), np.array([True, True]), 1, names("a", "b"))


def test_a_nan_confidence_is_refused():
    with pytest.raises(ValueError, match=r"confidence\[1\] is NaN"):
        ranking(np.array([0.5, np.nan]), names("a", "b"))


@given(
    st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 1e9]), st.booleans()), max_size=12),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_gap_equals_the_literal_formula_in_any_input_order(pairs, n_unanswered, random):
    ids = [str(i) for i in range(len(pairs))]
    random.shuffle(ids)
    n_landmark_queries = sum(right for _, right in pairs) + n_unanswered
    if n_landmark_queries == 0:
        return
    predictions = [(confidence, right, image_id) for (confidence, right), image_id in zip(pairs, ids, strict=True)]
    fast = gap(
        np.array([p[0] for p in predictions]),
        np.array([p[1] for p in predictions], dtype=bool),
        n_landmark_queries,
        names(*ids),
    )
    assert fast == pytest.approx(slow_gap(predictions, n_landmark_queries))


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 20))
def test_cutting_the_tail_never_raises_gap(right, keep):
    confidence, ids = -np.arange(len(right), dtype=float), names(*map(str, range(len(right))))
    whole = gap(confidence, np.array(right), len(right), ids)
    head = gap(confidence[:keep], np.array(right)[:keep], len(right), ids[:keep])
    assert head <= whole + 1e-12


def test_truths_know_landmark_queries_and_first_labels():
    truths = make_truths([[3, 1], [], [-1], [2]])
    assert truths.known.tolist() == [True, False, False, True]
    assert truths.first.tolist() == [3, -1, -1, 2]
    assert truths.holds(np.array([0, 0, 0, 1, 3]), np.array([1, 3, 2, -1, 2])).tolist() == [
        True, True, False, False, True,
    ]  # fmt: skip


def test_truths_out_of_order_are_refused():
    with pytest.raises(ValueError, match="query must ascend and landmark must not be negative"):
        Truths(np.array([1, 0]), np.array([0, 0], dtype=np.int32), 2)


@given(st.data())
@settings(max_examples=60)
def test_top_k_equals_a_search_through_each_list(data):
    n = data.draw(st.integers(1, 6))
    label = st.integers(0, 4)
    votes = [data.draw(st.lists(label, unique=True, max_size=4)) for _ in range(n)]
    true = [data.draw(st.lists(label, unique=True, max_size=2)) for _ in range(n)]
    query = np.array([i for i, v in enumerate(votes) for _ in v], dtype=np.int64)
    landmark = np.array([c for v in votes for c in v], dtype=np.int32)
    truths = make_truths(true)
    rank = first_right_rank(query, landmark, truths)
    for k in (1, 2, 4):
        shown = [any(c in t for c in v[:k]) for v, t in zip(votes, true, strict=True) if t]
        if shown:
            assert top_k_accuracy(rank, truths, k) == pytest.approx(np.mean(shown))
        else:
            assert math.isnan(top_k_accuracy(rank, truths, k))


def test_mean_landmark_accuracy_weighs_landmarks_alike():
    landmark = np.array([0, 0, 0, 0, 1, -1])
    correct = np.array([True, True, True, False, False, True])
    assert mean_landmark_accuracy(landmark, correct) == pytest.approx((0.75 + 0.0) / 2)


def slow_average_precision(retrieved, true):
    total, n_right, seen = 0.0, 0, set()
    for i, image in enumerate(retrieved[:100], start=1):
        if image in true and image not in seen:
            n_right += 1
            total += n_right / i
        seen.add(image)
    return total / min(len(true), 100) if true else 0.0


def as_arrays(lists, true, width):
    retrieved = np.full((len(lists), width), -1, dtype=np.int64)
    for row, images in zip(retrieved, lists, strict=True):
        row[: len(images)] = images
    relevant = np.array(
        [[image in t for image in row] for row, t in zip(retrieved.tolist(), true, strict=True)], dtype=bool
    )
    return list_hits(retrieved, relevant.reshape(retrieved.shape)), np.array([len(t) for t in true])


def test_average_precision_of_a_small_list_is_the_hand_computed_one():
    # places 1 and 4 are right, place 2 repeats place 1 and is not counted again: (1/1 + 2/4) / 3
    hits, n_true = as_arrays([[7, 7, 1, 8]], [{7, 8, 9}], 4)
    assert hits.tolist() == [[True, False, False, True]]
    assert map_at_100(hits, n_true) == pytest.approx((1 + 2 / 4) / 3)
    assert precision_at_k(hits, 10) == pytest.approx(0.2)
    assert first_hit_position(hits).tolist() == [1]


def test_the_divisor_of_map_stops_at_one_hundred():
    hits, n_true = as_arrays([list(range(120))], [set(range(150))], 120)
    assert map_at_100(hits, n_true) == pytest.approx(1.0)


def test_a_list_without_a_right_image_has_its_first_at_101():
    hits, _ = as_arrays([[1] * 3, list(range(2, 122)), []], [{5}, {110}, {5}], 120)
    assert first_hit_position(hits).tolist() == [101, 101, 101]
    assert first_hit_position(np.zeros((2, 0), bool)).tolist() == [101, 101]


@given(st.data())
@settings(max_examples=60)
def test_map_equals_the_literal_formula(data):
    n = data.draw(st.integers(1, 4))
    image = st.integers(0, 6)
    lists = [data.draw(st.lists(image, max_size=8)) for _ in range(n)]
    true = [set(data.draw(st.lists(image, max_size=4))) for _ in range(n)]
    hits, n_true = as_arrays(lists, true, 8)
    expected = sum(slow_average_precision(found, t) for found, t in zip(lists, true, strict=True)) / n
    assert map_at_100(hits, n_true) == pytest.approx(expected)
    for k in (1, 3, 10):
        precision = sum(len(set(found[:k]) & t) for found, t in zip(lists, true, strict=True)) / n / k
        assert precision_at_k(hits, k) == pytest.approx(precision)


def test_bootstrap_interval_holds_the_value_and_narrows_with_the_queries():
    def interval(n):
        values = np.arange(n) % 2
        return bootstrap_interval(lambda rows: float(values[rows].mean()), n, seed=0, n_resamples=300)

    small, large = interval(40), interval(4000)
    assert small[0] < 0.5 < small[1]
    # The standard error of a share of one half is 0.5 / sqrt(n); the interval is 2 * 1.96 of them wide.
    assert large[1] - large[0] == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(4000), rel=0.2)
    assert interval(40) == small


def test_bootstrap_leaves_out_resamples_without_a_value():
    assert bootstrap_interval(lambda rows: 1.0 if 0 in rows else math.nan, 3, seed=1) == (1.0, 1.0)
    assert all(math.isnan(v) for v in bootstrap_interval(lambda rows: math.nan, 3, seed=1, n_resamples=5))
