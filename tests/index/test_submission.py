"""Submission files: what is written reads back, every bad row is named by its line."""

import gzip
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorder import Recorder

from index.kaggle.submission import (
    RecognitionSolution,
    RetrievalSolution,
    RetrievalSubmission,
    distinct_scores,
    read_solution,
    read_submission,
    submission_lines,
)
from index.recognition import Predictions
from retrieval.arrays import object_array
from retrieval.errors import LmrError

SUBMISSION = "a submission has id,landmarks (recognition) or id,images (retrieval)"
SOLUTION = "a solution has id,landmarks,Usage (recognition) or id,images,Usage (retrieval)"


def sigmoid(logit):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logit))


def predictions(answers):
    """answers: image_id -> (label, logit)."""
    logit = np.array([value for _, value in answers.values()], dtype=np.float64)
    return Predictions(
        image_id=object_array(list(answers)),
        landmark=object_array([label for label, _ in answers.values()]),
        logit=logit,
        confidence=sigmoid(logit),
    )


def ids(*values):
    return object_array(list(values))


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_submission(path, answers):
    return write(path, "".join(submission_lines(answers)))


def problem(reader, path):
    with pytest.raises(LmrError) as error:
        reader(path)
    return str(error.value).replace(str(path), "FILE")


def bad_rows(*problems):
    """The message for a file with these bad rows, as for a manifest."""
    count = "1 bad row" if len(problems) == 1 else f"{len(problems)} bad rows"
    lines = [f"FILE: {count}; correct or remove, nothing of the file was used", *problems[:10]]
    return "\n".join(lines + ([f"and {len(problems) - 10} more"] if len(problems) > 10 else []))


@pytest.mark.parametrize("n_at_once", [2, 1 << 16])
def test_lines_follow_the_predictions_and_blank_means_no_landmark(tmp_path, monkeypatch, n_at_once):
    monkeypatch.setattr("index.kaggle.submission.BLOCK", n_at_once)
    path = tmp_path / "submission.csv"
    answers = {"a": ("", 3.0), "b": ("paris", np.log(3)), "x": ("", -np.inf), "c": ("rome", 0.0)}
    write_submission(path, predictions(answers))
    assert path.read_text() == "id,landmarks\na,\nb,paris 0.75\nx,\nc,rome 0.5\n"


def test_logits_beyond_the_sigmoid_stay_in_order(tmp_path):
    path = tmp_path / "submission.csv"
    logits = {"a": 50.0, "b": 60.0, "c": 60.0, "d": -800.0, "e": -900.0, "f": 0.0, "g": np.nextafter(0.0, 1)}
    write_submission(path, predictions({i: ("x", value) for i, value in logits.items()}))
    read = dict(zip(read_submission(path).image_id, read_submission(path).score, strict=True))
    assert read["b"] == read["c"] == 1.0
    assert read["b"] > read["a"] > read["g"] > read["f"] > read["d"] > read["e"]
    assert [value == pytest.approx(sigmoid(logits[i]), abs=1e-15) for i, value in read.items()] == [True] * 7


@given(st.lists(st.floats(-1000, 1000) | st.sampled_from([36.7, 37.0, 40.0, 41.0, -745.2, -746.0, -747.0])))
def test_scores_are_ordered_and_tied_exactly_as_the_logits(values):
    logit = np.array(values, dtype=np.float64)
    score = distinct_scores(logit, sigmoid(logit))
    assert np.array_equal(logit[:, None] < logit[None, :], score[:, None] < score[None, :])
    assert np.allclose(score, sigmoid(logit), rtol=1e-12, atol=1e-12)
    assert all(float(repr(value)) == value for value in score.tolist())


def test_without_calibration_the_ranking_key_is_the_score(tmp_path):
    path = tmp_path / "submission.csv"
    key = np.array([0.25, 1 / 3, -np.inf])
    answers = Predictions(ids("a", "b", "c"), ids("x", "y", ""), key, np.full(3, np.nan))
    write_submission(path, answers)
    assert path.read_text() == "id,landmarks\na,x 0.25\nb,y 0.3333333333333333\nc,\n"


def test_scores_must_be_finite():
    with pytest.raises(ValueError, match="logit and confidence must be finite"):
        distinct_scores(np.array([np.inf]), np.array([1.0]))


@pytest.mark.parametrize("label", ["hawa mahal", "a\tb", "a\u00a0b"])
def test_a_label_that_would_break_the_cell_is_a_bug_of_the_caller(label):
    with pytest.raises(ValueError, match="a landmark_id holds no white space"):
        submission_lines(predictions({"a": (label, 0.0)}))


def test_two_predictions_of_an_image_are_a_bug_of_the_caller():
    twice = Predictions(ids("a", "a"), ids("x", ""), np.zeros(2), np.full(2, 0.5))
    with pytest.raises(ValueError, match="an image_id has two predictions: 'a'"):
        submission_lines(twice)


def test_an_id_with_a_comma_reads_back(tmp_path):
    path = tmp_path / "s.csv"
    write_submission(path, predictions({'a,"b': ("x", 0.0)}))
    assert read_submission(path).image_id.tolist() == ['a,"b']


def test_a_label_with_a_comma_and_a_quote_reads_back(tmp_path):
    path = tmp_path / "s.csv"
    write_submission(path, predictions({"a": ('Paris,_"Louvre"', 0.0), "b": ("", 0.0)}))
    assert read_submission(path).landmark.tolist() == ['Paris,_"Louvre"', ""]


def test_a_submission_reads_with_byte_order_mark_crlf_and_columns_in_any_order(tmp_path):
    path = write(tmp_path / "s.csv", b"\xef\xbb\xbflandmarks,id\r\n9633 1e-3,a\r\n,b\r\n\r\n")
    read = read_submission(path)
    assert read.image_id.tolist() == ["a", "b"]
    assert read.landmark.tolist() == ["9633", ""]
    assert read.score.tolist() == [0.001, -np.inf]
    assert read.line.tolist() == [2, 3]


def test_the_last_token_is_the_score_and_white_space_in_a_label_becomes_an_underscore(tmp_path):
    read = read_submission(write(tmp_path / "s.csv", "id,landmarks\na,Hawa Mahal 0.5\n"))
    assert (read.landmark.tolist(), read.score.tolist()) == (["Hawa_Mahal"], [0.5])


def test_a_retrieval_submission_is_told_by_its_header(tmp_path):
    read = read_submission(write(tmp_path / "s.csv", "id,images\nq,a b\nr,c d\ns,\n"))
    assert isinstance(read, RetrievalSubmission)
    assert read.images.tolist() == [("a", "b"), ("c", "d"), ()]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("id,landmarks\na,\nb,x 1\na,y 2\n", "FILE:4: id a is also on line 2"),
        ("id,landmarks\na,9633\n", "FILE:2: `9633` is not `label score`"),
        ("id,landmarks\na,9633 high\n", "FILE:2: `9633 high` is not `label score`"),
        ("id,landmarks\na,x 0.9 y 0.8\n", "FILE:2: `x 0.9 y 0.8` is not `label score`"),
        ("id,landmarks\na,x nan\n", "FILE:2: the score of `x nan` is not a finite number"),
        ("id,landmarks\na,x inf\n", "FILE:2: the score of `x inf` is not a finite number"),
        ("id,landmarks\na\n", "FILE:2: 1 field, the header has 2"),
        ("id,landmarks\n,x 1\n", "FILE:2: id is missing"),
        ("id,landmarks\n\na,x\nb,x 1\nb,\n", "FILE:3: `x` is not `label score`\nFILE:5: id b is also on line 4"),
        ('id,landmarks\na,"x 1\nb,y 1\n', "FILE:2: a quotation mark is opened and never closed"),
    ],
)  # fmt: skip
def test_bad_submissions_are_named_by_line(tmp_path, text, problems):
    assert problem(read_submission, write(tmp_path / "s.csv", text)) == bad_rows(*problems.split("\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "FILE is empty; a manifest begins with a header such as id,landmark_id"),
        ("id,landmarks\n", "FILE holds a header and no rows; there is nothing to score"),
        ("id,label\na,x 1\n", f"FILE:1: header is id,label; {SUBMISSION}"),
        ("id,landmarks,id\n", f"FILE:1: header is id,landmarks,id; {SUBMISSION}"),
    ],
)
def test_what_is_no_submission_is_refused(tmp_path, text, message):
    assert problem(read_submission, write(tmp_path / "s.csv", text)) == message


@pytest.mark.parametrize("packed", ["plain", "gzip", "zip", "utf-16"])
def test_a_submission_is_read_as_manifests_are(tmp_path, packed):
    text = "ID,Landmarks\na,7 0.5\nb,\nc,None\n"
    path = tmp_path / "s.csv"
    if packed == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    elif packed == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("s.csv", text)
    else:
        path.write_text(text, encoding="utf-16" if packed == "utf-16" else "utf-8")
    read = read_submission(path)
    assert read.image_id.tolist() == ["a", "b", "c"]
    assert read.landmark.tolist() == ["7", "", ""]
    assert read.score.tolist() == [0.5, -np.inf, -np.inf]


def test_labels_with_a_point_and_a_zero_are_whole_numbers_in_submission_and_solution(tmp_path):
    said = []
    submission = read_submission(write(tmp_path / "s.csv", "id,landmarks\na,7.0 0.5\nb,-1 0.9\n"), Recorder(said))
    solution = read_solution(write(tmp_path / "t.csv", "id,landmarks,Usage\na,7.0,Public\nb,nan,Public\n"))
    assert submission.landmark.tolist() == ["7", ""]
    assert submission.score.tolist() == [0.5, -np.inf]
    assert solution.landmarks.tolist() == [("7",), ()]
    assert said == [
        f"{tmp_path / 's.csv'}: -1 read as no landmark",
        f"{tmp_path / 's.csv'}: 7.0 read as 7, and so all labels that end in .0; "
        "pandas makes them of whole numbers beside blank cells, astype('Int64') does not",
    ]


def test_ten_bad_rows_are_named_and_the_rest_counted(tmp_path):
    path = write(tmp_path / "s.csv", "id,landmarks\n" + "".join(f"{i},x\n" for i in range(13)))
    assert problem(read_submission, path) == bad_rows(*(f"FILE:{n}: `x` is not `label score`" for n in range(2, 15)))


def test_a_missing_file_a_folder_and_a_image_are_clear_errors(tmp_path):
    assert problem(read_submission, tmp_path / "no.csv") == "FILE: there is no such file"
    assert problem(read_submission, tmp_path) == "FILE cannot be read: Is a directory"
    image = write(tmp_path / "p.jpg", b"\xff\xd8\xff\xe0")
    assert problem(read_submission, image) == "FILE:1: not UTF-8 (byte 0xff); save the file as UTF-8"


def test_a_recognition_solution_reads_with_several_landmarks_and_further_columns(tmp_path):
    text = "id,landmarks,Usage,kind\na,x y,Public,landmark\nb,,Private,object\nc,,Ignored,\n"
    read = read_solution(write(tmp_path / "s.csv", text))
    assert isinstance(read, RecognitionSolution)
    assert read.landmarks.tolist() == [("x", "y"), (), ()]
    assert read.usage.tolist() == ["Public", "Private", "Ignored"]


def test_a_retrieval_solution_may_have_very_long_cells(tmp_path):
    images = [f"{i:016x}" for i in range(20_000)]
    read = read_solution(write(tmp_path / "s.csv", f"id,images,Usage\nq,{' '.join(images)},Private\n"))
    assert isinstance(read, RetrievalSolution)
    assert list(read.images[0]) == images


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,landmarks,Usage\na,,public\n", "FILE:2: Usage is `public`; it must be Public, Private or Ignored"),
        ("id,landmarks,Usage\na,,Public\na,x,Private\n", "FILE:3: id a is also on line 2"),
    ],
)
def test_bad_solutions_are_named_by_line(tmp_path, text, message):
    assert problem(read_solution, write(tmp_path / "s.csv", text)) == bad_rows(message)


def test_a_submission_is_no_solution(tmp_path):
    path = write(tmp_path / "s.csv", "id,landmarks\na,x 1\n")
    assert problem(read_solution, path) == f"FILE:1: header is id,landmarks; {SOLUTION}"


def test_both_files_may_be_separated_by_semicolons(tmp_path):
    readers = ((read_submission, "s.csv"), (read_solution, "t.csv"))
    (tmp_path / "s.csv").write_text("sep=;\nid;landmarks\na;7 0.9\n")
    (tmp_path / "t.csv").write_text("id;landmarks;Usage\na;7;Public\n")
    said = []
    answers, truth = (read(tmp_path / name, Recorder(said)) for read, name in readers)
    assert (answers.landmark.tolist(), answers.score.tolist(), truth.landmarks.tolist()) == (["7"], [0.9], [("7",)])
    assert said == [f"{tmp_path / name}: columns separated by semicolons" for _, name in readers]
