"""Recipes: reading, overrides, lists to search, members; every mistake named."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from retrieval.errors import LmrError
from retrieval.train.recipes.recipe import (
    Recipe,
    change,
    choices,
    draw,
    members,
    on_network,
    override,
    read_recipe,
    recipe_names,
    settle,
)
from retrieval.train.recipes.values import parse_spec, to_toml

OPTIONS = {
    "train": dict.fromkeys(("backbone", "pretrained", "weights", "size", "epochs", "optimizer", "cap", "seed"), False)
    | {"backbone-option": True},
    "embed": {"backbone": False, "pretrained": False, "size": False, "flip": False},
    "build-index": {"whitening-power": False, "background": True},
    "calibrate": {"precision": False, "seed": False},
}
PLAIN = """
about = "A test."
[train]
backbone = "resnet18"
size = 64
epochs = [3, 5]
optimizer = ["sgd", "adam", "rmsprop"]
[embed]
size = 80
"""


def recipe(folder: Path, text: str = PLAIN) -> Recipe:
    (folder / "mine.toml").write_text(text)
    return read_recipe(str(folder / "mine.toml"), OPTIONS)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(LmrError) as caught:
        _ = recipe(folder, text).answering
    return str(caught.value).replace(f"{folder}/", "")


def test_a_recipe_is_read_by_its_path(tmp_path: Path) -> None:
    read = recipe(tmp_path)
    assert (read.name, read.about, read.answering.by) == ("mine", "A test.", "index")
    assert read.tables["embed"] == {"size": 80}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[train]\noptimzer = 'sgd'",
            "mine.toml: [train] optimzer is not an option of lmr train; did you mean optimizer?",
        ),
        (
            "[train]\n[[stage]]\nepoch = 1",
            "mine.toml: [stage.1] epoch is not an option of lmr train; did you mean epochs?",
        ),
        ("[trian]\nsize = 1", "mine.toml: [trian] is no table of a recipe; did you mean train?"),
        (
            "[answer]\nneighbour = 3",
            "mine.toml: [answer] neighbour is not a key; did you mean neighbours?",
        ),
        (
            "[answer]\nby = 'luck'",
            "mine.toml: [answer] by is one of index, nearest, majority, classifier, got luck",
        ),
        (
            "[answer]\nby = 'classifier'",
            "mine.toml: [answer] by = classifier needs training; add [train], or answer by index",
        ),
        ("[answer]\ncomparisons = -1", "mine.toml: [answer] comparisons is a whole number from 0, got -1"),
        ("[answer]\ninliers = 0", "mine.toml: [answer] inliers is a whole number from 1, got 0"),
        (
            "[answer]\ncomparisons = 20",
            "mine.toml: [answer] comparisons are of answers by = classifier, not index",
        ),
        ("[answer]\nneighbours = 0", "mine.toml: [answer] neighbours is a whole number from 1, got 0"),
        ("size = 3", "mine.toml: size stands in no table; put it under [train], [embed] or another command"),
        ("stage = 3", "mine.toml: stage is a list of tables; write [[stage]]"),
        ("[[stage]]\nepochs = 3", "mine.toml: it has stages, but no [train]; add that table, empty or not"),
        ("[train]\nepochs = []", "mine.toml: [train] epochs is an empty list; give values to choose from"),
        ("[train.size]\na = 1", "mine.toml: [train] size is a table; give options as name = value"),
        (
            "[train]\nsize = 64\n[embed]\nbackbone = 'a'",
            "mine.toml: [embed] backbone: the network is the one of [train]; set it there",
        ),
        ("about = 3", "mine.toml: about is text for people, got 3"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line_that_names_the_right_one(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text) == message


def test_an_unknown_recipe_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(LmrError, match=r"^there is no recipe arcfase; did you mean arcface\?$"):
        read_recipe("arcfase", OPTIONS)
    with pytest.raises(LmrError, match=r"gone\.toml: No such file or directory$"):
        read_recipe(str(tmp_path / "gone.toml"), OPTIONS)
    (tmp_path / "bad.toml").write_text("[train")
    with pytest.raises(LmrError, match=r"bad\.toml: not TOML: "):
        read_recipe(str(tmp_path / "bad.toml"), OPTIONS)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("slides", {}),
        ("slides:backbone=resnet101,optimizer=sgd", {"backbone": "resnet101", "optimizer": "sgd"}),
        ("knn:mean=0.5,0.5,0.5,size=96", {"mean": "0.5,0.5,0.5", "size": 96}),
        ("a:head-rate=1e-3,flip=true", {"head-rate": 1e-3, "flip": True}),
        ("a:backbone-option=width_mult=0.5", {"backbone-option": "width_mult=0.5"}),
        ("a:backbone=timm:x", {"backbone": "timm:x"}),
        ("a:mean=1,2,3,b=2,mean=4,5,6", {"mean": ["1,2,3", "4,5,6"], "b": 2}),
    ],
)
def test_overrides_follow_a_colon(text: str, values: dict[str, Any]) -> None:
    name, found = parse_spec(text)
    assert (name, found) == (text.partition(":")[0], values)


@pytest.mark.parametrize("text", ["slides:resnet101", "slides:=3", "slides:,size=3"])
def test_an_override_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(LmrError, match="is not KEY=VALUE, such as backbone=resnet50"):
        parse_spec(text)


def test_a_key_changes_wherever_the_recipe_sets_it(tmp_path: Path) -> None:
    changed = change(recipe(tmp_path), {"size": 32}, OPTIONS)
    assert (changed.tables["train"]["size"], changed.tables["embed"]["size"]) == (32, 32)


def test_a_key_with_a_table_changes_there_alone(tmp_path: Path) -> None:
    changed = change(recipe(tmp_path), {"embed.size": 32}, OPTIONS)
    assert (changed.tables["train"]["size"], changed.tables["embed"]["size"]) == (64, 32)


def test_a_key_that_the_recipe_does_not_set_goes_to_the_first_command_that_knows_it(tmp_path: Path) -> None:
    changed = change(recipe(tmp_path), {"flip": True, "pretrained": True, "whitening_power": 0}, OPTIONS)
    assert changed.tables["train"]["pretrained"] is True
    assert changed.tables["embed"] == {"size": 80, "flip": True}
    assert changed.tables["build-index"] == {"whitening-power": 0}


def test_a_key_of_a_command_that_a_classifier_does_not_run_is_refused(tmp_path: Path) -> None:
    classifier = recipe(tmp_path, "[answer]\nby = 'classifier'\n[train]\nsize = 64")
    with pytest.raises(LmrError, match=r"mine\.toml: flip is not an option of train, answer; "):
        change(classifier, {"flip": True}, OPTIONS)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("epoch", "epoch is not an option of train, embed, build-index, calibrate, answer; did you mean epochs?"),
        ("train.epoch", "[train] epoch is not an option of lmr train; did you mean epochs?"),
        ("stage.1.epochs", "stage.1.epochs: it has no [stage.1]; its tables are train, embed"),
    ],
)
def test_an_override_that_nothing_knows_names_the_right_one(tmp_path: Path, key: str, message: str) -> None:
    with pytest.raises(LmrError) as caught:
        change(recipe(tmp_path), {key: 1}, OPTIONS)
    assert str(caught.value) == f"{tmp_path}/mine.toml: {message}"


def test_a_stage_can_be_overridden(tmp_path: Path) -> None:
    two = recipe(tmp_path, "[train]\nsize = 64\n[[stage]]\nepochs = 1\n[[stage]]\nepochs = 2")
    assert [stage["epochs"] for stage in change(two, {"stage.2.epochs": 7}, OPTIONS).stages] == [1, 7]
    assert [stage["epochs"] for stage in change(two, {"epochs": 9}, OPTIONS).stages] == [9, 9]


MEMBERS = """
[train]
size = 64
cap = 60
[embed]
flip = true
size = 80
[[member]]
[[member]]
cap = 120
size = 96
"embed.flip" = false
"""


def test_an_override_is_for_all_members_whatever_they_set_themselves(tmp_path: Path) -> None:
    changed = override(recipe(tmp_path, MEMBERS), {"cap": 40, "train.size": 32}, OPTIONS)
    assert changed.members == ({}, {"embed.size": 96, "embed.flip": False})
    made = members(changed, 0, OPTIONS)
    assert [member.tables["train"]["cap"] for member in made] == [40, 40]
    assert [member.tables["train"]["size"] for member in made] == [32, 32]
    assert [member.tables["embed"] for member in made] == [{"flip": True, "size": 80}, {"flip": False, "size": 96}]


def test_a_search_leaves_members_what_they_set_themselves(tmp_path: Path) -> None:
    read = recipe(tmp_path, MEMBERS.replace("cap = 60", "cap = [60, 30]"))
    assert [member.tables["train"]["cap"] for member in members(settle(read, OPTIONS), 0, OPTIONS)] == [60, 120]


def test_an_option_of_several_values_may_be_overridden_several_times_others_once(tmp_path: Path) -> None:
    changed = override(recipe(tmp_path), parse_spec("a:backbone-option=x=1,backbone-option=y=2")[1], OPTIONS)
    assert changed.tables["train"]["backbone-option"] == ["x=1", "y=2"]
    with pytest.raises(LmrError, match=r"mine\.toml: size is given 2 times; it takes one value$"):
        override(recipe(tmp_path), parse_spec("a:size=32,size=48")[1], OPTIONS)


@pytest.mark.parametrize("text", ["a:by=index,flip=true", "a:flip=true,by=index"])
def test_overrides_mean_the_same_in_any_order(tmp_path: Path, text: str) -> None:
    classifier = recipe(tmp_path, "[answer]\nby = 'classifier'\n[train]\nsize = 64")
    changed = override(classifier, parse_spec(text)[1], OPTIONS)
    assert (changed.answering.by, changed.tables["embed"]) == ("index", {"flip": True})


@pytest.mark.parametrize(
    "seeded", ["[train]\nseed = 5", "[train]\n[[stage]]\nseed = 5", "[train]\n[[member]]\nseed = 5"]
)
def test_a_seed_of_a_recipe_is_refused_because_runs_and_members_have_theirs(tmp_path: Path, seeded: str) -> None:
    with pytest.raises(LmrError) as caught:
        members(recipe(tmp_path, seeded), 0, OPTIONS)
    assert str(caught.value) == (
        f"{tmp_path}/mine.toml: seed: every run and member is trained with its own; give `seeds`"
    )


def test_another_network_takes_away_what_belonged_to_the_old_one(tmp_path: Path) -> None:
    text = "[train]\nbackbone = 'a'\npretrained = true\nsize = 64\n[[member]]\nbackbone = 'b'\ncap = 3"
    moved = on_network(recipe(tmp_path, text), {"backbone": "c", "weights": "c.pt"})
    assert moved.tables["train"] == {"backbone": "c", "weights": "c.pt", "size": 64}
    assert moved.members == ({"cap": 3},)
    text = "[embed]\nbackbone = 'a'\npretrained = true"
    published = on_network(recipe(tmp_path, text), {"backbone": "c"})
    assert published.tables["embed"] == {"backbone": "c", "pretrained": True}
    random = on_network(recipe(tmp_path, text), {"backbone": "c", "pretrained": False})
    assert random.tables["embed"] == {"backbone": "c", "pretrained": False}


def test_a_list_is_a_choice_and_its_first_value_what_runs(tmp_path: Path) -> None:
    read = recipe(tmp_path)
    assert choices(read, OPTIONS) == {"train.epochs": [3, 5], "train.optimizer": ["sgd", "adam", "rmsprop"]}
    settled = settle(read, OPTIONS)
    assert (settled.tables["train"]["epochs"], settled.tables["train"]["optimizer"]) == (3, "sgd")
    assert choices(settled, OPTIONS) == {}


def test_a_list_of_an_option_that_takes_several_values_is_one_value(tmp_path: Path) -> None:
    read = recipe(
        tmp_path, "[train]\nbackbone-option = ['a=1', 'b=2']\n[build-index]\nbackground = [['x'], ['y', 'z']]"
    )
    assert choices(read, OPTIONS) == {"build-index.background": [["x"], ["y", "z"]]}


def test_drawn_combinations_are_different_seeded_and_begin_with_the_first_values(tmp_path: Path) -> None:
    read = recipe(tmp_path)
    drawn = draw(read, OPTIONS, 4, seed=1)
    assert drawn[0] == {"train.epochs": 3, "train.optimizer": "sgd"}
    assert len({tuple(values.items()) for values in drawn}) == 4
    assert drawn == draw(read, OPTIONS, 4, seed=1)
    assert len({str(draw(read, OPTIONS, 2, seed=seed)) for seed in range(8)}) > 1
    everything = {(v["train.epochs"], v["train.optimizer"]) for v in draw(read, OPTIONS, 99, seed=0)}
    assert everything == {(e, o) for e in (3, 5) for o in ("sgd", "adam", "rmsprop")}


def test_members_have_their_own_values_and_seeds_that_no_other_run_has(tmp_path: Path) -> None:
    text = "[train]\nsize = 64\ncap = 60\n[[member]]\n[[member]]\ncap = 120\n'embed.flip' = true"
    read = recipe(tmp_path, text)
    first, second = members(read, 0, OPTIONS)
    assert (first.tables["train"]["cap"], second.tables["train"]["cap"]) == (60, 120)
    assert second.tables["embed"] == {"flip": True}
    seeds = [part.tables["train"]["seed"] for seed in range(3) for part in members(read, seed, OPTIONS)]
    assert seeds == [0, 1, 2, 3, 4, 5]


def test_what_is_written_as_toml_reads_back() -> None:
    table = {"backbone": 'a "b" \\', "size": 64, "rate": 1e-5, "flip": True, "many": ["a", "b"]}
    stages = [{"epochs": 1}, {"epochs": 2, "freeze": "all"}]
    assert tomllib.loads(to_toml(table, stages)) == {**table, "stage": stages}


def test_every_recipe_says_what_it_is() -> None:
    names = recipe_names()
    assert {"kapoor", "widholm-vgg16-delf", "slides", "cs231n-erus-resnet50", "data603-mobilenet"} < set(names)
    assert {"knn-imagenet", "arcface", "arcface-subcenter-dynamic", "arcface-best", "arcface-ensemble"} < set(names)
