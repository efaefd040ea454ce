"""What `lmr compare` refuses before it makes anything, and what overrides do to the shipped recipes."""

from pathlib import Path

import numpy as np
import pytest
from tiny_set import refused, write_csv

from cli.terminal import with_options
from index.compare.data import ComparisonData
from index.compare.plan import left_out, read_entries
from index.compare.steps import step_options
from retrieval.errors import LmrError
from retrieval.train.recipes.recipe import members

SMALL = """
[answer]
by = "classifier"
[train]
backbone = "plain-cnn"
size = 32
epochs = 1
"""


def refusal(spec: str) -> str:
    with pytest.raises(LmrError) as caught:
        read_entries([spec], {}, step_options())
    return with_options(str(caught.value))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "slides:backbone=resnet51",
            "recipe slides: --backbone resnet51: torchvision has no such network; did you mean",
        ),
        ("slides:backbone=plain-cnn", "recipe slides: --backbone plain-cnn: there are no pretrained weights of it; "),
        (
            "slides:weights=w.pt",
            "recipe slides: --pretrained and --weights exclude each other; give one (in a recipe: ",
        ),
        ("kapoor:dropout=2", "recipe kapoor: --dropout must lie in [0, 1), got 2.0"),
        ("cs231n-erus-resnet50:cap=20", "recipe cs231n-erus-resnet50: --floor 30 lies above --cap 20; lower it"),
        ("widholm-vgg16-delf:stage.2.freeze=some", "recipe widholm-vgg16-delf: --freeze is none, all, or how many "),
        ("slides:margin-cos=0.2", "recipe slides: --margin-cos "),
        ("slides:seed=3", "recipe slides: seed: every run and member is trained with its own; give --seeds"),
    ],
)
def test_values_that_cannot_be_are_refused_before_anything_is_trained(spec: str, message: str) -> None:
    assert refusal(spec).startswith(message)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ('optimizer = ["adam", "sdg"]', "[train] Invalid value for '--optimizer': 'sdg' is not one of "),
        ('backbone = ["plain-cnn", "plain-cn"]', "--backbone plain-cn: torchvision has no such network; did you mean "),
        ("dropout = [0, 1]", "--dropout must lie in [0, 1), got 1.0"),
    ],
    ids=["form", "network", "range"],
)
def test_every_value_of_a_list_is_checked_though_only_a_search_would_come_to_it(
    tmp_path: Path, listed: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    small = SMALL if "backbone" not in listed else SMALL.replace('backbone = "plain-cnn"\n', "")
    path.write_text(f'{small}loss = "linear"\n{listed}\n')
    assert refusal(str(path)).startswith(f"{path}: {message}")


def test_manifests_of_non_landmarks_that_are_left_out_are_told(tmp_path: Path) -> None:
    (entry,) = read_entries(["arcface-best:build-index.background=noise.csv"], {}, step_options())
    data = ComparisonData(tmp_path, tmp_path, {}, ("arch",), np.array([3]))
    assert left_out(data, entry.recipe) == ["background.csv", "noise.csv"]
    (tmp_path / "background.csv").touch()
    assert left_out(data, entry.recipe) == ["noise.csv"]


def test_an_override_of_an_ensemble_is_for_all_its_members() -> None:
    options = step_options()
    (entry,) = read_entries(["cs231n-erus-resnet50:cap=40"], {"head-rate": 1e-4}, options)
    trained = [member.tables["train"] for member in members(entry.recipe, 0, options)]
    assert [(table["cap"], table["member"]) for table in trained] == [(40, 0), (40, 1), (40, 2)]
    assert {table["head-rate"] for table in trained} == {1e-4}


@pytest.mark.parametrize(
    ("rows", "n"), [(["val-other-0,"], 0), (["val-other-0,", "val-arch-0,arhc", "val-arch-1,arch"], 1)]
)
def test_queries_that_show_no_landmark_of_train_are_found_before_anything_is_trained(images, rows, n):
    Path("small.toml").write_text(SMALL)
    write_csv(Path("val.csv"), "id,landmark_id", rows)
    assert refused("compare", "small.toml") == (
        f"val.csv: pictures that show a landmark of train.csv: {n} of {len(rows)}; comparing needs 2 or more"
    )
    assert not Path("compare").exists()


def test_what_one_recipe_is_told_outweighs_what_all_are_told() -> None:
    given = ["arcface-best:embed.size=165", "arcface"]
    best, plain = (entry.recipe.tables for entry in read_entries(given, {"size": 128}, step_options()))
    assert (best["train"]["size"], best["embed"]["size"], plain["train"]["size"]) == (128, 165, 128)


def test_what_all_are_told_reaches_a_recipe_that_its_override_makes_answer_by_an_index() -> None:
    (entry,) = read_entries(["slides:by=nearest"], {"whitening-power": 0}, step_options())
    assert entry.recipe.tables["build-index"] == {"whitening-power": 0}


def test_members_of_one_index_do_not_ask_for_different_ones(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(
        SMALL.replace("classifier", "index") + '[[member]]\n[[member]]\n"build-index.storage" = "float32"\n'
    )
    assert refusal(str(path)) == f"{path}: [build-index] is of all members, as their mean is one index; set it for all"
