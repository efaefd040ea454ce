"""`lmr evaluate`: metrics and baselines, with queries of any kind or none."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, NETWORK, done, listing, misused, read_rows, refused, write_csv

KEYS = {
    *("gap", "gap_ignoring_non_landmarks", "top1", "top5", "top10", "map_at_100", "precision_at", "mean_position"),
    *("median_position", "n_queries", "n_landmark_queries", "mean_landmark_accuracy", "threshold_gap"),
    *("threshold_precision", "recall_at_precision", "false_answer_rate", "baselines"),
}


def measured(*arguments: object) -> dict:
    """The document of `--json`."""
    return json.loads(done("evaluate", *arguments, "--json", *HERE).stdout)


def test_json_has_the_documented_keys(tiny_set):
    content = measured("solution.csv")
    assert content.keys() >= KEYS
    assert (content["n_queries"], content["n_landmark_queries"]) == (22, 16)
    assert set(content["baselines"]) == {"random", "most_frequent", "nearest_neighbour", "majority_vote"}
    assert content["baselines"]["most_frequent"]["top1"] == 0.25
    assert content["gap"] > 0.7


def test_the_table_holds_the_figures_of_the_json(tiny_set):
    content = measured("val.csv")
    lines = done("evaluate", "val.csv", *HERE).stdout.splitlines()
    row = next(line for line in lines if line.startswith("lmr "))
    assert row.split()[1:] == [f"{content[key]:.3f}" for key in ("gap", "top1", "top5", "top10")]
    assert f"  noise: {1 - content['false_answer_rate']['noise']:.1%} of non-landmarks turned away" in lines


def test_evaluate_and_score_agree_on_a_submission_without_a_threshold(tiny_set):
    content = measured("solution.csv")
    done("submit", "--threshold", "0", *HERE)
    scored = json.loads(done("score", "submission.csv", "solution.csv", "--json").stdout)
    for key in ("gap", "gap_ignoring_non_landmarks", "top1", "n_queries", "n_landmark_queries"):
        assert scored["All"][key] == pytest.approx(content[key])


def test_without_queries_each_image_is_asked_against_the_others(tiny_set):
    content = measured("--leave-one-out")
    assert content["n_landmark_queries"] == 32
    assert misused("evaluate") == "give QUERIES or --leave-one-out, one of them"
    assert misused("evaluate", "val.csv", "--leave-one-out") == "give QUERIES or --leave-one-out, one of them"


def test_an_index_without_calibration_has_no_thresholds(tiny_set):
    Path("landmarks/calibration.json").unlink()
    result = done("evaluate", "val.csv", "--json", *HERE)
    content = json.loads(result.stdout)
    assert [content[key] for key in ("threshold_gap", "threshold_precision", "recall_at_precision")] == [None] * 3
    assert result.stderr.splitlines()[0] == "landmarks is not calibrated: no thresholds; lmr calibrate makes them"


def test_queries_that_are_images_of_the_index_are_warned_of(tiny_set):
    shutil.copy("images/train-arch-1.jpg", "images/copy.jpg")
    write_csv(Path("q.csv"), "id,landmark_id", ["copy,arch", "val-dome-0,dome"])
    result = done("evaluate", "q.csv", *HERE)
    assert result.stderr.splitlines()[0] == (
        "warning: 1 of 2 queries is a picture of the index itself: copy; the figures are too good"
    )
    content = measured("q.csv")
    assert content["leaked"]["same_picture"] == {"n": 1, "images": ["copy"]}
    # The other one has the same stripes as an image of the index.
    assert content["leaked"]["near_duplicate"]["images"] == ["val-dome-0"]
    assert "  no landmark query is left without the 2 leaked" in result.stdout.splitlines()


def test_the_figures_without_the_leaked_queries_stand_beside(tiny_set):
    shutil.copy("images/train-arch-1.jpg", "images/copy.jpg")
    write_csv(Path("q.csv"), "id,landmark_id", ["copy,arch", "test-other-0,nowhere"])
    lines = done("evaluate", "q.csv", *HERE).stdout.splitlines()
    assert lines[1].split()[:3] == ["lmr", "0.500", "0.500"]
    assert lines[2].split()[:6] == ["without", "the", "1", "leaked", "0.000", "0.000"]


def test_queries_of_the_calibration_are_warned_of_beside_what_cross_validation_says(tiny_set):
    result = done("evaluate", "val.csv", *HERE)
    lines = result.stderr.splitlines()
    (at,) = (i for i, line in enumerate(lines) if "calibrated on" in line)
    assert lines[at].startswith("warning: 22 of 22 queries are those that the index was calibrated on: val-")
    assert lines[at].endswith(" and 17 more; the figures are too good")
    assert lines[at + 1].startswith("warning: cross-validation of the calibration gave GAP 0.")
    assert "  no landmark query is left without the 22 leaked" in result.stdout.splitlines()
    assert measured("val.csv")["without_leaked"] is None
    assert measured("solution.csv")["leaked"]["calibrated_on"]["n"] == 0


def test_leaving_one_out_says_that_the_network_was_trained_on_the_images(tiny_set):
    done("train", "train.csv", "--output", "trained", *NETWORK, "--epochs", "1", *HERE)
    done("embed", "--model", "trained", "--output", "t.h5", *HERE)
    done("build-index", "t.h5", "--model", "trained", "--output", "t", "--device", "cpu")
    content = measured("--leave-one-out", "--index", "t")
    assert content["leaked"]["trained_on"]["n"] == 44
    said = "44 of 44 pictures have the name and label of pictures that the network was trained on: "
    assert any(line.startswith(said) for line in content["warnings"])
    result = done("calibrate", "val.csv", "--index", "t", "--store", "tv.h5", *HERE)
    assert (
        "    leave-one-out: not used, since the network was trained on 32 of the 32 pictures of the index"
        in result.stdout.splitlines()
    )


def test_unreadable_queries_count_as_wrong(tiny_set):
    write_csv(Path("q.csv"), "id,landmark_id", ["val-dome-0,dome", "gone,arch"])
    content = measured("q.csv")
    assert (content["n_queries"], content["n_unreadable"], content["top1"]) == (2, 1, 0.5)
    write_csv(Path("gone.csv"), "id,landmark_id", ["gone,arch"])
    assert refused("evaluate", "gone.csv", *HERE) == (
        "gone.csv: its only picture cannot be found and read; "
        "check --images, and give --retry-unreadable once they can be"
    )


def test_a_report_is_one_file_and_not_replaced_unasked(tiny_set):
    result = done("evaluate", "solution.csv", "--report", "r.html", *HERE)
    assert result.stderr.splitlines()[-1] == "r.html: report written; r-landmarks.csv has its landmarks"
    rows = read_rows(Path("r-landmarks.csv"))
    assert [row["landmark_id"] for row in rows] == ["arch", "bridge", "castle", "dome"]
    assert (rows[0]["name"], rows[0]["n_rows"], rows[0]["n_queries"]) == ("The Great Arch", "8", "4")
    text = Path("r.html").read_text()
    assert "<html" in text
    assert not re.search(r"""(src|href)=["']?(http|//)""", text)
    files = listing(tiny_set)
    again = done("evaluate", "solution.csv", "--report", "r.html", *HERE)
    assert again.stderr.splitlines()[-1] == "r.html: finished already, nothing to do"
    assert listing(tiny_set) == files
    for name in ("r.html", "r-landmarks.csv"):
        assert refused("evaluate", "val.csv", "--report", "r.html") == (
            f"{name} was made with another queries (solution.csv, now val.csv); give --overwrite or another name"
        )
        assert listing(tiny_set).items() >= (files.items() if name == "r.html" else set())
        Path(name).unlink()


def test_a_report_is_of_its_queries_labels_and_calibration(tiny_set):
    write_csv(Path("q.csv"), "id,landmark_id", ["val-dome-0,dome", "val-arch-0,arch"])
    done("evaluate", "q.csv", "--report", "r.html", *HERE)
    Path("r-landmarks.csv").write_text("mine")
    assert refused("evaluate", "q.csv", "--report", "r.html", *HERE) == (
        "r-landmarks.csv was changed since it was written; give --overwrite or another name"
    )
    done("evaluate", "q.csv", "--report", "r.html", "--overwrite", *HERE)
    Path("landmarks/calibration.json").unlink()
    assert refused("evaluate", "q.csv", "--report", "r.html", *HERE) == (
        "r.html was made with another calibration; give --overwrite or another name"
    )
