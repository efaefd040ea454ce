"""Exact answers that are kept beside an inverted file follow every change as if they were found anew."""

from pathlib import Path

import numpy as np
import pytest

from index.search.choose import Sample, measure, take_sample
from index.search.flat import FlatIndex
from index.search.ivf import SearchSettings
from index.search.ivf_builder import build_ivf
from index.search.kept_sample import N_KEPT, follow, read_sample, write_sample
from index.search.plan import RECALL_K, IndexPlan
from retrieval.errors import LmrError

D = 8


def random_rows(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


def nearest(vectors: np.ndarray, row: int) -> list[int]:
    """The other rows, the nearest first."""
    order = np.argsort(-(vectors @ vectors[row]), kind="stable")
    return order[order != row].tolist()


def assert_exact(sample: Sample, vectors: np.ndarray) -> None:
    """What is known of each row is what is nearest to it, and nothing is left out between."""
    for own, known, query in zip(sample.own, sample.exact.tolist(), sample.queries, strict=True):
        n = sum(row >= 0 for row in known)
        assert known == nearest(vectors, own)[:n] + [-1] * (RECALL_K - n)
        assert (query == vectors[own]).all()


def changed(vectors: np.ndarray, sample: Sample, kept: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, Sample]:
    now = np.concatenate([vectors[kept], new])
    return now, follow(sample, kept, FlatIndex.build(now))


def test_exact_answers_follow_rows_that_come_and_go() -> None:
    rng = np.random.default_rng(0)
    vectors = random_rows(2000, 1)
    sample = take_sample(FlatIndex.build(vectors), N_KEPT)
    for step in range(6):
        kept = rng.random(len(vectors)) < (1.0 if step % 2 else 0.9)
        vectors, sample = changed(vectors, sample, kept, random_rows(150 * (step % 3), 10 + step))
        assert_exact(sample, vectors)
        assert 0.8 * N_KEPT < len(sample.own) <= N_KEPT
    assert len(set(sample.own.tolist())) == len(sample.own)


def test_new_rows_are_asked_as_often_as_the_others() -> None:
    vectors = random_rows(1000, 1)
    sample = take_sample(FlatIndex.build(vectors), N_KEPT)
    for step in range(50):
        vectors, sample = changed(vectors, sample, np.ones(len(vectors), np.bool_), random_rows(20, 10 + step))
    assert len(sample.own) == N_KEPT
    assert N_KEPT * 0.4 < (sample.own >= 1000).sum() < N_KEPT * 0.6


def test_a_sample_of_which_too_little_is_left_is_taken_anew() -> None:
    vectors = random_rows(2000, 1)
    sample = take_sample(FlatIndex.build(vectors), N_KEPT)
    vectors, sample = changed(vectors, sample, np.arange(2000) % 4 == 0, random_rows(0, 2))
    assert len(sample.own) == N_KEPT
    assert (sample.exact >= 0).all()
    assert_exact(sample, vectors)


def test_fewer_rows_than_neighbours_are_asked_for_all_others() -> None:
    vectors = random_rows(4, 1)
    sample = take_sample(FlatIndex.build(vectors), N_KEPT)
    assert_exact(sample, vectors)
    vectors, sample = changed(vectors, sample, np.array([True, False, True, True]), random_rows(1, 2))
    assert_exact(sample, vectors)
    assert (sample.exact >= 0).sum(axis=1).tolist() == [3] * 4


def test_a_row_of_which_fewer_neighbours_are_known_is_measured_by_those() -> None:
    rows = FlatIndex.build(random_rows(600, 1), "float16")
    index = build_ivf(rows, IndexPlan("ivf-flat", 600, D, "float16", 4)).with_settings(SearchSettings(4, 50))
    sample = take_sample(rows, 50)
    assert measure(index, sample).recall == 1
    part = sample.exact.copy()
    part[:25, 6:] = -1
    assert measure(index, Sample(sample.queries, sample.own, part, sample.taken)).recall == 1
    part[:25, :6] = np.roll(part[:25, :6], 1, axis=0)
    assert measure(index, Sample(sample.queries, sample.own, part, sample.taken)).recall < 0.6


def test_a_file_gives_back_what_was_kept(tmp_path: Path) -> None:
    rows = FlatIndex.build(random_rows(3000, 1))
    sample = take_sample(rows, 1000)
    write_sample(tmp_path / "sample.h5", sample)
    kept = read_sample(tmp_path / "sample.h5", rows)
    assert (kept.own == sample.own[::5]).all()
    assert (kept.exact == sample.exact[::5]).all()
    assert (kept.queries == sample.queries[::5]).all()


def test_a_file_of_other_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sample.h5"
    write_sample(path, take_sample(FlatIndex.build(random_rows(300, 1)), 50))
    with pytest.raises(LmrError) as error:
        read_sample(path, FlatIndex.build(random_rows(20, 1)))
    assert str(error.value) == f"{path} is damaged (own must lie in [0, 20)); run lmr index compact"
