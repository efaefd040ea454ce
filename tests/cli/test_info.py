"""`lmr info`: what anything is."""

import json
from pathlib import Path

from tiny_set import HERE, cut_short, done, refused


def told(path: str) -> dict:
    """The document of `--json`."""
    return json.loads(done("info", path, "--json").stdout)


def test_each_thing_is_told_what_it_is(tiny_set):
    for path, what in {
        "train.h5": "descriptor store",
        "model": "model folder",
        "model/model.json": "model folder",
        "landmarks": "index folder",
        "landmarks/index.json": "index folder",
        "train.csv": "manifest",
        "images": "manifest",
        "images/test-arch-0.jpg": "manifest",
    }.items():
        assert told(path)["what"] == what
    assert told("landmarks/calibration.json")["what"].startswith("calibration")


def test_an_index_tells_its_calibration_or_that_it_has_none(tiny_set):
    facts = told("landmarks")
    assert (facts["n_rows"], facts["n_landmarks"], facts["n_background"]) == (32, 4, 12)
    assert facts["calibration"]["origin"]["source"] == "val.h5"
    Path("landmarks/calibration.json").unlink()
    assert told("landmarks")["calibration"] == "none; lmr calibrate makes one"


def test_one_fingerprint_goes_through_all(tiny_set):
    assert len({told(path)["fingerprint"] for path in ("model", "train.h5", "val.h5", "landmarks")}) == 1


def test_a_manifest_tells_how_many_pictures_of_what(tiny_set):
    assert told("train.csv") == {
        "what": "manifest",
        "pictures": 44,
        "landmarks": 4,
        "without a landmark": 12,
        "pictures of a landmark (fewest, median, most)": [8, 8.0, 8],
    }


def test_the_text_has_a_line_for_each_fact(tiny_set):
    lines = done("info", "train.h5").stdout.splitlines()
    assert lines[0].split() == ["what", "descriptor", "store"]
    assert "  size      32" in lines


def test_what_is_nothing_of_ours_is_one_line(tiny_set):
    assert refused("info", "landmarks/rows.h5") == (
        "landmarks/rows.h5 is an HDF5 file but not a descriptor store; lmr embed makes one"
    )
    assert refused("info", "/dev/null") == "/dev/null is empty; a manifest begins with a header such as id,landmark_id"
    assert refused("info", "landmarks/index.faiss") == (
        "landmarks/index.faiss is not a text file; give a csv file, a Parquet file or a folder"
    )
    cut_short(Path("val.h5"))
    assert refused("info", "val.h5") == "val.h5 is cut short; make it again with lmr embed --overwrite"
    done("embed", "--output", "x.h5", *HERE)
