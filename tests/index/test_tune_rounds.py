"""Tuning an index: which spaces there are, what is found in them, how one is chosen, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from tuning_world import make_material, make_world

from index.calibrate.selection import Grid
from index.folder.build import build_folder
from index.folder.folder import open_folder
from index.folder.inputs import BuildInputs
from index.metrics import make_truths
from index.recognition import to_index_space
from index.tune import rounds
from index.tune.material import Finder
from index.tune.rounds import Limit, judge_all, run_rounds
from index.tune.spaces import Choices, Space, parts_of, spaces_of
from index.vote_rule import VoteRule
from retrieval.progress import SILENT
from retrieval.store.store import StoreInfo

WHOLE = {"neck": slice(0, 8)}


def choices(**changed):
    return Choices(**{"parts": WHOLE, "d": 8, "n": 100, "has_pairs": True, "backgrounds": (True, False)} | changed)


def test_the_space_of_build_index_is_first_and_each_is_there_once():
    spaces = spaces_of(choices())
    assert spaces[0] == Space("neck", "pca", 0.5, 8, background=True)
    assert len(spaces) == len(set(spaces)) == 2 * (1 + 4 + 4)


def test_spaces_with_one_change_come_before_those_with_more():
    spaces = spaces_of(choices())
    n_changes = [
        (space.whitening != "pca") + (space.whitening_power != 0.5) + (not space.background) for space in spaces
    ]
    assert n_changes == sorted(n_changes)


def test_dimensions_go_up_to_those_of_the_part_and_to_one_less_than_the_vectors():
    parts = {"both": slice(0, 2000), "neck": slice(0, 300), "pooled": slice(300, 2000)}
    found = choices(parts=parts, d=2000, n=5000)
    assert [found.lengths(part) for part in parts] == [[512, 128, 256, 1024], [300, 128, 256], [512, 128, 256, 1024]]
    assert choices(parts=parts, d=2000, n=101).lengths("both") == [100]


def test_without_two_pictures_of_a_landmark_no_whitening_is_supervised():
    assert {space.whitening for space in spaces_of(choices(has_pairs=False))} == {"pca", "none"}


def info(model, d=8):
    return StoreInfo("ab" * 32, model, {}, "0.1", "manifest", "float32", d)


def test_a_store_of_both_has_neck_and_pooled_features_side_by_side():
    config = {"backbone": "x", "pooling": "gem", "gem_p": 3.0, "n_dimensions": 3, "prelu": False}
    config |= {"backbone_options": {}, "last_layer": None}
    model = {"config": config, "weights_sha256": "0", "flip": False, "descriptor": "both", "scales": [1.0]}
    assert parts_of(info(model)) == {"both": slice(0, 8), "neck": slice(0, 3), "pooled": slice(3, 8)}
    assert parts_of(info({**model, "descriptor": "pooled"})) == {"pooled": slice(0, 8)}
    assert parts_of(info({**model, "config": {**config, "adapter": {}}})) == {"both": slice(0, 8)}
    assert parts_of(info({"members": []})) == {"ensemble": slice(0, 8)}


SPACES = [
    Space("ensemble", "pca", 0.5, 6, background=True),
    Space("ensemble", "supervised", 1.0, 5, background=True),
    Space("ensemble", "none", 0.0, 0, background=True),
    Space("ensemble", "pca", 1.0, 8, background=False),
]


@pytest.mark.parametrize("space", SPACES)
def test_queries_find_in_a_space_what_they_find_in_an_index_built_in_it(tmp_path, space):
    train, background, val, model = make_world(tmp_path)
    inputs = BuildInputs([train], model, [background] if space.background else [])
    build_folder(model.parent / "landmarks", inputs, space.build_options(), device="cpu")
    folder = open_folder(model.parent / "landmarks", device="cpu")
    material = make_material(train, background, val, model)
    found = Finder(material, SPACES[0], seed=0).judge(space, with_rows=True).queries
    order = np.argsort(val.image_id[:], kind="stable")
    neighbours, _ = folder.search(to_index_space(folder, val.vectors[order]), 50)
    assert found.image_id.tolist() == val.image_id[order].tolist()
    assert (found.neighbours.rows == neighbours.rows).all()
    assert found.neighbours.scores == pytest.approx(neighbours.scores, abs=1e-5)
    if space.background:
        assert found.row_background == pytest.approx(folder.rows.background, abs=1e-5)
    else:
        assert found.background is found.row_background is None


@pytest.fixture(autouse=True)
def few_rules(monkeypatch):
    """A second round of four rules."""
    monkeypatch.setattr(rounds, "GRID", Grid(k=(1, 20), tau=(0.05, 0.2), r=(0.5,), beta=(0.0,)))


SHORT = [SPACES[0], replace(SPACES[0], n_dimensions=8), SPACES[1], SPACES[2]]


def tuned(material, n_tries=None, minutes=10.0, seed=0):
    return run_rounds(Finder(material, SHORT[0], seed), SHORT, Limit(minutes, n_tries), SILENT)


def test_as_many_settings_are_tried_as_asked_and_the_same_again_give_the_same_bits(tmp_path):
    material = make_material(*make_world(tmp_path))
    one, other = tuned(material, 7), tuned(material, 7)
    assert one == other
    assert one.n_tries == 7
    assert one.n_planned == len(SHORT) * 3


def test_when_the_time_is_over_the_defaults_have_been_judged(tmp_path):
    found = tuned(make_material(*make_world(tmp_path)), minutes=1e-9)
    assert found.n_tries == 1
    assert found.chosen == found.tried
    assert found.chosen.rule == VoteRule()
    assert (found.is_default, found.gain) == (True, 0)


def test_the_better_space_is_chosen_where_the_default_one_hides_the_landmarks(tmp_path):
    # All but one column is noise that whitening to half the power leaves the largest.
    found = tuned(make_material(*make_world(tmp_path, noise=6.0)))
    assert found.chosen == found.tried
    assert found.gain > found.gain_error
    assert found.nested.gap > found.default.gap


def test_the_setting_of_a_fold_is_chosen_without_its_truths(tmp_path, monkeypatch):
    material = make_material(*make_world(tmp_path, noise=6.0))
    fold = np.arange(len(material.image_id)) % 5
    monkeypatch.setattr("index.tune.material.make_folds", lambda *_: fold)
    truth = material.truths.first.copy()
    truth[fold == 2] = np.where(truth[fold == 2] >= 0, -1, 3)
    changed = replace(material, truths=make_truths([[code] for code in truth]))
    chosen = []
    for given in (material, changed):
        done, _ = judge_all(Finder(given, SHORT[0], 0), SHORT, Limit(10.0, None), SILENT)
        chosen.append([done.best_setting(f + 1) for f in range(5)])
    assert chosen[0][2] == chosen[1][2]
    assert chosen[0] != chosen[1]
