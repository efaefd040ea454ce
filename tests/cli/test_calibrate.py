"""`lmr calibrate`: what it finds, warns of, keeps and refuses."""

import json
from pathlib import Path

import pytest
from tiny_set import HERE, done, listing, misused, refused, write_csv

CALIBRATION = Path("landmarks/calibration.json")


def test_calibrating_again_on_the_same_does_nothing_and_says_so(tiny_set):
    files = listing(tiny_set)
    result = done("calibrate", "val.csv", *HERE)
    assert result.stderr.splitlines()[0] == "landmarks: calibrated already, nothing to do"
    assert result.stdout.splitlines()[0] == "landmarks: calibrated on 22 queries, 6 of them non-landmarks"
    assert listing(tiny_set) == files
    assert done("calibrate", "val.h5", *HERE).stderr.splitlines()[0] == "landmarks: calibrated already, nothing to do"


def test_other_settings_replace_a_calibration_only_when_asked(tiny_set):
    files = listing(tiny_set)
    for options in (["--precision", "0.5"], ["--non-landmark-share", "0.9"], ["--seed", "3"]):
        assert refused("calibrate", "val.csv", *options, *HERE) == (
            "landmarks/calibration.json was made from val.h5 with other queries or settings; "
            "give --overwrite to replace it"
        )
    assert listing(tiny_set) == files
    done("calibrate", "val.csv", "--precision", "0.5", "--overwrite", *HERE)
    assert json.loads(CALIBRATION.read_text())["settings"]["precision"] == 0.5
    assert {name for name, digest in listing(tiny_set).items() if files[name] != digest} == {str(CALIBRATION)}


def test_json_is_the_calibration(tiny_set):
    content = json.loads(done("calibrate", "val.csv", "--json", *HERE).stdout)
    stored = json.loads(CALIBRATION.read_text())
    assert content == {key: value for key, value in stored.items() if key != "sha256"}
    assert 0 <= content["threshold_gap"]["confidence"] <= 1
    assert [kind["kind"] for kind in content["threshold_precision"]["kinds"]] == ["landmark", "noise"]


def test_few_queries_and_no_non_landmarks_are_warned_of(tiny_set):
    write_csv(Path("few.csv"), "id,landmark_id", ["val-arch-0,arch", "val-dome-0,dome", "val-dome-1,temple"])
    result = done("calibrate", "few.csv", "--overwrite", *HERE)
    assert result.stderr.splitlines()[:3] == [
        "warning: only 3 queries, fewer than 100: the thresholds are rough",
        "warning: no non-landmarks among the queries: pictures of no known landmark will be answered too often",
        "warning: 1 of 3 landmark queries shows a landmark that the index does not hold",
    ]
    assert json.loads(CALIBRATION.read_text())["warnings"] == [
        line.removeprefix("warning: ") for line in result.stderr.splitlines()
    ]


@pytest.mark.parametrize("rows", [["val-arch-0,arch"], ["val-arch-0,x", "val-dome-0,y", "val-other-1,"]])
def test_hardly_any_queries_or_right_answers_still_give_a_calibration(tiny_set, rows):
    write_csv(Path("q.csv"), "id,landmark_id", rows)
    done("calibrate", "q.csv", "--overwrite", "--allow-disjoint", *HERE)
    (answer,) = json.loads(done("query", "images/test-arch-0.jpg", "--json", *HERE).stdout)
    assert 0 < answer["confidence"] < 1
    done("submit", *HERE)
    assert len(Path("submission.csv").read_text().splitlines()) == len(Path("test.csv").read_text().splitlines())


def test_queries_that_share_no_landmark_with_the_index_are_refused_before_anything_is_embedded(tiny_set):
    write_csv(Path("q.csv"), "id,landmark_id", ["val-arch-0,x", "val-dome-0,y"])
    assert refused("calibrate", "q.csv", *HERE) == (
        "none of the 2 landmarks of q.csv (x, y) is among the 4 of landmarks (arch, bridge, castle, …); "
        "give files that belong together, or give --allow-disjoint if that is meant"
    )
    write_csv(Path("q.csv"), "id,landmark_id", ["val-arch-0,Arch", "val-dome-0,dome"])
    assert refused("evaluate", "q.csv", *HERE) == (
        "q.csv says 'Arch', landmarks says 'arch': the same but for capital letters; "
        "spell them alike, or give --allow-disjoint if they are different landmarks"
    )
    assert not Path("q.h5").exists()


def test_queries_of_the_index_or_background_are_refused(tiny_set):
    files = listing(tiny_set)
    for image_id, where in (("train-arch-0", "the index"), ("train-other-0", "the background")):
        write_csv(Path("q.csv"), "id,landmark_id", [f"{image_id},", "val-arch-0,arch"])
        assert refused("calibrate", "q.csv", "--overwrite", *HERE) == (
            f"1 of 2 calibration queries are also in {where}: {image_id}; leave them out of one or the other"
        )
    assert files.items() <= listing(tiny_set).items()


def test_a_query_named_as_another_image_of_the_index_is_no_copy_of_it(tiny_set):
    rows = ["train-arch-0,val-arch-0.jpg,arch", "train-other-0,val-other-0.jpg,"]
    write_csv(Path("numbered.csv"), "id,path,landmark_id", rows)
    result = done("calibrate", "numbered.csv", "--overwrite", *HERE)
    assert result.stdout.splitlines()[0] == "landmarks: calibrated on 2 queries, 1 of them a non-landmark"


def test_a_solution_file_is_calibrated_on_without_its_ignored_rows(tiny_set):
    rows = Path("solution.csv").read_text().splitlines()[1:]
    write_csv(Path("s.csv"), "id,landmarks,Usage", [*rows[:-1], rows[-1].replace("Public", "Ignored")])
    assert done("calibrate", "s.csv", "--overwrite", *HERE).stdout.splitlines()[0] == (
        "landmarks: calibrated on 21 queries, 6 of them non-landmarks"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "1"], "Invalid value for '--precision': 1.0 is not in the range 0<x<1."),
        (["--precision", "nan"], "Invalid value for '--precision': nan is not a number"),
        (["--non-landmark-share", "1"], "Invalid value for '--non-landmark-share': 1.0 is not in the range 0<=x<1."),
        (["--seed", "-1"], "Invalid value for '--seed': -1 is not in the range x>=0."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_value_that_cannot_be_is_named(tiny_set, options, message):
    assert misused("calibrate", "val.csv", *options) == message
