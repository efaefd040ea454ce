"""`lmr stats` as a user runs it."""

import csv
import json
import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from PIL import Image
from tiny_set import cut_short, done, image, listing, misused, refused, run, write_csv

import lmr
from retrieval.extras import install_hint
from retrieval.images.quality import ImageFacts, measure_image
from retrieval.progress import SILENT

ONE = ("--workers", "1")
WITH = ("--images", "images", *ONE)


def found(*arguments: object) -> dict:
    """The document of an `lmr stats` that succeeds."""
    return json.loads(done("stats", *arguments, "--json").stdout)


@pytest.fixture
def doubled(images: Path) -> Path:
    """The images with a copy under another label, a smaller copy in the test set, a dark one and a broken one."""
    shutil.copy("images/train-arch-0.jpg", "images/copy.jpg")
    with Image.open("images/train-dome-1.jpg") as dome:
        dome.resize((40, 40)).save("images/smaller.jpg", quality=90)
    image(0, 999).point(lambda value: value // 30).save("images/dark.jpg")
    shutil.copy("images/train-arch-1.jpg", "images/broken.jpg")
    cut_short(Path("images/broken.jpg"))
    with Path("train.csv").open("a") as file:
        file.write("copy,dome\ndark,arch\nbroken,arch\n")
    with Path("test.csv").open("a") as file:
        file.write("smaller\ntrain-arch-3\n")
    return images


def test_without_images_everything_of_the_table_is_told(images):
    document = found("train.csv")
    assert (document["rows"], document["pictures"], document["landmarks"]) == (44, 44, 4)
    assert (document["labelled"], document["without_landmark"]) == (32, 12)
    assert document["blanks"] == {"id": 0, "landmark_id": 12}
    assert document["pictures_per_landmark"]["percentiles"] == {str(p): 8.0 for p in range(10, 100, 10)}
    assert [row["landmark_id"] for row in document["most_frequent"]] == ["arch", "bridge", "castle", "dome"]
    assert document["most_frequent"][0]["samples"][0] == "train-arch-0"
    assert document["measured"] is None
    assert listing(images).keys() & {"stats.html", "picture-facts.sqlite"} == set()


def test_the_keys_are_those_that_the_page_lists(images):
    page = Path(__file__).parents[2] / "docs" / "stats.md"
    _, _, table = page.read_text().partition("<!-- keys: stats -->")
    listed = {key for line in table.splitlines()[4:] for key in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert set(found("train.csv")) == listed


def test_the_summary_and_the_report_are_the_default(images):
    result = done("stats", "train.csv", "--names", "names.csv")
    assert result.stdout.splitlines()[:4] == [
        "train.csv: 44 rows, 44 pictures, 4 landmarks",
        "without a landmark: 12 (27.3%)",
        "",
        "pictures per landmark: 8 to 8, mean 8.0, 0 landmarks have one",
    ]
    assert "landmarks: The Great Arch 8, bridge 8, castle 8, Old Dome 8" in result.stdout
    assert result.stderr == "stats.html: written\n"
    assert Path("stats.html").read_text().startswith("<!DOCTYPE html>")


def test_images_are_measured_and_faults_are_found(doubled):
    document = found("train.csv", *WITH, "--test", "test.csv")
    measured = document["measured"]
    assert (measured["readable"], measured["unreadable"]) == (46, 1)
    assert measured["reasons"] == {"broken": "broken JPEG: cut short"}
    assert measured["sizes"]["top"] == [{"width": 48, "height": 48, "pictures": 46, "share": 1.0}]
    assert measured["measures"]["pixels_per_inch"]["max"] == pytest.approx(48 * 2**0.5 / 17.6)
    assert measured["outliers"]["blurred"]["examples"][0]["image_id"] == "dark"  # as good as nothing is to be seen
    copies = document["duplicates"]["same_bytes"]
    assert (copies["groups"], copies["pictures"], copies["surplus"], copies["across_landmarks"]) == (1, 2, 1, 1)
    assert copies["examples"] == [
        [{"image_id": "train-arch-0", "landmark_id": "arch"}, {"image_id": "copy", "landmark_id": "dome"}]
    ]
    leaks = document["leakage"]
    assert leaks["same_id"] == {"pictures": 1, "examples": ["train-arch-3"]}
    assert leaks["same_bytes"]["examples"] == [{"train": ["train-arch-3"], "test": ["train-arch-3"]}]
    assert any("train-dome-1" in g["train"] and "smaller" in g["test"] for g in leaks["same_look"]["examples"])


def test_the_report_shows_images_and_asks_for_nothing_from_outside(doubled):
    done("stats", "train.csv", *WITH, "--test", "test.csv")
    text = Path("stats.html").read_text()
    assert len(re.findall(r"<img ", text)) > 60
    assert len(text) < 1_500_000
    for value in re.findall(r'(?:src|href)="([^"]*)"', text):
        assert value.startswith(("data:image/jpeg;base64,", "#")) or Path(value).is_file(), value[:80]
    assert 'href="./images/train-arch-0.jpg"' in text
    assert "<h2>The landmarks</h2>" in text  # four: the most and the least frequent are the same
    assert "Least frequent" not in text
    assert "<script" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "Test pictures that the training set has too" in text


def test_a_second_time_nothing_is_measured_and_the_report_stays(doubled, monkeypatch):
    first = done("stats", "train.csv", *WITH)
    measured: list[bytes] = []

    def measure(data: bytes) -> ImageFacts:
        measured.append(data)
        return measure_image(data)

    monkeypatch.setattr("retrieval.data.quality_cache.measure_image", measure)
    again = done("stats", "train.csv", *WITH)
    assert measured == [Path("images/broken.jpg").read_bytes()]
    assert again.stdout == first.stdout
    assert (first.stderr, again.stderr) == ("stats.html: written\n", "stats.html: unchanged\n")


def test_another_report_is_not_replaced_without_being_asked(images):
    done("stats", "train.csv")
    before = Path("stats.html").read_bytes()
    assert refused("stats", "val.csv") == (
        "stats.html: exists and holds something else; give --overwrite or another name"
    )
    assert Path("stats.html").read_bytes() == before
    assert done("stats", "val.csv", "--overwrite").stderr == "stats.html: written\n"
    assert "val.csv" in Path("stats.html").read_text()


def test_workers_and_order_change_nothing(doubled):
    one = found("train.csv", *WITH)
    assert found("train.csv", "--images", "images", "--workers", "2", "--facts", "other.sqlite") == one


def test_the_table_of_images_has_the_best_first_and_the_unreadable_last(doubled):
    with Image.open("images/train-arch-2.jpg") as arch:
        arch.resize((96, 96)).save("images/train-arch-2.jpg")
    result = done("stats", "train.csv", *WITH, "--json", "--pictures-csv", "p.csv")
    assert result.stderr == "p.csv: written\n"
    with Path("p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 47
    assert (rows[0]["image_id"], rows[0]["width"], rows[0]["pixels_per_inch"]) == ("train-arch-2", "96", "7.71389")
    assert (rows[-1]["image_id"], rows[-1]["unreadable"]) == ("broken", "broken JPEG: cut short")
    assert all(row["width"].isdigit() and row["height"].isdigit() for row in rows if not row["unreadable"])
    by_id = {row["image_id"]: row for row in rows}
    assert by_id["copy"]["copy_of"] == "train-arch-0"
    assert by_id["dark"]["outlier"] == "blurred"


def test_a_folder_of_folders_is_measured_without_being_asked(images):
    for label in ("arch", "dome"):
        Path("photos", label).mkdir(parents=True)
        for i in range(3):
            shutil.copy(f"images/train-{label}-{i}.jpg", f"photos/{label}")
    document = found("photos", *ONE)
    assert (document["pictures"], document["landmarks"], document["measured"]["readable"]) == (6, 2, 6)
    assert document["blanks"] == {}


def test_images_inside_a_parquet_file_are_measured_and_shown(images):
    import pyarrow
    import pyarrow.parquet

    names = [f"train-arch-{i}" for i in range(3)]
    content = [{"bytes": Path(f"images/{name}.jpg").read_bytes(), "path": None} for name in names]
    pyarrow.parquet.write_table(pyarrow.table({"image": content, "label": ["a", "a", "b"]}), "p.parquet")
    done("stats", "p.parquet", *ONE)
    document = found("p.parquet", *ONE)
    assert document["measured"]["readable"] == 3
    assert document["blanks"] == {"label": 0}
    assert "<img " in Path("stats.html").read_text()


def test_a_store_gives_a_map_copies_and_clusters(tiny_set):
    document = found("train.csv", "--store", "train.h5", "--clusters", "3", "--clusters-csv", "c.csv")
    assert document["store"] == {"source": "train.h5", "pictures": 44, "of": 44}
    assert document["alike"]["compared"] == 44
    assert len(document["map"]["x"]) == len(document["map"]["image_id"]) == 44
    assert document["map"]["landmark_id"].count(None) == 12
    clusters = document["clusters"]["clusters"]
    assert sum(row["pictures"] for row in clusters) == 44
    assert [row["pictures"] for row in clusters] == sorted((row["pictures"] for row in clusters), reverse=True)
    with Path("c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in clusters:
        assert row["pictures"] == sum(int(r["cluster"]) == row["cluster"] for r in rows)
        assert set(row["examples"]) <= {r["image_id"] for r in rows if int(r["cluster"]) == row["cluster"]}
    assert found("train.csv", "--store", "train.h5", "--clusters", "3") == document


def test_the_report_of_a_store_shows_its_images(tiny_set):
    done("stats", "train.csv", "--store", "train.h5", "--clusters", "2", "--map-pictures", "20")
    text = Path("stats.html").read_text()
    assert "<img " in text
    assert "Map of descriptors" in text
    assert "20 of 44 descriptors, drawn with seed 0, laid out by t-SNE" in " ".join(text.split())


def test_a_store_of_other_images_is_refused(tiny_set):
    assert refused("stats", "test.csv", "--store", "train.h5") == (
        "train.h5 describes none of the pictures of the manifest; give the store that was made from it"
    )


def open_images() -> None:
    write_csv(Path("labels.csv"), "ImageID,Source,LabelName,Confidence",
              ["a,v,/m/cat,1", "a,v,/m/dog,1", "b,v,/m/dog,1", "b,m,/m/cat,0.6", "c,v,/m/cat,0"])  # fmt: skip
    write_csv(Path("list.csv"), "ImageID,Subset,OriginalURL",
              ["a,train,http://x/1", "b,train,http://x/2", "c,test,http://y/3", "d,test,"])  # fmt: skip
    write_csv(Path("boxes.csv"), "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf",
              ["a,x,/m/cat,1,0,0.5,0,1,1", "a,x,/m/dog,1,0,1,0,1,0"])  # fmt: skip
    write_csv(Path("classes.csv"), "LabelName,DisplayName", ["/m/cat,Cat", "/m/pet,Pet"])
    kinds = [{"LabelName": "/m/cat"}, {"LabelName": "/m/dog"}]
    Path("h.json").write_text(json.dumps({"LabelName": "/m/pet", "Subcategory": kinds}))


BESIDE = ("--image-list", "list.csv", "--boxes", "boxes.csv", "--hierarchy", "h.json", "--names", "classes.csv")


def test_open_images_are_counted_by_label_subset_box_and_kind(images):
    open_images()
    document = found("labels.csv", *BESIDE)
    assert (document["rows"], document["pictures"], document["without_landmark"]) == (5, 4, 2)
    labels = document["open_images"]
    assert (labels["kept"], labels["rejected"], labels["pictures_without_label"]) == (3, 1, 2)
    assert labels["top_labels"] == [
        {"landmark_id": "/m/dog", "count": 2, "share": 0.5, "name": None},
        {"landmark_id": "/m/cat", "count": 1, "share": 0.25, "name": "Cat"},
    ]
    assert document["boxes"]["boxes_per_picture"]["mean"] == 0.5
    assert [(row["subset"], row["labelled"], row["boxes_per_picture"]) for row in document["subsets"]] == [
        ("test", 0, 0.0),
        ("train", 2, 1.0),
    ]
    assert document["hierarchy"][0] == {
        "landmark_id": "/m/pet", "name": "Pet", "pictures": 2, "own": 0, "kinds": 2
    }  # fmt: skip
    assert document["hosts"]["top"][0] == {"host": "x", "pictures": 2, "share": 0.5}
    assert found("labels.csv", "--min-label-confidence", "0.5")["open_images"]["kept"] == 4
    done("stats", "labels.csv", *BESIDE)
    assert "Rolled up the hierarchy" in Path("stats.html").read_text()


def test_a_list_of_images_without_landmarks_is_told_too(images):
    open_images()
    result = done("stats", "list.csv")
    assert "without a landmark: 4 (100.0%)" in result.stdout
    assert "Pictures per landmark" not in Path("stats.html").read_text()


def test_everything_from_the_data_stays_text_in_the_report(images):
    label = "<script>alert(1)</script>{{7*7}}"
    write_csv(Path("odd.csv"), "id,url,landmark_id", [f'"a<b>",http://<i>/x,{label}', f"c,,{label}", "d,,$x^2$"])
    done("stats", "odd.csv")
    text = Path("stats.html").read_text()
    assert "<script" not in text
    assert "<i>" not in text
    assert "{{7*7}}" in text


def test_one_image_is_enough(images):
    document = found("images/train-arch-0.jpg", *WITH)
    assert (document["pictures"], document["landmarks"], document["measured"]["readable"]) == (1, 0, 1)
    assert done("stats", "images/train-arch-0.jpg", *WITH).exit_code == 0


def test_without_the_extra_the_summary_is_printed_and_said_why_there_is_no_report(images, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr("retrieval.extras.find_spec", lambda name: None if name == "matplotlib" else real(name))
    result = done("stats", "train.csv")
    assert result.stdout.startswith("train.csv: 44 rows")
    assert result.stderr == f"no HTML report: it needs {install_hint('report')}\n"
    assert not Path("stats.html").exists()


REFUSED = [
    (["no.csv"], "no.csv: there is no such file or folder"),
    (["train.csv", "--images", "no"], "--images no: there is no such folder"),
    (["train.csv", "--store", "no.h5"], "no.h5: there is no such descriptor store; lmr embed makes one"),
    (["train.csv", "--store", "train.csv"],
     "train.csv is not a descriptor store (no HDF5 file); give the right file"),
    (["train.csv", "--test", "no.csv"], "no.csv: there is no such file or folder"),
    (["train.csv", "--names", "val.csv"],
     "val.csv holds no names; --names takes landmark_id,name[,address] or landmark_id,category"),
    (["train.csv", "--image-list", "val.csv"],
     "--image-list goes with the labels of Open Images, train.csv holds none; give it as CSV"),
    (["train.csv", "--boxes", "val.csv"],
     "--boxes val.csv holds no boxes; it takes ImageID,LabelName,Confidence,XMin,XMax,YMin,YMax"),
    (["train.csv", "--report", "no/r.html"],
     "no/r.html cannot be written: No such file or directory; choose another place or make room"),
    (["train.csv", "--report", "val.csv/r.html"],
     "val.csv/r.html cannot be written: Not a directory; choose another place or make room"),
    (["train.csv", "--report", "images"], "images is a folder; give the file another name"),
    (["train.csv", "--pictures-csv", "p.csv"],
     "--pictures-csv is a table of measured pictures; give --images too"),
    (["train.csv", "--images", "empty", *ONE],
     "train.csv: none of its 44 pictures can be read (train-other-0: not found: tried empty/train-other-0.jpg and 23 "
     "other places); check --images"),
    (["train.csv", *WITH, "--facts", "val.csv"],
     "val.csv is not a file of picture facts; move it away or name another"),
    (["names.csv"], "names.csv holds names of landmarks, it is not a manifest; give it as --names names.csv"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(a)[:45] for a, _ in REFUSED])
def test_what_cannot_be_used_is_named_and_nothing_is_left(images, arguments, message):
    Path("empty").mkdir()
    before = listing(images)
    assert refused("stats", *arguments) == message
    after = listing(images)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {"picture-facts.sqlite"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clusters", "3"], "--clusters needs --store"),
        (["--clusters-csv", "c.csv"], "--clusters-csv needs --clusters"),
        (["--test-images", "images"], "--test-images needs --test"),
        (["--cluster", "3"], "No such option '--cluster'. Did you mean '--clusters'?"),
        (["--diagonal-in", "nan"], "Invalid value for '--diagonal-in': nan is not a number"),
    ],
)
def test_options_that_make_no_sense_are_a_usage_error(images, arguments, message):
    assert misused("stats", "train.csv", *arguments).startswith(message.partition(" Did")[0].rstrip("."))


def test_bad_rows_are_named_by_line(images):
    write_csv(Path("bad.csv"), "id,landmark_id", ["a,x", "a,y"])
    said = run("stats", "bad.csv").stderr.splitlines()
    assert said == [
        "Error: bad.csv: 1 bad row; correct or remove, nothing of the file was used",
        "bad.csv:3: id a is also on line 2",
    ]


def test_facts_of_another_version_are_refused(images):
    with sqlite3.connect("picture-facts.sqlite") as connection:
        connection.execute("PRAGMA user_version = 7")
    assert refused("stats", "train.csv", *WITH) == (
        "picture-facts.sqlite has format_version 7, this lmr reads 1; use the lmr that made it, or name another"
    )


def test_a_full_disk_leaves_no_half_report(images):
    from tiny_set import run_apart

    code, said = run_apart(images, ["stats", "train.csv"], file_bytes=4096)
    assert code == 1, said
    assert said.splitlines()[-1] == (
        "Error: stats.html cannot be written: File too large; choose another place or make room"
    )
    assert {path.name for path in images.iterdir()} & {"stats.html", "stats.html.partial"} == set()


def test_killed_at_any_write_the_same_command_ends_as_if_it_had_not_been(images, monkeypatch):
    from tiny_set import n_file_operations, run_and_die

    arguments = ["stats", "train.csv", *WITH, "--pictures-csv", "p.csv"]
    whole = done(*arguments)
    fresh = Path(shutil.copytree(images, images.parent / "fresh"))
    for name in ("stats.html", "p.csv", "picture-facts.sqlite"):
        (fresh / name).unlink()
    n = n_file_operations(Path(shutil.copytree(fresh, fresh.parent / "counted")), arguments)
    for at in sorted({1, n // 2, n}):
        folder = Path(shutil.copytree(fresh, fresh.parent / f"killed-{at}"))
        run_and_die(folder, arguments, at)
        monkeypatch.chdir(folder)
        assert done(*arguments).stdout == whole.stdout
        assert listing(folder).keys() == listing(images).keys()
        assert Path("stats.html").read_bytes() == (images / "stats.html").read_bytes()


def test_a_folder_that_cannot_be_written_is_one_line(images):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    Path("locked").mkdir(mode=0o500)
    assert refused("stats", "train.csv", "--report", "locked/r.html").startswith("locked/r.html cannot be written")


def test_the_library_finds_what_the_command_finds(images):
    statistics = lmr.stats("train.csv", images="images", workers=1, progress=SILENT)
    assert json.loads(json.dumps(statistics.to_json())) == found("train.csv", *WITH)
    assert next(statistics.image_lines()).startswith("image_id,landmark_id,width,height,")
