"""Cells that a spreadsheet does not run, and that read back equal."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.data.csv_cells import csv_line, guard, unguard
from retrieval.data.manifest import read_manifest


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x")', "+1+1", "-1+1", "@SUM(A1)", "\tx", "\r=1", "'=1", "-abc"])
def test_what_a_spreadsheet_would_run_begins_with_an_apostrophe_and_reads_back(text: str) -> None:
    assert guard(text) == f"'{text}"
    assert unguard(guard(text)) == text


@pytest.mark.parametrize("text", ["", "Petra", "7", "-0.25", "+1e-05", "-nan", "'quoted'", "a=b", "12-7"])
def test_other_texts_and_numbers_stay_as_they_are(text: str) -> None:
    assert guard(text) == unguard(text) == text


@given(st.text(alphabet="'=+-@\t\r1a.e"))
def test_every_text_reads_back_equal(text: str) -> None:
    assert unguard(guard(text)) == text


def test_a_line_holds_texts_guarded_and_numbers_as_they_are() -> None:
    line = csv_line(["=1+1", -2, -0.5, None, 'a "b", c'])
    assert line == '\'=1+1,-2,-0.5,,"a ""b"", c"\n'
    assert next(csv.reader([line])) == ["'=1+1", "-2", "-0.5", "", 'a "b", c']


def test_a_table_of_guarded_ids_is_a_manifest_of_the_ids(tmp_path: Path) -> None:
    path = tmp_path / "failed.csv"
    path.write_text("".join(map(csv_line, [("id", "url", "cause"), ("-abc", "http://x/1", "404"), ("d'Or", "", "")])))
    assert read_manifest(path).image_id.tolist() == ["-abc", "d'Or"]
