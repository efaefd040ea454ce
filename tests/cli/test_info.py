"""`lmr info`: what anything is."""

import json
import re
from pathlib import Path

import h5py
from tiny_set import HERE, cut_short, done, drop_digests, flip_byte, misused, refused

import lmr
from cli.report.text import fact_lines


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


def test_a_manifest_tells_how_many_images_of_what(tiny_set):
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


def test_the_text_is_for_people(tiny_set):
    """What there is not is `none`; lists of numbers stand in a line, texts of a list in lines of their own."""
    shown = fact_lines(
        {
            "changes": None,
            "refused": "",
            "options": {"flip": False, "prelu": True},
            "mean": [0.485, 1, 4.470348358154297e-08],
            "weights": ("0a", "1b"),
            "shares": [],
            "n": 0,
        }
    )
    assert shown.splitlines() == [
        "changes  none",
        "refused  none",
        "options",
        "  flip   no",
        "  prelu  yes",
        "mean     0.485, 1, 4.47035e-08",
        "weights",
        "  0a",
        "  1b",
        "shares   none",
        "n        0",
    ]
    for told_of in ("landmarks", "model", "train.h5"):
        assert not re.search(r"None|True|False|\[|\(", done("info", told_of).stdout)
    assert not re.search(r"None|True|False|\[|\(", done("index", "info").stdout)


def test_what_is_nothing_of_ours_is_one_line(tiny_set):
    assert refused("info", "landmarks/rows.h5") == (
        "landmarks/rows.h5 is an HDF5 file but not a descriptor store; lmr embed makes one"
    )
    assert refused("info", "/dev/null") == "/dev/null is empty; a manifest begins with a header such as id,landmark_id"
    assert refused("info", "landmarks/index.faiss") == (
        "landmarks/index.faiss is not a text file; give a csv file, a Parquet file or a folder"
    )
    cut_short(Path("val.h5"))
    assert refused("info", "val.h5").startswith("val.h5 is damaged (it is cut short: ")
    done("embed", "--output", "x.h5", *HERE)


def test_verify_reads_everything_and_says_so(tiny_set):
    assert json.loads(done("info", "train.h5", "--verify", "--json").stdout)["verified"] == (
        "every byte is as it was written"
    )
    assert json.loads(done("info", "landmarks", "--verify", "--json").stdout)["verified"].endswith(
        " files are as they were written, and fit each other"
    )
    verified = json.loads(done("info", "model", "--verify", "--json").stdout)["verified"]
    assert verified.startswith("model.json and weights-")


def test_verify_names_what_quick_info_does_not_read(tiny_set):
    with h5py.File("train.h5", "r") as file:
        at = file["vectors"].id.get_offset() + 1000
    data = bytearray(Path("train.h5").read_bytes())
    data[at] ^= 1
    Path("train.h5").write_bytes(data)
    assert done("info", "train.h5").exit_code == 0
    said = refused("info", "train.h5", "--verify")
    assert said.startswith("train.h5 is damaged (its bytes ")
    weights = next(Path("model").glob("weights-*.safetensors"))
    flip_byte(weights)
    assert done("info", "model").exit_code == 0
    assert refused("info", "model", "--verify") == (
        f"{weights} is damaged: its sha256 is not the one in model.json; restore it or train again"
    )


def test_a_store_of_before_says_that_it_has_no_digests(tiny_set):
    drop_digests(Path("train.h5"))
    facts = json.loads(done("info", "train.h5", "--verify", "--json").stdout)
    assert facts["digests"] == "none: it is unfinished, or of an earlier lmr"
    assert facts["verified"] == "none: it is unfinished, or of an earlier lmr; every value is possible"


def test_descriptors_of_another_length_than_the_model_makes_build_no_index(tiny_set):
    drop_digests(Path("train.h5"))
    with h5py.File("train.h5", "r+") as file:
        vectors = file["vectors"][:, :100]
        del file["vectors"]
        file["vectors"] = vectors
    said = refused("build-index", "--output", "l", "--device", "cpu")
    assert said.startswith("train.h5 has descriptors of 100 columns, model makes ")


def test_stores_of_another_preparation_are_told_by_what_differs(tiny_set):
    done("embed", "val.csv", "--size", "40", "--output", "val40.h5", *HERE)
    assert refused("evaluate", "val40.h5", *HERE) == (
        "val40.h5 does not fit landmarks: size 40 is not 32; embed with the same model"
    )
    assert refused("build-index", "train.h5", "val40.h5", "--output", "l", "--device", "cpu") == (
        "val40.h5 does not fit train.h5: size 40 is not 32; embed with the same model"
    )


def test_without_a_path_it_says_what_can_be_looked_at() -> None:
    assert misused("info") == "give what to look at, such as lmr info landmarks, model, train.h5 or train.csv"


def test_the_library_tells_what_the_command_tells(tiny_set):
    found = lmr.info("train.h5", verify=True)
    assert json.loads(json.dumps(found.to_json(), default=str)) == json.loads(
        done("info", "train.h5", "--verify", "--json").stdout
    )
    assert found.verified == "every byte is as it was written"
