"""`lmr score` as a user runs it."""

import json

import pytest
from click.testing import CliRunner

from cli.score import command
from retrieval.errors import LmrError


@pytest.fixture
def files(tmp_path):
    submission, solution = tmp_path / "submission.csv", tmp_path / "solution.csv"
    submission.write_text("id,landmarks\na,paris 0.9\nb,rome 0.8\nc,\n")
    solution.write_text("id,landmarks,Usage,kind\na,paris,Public,landmark\nb,,Private,object\nc,rome,Private,x\n")
    return str(submission), str(solution)


def run(*arguments):
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_a_table_has_a_column_per_half(files):
    result = run(*files)
    assert result.exit_code == 0
    assert result.stdout == (
        "                                 All    Public   Private\n"
        "gap                           0.5000    1.0000    0.0000\n"
        "gap_ignoring_non_landmarks    0.5000    1.0000    0.0000\n"
        "top1                          0.5000    1.0000    0.0000\n"
        "n_queries                          3         1         2\n"
        "n_landmark_queries                 2         1         1\n"
    )


def test_json_is_one_document_with_the_documented_keys(files):
    scores = json.loads(run(*files, "--json").stdout)
    assert scores["All"] == {
        "gap": 0.5,
        "gap_ignoring_non_landmarks": 0.5,
        "top1": 0.5,
        "n_queries": 3,
        "n_landmark_queries": 2,
    }
    assert list(scores) == ["All", "Public", "Private"]


def test_unknown_ids_are_an_error_that_names_the_option(files, tmp_path):
    part = tmp_path / "part.csv"
    part.write_text("id,landmarks,Usage\na,paris,Public\n")
    with pytest.raises(LmrError) as error:
        run(files[0], str(part))
    assert str(error.value) == (
        f"{files[0]}:3: id b and 1 others not in {part}; "
        "where that holds only a part of the test set, give `ignore_unknown`"
    )
    result = run(files[0], str(part), "--ignore-unknown", "--json")
    assert json.loads(result.stdout)["All"]["gap"] == 1.0
    assert result.stderr == f"left out: 2 ids that are not in {part}\n"


def test_retrieval_is_told_by_the_headers(tmp_path):
    submission, solution = tmp_path / "a.csv", tmp_path / "b.csv"
    submission.write_text("id,images\nq,1 2\n")
    solution.write_text("id,images,Usage\nq,2,Private\nr,None,Ignored\n")
    table = run(str(submission), str(solution)).stdout.splitlines()
    assert table[0].split() == ["All", "Private"]
    assert table[1].split() == ["map_at_100", "0.5000", "0.5000"]
    assert table[2].split() == ["precision_at", "1", "0.0000", "0.0000"]


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(LmrError) as error:
        run(str(tmp_path / "no.csv"), str(tmp_path / "no.csv"))
    assert str(error.value) == f"{tmp_path / 'no.csv'}: there is no such file"


def test_an_option_that_does_not_exist_is_a_usage_error(files):
    assert run(*files, "--jason").exit_code == 2


def test_ids_in_two_forms_of_unicode_are_one(tmp_path):
    submission, solution = tmp_path / "submission.csv", tmp_path / "solution.csv"
    submission.write_text("id,landmarks\ncaf\u00e9,paris 0.9\n", encoding="utf-8")
    solution.write_text("id,landmarks,Usage\ncafe\u0301,paris,Public\n", encoding="utf-8")
    assert json.loads(run(str(submission), str(solution), "--json").stdout)["All"]["gap"] == 1.0


def test_labels_that_never_meet_are_scored_only_when_told(tmp_path):
    submission, solution = tmp_path / "submission.csv", tmp_path / "solution.csv"
    submission.write_text("id,landmarks\na,paris 0.9\n")
    solution.write_text("id,landmarks,Usage\na,rome,Public\n")
    with pytest.raises(LmrError) as caught:
        run(str(submission), str(solution))
    assert str(caught.value) == (
        f"the only landmark of {submission} (paris) is not among the 1 of {solution} (rome); "
        "give files that belong together, or give `allow_disjoint` if that is meant"
    )
    assert json.loads(run(str(submission), str(solution), "--json", "--allow-disjoint").stdout)["All"]["top1"] == 0.0
