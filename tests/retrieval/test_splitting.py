"""Manifests split into train, val, test and non-landmarks."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.split.quotas import Count, Share
from retrieval.split.roles import Choice, choose_landmarks, mixed_groups
from retrieval.split.split import DROPPED, SplitRule, split
from retrieval.split.stratify import TEST, TRAIN, VAL


def made(labels: str, **parts: object) -> Manifest:
    """An image for each word; `-` = none, `a+b` = both."""
    truths = [[] if word == "-" else word.split("+") for word in labels.split()]
    names = sorted({name for names in truths for name in names})
    codes = [[names.index(name) for name in names_of] for names_of in truths]
    return Manifest(
        source="made.csv",
        image_id=np.array([f"i{row}" for row in range(len(truths))], dtype=object),
        landmark=np.array([of[0] if of else -1 for of in codes], dtype=np.int32),
        landmarks=tuple(names),
        more_landmarks={row: tuple(of[1:]) for row, of in enumerate(codes) if len(of) > 1},
        **parts,
    )


def alone(manifest: Manifest) -> np.ndarray:
    return np.arange(len(manifest))


def labels_of(part, number):
    """The labels of a part, as text, sorted; `-` = none."""
    manifest = part.manifest
    rows = part.rows(number).tolist()
    return sorted("+".join(manifest.landmarks[code] for code in manifest.truths(row)) or "-" for row in rows)


def kinds_of(part, number):
    return Counter(part.manifest.kind[part.rows(number)].tolist())


def texts(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


def test_a_tenth_of_each_landmark_goes_to_val_and_to_test():
    manifest = made("a " * 20 + "b " * 10 + "c " + "- " * 30)
    found = split(manifest, alone(manifest), SplitRule())
    assert labels_of(found, VAL) == ["-"] * 3 + ["a"] * 2 + ["b"]
    assert labels_of(found, TEST) == labels_of(found, VAL)
    assert Counter(labels_of(found, TRAIN)) == {"-": 24, "a": 16, "b": 8, "c": 1}
    assert kinds_of(found, VAL) == {"landmark": 3, "non-landmark": 3}


def test_two_of_each_landmark_go_to_val_and_non_landmarks_in_the_same_proportion():
    manifest = made("a " * 10 + "b " * 6 + "c c d " + "- " * 19)
    found = split(manifest, alone(manifest), SplitRule(val=Count(2), test=Share(0)))
    assert labels_of(found, VAL) == ["-"] * 5 + ["a", "a", "b", "b", "c"]
    assert labels_of(found, TEST) == []


def test_non_landmarks_are_dealt_by_kind_and_keep_it():
    kinds = ["street"] * 10 + ["object"] * 20 + ["landmark"] * 4
    manifest = made("- " * 30 + "a a b b", kind=texts(*kinds))
    rule = SplitRule(non_landmark_val=0.1, non_landmark_test=0.5)
    found = split(manifest, alone(manifest), rule)
    others = {part: kinds_of(found, part) for part in (TRAIN, VAL, TEST)}
    assert [others[part]["street"] for part in (TRAIN, VAL, TEST)] == [4, 1, 5]
    assert [others[part]["object"] for part in (TRAIN, VAL, TEST)] == [8, 2, 10]


def test_near_duplicates_stay_together_also_across_landmarks_and_non_landmarks():
    manifest = made("a " * 9 + "b " * 9 + "- " * 9)
    group = np.concatenate([np.arange(9)] * 3)
    for seed in range(10):
        found = split(manifest, group, SplitRule(val=Share(0.3), test=Share(0.3), seed=seed))
        assert (found.part[:9] == found.part[9:18]).all()
        assert (found.part[:9] == found.part[18:]).all()
        assert np.bincount(found.part[:9], minlength=3)[VAL] in (2, 3)


def test_rare_landmarks_become_non_landmarks_each_in_one_part():
    manifest = made("a " * 10 + "r r r s s - - - -")
    found = split(manifest, alone(manifest), SplitRule(choice=Choice(min_pictures=4), val=Share(0.3), test=Share(0.3)))
    assert {name for part in (TRAIN, VAL, TEST) for name in labels_of(found, part)} == {"a", "-"}
    assert len(set(found.part[10:13].tolist())) == len(set(found.part[13:15].tolist())) == 1
    assert found.manifest.kind.tolist() == ["landmark"] * 10 + ["rare-landmark"] * 5 + ["non-landmark"] * 4
    assert found.dropped == {}


def test_rare_landmarks_are_dropped():
    manifest = made("a a a a r r -")
    found = split(manifest, alone(manifest), SplitRule(choice=Choice(min_pictures=3, rare="drop")))
    assert found.part[4:6].tolist() == [DROPPED, DROPPED]
    assert found.dropped == {"rare landmark": 2}


def test_the_biggest_landmarks_are_picked():
    manifest = made("a a b b b c d d d d -")
    found = split(manifest, alone(manifest), SplitRule(choice=Choice(n_landmarks=2)))
    assert (found.part == DROPPED).tolist() == [name in ("a", "c") for name in "aabbbcdddd-"]
    assert found.dropped == {"landmark not picked": 3}


def test_landmarks_are_picked_by_chance():
    manifest = made("a a b b c c d d")
    seen = set()
    for seed in range(40):
        rule = SplitRule(choice=Choice(n_landmarks=2, pick="random"), seed=seed, val=Share(0), test=Share(0))
        seen.add("".join(sorted(set(labels_of(split(manifest, alone(manifest), rule), TRAIN)))))
    assert seen == {"ab", "ac", "ad", "bc", "bd", "cd"}


def test_landmarks_are_picked_by_their_number_of_images():
    manifest = made("a b b c c c d d d d")
    found = split(manifest, alone(manifest), SplitRule(choice=Choice(low=2, high=3), val=Share(0), test=Share(0)))
    assert labels_of(found, TRAIN) == ["b", "b", "c", "c", "c"]


def test_unknown_landmarks_are_held_out_whole_some_in_val_and_some_in_test():
    manifest = made(" ".join(f"{name} " * 5 for name in "abcdefgh"))
    found = split(manifest, alone(manifest), SplitRule(choice=Choice(unknown=4)))
    unknown = found.manifest.kind == "unknown-landmark"
    assert (found.manifest.landmark[unknown] == -1).all()
    parts = found.part[unknown].reshape(4, 5)
    assert sorted(parts[:, 0].tolist()) == [VAL, VAL, TEST, TEST]
    assert (parts == parts[:, :1]).all()
    assert set(labels_of(found, TRAIN)) == {manifest.landmarks[manifest.landmark[i]] for i in np.flatnonzero(~unknown)}


def test_a_fraction_of_the_landmarks_is_held_out_and_all_go_to_test_where_there_is_no_val():
    manifest = made(" ".join(f"{name} " * 5 for name in "abcdefgh"))
    found = split(manifest, alone(manifest), SplitRule(choice=Choice(unknown=0.25), val=Share(0)))
    assert kinds_of(found, TEST)["unknown-landmark"] == 10


def test_landmarks_that_share_images_or_near_duplicates_are_not_held_out():
    manifest = made("a a b b c c+d d e e -")
    group = np.array([0, 1, 1, 3, 4, 5, 6, 7, 8, 8])  # a and b share a group; e shares one with a non-landmark
    for seed in range(5):
        found = split(manifest, group, SplitRule(choice=Choice(unknown=1), seed=seed))
        assert found.manifest.kind[7:9].tolist() == ["unknown-landmark"] * 2
        assert found.part[7] == found.part[8] == found.part[9] != TRAIN
    with pytest.raises(LmrError) as error:
        split(manifest, group, SplitRule(choice=Choice(unknown=2)))
    assert str(error.value) == (
        "made.csv: `unknown_landmarks` 2 asks for 2 of 5 landmarks, of which 1 share no picture or near-duplicate with "
        "another; one must stay known"
    )


def test_rows_of_several_landmarks_keep_those_that_are_used():
    manifest = made("a+b a a b+r b b r+a r p+q p")
    rule = SplitRule(choice=Choice(min_pictures=4, rare="drop"), val=Share(0), test=Share(0))
    found = split(manifest, alone(manifest), rule)
    assert labels_of(found, TRAIN) == ["a", "a", "a", "a+b", "b", "b", "b"]
    assert found.dropped == {"rare landmark": 3}


def test_ignored_rows_are_dropped_and_do_not_count():
    usage = texts("Public", "Ignored", "Public", "Ignored")
    manifest = made("a a b b", usage=usage)
    found = split(manifest, alone(manifest), SplitRule())
    assert (found.part == DROPPED).tolist() == [False, True, False, True]
    assert found.dropped == {"Usage is Ignored": 2}


def test_half_of_test_is_public_and_near_duplicates_are_in_one_half():
    manifest = made("a " * 40 + "- " * 40)
    group = np.arange(80) // 2
    found = split(manifest, group, SplitRule(test=Share(0.5)))
    usage = found.manifest.usage
    assert set(usage[found.part != TEST].tolist()) == {""}
    rows = found.rows(TEST)
    assert Counter(usage[rows[rows < 40]].tolist()) == {"Public": 10, "Private": 10}
    assert Counter(usage[rows[rows >= 40]].tolist()) == {"Public": 10, "Private": 10}
    assert (usage[0::2] == usage[1::2]).all()


@pytest.mark.parametrize(
    ("labels", "choice", "message"),
    [
        ("- -", Choice(), "no row has a landmark_id; a split needs labelled pictures"),
        ("a a b", Choice(n_landmarks=3), "2 landmarks have pictures, `landmarks` 3 asks for more; "
         "choose another `landmarks` or `pick`"),
        ("a a b", Choice(low=5, high=9), "0 landmarks have 5 to 9 pictures; choose another `landmarks` or `pick`"),
        ("a a b", Choice(min_pictures=3), "no landmark has 3 pictures; lower `min_per_landmark`"),
        ("a a", Choice(unknown=1), "`unknown_landmarks` 1 asks for 1 of 1 landmark, of which 1 share no picture or "
         "near-duplicate with another; one must stay known"),
    ],
)  # fmt: skip
def test_too_few_landmarks_are_an_error(labels, choice, message):
    manifest = made(labels)
    with pytest.raises(LmrError) as error:
        split(manifest, alone(manifest), SplitRule(choice=choice))
    assert str(error.value) == f"made.csv: {message}"


def test_a_manifest_without_labels_is_an_error():
    manifest = made("- -", has_labels=False)
    with pytest.raises(LmrError) as error:
        choose_landmarks(manifest, alone(manifest), Choice(), np.random.default_rng(0))
    assert str(error.value) == "made.csv: there is no landmark_id column; a split needs labelled pictures"


def test_val_and_test_must_leave_something():
    with pytest.raises(ValueError, match="must leave something to train"):
        SplitRule(val=Share(0.5), test=Share(0.5))


def test_groups_of_several_landmarks_are_found():
    landmark = np.array([0, 0, 1, -1, 1, 2], dtype=np.int32)
    assert mixed_groups(landmark, np.array([0, 0, 0, 3, 3, 5])).tolist() == [True] + [False] * 5


WORDS = st.lists(st.sampled_from(["-", "-", "a", "a", "b", "c", "d", "a+b", "c+e"]), min_size=2, max_size=30)


@settings(max_examples=150)
@given(st.data(), WORDS)
def test_whatever_is_asked_for_the_promises_hold(data, words):
    words = [*words, "a", "b"]
    manifest = made(" ".join(words))
    group = np.array(data.draw(st.lists(st.integers(0, len(words) - 1), min_size=len(words), max_size=len(words))))
    if data.draw(st.booleans()):
        group = alone(manifest)
    quota = st.builds(Share, st.floats(0.05, 0.45)) | st.builds(Count, st.integers(0, 3))
    choice = Choice(
        min_pictures=data.draw(st.integers(0, 3)),
        rare=data.draw(st.sampled_from(["non-landmark", "drop"])),
        unknown=data.draw(st.sampled_from([0, 0, 1, 0.3])),
    )
    rule = SplitRule(Share(0.2), data.draw(quota), at_least=data.draw(st.integers(0, 1)), choice=choice, seed=1)
    try:
        found = split(manifest, group, rule)
    except LmrError:
        return
    used = found.part != DROPPED
    assert used[manifest.landmark < 0].all()
    for number in set(group.tolist()):
        assert len(set(found.part[used & (group == number)].tolist())) <= 1
    in_train = set(found.manifest.landmark[found.rows(TRAIN, of_landmarks=True)].tolist())
    for part in (VAL, TEST):
        assert set(found.manifest.landmark[found.rows(part, of_landmarks=True)].tolist()) <= in_train
    for kind in ("unknown-landmark", "rare-landmark"):
        of_kind = found.manifest.kind == kind
        for code in set(manifest.landmark[of_kind].tolist()):
            parts = set(found.part[of_kind & (manifest.landmark == code)].tolist())
            assert len(parts) == 1
            assert kind == "rare-landmark" or parts <= {VAL, TEST}
    again = split(manifest, group, rule)
    assert (again.part == found.part).all()
    assert (again.manifest.usage == found.manifest.usage).all()
