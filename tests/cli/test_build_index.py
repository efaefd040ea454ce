"""`lmr build-index`: from stores to an index folder, of any number of images."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, done, listing, misused, refused, write_csv


def info(folder: str = "landmarks") -> dict:
    """index.json."""
    return json.loads(Path(folder, "index.json").read_text())


def test_an_index_of_the_same_is_left_alone_and_said_so(tiny_set):
    files = listing(tiny_set)
    assert done("build-index", "--names", "names.csv", "--device", "cpu").stdout == (
        "landmarks: unchanged, nothing to do: 32 pictures of 4 landmarks, 12 in the background, d = 43\n"
    )
    assert listing(tiny_set) == files
    done("build-index", "--names", "names.csv", "--overwrite", "--device", "cpu")
    assert Path("landmarks/calibration.json").exists()
    assert info()["files"].keys() == {
        *("background.h5", "index.faiss", "names.json", "rows.h5", "thumbnails.h5", "whiten.h5", "model/model.json"),
        *(f"model/{path.name}" for path in Path("model").glob("weights-*")),
    }


def embedded(name: str, rows: list[str]) -> str:
    """The store of a manifest with these rows."""
    done("embed", write_csv(Path(f"{name}.csv"), "id,landmark_id", rows), *HERE)
    return f"{name}.h5"


def test_one_image_is_an_index_without_whitening(tiny_set):
    store = embedded("one", ["train-arch-0,arch"])
    assert refused("build-index", store, "--output", "one") == (
        "whitening needs descriptors that differ, the 1 given does not; give --whitening-power 0"
    )
    assert not Path("one").exists()
    done("build-index", store, "--output", "one", "--whitening-power", "0", "--device", "cpu")
    answers = json.loads(done("query", "images/test-dome-0.jpg", "--index", "one", "--json", *HERE).stdout)
    assert [n["image_id"] for n in answers[0]["neighbours"]] == ["train-arch-0"]
    assert done("submit", "--index", "one", *HERE).stdout == "submission.csv: 22 lines, 22 with a landmark, 0 blank\n"


def test_copies_of_a_image_are_an_index(tiny_set):
    shutil.copy("images/train-arch-0.jpg", "images/copy.jpg")
    store = embedded("copies", ["train-arch-0,arch", "copy,dome"])
    assert refused("build-index", store, "--output", "l") == (
        "whitening needs descriptors that differ, the 2 given do not; give --whitening-power 0"
    )
    done("build-index", store, "--output", "l", "--whitening-power", "0", "--device", "cpu")
    (answer,) = json.loads(done("query", "images/copy.jpg", "--index", "l", "--json", *HERE).stdout)
    assert answer["in_index"] == "train-arch-0"
    assert answer["landmark_id"] == "arch"  # equal scores: the lower label
    assert [n["score"] for n in answer["neighbours"]] == pytest.approx([1, 1], abs=1e-3)


def test_the_same_id_in_two_stores_is_refused(tiny_set):
    store = embedded("one", ["train-arch-0,arch"])
    assert refused("build-index", "train.h5", store, "--output", "l") == (
        "image_id train-arch-0 is there 2 times (one.h5, train.h5), 1 such id in all; give each picture once"
    )


def test_a_store_of_non_landmarks_is_no_index_but_a_background(tiny_set):
    others = embedded("others", ["val-other-0,", "val-other-1,"])
    assert refused("build-index", others, "--output", "l") == (
        "others.h5: no row has a landmark_id and a descriptor; an index needs labelled pictures"
    )
    done("build-index", "train.h5", "--background", others, "--output", "l", "--device", "cpu")
    assert info("l")["n_background"] == 14
    arches = embedded("arches", ["val-arch-0,arch"])
    assert refused("build-index", "train.h5", "--background", arches, "--output", "m") == (
        "arches.h5: background picture val-arch-0 shows arch, a landmark of the index; "
        "take it out or blank its landmark_id if that is wrong"
    )
    assert not Path("m").exists()


def test_half_precision_keeps_the_neighbours(tiny_set):
    done("build-index", "--storage", "float16", "--output", "half", "--device", "cpu")
    assert info("half")["recall"] > 0.95
    assert info("half")["options"]["storage"] == "float16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--whitening-power", "1.5"], "Invalid value for '--whitening-power': 1.5 is not in the range 0<=x<=1."),
        (["--whitening-power", "nan"], "Invalid value for '--whitening-power': nan is not a number"),
        (["--dimensions", "0"], "Invalid value for '--dimensions': 0 is not in the range x>=1."),
        (["--storage", "int8"], "Invalid value for '--storage': 'int8' is not one of 'float32', 'float16'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_cannot_be_is_named(tiny_set, options, message):
    assert misused("build-index", *options) == message


@pytest.mark.parametrize("option", [("--dimensions", "4"), ("--whitening", "supervised")])
def test_options_of_a_whitening_that_is_left_out_are_refused(tiny_set, option):
    assert refused("build-index", "--whitening-power", "0", *option, "--output", "l") == (
        f"{' '.join(option)} is of the whitening, which --whitening-power 0 leaves out; give one of them"
    )
    assert not Path("l").exists()


def test_more_dimensions_than_there_are_are_refused(tiny_set):
    assert refused("build-index", "--dimensions", "5000", "--output", "l") == (
        "5,000 dimensions asked of whitening, the descriptors have 1024; give 1 to 1024"
    )
    assert refused("build-index", "--device", "abacus", "--output", "l") == (
        "--device abacus: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps"
    )


def test_the_index_can_be_moved_and_asked_without_anything_else(tiny_set, tmp_path, monkeypatch):
    shutil.copy("images/test-arch-0.jpg", tmp_path / "p.jpg")
    shutil.move("landmarks", tmp_path / "moved")
    shutil.rmtree(tiny_set)
    monkeypatch.chdir(tmp_path)
    (answer,) = json.loads(done("query", "p.jpg", "--index", "moved", "--json", *HERE).stdout)
    assert answer["landmark_id"] == "arch"


def test_names_must_be_names(tiny_set):
    assert refused("build-index", "--names", "train.csv", "--output", "l") == (
        "train.csv holds no names; --names takes landmark_id,name[,address] or landmark_id,category"
    )


def test_the_folder_keeps_small_images_and_says_of_which_rows_it_could_not(tiny_set):
    store = embedded("few", ["train-arch-0,arch", "train-arch-1,arch", "train-dome-1,dome"])
    done("build-index", store, "--output", "all", "--device", "cpu")
    assert info("all")["thumbnails"] == {"side_px": 160, "n": 3}
    Path("images/train-arch-0.jpg").unlink()
    built = done("build-index", store, "--output", "other", "--thumbnails", "24", "--device", "cpu")
    assert built.stderr.splitlines()[-1] == (
        "1 of 3 pictures was not found or not readable at its path and has no thumbnail"
    )
    assert info("other")["thumbnails"] == {"side_px": 24, "n": 2}
    done("build-index", store, "--output", "none", "--thumbnails", "0", "--device", "cpu")
    assert info("none")["thumbnails"] == {"side_px": 0, "n": 0}
    assert not Path("none/thumbnails.h5").exists()


def calibration() -> dict:
    return json.loads(Path("landmarks/calibration.json").read_text())


def test_the_calibration_stays_where_the_new_index_answers_alike(tiny_set):
    before = calibration()
    write_csv(Path("names.csv"), "landmark_id,name", ["arch,Another Arch"])
    result = done("build-index", "--names", "names.csv", "--overwrite", "--device", "cpu")
    assert result.stderr.splitlines()[-1] == (
        "landmarks: its calibration from val.h5 is kept; the new index answers alike"
    )
    after = calibration()
    assert after["origin"]["index_digest"] == info()["inputs_digest"] != before["origin"]["index_digest"]
    same = {name: before[name] for name in before if name not in ("origin", "sha256")}
    assert {name: after[name] for name in same} == same
    (answer,) = json.loads(done("query", "images/test-arch-0.jpg", "--json", *HERE).stdout)
    assert answer["confidence"] is not None


def test_the_end_of_a_calibration_is_said(tiny_set):
    result = done("build-index", "--whitening-power", "0.25", "--overwrite", "--device", "cpu")
    assert result.stderr.splitlines()[-1] == (
        "warning: landmarks is not calibrated any more: its calibration from val.h5 was of other descriptors, labels "
        "or options; lmr calibrate val.h5 makes it again (--recalibrate does that in one step)"
    )
    assert not Path("landmarks/calibration.json").exists()


def test_a_calibration_is_made_again_where_that_is_asked(tiny_set):
    done("calibrate", "val.csv", "--precision", "0.8", "--overwrite", *HERE)
    result = done("build-index", "--whitening-power", "0.25", "--overwrite", "--recalibrate", "--device", "cpu")
    assert result.stderr.splitlines()[-1].startswith("landmarks: calibrated again on val.h5: GAP ")
    assert calibration()["settings"]["precision"] == 0.8
    assert calibration()["origin"]["index_digest"] == info()["inputs_digest"]


def test_a_calibration_that_cannot_be_made_again_is_refused_before_anything_is_replaced(tiny_set):
    Path("val.h5").unlink()
    files = listing(tiny_set)
    again = ("build-index", "--whitening-power", "0.25", "--overwrite", "--recalibrate")
    assert refused(*again) == (
        "--recalibrate: val.h5, which landmarks was calibrated on, is not there; run it where it is, or lmr calibrate "
        "afterwards"
    )
    assert listing(tiny_set) == files
    Path("landmarks/calibration.json").unlink()
    assert refused(*again) == (
        "--recalibrate: landmarks has no calibration to make again; build without it, and lmr calibrate makes one"
    )
    assert refused("build-index", "--recalibrate", "--output", "new") == (
        "--recalibrate: new has no calibration to make again; build without it, and lmr calibrate makes one"
    )


def test_the_command_that_calibrates_another_folder_again_names_it(tiny_set):
    shutil.copytree("landmarks", "my index")
    result = done("build-index", "--whitening-power", "0.25", "--overwrite", "--output", "my index", "--device", "cpu")
    assert "; lmr calibrate val.h5 --index 'my index' makes it again (--rec" in result.stderr


def test_a_calibration_that_cannot_be_read_is_not_lost_without_a_word(tiny_set):
    Path("landmarks/calibration.json").write_text("{}")
    result = done("build-index", "--overwrite", "--device", "cpu")
    assert result.stderr.splitlines()[-1] == (
        "warning: landmarks is not calibrated: what it replaced could not be read: landmarks/calibration.json has "
        "format_version None, this program reads 1; run lmr calibrate again"
    )


def test_names_of_no_landmark_are_told_of(tiny_set):
    write_csv(Path("more.csv"), "landmark_id,name", ["arch,An Arch", "nowhere,A Place"])
    told = "more.csv: 1 of 2 names is of no landmark of train.{}: nowhere\n"
    result = done("build-index", "--names", "more.csv", "--output", "l", "--device", "cpu")
    assert told.format("h5") in result.stderr
    assert told.format("csv") in done("stats", "train.csv", "--names", "more.csv", "--json").stderr
