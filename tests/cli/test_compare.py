"""`lmr compare`: systems side by side, what is finished kept, every mistake named before anything runs."""

import csv
import io
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_set import done, misused, refused, run

from index.compare import steps
from index.compare.plan import read_entries
from index.compare.steps import step_options
from retrieval.train.recipes.recipe import recipe_names

HERE = ("--workers", "0", "--threads", "1", "--device", "cpu")
KNN = """
about = "Nearest neighbours."
[answer]
by = "nearest"
[embed]
backbone = "shufflenet_v2_x0_5"
size = 32
dimensions = 0
[build-index]
whitening-power = [0.5, 0]
"""
TRAINED = """
about = "Trained."
[answer]
by = "classifier"
[train]
backbone = "shufflenet_v2_x0_5"
size = 32
epochs = 1
epoch-size = 8
batch-size = 4
negatives = "background.csv"
"""


@pytest.fixture
def recipes(images: Path) -> Path:
    """The working folder, with knn.toml and trained.toml."""
    Path("knn.toml").write_text(KNN)
    Path("trained.toml").write_text(TRAINED)
    return images


@pytest.fixture
def classifying(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that tells landmarks by their mean colour, in place of the one that a training leaves."""

    def classify(source, rows, k):
        labels = ("dome", "arch", "bridge", "castle")  # another order than the manifest's
        colours = {"arch": (40, 40, 200), "bridge": (200, 40, 40), "castle": (40, 200, 200), "dome": (200, 200, 40)}
        found = []
        for row in rows:
            mean = np.asarray(Image.open(io.BytesIO(source.read(int(row)))).convert("RGB")).mean(axis=(0, 1))
            distance = np.array([np.abs(mean - np.array(colours[label]) * 0.6).sum() for label in labels])
            found.append(np.exp(-distance / 40) / np.exp(-distance / 40).sum())
        probability = np.array(found)
        order = np.argsort(-probability, axis=1)[:, :k]
        sure = np.take_along_axis(probability, order, 1)
        return SimpleNamespace(row=np.asarray(rows), label=order, probability=sure, doubt=1 - sure, labels=labels)

    opened = SimpleNamespace(classify=classify)
    monkeypatch.setattr("retrieval.train.classifier.open_classifier", lambda folder, *, device, n_workers: opened)


def compare(*words: object) -> dict[str, dict[str, str]]:
    """The lines of comparison-val.csv by system."""
    done("compare", *words, *HERE)
    with Path("compare/comparison-val.csv").open(newline="") as file:
        return {row["system"]: row for row in csv.DictReader(file)}


def figures(table: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Without what a clock says."""
    return {
        system: {key: value for key, value in row.items() if not key.startswith(("training", "pictures_per"))}
        for system, row in table.items()
    }


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_one_that_the_commands_take(name: str) -> None:
    (entry,) = read_entries([name], {}, step_options())
    assert entry.recipe.about


def test_systems_stand_in_one_table_beside_chance(recipes, classifying):
    table = compare("knn.toml", "knn.toml:by=majority", "trained.toml", "--json")
    assert list(table) == ["knn.toml", "knn.toml:by=majority", "trained.toml", "random", "most frequent"]
    assert float(table["most frequent"]["top1"]) == 0.25
    assert all(0 <= float(row["gap"]) <= 1 for row in table.values())
    assert float(table["trained.toml"]["training_s"]) > 0
    assert (table["knn.toml"]["training_s"], table["trained.toml"]["descriptor_bytes"]) == ("", "")
    assert float(table["knn.toml"]["descriptor_bytes"]) > 0
    with Path("compare/comparison-val-landmarks.csv").open(newline="") as file:
        landmarks = list(csv.DictReader(file))
    for system, row in table.items():
        mean = np.mean([float(line[system]) for line in landmarks])
        assert mean == pytest.approx(float(row["mean_landmark_accuracy"]))
    content = json.loads(Path("compare/comparison-val.json").read_text())
    assert content["systems"][2]["recipe"]["tables"]["train"]["epochs"] == 1
    page = Path("compare/comparison-val.html").read_text()
    assert 'href="comparison-val-landmarks.csv"' in page
    assert "Trained: shufflenet_v2_x0_5, from random weights, 32 px, epochs: 1." in page
    low, high = float(table["knn.toml"]["gap_low"]), float(table["knn.toml"]["gap_high"])
    assert low <= float(table["knn.toml"]["gap"]) <= high
    assert f"{low:.3f}-{high:.3f}" in page
    assert page.count("<svg") == 6  # two of curves, one of landmarks, and a matrix of each recipe
    assert "knn.toml:by=majority" in page


def test_answers_that_no_image_of_their_landmark_confirms_are_withheld(recipes, classifying, monkeypatch):
    """With a fake that finds 35 inliers in the images of every second query."""
    pytest.importorskip("cv2", reason="needs the extra local")
    asked: list[tuple[int, int]] = []

    def compare_images(source, others):
        def inliers(one, other):
            asked.append((one, other))
            return 34 + (one % 2 == 0)

        return inliers

    monkeypatch.setattr("retrieval.local.verifier.compare_images", compare_images)
    table = compare("trained.toml", "trained.toml:comparisons=3")
    n = int(json.loads(Path("compare/comparison-val.json").read_text())["systems"][0]["runs"][0]["n_queries"])
    plain, half = (float(row["top1"]) for row in list(table.values())[:2])
    assert plain > half > 0
    assert n < len(asked) <= 3 * n
    assert max(Counter(one for one, _ in asked if one % 2).values()) == 3
    assert max(Counter(one for one, _ in asked if one % 2 == 0).values()) == 1  # the first one confirms it
    page = Path("compare/comparison-val.html").read_text()
    assert "Withheld where none of 3 training images of the landmark has 35 inliers." in page


def test_a_comparison_in_which_nothing_is_confirmed_says_so(recipes, classifying):
    pytest.importorskip("cv2", reason="needs the extra local")
    said = refused("compare", "trained.toml:comparisons=20,inliers=1000000", *HERE)
    assert said == (
        "trained.toml:comparisons=20,inliers=1000000: trained.toml: [answer] no answer to val.csv has an image of its "
        "landmark with 1000000 inliers; lower inliers, or set comparisons = 0"
    )


def test_the_figures_are_those_of_evaluate(recipes):
    done("compare", "knn.toml:by=index", "--part", "test", "--solution", "solution.csv", *HERE)
    (system,) = Path("compare/systems").iterdir()
    content = json.loads(Path("compare/comparison-test.json").read_text())
    evaluated = json.loads(done("evaluate", "solution.csv", "--index", system / "landmarks", "--json", *HERE).stdout)
    ours = content["systems"][0]["runs"][0]
    for key in ("gap", "top1", "top5", "top10", "mean_landmark_accuracy", "n_queries"):
        assert ours[key] == evaluated[key], key
    assert ours["turned_away"] == 1 - evaluated["false_answer_rate"]["all"]
    assert ours["gap_interval"] == evaluated["gap_interval"]


def test_what_is_finished_is_not_made_again_and_the_rest_goes_on(recipes, classifying, monkeypatch):
    whole = figures(compare("knn.toml", "trained.toml", "--output", "compare"))
    begun: list[type] = []
    run_job = steps.run_job

    def counted(job):
        begun.append(type(job))
        if len(begun) == 4:
            raise KeyboardInterrupt
        run_job(job)

    monkeypatch.setattr(steps, "run_job", counted)
    assert figures(compare("knn.toml", "trained.toml")) == whole
    assert begun == []
    words = ("compare", "trained.toml:by=index", "knn.toml", "--output", "other", *HERE)
    stopped = run(*words)
    assert stopped.stderr.splitlines()[-1] == "Error: interrupted; the same command goes on from what is saved"
    assert not list(Path("other").glob("comparison*"))
    done(*words)
    assert begun[:4] == list(steps.JOBS.values())
    assert steps.JOBS["train"] not in begun[4:]


def test_the_same_systems_made_anew_give_the_same_figures(recipes, classifying):
    first = figures(compare("knn.toml:by=index", "trained.toml"))
    assert figures(compare("knn.toml:by=index", "trained.toml", "--overwrite")) == first


def test_systems_that_differ_in_their_answers_share_a_network(recipes, classifying):
    compare("trained.toml", "trained.toml:by=nearest")
    assert len(list(Path("compare/models").iterdir())) == 1
    assert len(list(Path("compare/systems").iterdir())) == 2


def test_several_seeds_give_a_mean_and_a_spread(recipes, classifying):
    table = compare("trained.toml:by=nearest", "knn.toml", "--seeds", "0,1")
    assert table["trained.toml:by=nearest"]["n_seeds"] == "2"
    assert table["trained.toml:by=nearest"]["gap_sd"] != ""
    assert (table["knn.toml"]["n_seeds"], table["knn.toml"]["gap_sd"]) == ("1", "")
    assert len(list(Path("compare/models").iterdir())) == 2


def test_members_are_joined_by_mean_or_majority(recipes, classifying):
    Path("three.toml").write_text(TRAINED + "[[member]]\n[[member]]\n[[member]]\nhead-rate = 0.001\n")
    table = compare("three.toml", "three.toml:combine=majority", "trained.toml")
    assert len(list(Path("compare/models").iterdir())) == 4
    # The three members classify alike, so the ensemble is as good as one of them.
    assert table["three.toml"]["gap"] == table["trained.toml"]["gap"]
    assert table["three.toml:combine=majority"]["top1"] == table["trained.toml"]["top1"]


def test_a_search_tries_combinations_on_val_and_takes_the_best(recipes):
    compare("knn.toml", "--search", "5")
    system = json.loads(Path("compare/comparison-val.json").read_text())["systems"][0]
    assert [trial["values"] for trial in system["searched"]] == [
        {"build-index.whitening-power": 0.5},
        {"build-index.whitening-power": 0},
    ]
    best = max(system["searched"], key=lambda trial: trial["gap"])
    assert system["recipe"]["tables"]["build-index"]["whitening-power"] == best["values"]["build-index.whitening-power"]
    assert system["mean"]["gap"] == best["gap"]


def test_one_network_for_all(recipes, classifying):
    (entry, other) = read_entries(
        ["knn.toml", "trained.toml"], {"backbone": "resnet18", "epochs": 3, "weights": "w.pt"}, step_options()
    )
    assert entry.recipe.tables["embed"] == {"backbone": "resnet18", "weights": "w.pt", "size": 32, "dimensions": 0}
    assert other.recipe.tables["train"]["backbone"] == "resnet18"
    assert other.recipe.tables["train"]["epochs"] == 3


def test_an_option_of_the_comparison_may_stand_among_the_overrides(recipes):
    given = compare("knn.toml", "--set", "workers=0", "--set", "device=cpu", "--output", "compare")
    assert list(given) == ["knn.toml", "random", "most frequent"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["slide"], "there is no recipe slide; did you mean slides?"),
        (["knn.toml:sizes=3"], "knn.toml: sizes is not an option of embed, build-index, calibrate, answer; "),
        (["knn.toml:size=big"], "knn.toml: [embed] Invalid value for '--size': 'big' is not a valid integer range."),
        (["knn.toml", "--set", "epochs=3"], "knn.toml: epochs is not an option of embed, "),
        (["knn.toml", "--set", "size"], "--set: size is not KEY=VALUE, such as backbone=resnet50"),
        (
            ["knn.toml", "--set", "threads=100000"],
            "--threads must be at most 1,024, got 100000; more than the cores gain nothing",
        ),
        (["knn.toml", "--set", "threads=0"], "--threads must be at least 1, got 0"),
        (
            ["knn.toml", "--set", "device=gpu"],
            "--device gpu: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps",
        ),
        (["knn.toml", "--set", "workers=many"], "--set workers=many: 'many' is not a valid integer range."),
        (["knn.toml", "knn.toml"], "knn.toml is asked for twice"),
        (["knn.toml", "--seeds", "1,1"], "--seeds 1,1: expected different numbers from 0 with commas, such as 0,1,2"),
        (["knn.toml", "--seeds", "one"], "--seeds one: expected different numbers from 0 with commas, such as 0,1,2"),
        (["knn.toml", "--weights", "gone.pt"], "--weights gone.pt: there is no such file"),
        (["knn.toml", "--data", "images"], "images: there is no train.csv; give --data a folder with train.csv and "),
        (["knn.toml", "--part", "test"], ".: no answers to test, such as test_solution.csv; give --solution FILE or "),
        (["trained.toml:val=gone.csv"], "trained.toml:val=gone.csv: val = gone.csv: . has no such file"),
        (["trained.toml", "knn.toml:mean=1"], "knn.toml: --mean 1: expected three numbers with commas"),
        (["trained.toml", "knn.toml:scales=a"], "knn.toml: --scales a: expected numbers above 0 up to "),
        (["trained.toml", "knn.toml:rerank=5"], "knn.toml: --rerank"),
        (["trained.toml", "knn.toml:backbone-option=x"], "knn.toml: --backbone-option x: expected NAME=VALUE"),
        (
            ["knn.toml", "trained.toml:teacher=gone.h5"],
            "trained.toml:teacher=gone.h5: gone.h5 cannot be read: No such ",
        ),
        (
            ["trained.toml:patience=3"],
            "trained.toml: --patience 3 needs --val, the pictures that tell a better epoch",
        ),
        (["knn.toml", "--output", "train.csv"], "--output train.csv is a file; give a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_before_anything_is_made(recipes, words, message):
    assert refused("compare", *words, *HERE).startswith(message)
    assert not list(Path().glob("compare/models/*"))
    assert not list(Path().glob("compare/comparison*"))


def test_recipes_must_be_given_or_listed():
    assert misused("compare") == "give RECIPES, or --list to see which there are"


def test_a_system_that_fails_is_named(recipes):
    Path("broken.toml").write_text(KNN.replace("shufflenet_v2_x0_5", "no_network"))
    message = refused("compare", "broken.toml", *HERE)
    assert message.startswith("broken.toml: --backbone no_network: torchvision has no such network")


def test_networks_that_are_joined_describe_each_in_its_own_way(recipes):
    text = (
        TRAINED.replace('"classifier"', '"index"') + '[embed]\nsize = 40\n[[member]]\n[[member]]\n"embed.flip" = true\n'
    )
    Path("two.toml").write_text(text)
    done("compare", "two.toml", *HERE)
    (folder,) = Path("compare/stores").iterdir()
    members = json.loads((folder / "model" / "model.json").read_text())["members"]
    assert [(member["flip"], member["image_spec"]["size"]) for member in members] == [(False, 40), (True, 40)]


def test_classifiers_that_are_joined_are_all_trained_first(recipes):
    Path("two.toml").write_text(
        TRAINED.replace("epochs = 1", 'epochs = 1\nloss = "linear"') + "[[member]]\n[[member]]\n"
    )
    table = compare("two.toml", "two.toml:combine=majority")
    assert len(list(Path("compare/models").iterdir())) == 2
    assert all(float(table[name]["gap"]) >= 0 for name in ("two.toml", "two.toml:combine=majority"))


def test_untrained_networks_are_not_joined_by_their_mean(recipes):
    Path("two.toml").write_text(KNN + "[[member]]\n[[member]]\n")
    assert refused("compare", "two.toml", *HERE) == (
        "two.toml: members are joined by their mean only where all are trained; use combine = majority"
    )


def test_systems_over_the_same_descriptors_share_them(recipes):
    compare("knn.toml", "knn.toml:by=majority", "knn.toml:whitening-power=0")
    assert len(list(Path("compare/stores").iterdir())) == 1
    assert len(list(Path("compare/systems").iterdir())) == 3


def test_other_images_of_the_same_manifests_are_another_system(recipes):
    compare("knn.toml", "--images", "images")
    shutil.copytree("images", "smaller")
    for path in Path("smaller").iterdir():
        with Image.open(path) as image:
            smaller = image.resize((16, 16))
        smaller.save(path)
    compare("knn.toml", "--images", "smaller")
    assert len(list(Path("compare/systems").iterdir())) == 2
    Path("images").rename("moved")
    compare("knn.toml", "--images", "moved")
    assert len(list(Path("compare/systems").iterdir())) == 2


def test_images_of_test_that_come_later_are_asked(recipes):
    def answers():
        done("compare", "knn.toml", "--part", "test", "--solution", "solution.csv", *HERE)
        return len(list(Path("compare/systems").glob("*/answers-test-*")))

    assert (answers(), answers()) == (1, 1)
    next(Path("images").glob("test-*")).unlink()
    assert answers() == 2


def test_landmarks_that_only_a_stage_knows_are_no_answers(recipes):
    Path("extra.csv").write_text(Path("train.csv").read_text().replace(",bridge", ",elsewhere"))
    Path("staged.toml").write_text(TRAINED + '[[stage]]\ndata = "extra.csv"\n')
    done("compare", "staged.toml", *HERE)
    assert "elsewhere" not in Path("compare/comparison-val-landmarks.csv").read_text()


def test_members_whose_mean_is_taken_answer_alike(recipes):
    Path("two.toml").write_text(TRAINED + '[[member]]\n[[member]]\nby = "index"\n')
    assert refused("compare", "two.toml", *HERE) == (
        "two.toml: [answer] is of all members, as their mean is taken; set it for all"
    )


def test_a_stop_inside_a_step_is_told_as_anywhere(recipes, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "run_job", stop)
    stopped = run("compare", "knn.toml", *HERE)
    assert stopped.stderr.splitlines()[-1] == "Error: interrupted; the same command goes on from what is saved"


def test_a_background_may_be_one_name(recipes):
    Path("own.toml").write_text(KNN + 'background = "background.csv"\n')
    done("compare", "own.toml", *HERE)
    (index,) = Path("compare/systems").glob("*/landmarks")
    assert (index / "background.h5").exists()


def test_a_damaged_file_of_a_comparison_is_named(recipes):
    compare("knn.toml")
    (facts,) = Path("compare/systems").glob("*/facts.json")
    facts.write_text("{")
    assert refused("compare", "knn.toml", *HERE) == (
        f"knn.toml: {facts} is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        "remove it and run the same command again"
    )
