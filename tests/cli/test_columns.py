"""A user's own table: its columns named, its further ones kept from the store over the index to the answers."""

import json
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
from tiny_set import HERE, done, misused, refused, write_csv

from retrieval.store.store import open_descriptors

MAPPED = ("--column", "image_id=shot", "--column", "landmark_id=what")
ROWS = [f"train-{label}-{i},{label},<b>Ågot {i}</b>,1,{i}.5,=1+{i}" for label in ("arch", "dome") for i in range(3)]
HEADER = "shot,what,Photographer,label,latitude,note"
NAMES = ["Photographer", "label_", "lat", "note"]


@pytest.fixture(scope="module")
def own_set(finished_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table that only a mapping makes a manifest of, and its store and index; not to be changed."""
    folder = tmp_path_factory.mktemp("own") / "set"
    shutil.copytree(finished_set, folder)
    with chdir(folder):
        write_csv(folder / "own.csv", HEADER, ROWS)
        done("embed", "own.csv", *MAPPED, *HERE)
        done("build-index", "own.h5", "--output", "own", "--device", "cpu", "--dimensions", "4")
    return folder


@pytest.fixture
def own_table(own_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the table, its store and index in the working folder."""
    folder = tmp_path / "set"
    shutil.copytree(own_set, folder)
    monkeypatch.chdir(folder)
    return folder / "own.csv"


def test_the_columns_that_were_named_and_those_that_are_kept_are_shown_of_all_that_is_made(own_table: Path) -> None:
    mapped = ["image_id=shot", "landmark_id=what"]
    store = json.loads(done("info", "own.h5", "--json").stdout)
    assert (store["columns"], store["own columns"]) == (mapped, NAMES)
    index = json.loads(done("info", "own", "--json").stdout)
    assert (index["mapped"], index["own columns"]) == (mapped, NAMES)
    table = json.loads(done("info", "own.csv", *MAPPED, "--json").stdout)
    assert (table["columns"], table["own columns"]) == (mapped, NAMES)
    Path("c.toml").write_text('column = ["image_id=shot", "landmark_id=what"]\n')
    assert "finished already" in done("embed", "own.csv", "--config", "c.toml", *HERE).stdout


def test_other_columns_are_refused_by_name(own_table: Path) -> None:
    assert refused("embed", "own.csv", *MAPPED[:2], "--column", "landmark_id=note", *HERE) == (
        "own.h5 was made with another --column (image_id=shot landmark_id=what, now image_id=shot landmark_id=note): "
        "of its 6 images 6 with another landmark; give --overwrite or another file name"
    )
    assert refused("embed", "own.csv", *HERE) == (
        "own.csv: no known manifest has the header 'shot,what,Photographer,label,latitude,note'; the nearest is "
        "'ImageID,Source,LabelName,Confidence' (Open Images labels); --column path=NAME takes another name"
    )
    assert refused("embed", "own.csv", "--column", "image_id=shoot", *HERE) == (
        "own.csv: there is no column 'shoot' (--column image_id=shoot); did you mean shot?"
    )
    assert refused("embed", "own.csv", "--column", "label=what", *HERE) == (
        "--column label=what: a column cannot be 'label'; did you mean landmark_id?"
    )
    assert refused("calibrate", "val.h5", *MAPPED, *HERE) == (
        "val.h5 is a store and has no columns; leave --column image_id=shot out"
    )


def test_own_columns_that_changed_are_taken_into_the_store_without_embedding(own_table: Path) -> None:
    before = open_descriptors("own.h5").digest
    write_csv(own_table, HEADER, [row.replace("Ågot", "Tu") for row in ROWS])
    result = done("embed", own_table.name, *MAPPED, *HERE)
    assert result.stdout == "own.h5: finished already, nothing to do (6 pictures)\n"
    assert "own.h5: its own columns are those of the manifest now; no picture is embedded again\n" in result.stderr
    after = open_descriptors("own.h5")
    assert after.columns["Photographer"].tolist() == [f"<b>Tu {i}</b>" for i in (0, 1, 2, 0, 1, 2)]
    assert after.digest == before
    assert refused("build-index", "own.h5", "--output", "own", "--device", "cpu", "--dimensions", "4") == (
        "own exists and was built from other descriptors or options; --overwrite replaces it"
    )


def test_answers_say_what_the_own_columns_of_their_neighbours_say(own_table: Path) -> None:
    asked = ("query", "images/test-arch-0.jpg", "--index", "own", "--device", "cpu", "--threads", "1")
    (answer,) = json.loads(done(*asked, "--json").stdout)
    near = answer["neighbours"][0]
    i = near["image_id"][-1]
    assert near["columns"] == {"Photographer": f"<b>Ågot {i}</b>", "label_": "1", "lat": f"{i}.5", "note": f"=1+{i}"}
    best = next(n for n in answer["neighbours"] if n["landmark_id"] == answer["landmarks"][0]["landmark_id"])
    header, line = done(*asked, "--csv").stdout.splitlines()
    i = best["image_id"][-1]
    names = [f"nearest_{name}" for name in ("image_id", *NAMES)]
    assert header.split(",")[-5:] == names
    assert line.endswith(f",{best['image_id']},<b>Ågot {i}</b>,1,{i}.5,'=1+{i}")
    done(*asked, "--save", "answers.html")
    page = Path("answers.html").read_text()
    assert f"Photographer: &lt;b&gt;Ågot {i}&lt;/b&gt;; label_: 1; lat: {i}.5; note: =1+{i}</p>" in page
    assert "<b>Ågot" not in page
    listed = done("search", *asked[1:], "--csv", "--n", "2").stdout.splitlines()
    assert listed[0].endswith(",folded,Photographer,label_,lat,note")
    assert listed[1].split(",")[-2] == f"{listed[1].split(',')[1][-1]}.5"


def test_parts_of_a_split_have_lmr_s_own_names_and_the_own_columns_but_no_answers(tiny_set: Path) -> None:
    write_csv(Path("own.csv"), HEADER, ROWS)
    done("split", "own.csv", "--output", "parts", "--val", "0", "--test", "0.3", *MAPPED, "--workers", "1")
    assert Path("parts/train.csv").read_text().splitlines()[0] == f"image_id,landmark_id,path,{','.join(NAMES)}"
    assert Path("parts/test.csv").read_text().splitlines()[0] == "image_id,path"
    assert (
        Path("parts/test_solution.csv").read_text().splitlines()[0] == f"id,landmarks,Usage,path,kind,{','.join(NAMES)}"
    )
    told = done("info", "parts/train.csv", "--json").stdout
    assert json.loads(told)["own columns"] == NAMES


def test_a_column_is_given_as_role_and_name(tiny_set: Path) -> None:
    assert refused("stats", "train.csv", "--column", "what") == (
        "--column what: expected ROLE=NAME, such as landmark_id=class"
    )
    assert misused("query", "images", "--column", "what=x").startswith("No such option '--column'")
