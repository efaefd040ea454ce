"""Folders that are replaced whole, where two names can be exchanged and where they cannot."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from retrieval.errors import LmrError
from retrieval.files import folders
from retrieval.files.folders import CURRENT, current_folder, exchange, replacing_folder


def fill(path: Path, text: str) -> None:
    """Replaces the folder by one with a file and a file in a sub-folder."""
    with replacing_folder(path) as folder:
        (folder / "a.txt").write_text(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text(text)


def content(path: Path) -> list[str]:
    """What both files say."""
    folder = current_folder(path)
    return [(folder / "a.txt").read_text(), (folder / "sub" / "b.txt").read_text()]


@pytest.fixture(params=[True, False], ids=["exchange", "pointer"])
def can_exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the system can exchange two names."""
    if not request.param:
        monkeypatch.setattr(folders, "exchange", lambda *_: False)
    return bool(request.param)


def test_a_folder_is_made_and_replaced_and_nothing_is_left_beside_it(tmp_path, can_exchange):
    for text in ("one", "two", "three"):
        fill(tmp_path / "f", text)
        assert content(tmp_path / "f") == [text, text]
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f" / CURRENT).exists() != can_exchange


def test_a_folder_behind_a_pointer_becomes_a_plain_one_where_names_can_be_exchanged(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(folders, "exchange", lambda *_: False)
        fill(tmp_path / "f", "one")
        fill(tmp_path / "f", "two")
    fill(tmp_path / "f", "three")
    assert content(tmp_path / "f") == ["three", "three"]
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["a.txt", "sub"]


def test_an_error_while_it_is_filled_leaves_the_old_folder(tmp_path, can_exchange):
    fill(tmp_path / "f", "one")

    def fail() -> None:
        with replacing_folder(tmp_path / "f") as folder:
            (folder / "a.txt").write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert content(tmp_path / "f") == ["one", "one"]
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path, can_exchange):
    fill(tmp_path / "f", "one")
    (tmp_path / ".f.0123abcd.partial" / "sub").mkdir(parents=True)
    (tmp_path / "f" / "version-0123abcd").mkdir()
    (tmp_path / ".f.of-the-user").mkdir()
    fill(tmp_path / "f", "two")
    assert content(tmp_path / "f") == ["two", "two"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".f.of-the-user", "f"]
    assert not (tmp_path / "f" / "version-0123abcd").exists()


def test_what_belongs_to_a_folder_of_a_longer_name_or_to_the_user_is_left_alone(tmp_path, can_exchange):
    kept = [tmp_path / ".f.v2.0123abcd.partial", tmp_path / ".f.of the user.partial"]
    for place in kept:
        place.mkdir()
    (tmp_path / "f" / "version-of-mine").mkdir(parents=True)

    def fail() -> None:
        with replacing_folder(tmp_path / "f"):
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert all(place.is_dir() for place in kept)
    assert (tmp_path / "f" / "version-of-mine").is_dir()


def test_a_mounted_folder_is_replaced_from_within(tmp_path, monkeypatch):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / ".lock").write_text("held")
    monkeypatch.setattr(folders.os.path, "ismount", lambda path: Path(path) == tmp_path / "f")
    fill(tmp_path / "f", "one")
    fill(tmp_path / "f", "two")
    assert content(tmp_path / "f") == ["two", "two"]
    assert {path.name for path in (tmp_path / "f").iterdir()} == {
        ".lock",
        CURRENT,
        current_folder(tmp_path / "f").name,
    }


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EBUSY, errno.EPERM])
def test_a_system_that_cannot_exchange_is_no_error(tmp_path, monkeypatch, code):
    class Library:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def renameat2(self, *_: object) -> int:
            return -1

    monkeypatch.setattr(folders.ctypes, "CDLL", Library)
    monkeypatch.setattr(folders.ctypes, "get_errno", lambda: code)
    assert not exchange(tmp_path / "a", tmp_path / "b")


@pytest.mark.skipif(not shutil.which("uname") or os.uname().sysname != "Linux", reason="renameat2 is of Linux")
def test_two_names_are_exchanged_or_the_error_is_raised(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if exchange(tmp_path / "a", tmp_path / "b"):
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    with pytest.raises(OSError, match="No such file or directory"):
        exchange(tmp_path / "a", tmp_path / "missing")


@pytest.mark.parametrize("text", ["../elsewhere", "version-a/../../b", "", "else", "\xff"])
def test_a_pointer_leads_nowhere_but_into_its_folder(tmp_path, text):
    (tmp_path / CURRENT).write_bytes(text.encode("latin-1"))
    assert current_folder(tmp_path) == tmp_path


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "x").write_text("a file")
    with pytest.raises(LmrError) as caught:
        fill(tmp_path / "x" / "f", "one")
    assert str(caught.value) == (
        f"{tmp_path / 'x' / 'f'} cannot be written: Not a directory; choose another place or make room"
    )
