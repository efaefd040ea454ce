"""Commands on images in tars: the same answers as on plain files."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_set import HERE, LABELS, NETWORK, done, listing, refused, run


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pack(folder: Path, tar: Path, *names: str) -> Path:
    """A tar of files of a folder, by their names or all of it."""
    subprocess.run(["tar", "-C", str(folder), "-cf", str(tar.absolute()), *(names or ["."])], check=True)
    return tar


def pack_images() -> None:
    """images/ of the working folder becomes a folder of three tars."""
    shutil.move("images", "plain")
    Path("images").mkdir()
    for part in ("train", "val", "test"):
        names = sorted(path.name for path in Path("plain").glob(f"{part}-*"))
        pack(Path("plain"), Path(f"images/{part}.tar"), *names)


def answers(query: str, kind: str) -> dict[str, Any]:
    """What the commands say, and what they draw."""
    told: dict[str, Any] = {
        "submit": done("submit", "--overwrite", *HERE).stdout,
        "submission": Path("submission.csv").read_text(),
        "evaluate": json.loads(done("evaluate", "solution.csv", "--json", "--report", f"{kind}.html", *HERE).stdout),
        "thumbnails": Path(f"{kind}.html").read_text().count("data:image/jpeg"),
    }
    assert told["evaluate"]["measured"].pop("at")
    (answer,) = json.loads(done("query", query, "--json", "--save", f"{kind}.png", *HERE).stdout)
    told["sheet"] = Image.open(f"{kind}.png").tobytes()
    told["neighbours"] = [(one["image_id"], one["score"]) for one in answer["neighbours"]]
    told["files"] = [Path(one["path"]).name for one in answer["neighbours"]]
    told["folders"] = {Path(one["path"]).parent.name for one in answer["neighbours"]}
    return told


def test_every_command_answers_from_tars_as_from_plain_files(tiny_set):
    plain = answers("images/test-arch-0.jpg", "plain")
    for name in ("train.h5", "val.h5", "test.h5", "solution.h5"):
        Path(name).unlink()
    shutil.rmtree("landmarks")
    pack_images()
    done("embed", *HERE)
    done("build-index", "--names", "names.csv", "--device", "cpu")
    done("calibrate", "val.csv", *HERE)
    assert plain["thumbnails"] > 0
    assert answers("images/test.tar/test-arch-0.jpg", "tarred") == {**plain, "folders": {"train.tar"}}


def test_query_asks_about_every_image_in_a_tar_and_sorts_copies_of_them(tiny_set):
    tar = pack(Path("images"), Path("trip.tar"), *(f"test-{label}-0.jpg" for label in LABELS))
    before = listing(tiny_set)
    for _ in range(2):
        result = done("query", str(tar), "--csv", "--sort-into", "sorted", *HERE)
        images = [line.split(",")[0] for line in result.stdout.splitlines()[1:]]
        assert images == [f"trip.tar/test-{label}-0.jpg" for label in LABELS]
        assert "sorted: 4 copies\n" in result.stderr
        copies = sorted(Path("sorted").rglob("*.jpg"))
        assert len(copies) == 4
        for copy in copies:
            assert copy.read_bytes() == (Path("images") / copy.name).read_bytes()
    after = {name: digest for name, digest in listing(tiny_set).items() if not name.startswith("sorted/")}
    assert after == {**before, ".lmr-tars.sqlite": after[".lmr-tars.sqlite"]}


def test_sorting_a_folder_with_tars_into_itself_again_makes_no_doubles(tiny_set):
    Path("trip").mkdir()
    pack(Path("images"), Path("trip/a.tar"), "test-arch-0.jpg")
    for _ in range(3):
        done("query", "trip", "--sort-into", "trip/sorted", *HERE)
        assert [str(path) for path in Path("trip/sorted").rglob("*.jpg")] == ["trip/sorted/arch/test-arch-0.jpg"]


def test_a_tar_of_folders_is_trained_on_embedded_and_told_about_as_the_folder(images):
    for label in LABELS[:2]:
        Path("photos", label).mkdir(parents=True)
        for i in range(4):
            shutil.copy(f"images/train-{label}-{i}.jpg", f"photos/{label}/{i}.jpg")
    pack(Path("photos"), Path("photos.tar"))
    assert done("info", "photos.tar").stdout == done("info", "photos").stdout
    done("embed", "photos", *NETWORK, *HERE)
    assert done("embed", "photos.tar", *HERE).stdout == "photos.h5: finished already, nothing to do (8 pictures)\n"
    Path("photos.h5").unlink()
    done("embed", "photos.tar", *HERE)
    assert done("embed", "photos", *HERE).stdout == "photos.h5: finished already, nothing to do (8 pictures)\n"
    trained = done("train", "photos.tar", "--output", "new", *NETWORK, "--epochs", "1", "--batch-size", "4", *HERE)
    assert trained.stdout.startswith("new: trained 1 epoch")


def test_a_store_goes_on_after_a_tar_came_with_what_was_missing(images):
    pack_images()
    shutil.move("images/val.tar", "val.tar")
    missing = run("embed", "val.csv", *NETWORK, *HERE)
    assert missing.exit_code == 1
    assert "22 of 22 pictures are unreadable" in missing.stderr
    shutil.move("val.tar", "images/val.tar")
    told = done("embed", "val.csv", *HERE)
    assert "22 of 22 pictures there that were not there before, embedded: " in told.stderr
    assert told.stdout == "val.h5: 22 descriptors, 0 unreadable\n"


def test_what_is_wrong_with_tars_is_said_once_in_a_line_each(images):
    pack_images()
    data = Path("images/val.tar").read_bytes()
    Path("images/val.tar").write_bytes(data[: len(data) // 2])
    Path("images/other.tar").write_bytes(b"\x1f\x8b" + bytes(2000))
    result = done("embed", *NETWORK, *HERE)
    assert result.stdout == "train.h5: 44 descriptors, 0 unreadable\n"
    lines = result.stderr.splitlines()
    told = "images/other.tar is compressed (gzip), and only plain tars are read in place; use gunzip first"
    assert lines[0] == f"{told}; it is passed over"
    assert lines[1:] == ["images/val.tar is cut short after 30,720 bytes; of its pictures the 12 up to there are used"]
    assert refused("embed", "images/other.tar", *HERE) == told
    assert refused("query", "images/other.tar", *HERE) == told
    assert refused("embed", "--images", "images/other.tar", *HERE) == told
    shutil.copy("images/other.tar", "other.tar.gz")
    named = told.replace("images/other.tar", "other.tar.gz")
    for words in (["embed", "other.tar.gz"], ["embed", "--images", "other.tar.gz"], ["query", "other.tar.gz"]):
        assert refused(*words, *HERE) == named


def test_images_is_a_folder_or_a_tar(images):
    assert refused("embed", "--images", "train.csv", *NETWORK, *HERE) == (
        "--images train.csv: neither a folder nor a tar; give what the pictures are in"
    )


def test_demo_takes_a_tar(images, tmp_path):
    assert refused("demo", "new", "--images", "train.csv") == (
        f"--images {os.path.abspath('train.csv')}: neither a folder nor a tar; give what the pictures are in"
    )
    pack(Path("images"), Path("flat.tar"))
    assert refused("demo", "new", "--images", "flat.tar") == (
        f"{os.path.abspath('flat.tar')}: 0 landmarks have 3 pictures or more; the demo needs at least 2, "
        "in folders named by landmark: FOLDER/<landmark>/<picture>"
    )


def test_indexing_much_is_said_where_no_bar_is_shown(images, monkeypatch):
    monkeypatch.setattr("retrieval.images.tars.build_index._LARGE_BYTES", 1)
    pack(Path("images"), Path("flat.tar"))
    told = [done("info", "flat.tar").stderr for _ in range(2)]
    assert told == ["flat.tar: indexing 0.0 GB of tars, once\n", ""]
