"""`lmr evaluate`: metrics and baselines, with queries of any kind or none."""

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, done, listing, misused, refused, write_csv

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


def test_without_queries_each_picture_is_asked_against_the_others(tiny_set):
    content = measured("--leave-one-out")
    assert content["n_landmark_queries"] == 32
    assert misused("evaluate") == "give QUERIES or --leave-one-out, one of them"
    assert misused("evaluate", "val.csv", "--leave-one-out") == "give QUERIES or --leave-one-out, one of them"


def test_an_index_without_calibration_has_no_thresholds(tiny_set):
    Path("landmarks/calibration.json").unlink()
    result = done("evaluate", "val.csv", "--json", *HERE)
    content = json.loads(result.stdout)
    assert [content[key] for key in ("threshold_gap", "threshold_precision", "recall_at_precision")] == [None] * 3
    assert result.stderr == "landmarks is not calibrated: no thresholds; lmr calibrate makes them\n"


def test_queries_that_are_pictures_of_the_index_are_warned_of(tiny_set):
    shutil.copy("images/train-arch-1.jpg", "images/copy.jpg")
    write_csv(Path("q.csv"), "id,landmark_id", ["copy,arch", "val-dome-0,dome"])
    assert done("evaluate", "q.csv", *HERE).stderr.splitlines()[0] == (
        "1 queries are pictures of the index itself; their answers are too good"
    )


def test_unreadable_queries_count_as_wrong(tiny_set):
    write_csv(Path("q.csv"), "id,landmark_id", ["val-dome-0,dome", "gone,arch"])
    content = measured("q.csv")
    assert (content["n_queries"], content["n_unreadable"], content["top1"]) == (2, 1, 0.5)
    write_csv(Path("gone.csv"), "id,landmark_id", ["gone,arch"])
    assert refused("evaluate", "gone.csv", *HERE) == (
        "gone.csv: none of its 1 pictures can be found and read; "
        "check --images, and give --retry-unreadable once they can be"
    )


def test_a_report_is_one_file_and_not_replaced_unasked(tiny_set):
    result = done("evaluate", "val.csv", "--report", "r.html", *HERE)
    assert result.stderr == "r.html: report written\n"
    text = Path("r.html").read_text()
    assert "<html" in text
    assert not re.search(r"""(src|href)=["']?(http|//)""", text)
    files = listing(tiny_set)
    assert refused("evaluate", "val.csv", "--report", "r.html") == (
        "--report r.html: exists; give --overwrite or another name"
    )
    assert listing(tiny_set) == files
