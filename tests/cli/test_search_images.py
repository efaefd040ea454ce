"""lmr search: lines, CSV and JSON of the images most like one, and what is refused."""

import csv
import io
import json

import pytest
from tiny_set import HERE, done, hear, refused

from cli.search import _header

ASKED = "images/test-arch-0.jpg"
WITHOUT_WORKERS = HERE[2:]


def search(*words):
    return done("search", *words, *WITHOUT_WORKERS).stdout


def test_an_image_and_an_image_of_the_index_are_searched_for(tiny_set):
    lines = search(ASKED, "--n", 3).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "3"]
    assert lines[-1] == "3 images listed, 32 looked at; others follow"
    assert "The Great Arch (arch)  confidence " in lines[0]
    assert lines[0].endswith(".jpg  48 x 48")
    others = search("--image-id", "train-arch-0", "--n", 100, "--no-fold").splitlines()
    assert others[-1] == "31 images listed, 31 looked at; that is all of them"
    assert not [line for line in others if "train-arch-0." in line]


def test_csv_and_json_say_the_same(tiny_set):
    rows = list(csv.DictReader(io.StringIO(search(ASKED, "--n", 5, "--csv"))))
    page = json.loads(search(ASKED, "--n", 5, "--json"))
    assert [row["image_id"] for row in rows] == [item["image_id"] for item in page["items"]]
    assert [float(row["score"]) for row in rows] == [item["score"] for item in page["items"]]
    assert {(row["width"], row["height"], row["dpi"]) for row in rows} == {("48", "48", "")}
    assert (page["n_rows_looked_at"], page["has_more"]) == (32, True)


def test_own_columns_that_are_called_as_others_have_names_of_their_own():
    assert _header(["year", "score", "own_score"])[-3:] == ["year", "own_score", "own_own_score"]


def test_those_that_vote_are_the_neighbours_of_the_answer(tiny_set):
    (answer,) = json.loads(done("query", ASKED, "--json", *HERE).stdout)
    items = json.loads(search(ASKED, "--n", 100, "--no-fold", "--json"))["items"]
    voters = [(item["image_id"], item["score"]) for item in items if item["votes"]]
    assert voters == [(near["image_id"], near["score"]) for near in answer["neighbours"]]


def test_pages_of_a_landmark_follow_each_other(tiny_set):
    pages = [json.loads(search(ASKED, "--landmark", "dome", "--first", i, "--n", 4, "--json")) for i in (0, 4)]
    assert [page["has_more"] for page in pages] == [True, False]
    ids = {item["image_id"] for page in pages for item in page["items"]}
    assert ids == {f"train-dome-{i}" for i in range(8)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.jpg"], "none.jpg cannot be read: not found"),
        ([ASKED, "--box", "0,0,1"], "--box must be four numbers left,top,right,bottom, got '0,0,1'"),
        (
            [ASKED, "--box", "0.5,0,0.5,1"],
            "--box must be left,top,right,bottom within 0 and 1, left below right and top below bottom, got "
            "0.5,0,0.5,1",
        ),
        (
            [ASKED, "--box", "0,0,0.1,1"],
            "--box holds 5 x 48 pixels, fewer than 16 x 16; draw a larger one",
        ),
        (
            ["--image-id", "nobody"],
            "landmarks has no image nobody; lmr index export lists those it has",
        ),
        (
            [ASKED, "--landmark", "tower"],
            "landmarks has no landmark tower; lmr index export lists those it has",
        ),
    ],
)
def test_what_cannot_be_searched_for_is_told_in_one_line(tiny_set, words, message):
    assert refused("search", *words, *WITHOUT_WORKERS) == message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Error: Give PICTURE or --image-id, one of them."),
        ([ASKED, "--image-id", "train-arch-0"], "Error: Give PICTURE or --image-id, one of them."),
        ([ASKED, "--json", "--csv"], "Error: --json and --csv exclude each other"),
    ],
)
def test_words_that_contradict_each_other_are_a_usage_error(tiny_set, words, message):
    result = hear("search", *words)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == message
