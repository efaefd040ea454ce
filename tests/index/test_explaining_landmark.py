"""What an index knows of a landmark: typical and deviant images, and what it is confused with."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from index.evaluate.leave_one_out import ask_left_out
from index.explain import landmark as explaining
from index.explain.landmark import Effort, explain_landmark
from index.folder.build import BuildOptions
from index.landmarks import Landmarks
from index.rerank.config import Refinement
from retrieval.data.names import Name
from retrieval.errors import LmrError

LABELS = ["rome"] * 6 + ["paris"] * 5 + ["oslo"] * 4


@pytest.fixture
def folder(make_folder, make_store):
    return make_folder(make_store(LABELS, seed=0))


def vectors_of(folder):
    return folder.index.vectors(np.arange(len(folder.rows))).astype(np.float64)


def refusal(folder, landmark):
    with pytest.raises(LmrError) as caught:
        explain_landmark(folder, landmark, top=3)
    return str(caught.value)


def test_images_are_ordered_by_how_like_the_others_they_are(folder):
    vectors, own = vectors_of(folder), np.flatnonzero(folder.rows.landmark == folder.rows.landmarks.index("rome"))
    means = {}
    for i in own:
        means[str(folder.rows.image_id[i])] = np.mean([vectors[i] @ vectors[j] for j in own if j != i])
    ranked = sorted(means, key=lambda image: -means[image])
    found = explain_landmark(folder, "rome", top=2)
    assert [one.image.image_id for one in found.typical] == ranked[:2]
    assert [one.image.image_id for one in found.deviant] == ranked[::-1][:2]
    assert found.similarity == pytest.approx(np.mean(list(means.values())))
    for one in (*found.typical, *found.deviant):
        assert one.similarity == pytest.approx(means[one.image.image_id])
        row = folder.rows.image_id.tolist().index(one.image.image_id)
        scores = np.where(np.isin(np.arange(len(vectors)), own), -np.inf, vectors @ vectors[row])
        assert one.nearest.image_id == folder.rows.image_id[int(scores.argmax())]
        assert one.nearest.score == pytest.approx(scores.max(), abs=1e-6)


def test_no_image_is_both_typical_and_deviant(folder):
    found = explain_landmark(folder, "paris", top=9)
    typical, deviant = ([one.image.image_id for one in ends] for ends in (found.typical, found.deviant))
    assert (len(typical), len(deviant)) == (3, 2)
    assert not {*typical} & {*deviant}


def test_confusions_are_those_of_leaving_each_image_out(folder):
    """By the answers to all rows at once."""
    rows = folder.rows
    answers = ask_left_out(folder).ask(np.arange(len(rows))).landmark
    labels = np.array(rows.landmarks)
    for label in rows.landmarks:
        own = labels[rows.landmark] == label
        found = explain_landmark(folder, label, top=1)
        assert (found.n_asked, found.n_right) == (own.sum(), (own & (labels[answers] == label)).sum())
        taken = Counter(labels[answers[own]].tolist())
        given = Counter(labels[rows.landmark[~own & (labels[answers] == label)]].tolist())
        assert {one.landmark_id: one.n_taken for one in found.confused if one.n_taken} == taken - Counter({label: 99})
        assert {one.landmark_id: one.n_given for one in found.confused if one.n_given} == given
        order = [(-one.n_taken - one.n_given, -one.n_nearest) for one in found.confused]
        assert order == sorted(order)


def test_the_nearest_images_of_other_landmarks_are_counted(folder):
    vectors, rows = vectors_of(folder), folder.rows
    own = np.flatnonzero(rows.landmark == rows.landmarks.index("oslo"))
    scores = vectors[own] @ vectors.T
    scores[:, own] = -np.inf
    expected = Counter(rows.landmarks[rows.landmark[i]] for i in scores.argmax(axis=1))
    found = explain_landmark(folder, "oslo", top=1)
    assert {one.landmark_id: one.n_nearest for one in found.confused if one.n_nearest} == expected


@pytest.mark.parametrize("block", [2, 4096])
def test_the_closest_pair_is_the_most_similar_one(folder, monkeypatch, block):
    monkeypatch.setattr(explaining, "BLOCK_ROWS", block)
    vectors, rows = vectors_of(folder), folder.rows
    found = explain_landmark(folder, "rome", top=1)
    labels = np.array(rows.landmarks)[rows.landmark]
    own, other = np.flatnonzero(labels == "rome"), np.flatnonzero(labels == found.confused[0].landmark_id)
    scores = vectors[own] @ vectors[other].T
    i, j = np.unravel_index(scores.argmax(), scores.shape)
    assert [image.image_id for image in found.closest] == [rows.image_id[own[i]], rows.image_id[other[j]]]
    assert found.closest[0].score == pytest.approx(scores.max(), abs=1e-6)
    assert found.closest_row == other[j]


def test_images_are_asked_in_blocks_and_those_shown_together(folder, monkeypatch):
    whole = explain_landmark(folder, "rome", top=2).to_json()
    asked = []

    def nearest(self, vectors, k):
        asked.append(len(vectors))
        return original(self, vectors, k)

    original = type(folder).nearest
    monkeypatch.setattr(type(folder), "nearest", nearest)
    monkeypatch.setattr(explaining, "BLOCK_ASKED", 4)
    assert explain_landmark(folder, "rome", top=2).to_json() == whole
    assert asked[:3] == [4, 4, 2]


def test_of_many_images_some_are_asked(folder):
    found = explain_landmark(folder, "rome", top=2, effort=Effort(n_asked=3))
    assert found.n_asked == 3
    assert found.n_images == 6
    assert found.notes == ("of its 6 images 3 were asked",)
    assert len(found.typical) == 2


def test_a_quick_account_is_of_few_images_and_says_so(folder):
    effort = Effort(n_compared=4, n_asked=2, n_near=1, n_nearest=8)
    found, whole = (explain_landmark(folder, "rome", top=2, effort=one) for one in (effort, Effort()))
    assert (found.n_images, found.n_asked) == (6, 2)
    assert found.notes == (
        "of its 6 images 2 were asked",
        "the most typical and deviant ones are those of 4 of them",
    )
    assert {one.image.image_id for one in found.typical} <= {f"train.h5-{i}" for i in (0, 1, 3, 5)}
    assert len(found.typical) == len(found.deviant) == 2
    assert {one.landmark_id for one in found.confused} <= {one.landmark_id for one in whole.confused}


def test_a_single_image_has_neighbours_and_no_ends(make_folder, make_store):
    folder = make_folder(make_store([*LABELS, "atlantis"], seed=0))
    found = explain_landmark(folder, "atlantis", top=3)
    assert (found.similarity, found.typical, found.deviant, found.n_right) == (None, (), (), None)
    assert found.notes == ("it has a single image: none is typical, and left out it cannot be found",)
    assert found.closest is not None
    assert sum(one.n_nearest for one in found.confused) == 1


def test_two_images_are_as_typical_as_each_other(make_folder, make_store):
    folder = make_folder(make_store([*LABELS, "atlantis", "atlantis"], seed=0))
    found = explain_landmark(folder, "atlantis", top=3)
    assert (len(found.typical), len(found.deviant)) == (2, 0)


def test_an_index_of_one_landmark_has_nothing_to_confuse_it_with(make_folder, make_store):
    found = explain_landmark(make_folder(make_store(["rome"] * 4, seed=0)), "rome", top=3)
    assert (found.confused, found.closest) == ((), None)
    assert found.notes == ("the index has no other landmark, so there is nothing that it could be confused with",)
    assert all(one.nearest is None for one in found.typical)
    with pytest.raises(LmrError) as caught:
        found.maps()
    assert str(caught.value) == "there is no second landmark to compare with"


def test_where_images_borrow_from_each_other_none_is_left_out(make_folder, make_store):
    options = BuildOptions(whitening_power=None, refinement=Refinement(n_expand=2))
    found = explain_landmark(make_folder(make_store(LABELS, seed=0), options=options), "rome", top=3)
    assert found.n_right is None
    assert found.notes == ("images of this index borrow from each other, so none can be left out and asked",)
    assert {one.n_taken for one in found.confused} == {0}
    assert found.closest is not None


def test_a_landmark_that_is_not_there_is_answered_with_what_is_spelt_alike(folder):
    assert refusal(folder, "Rom") == f"{folder.path} has no landmark Rom; did you mean rome?"
    assert (
        refusal(folder, "zzz") == f"{folder.path} has no landmark zzz; it has 3 landmarks, which lmr index export lists"
    )


def test_a_landmark_is_known_by_its_name_too(folder):
    named = replace(folder, names={"rome": Name("Roma"), "oslo": Name("Kristiania"), "paris": Name("Kristiania")})
    assert explain_landmark(named, "Roma", top=1).landmark_id == "rome"
    assert explain_landmark(named, "Roma", top=1).shown == "Roma (rome)"
    assert refusal(named, "roma") == f"{folder.path} has no landmark roma; did you mean rome?"
    assert refusal(named, "Kristiania") == (
        f"{folder.path} has 2 landmarks of the name Kristiania; give one of oslo, paris"
    )


def test_images_that_are_gone_have_no_map(folder):
    found = explain_landmark(folder, "rome", top=1)
    with pytest.raises(LmrError) as caught:
        found.maps(device="cpu")
    assert str(caught.value) == f"{found.closest[0].image_id} cannot be read (not found)"


def test_the_json_holds_all_that_is_told(folder):
    found = explain_landmark(folder, "rome", top=2)
    told = found.to_json()
    assert [*told] == [
        *("landmark_id", "name", "n_images", "similarity", "typical", "deviant", "n_asked", "n_right", "confused"),
        *("closest", "notes"),
    ]
    assert told["closest"]["similarity"] == found.closest[0].score
    assert told["typical"][0]["similarity"] == found.typical[0].similarity


def test_a_class_is_explained_by_the_classifier_of_a_model(folder, monkeypatch):
    class Classifier:
        def __init__(self, model, *, device, threads):
            self.opened = str(model), device, threads

        def maps(self, query, label):
            return *self.opened, query, label

    monkeypatch.setattr("retrieval.explain.saliency.ExplainedClassifier", Classifier)
    opened = Landmarks(folder, None, device="cpu", threads=2)
    assert opened.explain_class(b"image", "model", "rome") == ("model", "cpu", 2, b"image", "rome")
    assert opened.explain_class(b"image", "model")[-1] is None
