"""What a file was made of, kept beside it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.errors import LmrError
from retrieval.files import atomic, made_of
from retrieval.files.made_of import (
    is_folder_made_of,
    is_made_of,
    record_path,
    write_folder_record,
    write_with_record,
)

INPUTS = {"index": "ab" * 32, "--threshold": None}
OTHER = "give --overwrite"


def refusal(path: Path, inputs: dict[str, object]) -> str:
    with pytest.raises(LmrError) as caught:
        is_made_of(path, inputs, OTHER)
    return str(caught.value)


def test_a_file_is_known_by_what_it_was_made_of(tmp_path):
    path = tmp_path / "x.csv"
    assert not is_made_of(path, INPUTS, OTHER)
    write_with_record(path, ["a,", "b\n"], INPUTS)
    assert path.read_text() == "a,b\n"
    assert is_made_of(path, INPUTS, OTHER)
    assert is_made_of(path, {"index": "ab" * 32}, OTHER)
    assert sorted(each.name for each in tmp_path.iterdir()) == [".x.csv.made-of.json", "x.csv"]


def test_other_inputs_are_named_with_the_values_that_say_something(tmp_path):
    path = tmp_path / "x.csv"
    write_with_record(path, ["a"], INPUTS)
    assert refusal(path, {**INPUTS, "index": "cd" * 32}) == f"{path} was made with another index; {OTHER}"
    assert refusal(path, {**INPUTS, "--threshold": 0.5}) == (
        f"{path} was made with another --threshold (none, now 0.5); {OTHER}"
    )


def test_a_file_without_its_record_and_a_changed_one_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    write_with_record(path, ["a"], INPUTS)
    path.write_text("b")
    assert refusal(path, INPUTS) == f"{path} was changed since it was written; {OTHER}"
    for text in ("", "{}", record_path(path).read_text().replace("ab", "cd")):
        record_path(path).write_text(text)
        assert refusal(path, INPUTS) == f"{path} exists; {OTHER}"
    record_path(path).unlink()
    assert refusal(path, INPUTS) == f"{path} exists; {OTHER}"


KILLED = """
import os, sys
from pathlib import Path
from retrieval.files import atomic
from retrieval.files.made_of import write_with_record

renamed = []
replace = os.replace

def rename(*names):
    if renamed:
        os._exit(9)
    renamed.append(names)
    replace(*names)

atomic.os.replace = rename
write_with_record(Path(sys.argv[1]), [sys.argv[2]], {"--threshold": sys.argv[2]})
"""


def killed_before_the_file_has_its_name(path: Path, text: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), text], env=environment, check=False)
    assert ended.returncode == 9


def test_a_kill_between_record_and_file_leaves_the_old_file_known_by_its_own_inputs(tmp_path):
    path = tmp_path / "x.csv"
    write_with_record(path, ["old"], {"--threshold": "old"})
    for _ in range(2):
        killed_before_the_file_has_its_name(path, "new")
        assert path.read_text() == "old"
        assert is_made_of(path, {"--threshold": "old"}, OTHER)
        assert refusal(path, {"--threshold": "new"}) == (
            f"{path} was made with another --threshold (old, now new); {OTHER}"
        )
    path.write_text("changed")
    assert refusal(path, {"--threshold": "old"}) == f"{path} was changed since it was written; {OTHER}"
    write_with_record(path, ["new"], {"--threshold": "new"})
    assert is_made_of(path, {"--threshold": "new"}, OTHER)


def test_a_kill_where_there_was_no_file_or_that_of_somebody_else_leaves_it_so(tmp_path):
    killed_before_the_file_has_its_name(tmp_path / "none.csv", "new")
    assert not is_made_of(tmp_path / "none.csv", {"--threshold": "new"}, OTHER)
    path = tmp_path / "x.csv"
    path.write_text("theirs")
    killed_before_the_file_has_its_name(path, "new")
    assert refusal(path, {"--threshold": "new"}) == f"{path} exists; {OTHER}"


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_between_file_and_record_leaves_no_file_that_is_taken_for_finished(tmp_path, monkeypatch, at):
    path = tmp_path / "x.csv"
    write_with_record(path, ["old"], INPUTS)
    n_renamed = 0
    replace = atomic.os.replace

    def die(*names: object) -> None:
        nonlocal n_renamed
        n_renamed += 1
        if n_renamed == at:
            raise KeyboardInterrupt
        replace(*names)

    new = {**INPUTS, "--threshold": 0.5}
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            write_with_record(path, ["new"], new)
    assert path.read_text() == "old"
    with pytest.raises(LmrError):
        is_made_of(path, new, OTHER)
    write_with_record(path, ["new"], new)
    assert is_made_of(path, new, OTHER)


def test_a_disk_too_full_for_the_record_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    write_with_record(path, ["old"], INPUTS)

    def refuse(*_: object) -> None:
        raise LmrError(f"full: {errno.ENOSPC}")

    monkeypatch.setattr(made_of, "write_signed_json", refuse)
    with pytest.raises(LmrError, match="full"):
        write_with_record(path, ["new"], {})
    assert path.read_text() == "old"
    assert is_made_of(path, INPUTS, OTHER)


def test_a_folder_in_the_place_of_a_file_is_refused_without_advice_to_replace_it(tmp_path):
    (tmp_path / "x.csv").mkdir()
    assert refusal(tmp_path / "x.csv", INPUTS) == f"{tmp_path}/x.csv is a folder; give the file another name"


def folder_with_record(folder: Path) -> Path:
    (folder / "one").mkdir(parents=True)
    (folder / "one" / "page.html").write_text("a")
    (folder / "list.json").write_text("b")
    write_folder_record(folder, INPUTS)
    return folder


def folder_refusal(folder: Path, inputs: dict[str, object], *, overwrite: bool = False) -> str:
    with pytest.raises(LmrError) as caught:
        is_folder_made_of(folder, inputs, OTHER, overwrite=overwrite)
    return str(caught.value)


def test_a_folder_is_known_by_what_it_was_made_of(tmp_path):
    folder = tmp_path / "why"
    assert not is_folder_made_of(folder, INPUTS, OTHER, overwrite=False)
    folder.mkdir()
    assert not is_folder_made_of(folder, INPUTS, OTHER, overwrite=False)
    folder_with_record(folder)
    assert is_folder_made_of(folder, INPUTS, OTHER, overwrite=False)
    assert not is_folder_made_of(folder, INPUTS, OTHER, overwrite=True)
    assert folder_refusal(folder, {"--threshold": 0.5}) == (
        f"{folder} was made with another --threshold (none, now 0.5); {OTHER}"
    )
    (folder / ".DS_Store").touch()
    assert is_folder_made_of(folder, INPUTS, OTHER, overwrite=False)


def test_a_folder_that_was_changed_is_refused_until_it_is_overwritten(tmp_path):
    folder = folder_with_record(tmp_path / "why")
    (folder / "one" / "page.html").write_text("changed")
    assert folder_refusal(folder, INPUTS) == f"{folder}/one/page.html was changed since it was written; {OTHER}"
    (folder / "one" / "page.html").unlink()
    assert folder_refusal(folder, INPUTS) == f"{folder}/one/page.html was changed since it was written; {OTHER}"
    assert not is_folder_made_of(folder, INPUTS, OTHER, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_that_was_not_written_with_a_folder_is_ever_replaced(tmp_path, overwrite):
    folder = folder_with_record(tmp_path / "why")
    (folder / "one" / "notes.txt").write_text("mine")
    assert folder_refusal(folder, INPUTS, overwrite=overwrite) == (
        f"{folder}/one/notes.txt was not written with {folder}; move it away or give another name"
    )
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "p.jpg").touch()
    for text in (None, "", "{}", '{"files": {"p.jpg": ""}, "of": {}, "format_version": 1}'):
        if text is not None:
            (photos / "made-of.json").write_text(text)
        assert folder_refusal(photos, INPUTS, overwrite=overwrite) == (
            f"{photos} exists and holds other things; give another name"
        )
    assert folder_refusal(photos / "p.jpg", INPUTS, overwrite=overwrite) == (
        f"{photos}/p.jpg is not a folder; give another name"
    )


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [(None, True, "without --verify"), (True, None, "with --verify"), (2, None, "with another --verify (2, now none)")],
)
def test_a_flag_was_given_or_was_not(tmp_path, before, now, said):
    path = tmp_path / "x.csv"
    write_with_record(path, ["a"], {"--verify": before})
    assert refusal(path, {"--verify": now}) == f"{path} was made {said}; {OTHER}"
