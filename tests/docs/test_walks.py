"""The walks of the documentation, run in order on tiny sets; the files and JSON keys that docs/formats.md lists."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import Result
from docs_world import LANDMARKS, make_kaggle, make_photos, run
from documents import ROOT, first_column, lmr_commands, marked, spans_in, table_after
from made_stores import write_store
from PIL import Image

import lmr
from index.evaluate.places import PlaceFigures
from index.folder.info import ExportInfo, LocalSummary
from retrieval.data.manifest import read_manifest
from retrieval.store.store import read_store
from retrieval.texts import Texts

README, FORMATS, GOOGLE = ROOT / "README.md", ROOT / "docs" / "formats.md", ROOT / "docs" / "landmarks.md"


@dataclass(frozen=True, slots=True)
class Walk:
    """A folder after a walk. said: what each command printed, with its arguments."""

    folder: Path
    said: list[tuple[list[str], Result]]

    def output(self, *start: str) -> list[str]:
        """What the commands that begin so printed."""
        return [result.output for arguments, result in self.said if arguments[: len(start)] == list(start)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The README's walk through one's own photos."""
    folder = tmp_path_factory.mktemp("photos-walk")
    make_photos(folder)
    return _walk(folder, marked(README, "run", "photos"))


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The README's four commands for Kaggle."""
    folder = tmp_path_factory.mktemp("kaggle-walk")
    make_kaggle(folder)
    return _walk(folder, marked(README, "run", "kaggle"))


def test_every_command_of_the_walks_succeeds(photos: Walk, kaggle: Walk) -> None:
    assert len(photos.said) >= 12
    assert [arguments[0] for arguments, _ in kaggle.said] == ["train", "embed", "build-index", "submit", "score"]
    for arguments, result in [*photos.said, *kaggle.said]:
        assert result.exit_code == 0, f"lmr {' '.join(arguments)}: {result.output}"


def test_the_walk_through_photos_leaves_what_it_says(photos: Walk) -> None:
    before, after = photos.output("query", "new-picture.jpg")[:2]
    assert "not calibrated" in before
    assert re.search(r"\n  [\w()-][^\n]*, score 0\.\d{3}\n", before)
    assert "not calibrated" not in after
    too_far = r"no known landmark; nearest was [^\n]+, confidence 0\.\d{3}, below 0\.\d{3}"
    assert re.search(rf"\n  ({too_far}|[\w()-][^\n]*, confidence 0\.\d{{3}})\n", after)
    with Image.open(photos.folder / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
    assert (photos.folder / "report.html").read_text(encoding="utf-8").startswith("<!")
    linked = sorted(path.name for path in (photos.folder / "sorted").rglob("*") if path.is_symlink())
    assert linked == [f"IMG_{i}.jpg" for i in range(len(LANDMARKS))]
    assert len(photos.output("query", "inbox", "--csv")[0].splitlines()) == 1 + len(LANDMARKS)


def test_the_demo_on_ones_own_images_reads_all_of_them(photos: Walk) -> None:
    (said,) = photos.output("demo")
    assert "unreadable" not in said
    assert "Try next:" in said
    submission = (photos.folder / "my-demo" / "submission.csv").read_text().splitlines()
    assert len(submission) == 1 + len(LANDMARKS) + 1  # a header, an image of each landmark, a street
    assert {path.parent.name for path in (photos.folder / "photos").rglob("*.csv")} == set()


def test_the_walk_for_kaggle_answers_every_id_in_order(kaggle: Walk) -> None:
    asked = [line.split(",")[0] for line in (kaggle.folder / "test.csv").read_text().splitlines()]
    answered = [line.split(",")[0] for line in (kaggle.folder / "submission.csv").read_text().splitlines()]
    assert answered == asked
    assert {"All", "Public", "Private"} <= set(kaggle.output("score")[0].split())


def test_the_python_example_runs(photos: Walk, capsys: pytest.CaptureFixture[str]) -> None:
    with chdir(photos.folder):
        exec(compile(marked(README, "run", "photos", language="python"), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("new-picture.jpg ")
    assert sum(line.startswith("inbox/IMG_1.jpg ") for line in lines) == 1
    assert len(lines) == 2 + 2 * 3


def test_the_split_of_the_google_page_keeps_every_image_once(kaggle: Walk) -> None:
    with chdir(kaggle.folder):
        (arguments,) = lmr_commands(marked(GOOGLE, "run", "split"))
        run(arguments)
    train, *parts = (read_manifest(kaggle.folder / name) for name in ("train.csv", "parts/train.csv", "parts/val.csv"))
    assert sorted(parts[1].landmark.tolist()) == list(range(len(LANDMARKS)))
    assert sorted([*parts[0].image_id, *parts[1].image_id]) == sorted(train.image_id)


def test_the_keys_of_query_are_those_listed(photos: Walk) -> None:
    content = _json(photos, "query", "new-picture.jpg", "--json")
    assert set(_paths(content)) == first_column(FORMATS, "<!-- keys: query -->")


def test_the_keys_of_an_explanation_are_those_listed(photos: Walk, tmp_path: Path) -> None:
    with chdir(photos.folder):
        by_class = ["--index", "trained-landmarks", "--classifier", "trained"]
        run(["query", "new-picture.jpg", "--explain", str(tmp_path / "why"), *by_class])
    content = json.loads((tmp_path / "why" / "new-picture" / "explanation.json").read_text())
    lists = {name: [{"": ""}] for name in ("n_keypoints", "sizes", "model", "inliers")}
    content["maps"]["maps"][0]["sides"][0]["values"] = None
    content |= {"answer": "", "notes": [{"": ""}], "match": {**content["match"], **lists}}
    listed = {path.removesuffix(".") for path in _paths(content)} | {"votes", "match", "maps", "class"}
    assert listed == first_column(FORMATS, "<!-- keys: explanation -->")


def test_the_keys_of_explain_are_those_listed(photos: Walk) -> None:
    content = {**_json(photos, "explain", LANDMARKS[0], "--json"), "notes": [{"": ""}]}
    listed = {path.removesuffix(".") for path in _paths(content)}
    assert listed == first_column(FORMATS, "<!-- keys: explain -->")


def test_the_keys_of_tune_are_those_listed(photos: Walk) -> None:
    content = _json(photos, "tune", "held-out", "photos.h5", "--tries", "2", "--json")
    figures = {"gap", "top1", "gain", "gain_error", "is_default"}

    def of_setting(one: dict[str, Any]) -> dict[str, Any]:
        assert set(one) - figures == {"descriptor", "whitening", "whitening_power", "dimensions", "background", "vote"}
        return {"<setting>": None} | {key: value for key, value in one.items() if key in figures}

    content |= {key: of_setting(content[key]) for key in ("tried", "chosen")}
    content |= {"trials": [of_setting(one) for one in content["trials"]], "by_choice": {"<choice>": None}}
    assert set(_paths(content)) == first_column(FORMATS, "<!-- keys: tune -->")


def test_the_keys_of_evaluate_are_those_listed(photos: Walk) -> None:
    rates = {"false_answer_rate": "<kind>", "at_threshold_gap.false_answer_rate": "<kind>"}
    content = _json(photos, "evaluate", "held-out", "--json")
    dynamic = {"precision_at": "<k>", "baselines": "<name>", **rates}
    assert set(_paths(content, dynamic)) == first_column(FORMATS, "<!-- keys: evaluate -->")
    assert set(content["baselines"]) == {"random", "most_frequent", "nearest_neighbour", "majority_vote"}
    more = {"recall_at": ".<k>", "error_m": ".<percent>"}
    placed = {f"places.{item.name}{more.get(item.name, '')}" for item in fields(PlaceFigures)}
    assert placed == first_column(FORMATS, "<!-- keys: places -->")


def test_the_keys_of_calibrate_are_those_listed(photos: Walk) -> None:
    content = _json(photos, "calibrate", "held-out", "--json")
    dynamic = {"threshold_gap": "<figure>", "threshold_precision": "<figure>"}
    assert set(_paths(content, dynamic)) == first_column(FORMATS, "<!-- keys: calibrate -->")
    assert set(content["threshold_gap"]) == first_column(FORMATS, "<!-- keys: figures -->")
    stored = json.loads((photos.folder / "landmarks" / "calibration.json").read_text())
    assert set(stored) == {*content, "sha256"}


def test_the_keys_of_score_are_those_listed(kaggle: Walk, tmp_path: Path) -> None:
    content = _json(kaggle, "score", "submission.csv", "test_solution.csv", "--json")
    assert set(_paths(content, {"": "<half>"})) == first_column(FORMATS, "<!-- keys: recognition -->")
    (tmp_path / "lists.csv").write_text("id,images\na,b c\n")
    (tmp_path / "solution.csv").write_text("id,images,Usage\na,c,Public\n")
    content = _json(kaggle, "score", str(tmp_path / "lists.csv"), str(tmp_path / "solution.csv"), "--json")
    listed = first_column(FORMATS, "<!-- keys: retrieval -->")
    assert set(_paths(content, {"": "<half>", "<half>.precision_at": "<k>"})) == listed


def test_the_keys_of_the_index_and_the_model_are_those_listed(photos: Walk) -> None:
    content = json.loads((photos.folder / "landmarks" / "index.json").read_text())
    assert set(_paths(content, {"files": "<file>"})) == first_column(FORMATS, "<!-- keys: index.json -->")
    content = json.loads((photos.folder / "model" / "model.json").read_text())
    assert set(_paths({**content, "made_by": None})) == first_column(FORMATS, "<!-- keys: model.json -->")


def test_the_keys_of_an_inverted_file_are_those_listed(photos: Walk, tmp_path: Path) -> None:
    built = tmp_path / "landmarks"
    model, store = photos.folder / "model", photos.folder / "photos.h5"
    lmr.build_index([store], model=model, output=built, kind="ivf-sq8", lists=2, recall=0.5)
    assert (built / "search.faiss").is_file()
    with h5py.File(built / "sample.h5") as file:
        assert spans_in(dict(table_after(FORMATS, "### Index folder"))["`sample.h5`"]) == set(file)
    paths = set(_paths(json.loads((built / "index.json").read_text()), {"files": "<file>"}))
    exact = first_column(FORMATS, "<!-- keys: index.json -->")
    assert paths - exact == first_column(FORMATS, "<!-- keys: search -->")
    exported = {f"export.{field.name}" for field in fields(ExportInfo)}
    assert exported == first_column(FORMATS, "<!-- keys: export -->")
    local = {f"local.{field.name}" for field in fields(LocalSummary)}
    assert local == first_column(FORMATS, "<!-- keys: local -->")
    assert exact - paths == {"search"}


def test_the_keys_of_a_changed_index_are_those_listed(photos: Walk, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(photos.folder / "landmarks", tmp_path / "landmarks"))
    lmr.index_remove(lmr.open_index(changed).folder.rows.image_id[0], index=changed)  # one alone
    paths = set(_paths(json.loads((changed / "index.json").read_text()), {"files": "<file>"}))
    fresh = first_column(FORMATS, "<!-- keys: index.json -->")
    assert paths - fresh == first_column(FORMATS, "<!-- keys: changes -->")
    assert fresh - paths == {"changes"}
    assert (changed / "changes.jsonl").is_file()


def test_the_files_of_the_model_folder_are_those_listed(photos: Walk) -> None:
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (photos.folder / "trained").iterdir()}
    named = {re.sub(r"weights-\w+", "weights-<hash>", name) for name in there}
    of_other_options = {"stage-1/", "tensorboard/", "features-<hash>.npy", ".json"}
    assert named == first_column(FORMATS, "### Model folder") - of_other_options
    header = (photos.folder / "trained" / "training.csv").read_text().splitlines()[0]
    assert f"`{header}`" in dict(table_after(FORMATS, "### Model folder"))["`training.csv`"]


def test_the_files_of_the_index_folder_are_those_listed(photos: Walk) -> None:
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (photos.folder / "landmarks").iterdir()}
    listed = dict(table_after(FORMATS, "### Index folder"))
    assert there == {name.strip("`") for name in listed} - {
        "augmented.faiss",
        "added.rows",
        "search.faiss",
        "search-1-of-4.faiss",
        "sample.h5",
        "changes.jsonl",
        "local.json",
        "local-rows.h5",
        "local-<digits>.h5",
        "local/",
    }  # of build-index --augment, --kind, --shards, --local, and of lmr index
    for name in ("rows.h5", "background.h5", "whiten.h5"):
        with h5py.File(photos.folder / "landmarks" / name) as file:
            assert spans_in(listed[f"`{name}`"]) == set(file)


def test_the_content_of_a_store_is_that_listed(photos: Walk, tmp_path: Path) -> None:
    store = read_store(photos.folder / "photos.h5")
    own = {"year": Texts.of(["1900"] * len(store))}
    write_store(tmp_path / "kinds.h5", replace(store, kind=np.full(len(store), "street", dtype=object), columns=own))
    with h5py.File(tmp_path / "kinds.h5") as file:
        assert set(file) == first_column(FORMATS, "<!-- hdf5: store -->")
        _, _, listed = FORMATS.read_text(encoding="utf-8").partition("Attributes: ")
        assert set(file.attrs) == spans_in(listed.partition(".\n")[0])


def _walk(folder: Path, commands: str) -> Walk:
    with chdir(folder):
        return Walk(folder, [(arguments, run(arguments)) for arguments in lmr_commands(commands)])


def _json(walk: Walk, *arguments: str) -> Any:
    with chdir(walk.folder):
        result = run(arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def _paths(value: Any, dynamic: Mapping[str, str] | None = None, path: str = "") -> Iterator[str]:
    """Dotted paths of the leaves; `[]` for the items of a list of objects.

    dynamic: path of an object whose keys are names of things -> what the documentation writes in their place.
    """
    dynamic = dynamic or {}
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            key = dynamic.get(path, key)
            inner = None if key == "<figure>" else inner
            yield from _paths(inner, dynamic, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from _paths(value[0], dynamic, f"{path}[]")
    else:
        yield path
