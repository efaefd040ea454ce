"""What an index knows of its queries: rows, look-alikes, calibration queries, images of the training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recorder import Recorder

from index.calibrate.config import CalibrationSettings
from index.calibrate.fit import calibrate_folder, held_out_queries, leave_one_out
from index.copies import pack_sketches, sketches, unpack_sketches
from index.evaluate.leakage import look_the_same
from index.evaluate.outcome import ask_store, find_outcomes
from index.evaluate.result import evaluate_left_out, measure
from index.evaluate.shares import Asking
from index.folder.config import ThumbnailPlan
from index.folder.folder import open_folder
from index.folder.thumbnails import Thumbnails, write_thumbnails
from index.queries import queries_of
from index.vote_rule import VoteRule
from retrieval.arrays import object_array
from retrieval.errors import LmrError
from retrieval.images.given import read_image
from retrieval.models.seen import record_seen
from retrieval.texts import Texts

LABELS = ["rome"] * 6 + ["paris"] * 6


@pytest.fixture
def train(make_store):
    return make_store(LABELS, seed=0)


@pytest.fixture
def folder(make_folder, train):
    return make_folder(train)


@pytest.fixture
def queries(make_store, train):
    store = make_store(["rome", "paris", "rome", ""] * 3, seed=2, source="queries.h5")
    return replace(store, vectors=store.vectors + 0.8 * train.vectors[:12])


def note_training(folder, **made_by):
    (folder.path / "model" / "model.json").write_text(json.dumps({"fingerprint": folder.fingerprint, **made_by}))


def evaluate_store(folder, store, queries):
    """The answers to a store's rows measured, as `lmr evaluate` does. queries: of the rows in their order."""
    questions = ask_store(folder, store, queries)
    return measure(Asking(questions, store.info.manifest_digest, store), find_outcomes(questions), store.source)


def leaks_of(folder, store):
    return evaluate_store(folder, store, queries_of(store)).leaks


def test_new_queries_of_an_untrained_network_do_not_leak(folder, queries):
    found = leaks_of(folder, queries)
    assert (found.any.tolist(), found.training_unknown) == ([False] * 12, False)
    measured = evaluate_store(folder, queries, queries_of(queries))
    content = measured.to_json()
    assert (content["leaked"]["n"], content["without_leaked"], content["warnings"]) == (0, None, [])
    assert content["measured"]["source"] == "queries.h5"
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_rows_of_the_index_are_told_and_left_out_of_the_figures_beside(folder, queries, train):
    vectors = queries.vectors.copy()
    vectors[[0, 5]] = train.vectors[[0, 7]]
    store = replace(queries, vectors=vectors)
    measured = evaluate_store(folder, store, queries_of(store))
    assert np.flatnonzero(measured.leaks.same_picture).tolist() == [0, 5]
    assert measured.warnings == (
        "2 of 12 queries are pictures of the index itself: queries.h5-0, queries.h5-5; the figures are too good",
    )
    content = measured.to_json()
    assert content["leaked"]["same_picture"] == {"n": 2, "images": ["queries.h5-0", "queries.h5-5"]}
    kept = np.setdiff1d(np.arange(12), [0, 5])
    alone = replace(
        store,
        **{name: getattr(store, name)[kept] for name in ("vectors", "image_id", "landmark", "state", "path")},
    )
    expected = evaluate_store(folder, alone, queries_of(alone)).to_json()
    for name in ("gap", "top1", "top5", "n_queries", "n_landmark_queries"):
        assert content["without_leaked"][name] == pytest.approx(expected[name])


def test_a_image_that_looks_the_same_as_a_near_row_is_told(folder, queries, train, tmp_path):
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize((96, 96))
    pixels.save(tmp_path / "row.png")
    pixels.resize((60, 60)).save(tmp_path / "copy.jpg", quality=60)
    Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(tmp_path / "other.png")
    rows = replace(folder.rows, path=object_array([str(tmp_path / "row.png")] * 12))
    paths = [str(tmp_path / "copy.jpg"), str(tmp_path / "other.png"), str(tmp_path / "gone.jpg"), *[""] * 9]
    # Near, but no copies by their descriptors.
    vectors = train.vectors[:12] + 0.3 * queries.vectors
    store = replace(queries, path=object_array(paths), vectors=vectors)
    found = leaks_of(replace(folder, rows=rows), store)
    assert np.flatnonzero(found.near_duplicate).tolist() == [0]
    assert not found.same_picture.any()


def photo(path, seed, size=(320, 240)):
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8))
    small.resize(size).save(path)
    return str(path)


@pytest.fixture
def pictured(tmp_path, folder):
    """The folder with a photograph and its thumbnail for each row, and copies of the first two rows as queries."""
    paths = [photo(tmp_path / f"row-{i}.png", seed=i) for i in range(12)]
    write_thumbnails(tmp_path / "thumbnails.h5", paths, ThumbnailPlan(160), "digest")
    rows = replace(folder.rows, path=object_array(paths))
    asked = [photo(tmp_path / f"query-{i}.jpg", seed=i, size=(160, 120)) for i in (0, 1, 90, 91)]
    return replace(folder, rows=rows, thumbnails=Thumbnails(tmp_path / "thumbnails.h5", "digest")), Texts.of(asked)


PAIRS = np.array([[0, 0], [0, 5], [1, 1], [2, 1], [3, 2]])


def test_thumbnails_of_rows_rule_out_and_only_likely_pairs_are_read(pictured, monkeypatch):
    folder, paths = pictured
    read = []
    monkeypatch.setattr("index.evaluate.leakage.read_image", lambda path: read.append(path) or read_image(path))
    told = Recorder()
    assert look_the_same(folder, paths, PAIRS, progress=told).tolist() == [True, False, True, False, False]
    assert read == [*paths, folder.rows.path[0], folder.rows.path[1]]
    assert (told.begun, told.added) == ([8, 2], [8, 2])


def test_rows_whose_images_are_gone_are_compared_by_their_thumbnails(pictured):
    folder, paths = pictured
    for path in folder.rows.path:
        Path(path).unlink()
    assert look_the_same(folder, paths, PAIRS).tolist() == [True, False, True, False, False]
    bare = replace(folder, thumbnails=None)
    assert look_the_same(bare, paths, PAIRS).tolist() == [False] * 5


def test_thumbnails_too_small_to_tell_are_passed_over(pictured, tmp_path):
    folder, paths = pictured
    write_thumbnails(tmp_path / "small.h5", [str(paths[3])] * 12, ThumbnailPlan(16), "digest")  # that would mislead
    folder = replace(folder, thumbnails=Thumbnails(tmp_path / "small.h5", "digest"))
    assert look_the_same(folder, paths, PAIRS).tolist() == [True, False, True, False, False]


def test_several_processes_compare_as_one_does(pictured, monkeypatch):
    folder, paths = pictured
    monkeypatch.setattr("index.evaluate.leakage._IMAGES_A_TASK", 3)
    assert look_the_same(folder, paths, PAIRS, n_workers=2).tolist() == [True, False, True, False, False]


def test_the_queries_of_the_calibration_are_told_by_name_and_descriptor(folder, queries):
    calibration = calibrate_folder(folder, queries, queries_of(queries), CalibrationSettings())
    opened = open_folder(folder.path, device="cpu")
    again = replace(queries, vectors=queries.vectors.astype(np.float16))  # described again, in half precision
    measured = evaluate_store(opened, again, queries_of(again))
    assert measured.leaks.calibrated_on.all()
    assert measured.without is None
    seen = calibration.cross_validated
    assert measured.warnings[:2] == (
        "12 of 12 queries are those that the index was calibrated on: queries.h5-0, queries.h5-1, queries.h5-2, "
        "queries.h5-3, queries.h5-4 and 7 more; the figures are too good",
        f"cross-validation of the calibration gave GAP {seen.gap:.3f}, top-1 {seen.top1:.3f}",
    )
    renamed = replace(queries, image_id=object_array([f"new-{i}" for i in range(12)]))
    assert not leaks_of(opened, renamed).calibrated_on.any()
    other = replace(queries, vectors=queries.vectors[::-1] * np.array([1, -1] * 4, np.float32))
    assert not leaks_of(opened, other).calibrated_on.any()


def test_images_that_the_network_was_trained_on_are_told_by_name_and_label(folder, queries):
    names = list(queries.image_id)
    record = record_seen(names[:3], ["rome", "rome", "rome"])
    note_training(folder, made_by={"training": {"epochs": 1}, "trained_on": record})
    found = leaks_of(folder, queries)
    assert np.flatnonzero(found.trained_on).tolist() == [0, 2]  # the label of the second is another
    note_training(folder, made_by={"training": {"epochs": 1}})
    found = leaks_of(folder, queries)
    assert (found.trained_on.any(), found.training_unknown) == (False, True)
    trained = {"made_by": {"training": {"epochs": 1}, "trained_on": record}}
    members = [{"made_by": {"training": None}}, trained, trained]
    note_training(folder, members=members, made_by={})
    assert leaks_of(folder, queries).trained_on.sum() == 2


def test_leaving_one_out_of_images_of_the_training_says_so_and_is_no_evidence(folder, train):
    note_training(folder, made_by={"training": {}, "earlier_stages": [], "trained_on": record_seen([], [])})
    assert leave_one_out(folder, 0).why_not is None
    record = record_seen(train.image_id, LABELS)
    note_training(folder, made_by={"training": {"epochs": 1}, "trained_on": record})
    measured = evaluate_left_out(folder)
    assert measured.warnings == (
        "12 of 12 pictures have the name and label of pictures that the network was trained on: train.h5-0, "
        "train.h5-1, train.h5-2, train.h5-3, train.h5-4 and 7 more; the figures are too good",
    )
    assert leave_one_out(folder, 0).why_not == ("since the network was trained on 12 of the 12 pictures of the index")
    note_training(folder, made_by={"training": {"epochs": 1}})
    assert leave_one_out(folder, 0).why_not == (
        "since the network may have been trained on pictures of the index: it kept no record"
    )


def test_an_index_of_one_image_is_calibrated_without_leaving_it_out(make_folder, make_store, queries):
    folder = make_folder(make_store(["rome"], seed=0))
    choice = calibrate_folder(folder, queries, queries_of(queries), CalibrationSettings()).choice
    assert (choice.leave_one_out, choice.why_not) == (None, "since the index has one picture")


@pytest.mark.parametrize(("rule", "is_said"), [(VoteRule(k=10), True), (VoteRule(), False)])
def test_constants_that_leaving_one_out_helped_to_choose_are_told(folder, queries, rule, is_said):
    found = calibrate_folder(folder, queries, queries_of(queries), CalibrationSettings())
    assert found.choice.leave_one_out is not None
    measured = evaluate_left_out(replace(folder, calibration=replace(found, rule=rule)))
    said = "the constants of the vote were chosen by these pictures too; the figures are a little too good"
    assert (said in measured.warnings) == is_said


def test_a_copy_in_the_index_is_told_when_images_are_left_out(make_folder, train):
    vectors = train.vectors.copy()
    vectors[3] = vectors[2]
    measured = evaluate_left_out(make_folder(replace(train, vectors=vectors)))
    assert measured.warnings == (
        "2 of 12 pictures have a copy in the index: train.h5-2, train.h5-3; the figures are too good",
    )
    assert measured.without.n_queries == 10


def test_only_copies_and_non_landmarks_cannot_calibrate(folder, train, make_store):
    store = make_store(["rome", "", "paris", ""], seed=2, source="queries.h5")
    vectors = store.vectors.copy()
    vectors[[0, 2]] = train.vectors[[0, 7]]
    with pytest.raises(LmrError) as error:
        held_out_queries(folder, replace(store, vectors=vectors), queries_of(store))
    assert str(error.value) == (
        "2 of 4 queries are copies of pictures in the index or its background (similarity > 0.999) and were left out: "
        "queries.h5-0, queries.h5-2; none of the others has a landmark: calibrate on other images"
    )


def test_sketches_are_text_and_back():
    found = sketches(np.random.default_rng(0).normal(size=(5, 128)).astype(np.float32))
    assert unpack_sketches(pack_sketches(found)).tolist() == sorted(found.tolist())
    with pytest.raises(LmrError, match="the sketches of the calibration queries are damaged"):
        unpack_sketches("%%")
