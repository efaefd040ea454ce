"""What comes from data and is printed: escaped and cut for people, exact for programs, on any terminal."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_set import HERE, done, refused, run, write_csv

from cli.terminal import shown, shown_line, shown_lines, warn, warn_lines, with_options

HOSTILE = "a\x1b[2J\x1b]0;title\x07\r\x08\x9b31m\u202egpj\u200b\ufeff\x7f\u2028z"
ESCAPED = r"a\x1b[2J\x1b]0;title\x07\x0d\x08\x9b31m\u202egpj\u200b\ufeff\x7f\u2028z"
PRINTS = re.compile(r"click\.(s?echo|echo_via_pager)\(|(?<![\w.])print\(|sys\.std(out|err)\.write")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def test_a_value_is_escaped_and_cut():
    assert shown(HOSTILE) == ESCAPED
    assert shown("two\nlines\tand") == r"two\x0alines\x09and"
    assert shown(os.fsdecode(b"ar\xffch")) == r"ar\xffch"
    assert shown("\ud800 \U000e0041 \u2066") == r"\ud800 \U000e0041 \u2066"
    assert shown("Schloß Neuschwanstein, 東京タワー, برج, 🗼") == "Schloß Neuschwanstein, 東京タワー, برج, 🗼"
    assert shown("x" * 300) == "x" * 300
    assert shown("x" * 2_000_000) == "x" * 300 + "… (2,000,000 characters)"


def test_a_text_keeps_its_lines_and_tabs_and_the_end_of_long_ones():
    assert shown_line("an id\nof two\tlines\r") == "an id\\x0aof two\tlines\\x0d"
    assert shown_lines("a.csv: 2 bad rows\na.csv:3:\t\x1b[0m") == "a.csv: 2 bad rows\na.csv:3:\t\\x1b[0m"
    long = shown_lines(f"id {'x' * 2_000_000} is twice; correct or remove\nnext")
    first, second = long.split("\n")
    assert second == "next"
    assert first.startswith("id xxx")
    assert first.endswith("xxx is twice; correct or remove")
    assert len(first) < 4100


def test_nothing_but_the_terminal_prints():
    """So that a new command cannot print what was not escaped."""
    for path in Path(__file__).parents[2].glob("cli/**/*.py"):
        if path.name != "terminal.py":
            assert not PRINTS.search(path.read_text(encoding="utf-8")), path


@pytest.fixture
def hostile_name(tiny_set) -> str:
    name = f"photo\n{HOSTILE.replace('/', '')}.jpg"
    shutil.copy("images/test-arch-0.jpg", name)
    return name


def test_the_name_of_a_image_reaches_no_terminal_unescaped(hostile_name):
    text = done("query", hostile_name, *HERE).stdout
    assert text.splitlines()[0] == f"photo\\x0a{ESCAPED}.jpg"
    assert not CONTROL.search(text)
    (answer,) = json.loads(done("query", hostile_name, "--json", *HERE).stdout)
    assert answer["image"] == hostile_name
    assert done("query", hostile_name, "--json", *HERE).stdout.isascii()
    _, row = csv.reader(io.StringIO(done("query", hostile_name, "--csv", *HERE).stdout, newline=""))
    assert row[0] == hostile_name


def test_a_name_in_an_error_or_a_usage_error_is_escaped(tiny_set):
    assert refused("query", "\x1b[2Jno.jpg", *HERE) == (
        r"\x1b[2Jno.jpg: there is no such file or folder; give pictures, folders or URLs"
    )
    result = run("query", "--\x1b[2J")
    assert result.exit_code == 2
    assert r"No such option '--\x1b[2J'" in result.stderr or r"No such option: --\x1b[2J" in result.stderr
    assert not CONTROL.search(result.stderr)


def test_ids_in_lists_of_bad_rows_and_unreadable_images_are_escaped_and_cut(tiny_set):
    Path("broken.jpg").write_text("no picture")
    long = "x" * 100_000
    write_csv(Path("rows.csv"), "id,path,landmark_id", ["\x1b[2J,broken.jpg,arch", f"{long},broken.jpg,arch"])
    result = run("embed", "rows.csv", "--backbone", "plain-cnn", "--size", "16", *HERE)
    assert not CONTROL.search(result.stderr.replace("\r", ""))
    assert max(map(len, result.stderr.splitlines())) < 4100


FORGED = "x\nError: forged\x1b[31m"
SHOWN = r"x\x0aError: forged\x1b[31m"


def lines_of(*arguments: object) -> list[str]:
    """Every line that a command prints, none of which is forged or moves the cursor."""
    result = run(*arguments)
    lines = result.output.split("\n")
    assert not CONTROL.search("".join(lines).replace("\r", ""))
    assert not [line for line in lines if line.startswith("Error: forged")]
    return lines


def test_a_value_in_a_list_of_bad_rows_begins_no_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(Path("solution.csv"), "id,landmarks,Usage", ["a,arch,Public", "b,,Public"])
    write_csv(Path("submission.csv"), "id,landmarks", [f'a,"{FORGED}"', f'b,"arch {FORGED}"'])
    assert lines_of("score", "submission.csv", "solution.csv")[:3] == [
        "Error: submission.csv: 2 bad rows; correct or remove, nothing of the file was used",
        f"submission.csv:2: `{SHOWN}` is not `label score`",
        f"submission.csv:4: `arch {SHOWN}` is not `label score`",
    ]
    write_csv(Path("submission.csv"), "id,landmarks", ["a,arch 0.5"])
    write_csv(Path("solution.csv"), "id,landmarks,Usage", [f'a,arch,"{FORGED}"'])
    assert f"solution.csv:2: Usage is `{SHOWN}`; it must be Public, Private or Ignored" in lines_of(
        "score", "submission.csv", "solution.csv"
    )


def test_an_id_that_a_message_names_begins_no_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(Path("solution.csv"), "id,landmarks,Usage", ["a,arch,Public"])
    write_csv(Path("submission.csv"), "id,landmarks", ["a,arch 0.5", f'"{FORGED}",arch 0.5'])
    assert any(SHOWN in line for line in lines_of("score", "submission.csv", "solution.csv"))


def test_a_folder_with_a_line_end_in_its_name_begins_no_line_in_any_result(tiny_set):
    folder = Path(FORGED)
    folder.mkdir()
    write_csv(Path("all.csv"), "id,landmark_id", [f"{label}{i},{label}" for label in "ab" for i in range(9)])
    split = ("split", "all.csv", "--ignore-duplicates", "--at-least", "1")
    assert f"{SHOWN}/parts: written" in lines_of(*split, "--output", folder / "parts")
    clean = ("clean", "train.csv", "--store", "train.h5", *HERE, "--checks", "labels", "--gallery", "0")
    assert any(line.startswith(f"{SHOWN}/c: ") for line in lines_of(*clean, "--output", folder / "c"))
    shutil.copytree("landmarks", folder / "l")
    calibrated = lines_of("calibrate", "val.csv", "--index", folder / "l", "--overwrite", "--precision", "0.5", *HERE)
    assert any(line.startswith(f"{SHOWN}/l: calibrated on ") for line in calibrated)
    submitted = lines_of("submit", "test.csv", "--output", folder / "s.csv", *HERE)
    assert any(line.startswith(f"{SHOWN}/s.csv: ") for line in submitted)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=["ascii", "latin-1", "LC_ALL=C"],
)
def test_a_terminal_that_lacks_letters_gets_escapes(tmp_path, environment):
    write_csv(tmp_path / "train.csv", "id,landmark_id", ["a,東京タワー", "b,東京タワー", "c,Köln"])
    program = [sys.executable, "-c", "from cli.main import main; main()"]

    def lmr(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*program, *arguments], cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, check=False
        )

    shown_facts = lmr("stats", "train.csv", "--facts", "facts.sqlite")
    assert (shown_facts.returncode, b"Traceback" in shown_facts.stderr) == (0, False)
    assert rb"\u6771\u4eac" in shown_facts.stdout
    as_json = lmr("stats", "train.csv", "--facts", "facts.sqlite", "--json")
    names = {row["landmark_id"] for row in json.loads(as_json.stdout)["most_frequent"]}
    assert names == {"東京タワー", "Köln"}
    missing = lmr("info", "東京.h5")
    assert missing.returncode == 1
    assert b"Traceback" not in missing.stderr


def test_several_lines_beside_the_result_stay_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    warn_lines("one\n  two\x1b[2J")
    warn("one\n  two")
    assert capsys.readouterr().err == "one\n  two\\x1b[2J\none\\x0a  two\n"


PROGRAM = f"exec {sys.executable} -c 'from cli.main import program; program()'"


@pytest.mark.parametrize("closed", ["2>&-", "<&-", ">&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_hindrance(tiny_set, closed):
    """Nothing that is printed lands in a file that was opened in its place."""
    command = ["sh", "-c", f"{PROGRAM} split train.csv --output parts --workers 1 {closed}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert result.returncode == 0
    done("split", "train.csv", "--output", "alone", "--workers", "1")
    for name in ("train.csv", "val.csv", "test.csv"):
        assert Path("parts", name).read_bytes() == Path("alone", name).read_bytes()
    assert (b"parts: written" in result.stdout) == (">&-" not in closed.replace("2>&-", ""))
    assert (b"train.csv: " in result.stderr) == ("2>&-" not in closed)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_result_that_finds_no_room_is_one_line(tiny_set):
    command = ["sh", "-c", f"{PROGRAM} info train.h5 > /dev/full"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert result.returncode == 1
    assert result.stderr.decode() == (
        "Error: the result cannot be printed: No space left on device; send stdout to another place\n"
    )


def test_parameters_of_messages_become_options_and_nothing_else_does():
    assert with_options("give `overwrite`, or another `n_dimensions` (`retry_unreadable`)") == (
        "give --overwrite, or another --dimensions (--retry-unreadable)"
    )
    for text in ("Expected `object`, got `array` - at `$.files`", "missing required field `counts`", "`a`b", "x`a`"):
        assert with_options(text) == text
