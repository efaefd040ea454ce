"""Components, copies, verification and faults of images, on cases that can be drawn."""

import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorder import Recorder

from index.clean.config import CleaningRule
from index.clean.inputs import CleaningInputs, ImageVectors
from index.clean.labels import Consistency, count_verified
from index.clean.neighbours import CentredSpace, look_around
from index.clean.plan import copies_to_leave_out, decide, equal_files, equal_looks, image_fault, outside_largest
from index.search.flat import FlatIndex
from retrieval.data.manifest import Manifest
from retrieval.data.quality_cache import FactsTable
from retrieval.errors import LmrError, WordsError
from retrieval.images.quality import ImageFacts

NONE = np.zeros((0, 2), dtype=np.int64)
GOOD = ImageFacts(224, 224, 9000, "a" * 64, 1, 120.0, 50.0, 300.0, 10.0, 7.0)


def pairs(*of_two):
    return np.array(of_two, dtype=np.int64).reshape(-1, 2)


def test_what_hangs_apart_from_the_largest_part_lies_outside():
    landmark = np.array([0, 0, 0, 0, 1, 1, -1], dtype=np.int32)
    outside, size = outside_largest(pairs((0, 1), (1, 2), (4, 5)), landmark, 0.5)
    assert outside.tolist() == [False, False, False, True, False, False, False]
    assert size.tolist() == [3, 3, 3, 1, 2, 2, 1]


def test_a_part_of_the_share_asked_for_stays():
    landmark = np.zeros(6, dtype=np.int32)
    joined = pairs((0, 1), (1, 2), (2, 3), (4, 5))
    assert not outside_largest(joined, landmark, 0.5)[0].any()
    assert outside_largest(joined, landmark, 0.6)[0].tolist() == [False] * 4 + [True] * 2
    assert outside_largest(joined, landmark, 1.0)[0].sum() == 2


def test_images_that_all_stand_alone_stay():
    assert not outside_largest(NONE, np.zeros(4, dtype=np.int32), 1.0)[0].any()
    assert outside_largest(NONE, np.zeros(0, dtype=np.int32), 0.5)[0].shape == (0,)


def test_equal_files_are_paired_with_the_first():
    assert equal_files(np.array(["x", "y", "x", "x"], dtype=object)).tolist() == [[0, 2], [0, 3]]


def test_images_of_equal_hash_and_other_descriptors_are_no_copies():
    hashes = np.array([0, 0, 1, 2**64 - 1], dtype=np.uint64)
    vectors = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], dtype=np.float32)
    assert equal_looks(hashes, 4, vectors).tolist() == [[0, 2]]
    assert equal_looks(hashes, 4, np.zeros((4, 2), dtype=np.float32)).tolist() == [[0, 1], [0, 2]]
    assert equal_looks(hashes, 0, np.zeros((4, 2), dtype=np.float32)).tolist() == [[0, 1]]


def test_comparing_looks_takes_less_memory_than_the_descriptors_have():
    vectors = np.eye(1, 256, dtype=np.float32).repeat(30_000, axis=0)
    tracemalloc.start()
    n_pairs = len(equal_looks(np.zeros(len(vectors), dtype=np.uint64), 4, vectors))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_pairs == len(vectors) - 1
    assert peak < vectors.nbytes


def test_of_two_copies_the_one_stays_whose_label_is_not_found_wrong(make_store, monkeypatch):
    names = np.array(["large", "small", "other"], dtype=object)
    judged = Consistency(
        log_odds=np.array([6.0, -1.0, -9.0]),
        own=np.array([0.01, 0.4, 0.9]),
        suggested=np.array([1, 0, 0], dtype=np.int32),
        confident=np.zeros(3, dtype=np.bool_),
    )
    monkeypatch.setattr("index.clean.plan.judge_labels", lambda *_: judged)
    manifest = Manifest("m.csv", names, np.array([0, 1, 1], dtype=np.int32), ("arch", "dome"))
    facts = FactsTable((changed(width=900), GOOD, changed(sha256="b" * 64, perceptual_hash=2**64 - 1)))
    vectors = np.eye(3, dtype=np.float32)
    store = make_store(["arch", "dome", "dome"], seed=0)
    store = replace(store, vectors=vectors, info=replace(store.info, d=3))
    inputs = CleaningInputs(manifest, ImageVectors(store, np.arange(3)), {}, vectors[:0], facts)
    space, rule = CentredSpace(inputs.vectors, inputs.background), CleaningRule(checks=("duplicates", "labels"))
    around = look_around(FlatIndex.build(vectors, device="cpu"), space, inputs.codes, 0, rule)
    decisions = decide(inputs, rule, around)
    assert decisions.reason.tolist() == ["duplicate", "", ""]
    assert decisions.evidence[0] == "copy of small, which is labelled dome"


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 8), seed=st.integers(0, 1000))
def test_of_each_group_of_copies_one_is_kept(n, seed):
    rng = np.random.default_rng(seed)
    joined = rng.integers(0, n, size=(rng.integers(0, 6), 2))
    preference = rng.permutation(n)
    instead = copies_to_leave_out(joined, preference)
    group = list(range(n))
    for one, other in joined.tolist():
        group = [group[one] if g == group[other] else g for g in group]
    for row in range(n):
        members = [i for i in range(n) if group[i] == group[row]]
        best = min(members, key=lambda i: preference[i])
        assert instead[row] == (-1 if best == row else best)


def counted(inliers, rule, rows=(0, 1, 2, 3, 4), **further):
    vectors = np.eye(6, dtype=np.float32) + 0.1
    landmark = np.array([0, 0, 0, 0, 1, 1], dtype=np.int32)
    return count_verified(np.array(rows), landmark, vectors, rule, inliers, **further).tolist()


def test_a_image_counts_neighbours_of_its_landmark_with_enough_inliers():
    asked = []

    def inliers(one, other):
        asked.append((one, other))
        return 30 if one + other <= 3 else 29

    assert counted(inliers, CleaningRule()) == [3, 2, 2, 1, 0]
    assert len(asked) == len(set(asked)) == 6
    assert all(one < other < 4 for one, other in asked)


def test_counting_stops_when_enough_are_found():
    asked = []
    counted(lambda one, other: asked.append((one, other)) or 99, CleaningRule(min_verified=1))
    assert len(asked) == 4 - 1  # of the four images the first one is found by all others


def test_only_the_nearest_are_asked():
    assert counted(lambda one, other: 99, CleaningRule(n_verified_neighbours=2)) == [2, 2, 2, 2, 0]


def test_counts_on_disk_are_taken_and_a_cut_line_is_counted_again(tmp_path):
    saved = tmp_path / "verified.jsonl"
    assert counted(lambda one, other: 99, CleaningRule(), saved=saved) == [3, 3, 3, 3, 0]
    lines = saved.read_text().splitlines()
    assert lines == ["[0, 3]", "[1, 3]", "[2, 3]", "[3, 3]", "[4, 0]"]
    saved.write_text("[0, 3]\n[1, 3]\n[2, ")
    done = []
    assert counted(lambda one, other: 0, CleaningRule(), saved=saved, progress=Recorder(added=done)) == [3, 3, 0, 0, 0]
    assert saved.read_text() == "[0, 3]\n[1, 3]\n[2, 0]\n[3, 0]\n[4, 0]\n"
    assert sum(done) == 5


def test_each_count_is_on_disk_before_the_next_image_is_looked_at(tmp_path):
    saved = tmp_path / "verified.jsonl"

    def inliers(one, other):
        if one > 0:
            raise KeyboardInterrupt
        return 99

    with pytest.raises(KeyboardInterrupt):
        counted(inliers, CleaningRule(), saved=saved)
    assert saved.read_text() == "[0, 3]\n"


def test_counts_that_cannot_be_written_are_one_line(tmp_path):
    with pytest.raises(LmrError) as error:
        counted(lambda one, other: 9, CleaningRule(), saved=tmp_path / "no" / "verified.jsonl")
    assert str(error.value) == (
        f"{tmp_path / 'no' / 'verified.jsonl'} cannot be written: No such file or directory; "
        "choose another place or make room"
    )


def changed(**values):
    return replace(GOOD, **values)


@pytest.mark.parametrize(
    ("facts", "rule", "fault"),
    [
        (GOOD, CleaningRule(), ""),
        (changed(brightness=7.9), CleaningRule(), "too dark: brightness 7.9 under 8"),
        (changed(brightness=250.0), CleaningRule(), "too bright: brightness 250.0 over 248"),
        (changed(contrast=1.0), CleaningRule(), "flat: contrast 1.0 under 5"),
        (changed(sharpness=1.0), CleaningRule(), "blurred: sharpness 1.0 under 2"),
        (changed(width=100), CleaningRule(min_side_px=128), "100 x 224 pixels, the shorter side under 128"),
        (GOOD, CleaningRule(ppi_low=18.0, ppi_high=18.1), ""),
        (GOOD, CleaningRule(ppi_low=19.0), "18.0 pixels per inch, not at least 19"),
        (GOOD, CleaningRule(ppi_high=17.0), "18.0 pixels per inch, not at most 17"),
        (GOOD, CleaningRule(ppi_low=5.0, ppi_high=17.0), "18.0 pixels per inch, not 5 to 17"),
    ],
)
def test_faults_of_images(facts, rule, fault):
    assert image_fault(facts, rule) == fault


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"odds": 0.5}, "`odds` must be at least 1, not 0.5"),
        ({"odds": float("nan")}, "`odds` must be a number, not nan"),
        ({"n_neighbours": 0}, "`n_neighbours` must be at least 1, not 0"),
        ({"near_bits": 64}, "`near_bits` must lie in [0, 64), not 64"),
        ({"diagonal_in": 0.0}, "`diagonal_in` must be positive, not 0.0"),
        ({"checks": ("labls",)}, "labls is not a check"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(values, text):
    with pytest.raises(WordsError, match=f"^{re.escape(text)}$"):
        CleaningRule(**values)
