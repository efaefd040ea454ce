"""Reverse image search: pages, filters, copies folded."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from index.confidence import ConfidenceModel, sigmoid
from index.landmarks import Landmarks
from index.recognition import answer
from index.search.base import Neighbours
from index.serving import similar
from index.serving.gallery import UnknownError
from index.serving.similar import search
from index.vote_rule import VoteRule
from retrieval.arrays import object_array
from retrieval.errors import LmrError

N = 60


class Forgetful:
    """Stands in for an inverted file: what it finds depends on how many rows are asked for, and it misses some."""

    def __init__(self, rows):
        self.rows = rows

    def search(self, queries, k):
        found = self.rows.search(queries, min(len(self.rows), 2 * k))
        kept = np.flatnonzero(np.arange(found.k) % (2 + k % 3) != 1)[:k]
        rows, scores = found.rows[:, kept], found.scores[:, kept]
        short = ((0, 0), (0, k - len(kept)))
        return Neighbours(np.pad(rows, short, constant_values=-1), np.pad(scores, short, constant_values=-np.inf))


class Calibrated:
    """Stands in for a calibration: the parts of one that answers use."""

    rule = VoteRule(k=5, beta=0.5, m=2)
    confidence = ConfidenceModel(a=10.0, g=4.0, h=0.0, e=-1.0)
    threshold_precision = SimpleNamespace(confidence=0.85)


@pytest.fixture
def folder(make_folder, make_store):
    """Sixty random images of three landmarks, beside twelve of none."""
    train = make_store([f"l{i % 3}" for i in range(N)], seed=0)
    return make_folder(train, [make_store([""] * 12, seed=9, source="background.h5")])


@pytest.fixture
def landmarks(folder):
    return Landmarks(folder, None)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(similar, "BLOCK", 7)
    monkeypatch.setattr(similar, "MOST_SORTED", 14)
    monkeypatch.setattr(similar, "MOST_ROWS", 42)


def query(seed=1):
    return np.random.default_rng(seed).normal(size=8).astype(np.float32)


def ids(page):
    return [item.neighbour.image_id for item in page.items]


def names(rows):
    return [f"train.h5-{row}" for row in rows]


def by_similarity(landmarks, vector):
    scores = landmarks.folder.index.vectors(np.arange(N)) @ (vector / np.linalg.norm(vector))
    return np.argsort(-scores, kind="stable"), scores


def made(make_folder, make_store, vectors, paths=None):
    """An index of these descriptors, of one landmark, of files at these paths."""
    store = make_store(["l"] * len(vectors), seed=0)
    given = object_array(list(map(str, paths))) if paths else store.path
    return Landmarks(make_folder(replace(store, vectors=np.array(vectors, np.float32), path=given)), None)


def turned(*angles):
    """Descriptors in a plane: their cosines are those of the differences of these angles, in degrees."""
    found = np.zeros((len(angles), 8), np.float32)
    found[:, 0], found[:, 1] = np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))
    return found


def test_images_come_by_similarity_with_their_ranks_and_cosines(landmarks):
    order, scores = by_similarity(landmarks, query())
    page = search(landmarks, query(), n=N, fold=False)
    assert ids(page) == names(order)
    assert [item.rank for item in page.items] == list(range(1, N + 1))
    assert [item.neighbour.score for item in page.items] == pytest.approx(scores[order].tolist(), abs=1e-6)
    assert (page.n_rows_looked_at, page.has_more) == (N, False)


def test_a_page_beyond_the_last_image_tells_how_many_were_looked_at(landmarks, monkeypatch):
    monkeypatch.setattr(similar, "BLOCK", 16)
    page = search(landmarks, query(), first=10 * N)
    assert (page.items, page.n_rows_looked_at, page.has_more) == ((), N, False)


def test_an_image_of_the_index_is_not_among_those_like_it(landmarks):
    own = landmarks.folder.index.vectors(np.array([7]))[0]
    others = [row for row in by_similarity(landmarks, own)[0] if row != 7]
    assert ids(search(landmarks, "train.h5-7", n=100, fold=False)) == names(others)
    assert ids(search(landmarks, own, leave_out="train.h5-7", n=100, fold=False)) == names(others)


def test_those_that_vote_are_told(landmarks):
    votes = [item.votes for item in search(landmarks, query(), n=N, fold=False).items]
    assert votes == [True] * 20 + [False] * 40
    votes = [item.votes for item in search(landmarks, "train.h5-7", n=N, fold=False).items]
    assert votes == [True] * 20 + [False] * 39


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 13),
    landmark=st.sampled_from([None, "l1"]),
    fold_from=st.sampled_from([0.5, 0.9, 2.0]),
    is_forgetful=st.booleans(),
    left_out=st.sampled_from([None, "train.h5-4"]),
)
def test_pages_one_after_the_other_are_one_long_page(
    folder, small_blocks, seed, n, landmark, fold_from, is_forgetful, left_out
):
    """Each page by an index that was opened anew, as by several processes."""
    whole_index = replace(folder, ivf=Forgetful(folder.index)) if is_forgetful else folder
    words = {"landmark": landmark, "leave_out": left_out}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similar, "FOLD_FROM", fold_from)
        whole = search(Landmarks(whole_index, None), query(seed), n=100, **words)
        items, has_more = [], True
        while has_more:
            page = search(Landmarks(whole_index, None), query(seed), first=len(items), n=n, **words)
            items, has_more = items + list(page.items), page.has_more
    assert items == list(whole.items)
    shown = [near.image_id for item in items for near in (item.neighbour, *item.folded)]
    assert len(set(shown)) == len(shown) == whole.n_rows_looked_at
    assert len(shown) == min(42, (N if landmark is None else 20) - (left_out is not None and landmark in (None, "l1")))


def test_rows_that_an_inverted_file_misses_come_after_those_that_it_finds(folder, small_blocks):
    landmarks = Landmarks(replace(folder, ivf=Forgetful(folder.index)), None)
    order, _ = by_similarity(landmarks, query())
    found = landmarks.folder.ivf.search(query()[None], 8).rows[0][:7].tolist()
    rest = [row for row in order if row not in found]
    assert ids(search(landmarks, query(), n=100, fold=False)) == names([*found, *rest][:42])


def test_copies_are_folded_under_the_most_similar_one(make_folder, make_store):
    """Fold from 0.97, which is 14.07 degrees: 20 degrees are apart, a chain of copies has one leader."""
    landmarks = made(make_folder, make_store, turned(0, 10, 30, 40, 20, 120))
    page = search(landmarks, turned(0)[0], n=10)
    folded = {item.neighbour.image_id: [near.image_id for near in item.folded] for item in page.items}
    assert folded == {
        "train.h5-0": ["train.h5-1"],
        "train.h5-4": ["train.h5-2"],
        "train.h5-3": [],
        "train.h5-5": [],
    }
    assert [item.rank for item in page.items] == [1, 3, 5, 6]
    assert page.n_rows_looked_at == 6


def test_images_of_one_landmark_are_all_found(landmarks):
    order, _ = by_similarity(landmarks, query())
    page = search(landmarks, query(), landmark="l2", n=100, fold=False)
    assert ids(page) == names(row for row in order if row % 3 == 2)
    assert {item.neighbour.landmark_id for item in page.items} == {"l2"}
    assert (page.n_rows_looked_at, page.has_more) == (20, False)


@pytest.mark.parametrize("sort", ["megapixels", "pixels_per_inch"])
def test_the_largest_copy_leads_and_images_without_a_file_come_last(make_folder, make_store, tmp_path, sort):
    sizes = [(40, 30), (80, 60), None, (20, 90)]
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, size in zip(paths, sizes, strict=True):
        if size:
            Image.new("RGB", size).save(path)
    landmarks = made(make_folder, make_store, turned(0, 5, 40, 80), paths)
    page = search(landmarks, turned(0)[0], sort=sort)
    assert ids(page) == ["train.h5-1", "train.h5-3", "train.h5-2"]
    largest, _, gone = page.items
    assert (largest.width, largest.height, largest.rank) == (80, 60, 2)
    assert largest.megapixels == 0.0048
    assert largest.pixels_per_inch == pytest.approx(100 / 17.6)
    assert [near.image_id for near in largest.folded] == ["train.h5-0"]
    assert (gone.width, gone.height, gone.megapixels, gone.pixels_per_inch) == (None, None, None, None)
    assert [item.rank for item in search(landmarks, turned(0)[0]).items] == [1, 3, 4]


def test_sizes_are_compared_among_the_most_similar_images_alone(landmarks, small_blocks):
    page = search(landmarks, query(), sort="megapixels", n=100, fold=False)
    order, _ = by_similarity(landmarks, query())
    assert ids(page) == names(order[:14])
    assert (page.n_rows_looked_at, page.has_more) == (14, False)


def test_a_confidence_is_that_of_the_landmark_in_the_answer(folder):
    landmarks = Landmarks(replace(folder, calibration=Calibrated()), None)
    found = answer(landmarks.folder, query()[None])
    of_landmark = dict(zip(found.votes.landmark.tolist(), sigmoid(found.vote_logit).tolist(), strict=True))
    items = search(landmarks, query(), n=N, fold=False).items
    codes = [landmarks.folder.rows.landmarks.index(item.neighbour.landmark_id) for item in items]
    assert [item.confidence for item in items] == [of_landmark.get(code) for code in codes]
    best = landmarks.folder.rows.landmarks[found.landmark[0]]
    sure = search(landmarks, query(), n=N, fold=False, sure=True)
    assert sure.items == tuple(item for item in items if item.neighbour.landmark_id == best)
    assert 0 < len(sure.items) < N
    assert (sure.n_rows_looked_at, sure.has_more) == (N, False)


def test_without_a_calibration_no_image_is_sure(landmarks):
    assert {item.confidence for item in search(landmarks, query()).items} == {None}
    with pytest.raises(LmrError) as error:
        search(landmarks, query(), sure=True)
    path = landmarks.folder.path
    assert str(error.value) == f"{path} is not calibrated, so that no image is surely alike; run lmr calibrate"


@pytest.mark.parametrize(
    ("asked", "words", "message"),
    [
        ("nobody", {}, "{path} has no image nobody; lmr index export lists those it has"),
        ("../rows.h5", {}, "{path} has no image ../rows.h5; lmr index export lists those it has"),
        ("train.h5-1", {"landmark": "rome"}, "{path} has no landmark rome; lmr index export lists those it has"),
        ("train.h5-1", {"n": 0}, "`n` must be at least 1 and at most 1000, got 0"),
        ("train.h5-1", {"first": -1}, "`first` must be at least 0, got -1"),
        ("train.h5-1", {"sort": "size"}, "`sort` must be similarity or megapixels or pixels_per_inch, got 'size'"),
        (
            np.ones(9, np.float32),
            {},
            "the descriptor has shape (9,), {path} is of 8 columns; embed the image with the model of the index",
        ),
    ],
)
def test_what_cannot_be_searched_for_is_told(landmarks, asked, words, message):
    with pytest.raises(LmrError) as error:
        search(landmarks, asked, **words)
    path = landmarks.folder.path
    assert str(error.value) == message.format(path=path)
    assert isinstance(error.value, UnknownError) == ("lists those it has" in message)


def test_a_page_as_json(landmarks):
    page = search(landmarks, "train.h5-3", n=1).to_json()
    assert (page["n_rows_looked_at"], page["has_more"]) == (59, True)
    (item,) = page["items"]
    keys = ["rank", "image_id", "landmark_id", "name", "score", "confidence", "votes", "path", "width", "height"]
    assert list(item) == [*keys, "megapixels", "pixels_per_inch", "dpi", "columns", "folded"]
