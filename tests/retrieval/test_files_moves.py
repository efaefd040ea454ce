"""Files moved into a folder by a journal: undone whole, cut off anywhere, between file systems."""

import errno
import os
from pathlib import Path

import pytest

from retrieval.errors import LmrError
from retrieval.files import moves
from retrieval.files.moves import JOURNAL, Move, MoveJournal


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "sorted" / "Old Mill").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / name).write_bytes(name.encode() * 100)
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def move_both(root: Path) -> MoveJournal:
    journal = MoveJournal(root / "sorted")
    for name in ("a.jpg", "b.jpg"):
        journal.move(root / "photos" / name, root / "sorted" / "Old Mill" / name)
    return journal


def test_what_was_moved_comes_back_and_no_journal_and_no_empty_folder_stay(photos: Path) -> None:
    before = content(photos)
    move_both(photos)
    assert sorted(content(photos)) == [f"sorted/{JOURNAL}", "sorted/Old Mill/a.jpg", "sorted/Old Mill/b.jpg"]
    undone = MoveJournal(photos / "sorted").undo()
    assert (undone.n_back, undone.left) == (2, ())
    assert content(photos) == before
    assert not (photos / "sorted").exists()


def test_a_file_whose_old_place_is_taken_stays_and_is_kept_in_the_journal(photos: Path) -> None:
    move_both(photos)
    (photos / "photos" / "a.jpg").write_bytes(b"another")
    undone = MoveJournal(photos / "sorted").undo()
    left = Move(str(photos / "photos" / "a.jpg"), "Old Mill/a.jpg")
    assert (undone.n_back, undone.left) == (1, ((left, "its old place is taken"),))
    assert (photos / "photos" / "a.jpg").read_bytes() == b"another"
    assert (photos / "sorted" / "Old Mill" / "a.jpg").read_bytes() == b"a.jpg" * 100
    assert MoveJournal(photos / "sorted").moves == [left]


@pytest.mark.parametrize("step", ["before", "after"])
def test_killed_around_a_move_nothing_is_lost_and_all_comes_back(
    photos: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = content(photos), os.rename

    def killed(source: Path, target: Path) -> None:
        if step == "after":
            rename(source, target)
        raise KeyboardInterrupt

    journal, place = MoveJournal(photos / "sorted"), photos / "sorted" / "Old Mill" / "a.jpg"
    with monkeypatch.context() as patch:
        patch.setattr(moves.os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            journal.move(photos / "photos" / "a.jpg", place)
    assert set(before.values()) <= set(content(photos).values())
    assert MoveJournal(photos / "sorted").undo().left == ()
    assert content(photos) == before


def test_a_line_that_was_cut_off_is_passed_over_and_the_next_one_begins_anew(photos: Path) -> None:
    move_both(photos)
    journal = photos / "sorted" / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'["/photos/c')
    (photos / "photos" / "d.jpg").write_bytes(b"d")
    MoveJournal(photos / "sorted").move(photos / "photos" / "d.jpg", photos / "sorted" / "d.jpg")
    targets = [move.target for move in MoveJournal(photos / "sorted").moves]
    assert targets == ["Old Mill/a.jpg", "Old Mill/b.jpg", "d.jpg"]


def test_a_journal_that_is_none_is_named_and_nothing_moves(photos: Path) -> None:
    (photos / "sorted" / JOURNAL).write_text('["a"]\n')
    with pytest.raises(LmrError) as error:
        MoveJournal(photos / "sorted")
    assert str(error.value) == (
        f"{photos}/sorted/{JOURNAL}:1: not a line of moved files (two paths are expected); "
        "nothing was moved now, mend that line"
    )


@pytest.mark.parametrize(("line", "said"), [
    ('["/a", 7]', "two paths are expected"),
    ('["/a\\u0000", "x"]', "two paths are expected"),
    ('["/a", "../../x"]', "a file was moved from an absolute path into the folder"),
    ('["a", "x"]', "a file was moved from an absolute path into the folder"),
    ('["/a", "/x"]', "a file was moved from an absolute path into the folder"),
    ('["/a", "x", "0123456789abcdef"]', "it was changed since it was written"),
    ('{"a": 1}', "two paths are expected"),
])  # fmt: skip
def test_a_line_that_cannot_be_is_named_and_nothing_moves(photos: Path, line: str, said: str) -> None:
    (photos / "sorted" / JOURNAL).write_text(f"{line}\n")
    with pytest.raises(LmrError) as error:
        MoveJournal(photos / "sorted")
    assert str(error.value) == (
        f"{photos}/sorted/{JOURNAL}:1: not a line of moved files ({said}); nothing was moved now, mend that line"
    )


def test_a_flipped_bit_in_a_line_is_never_taken_for_one_that_was_cut_off(photos: Path) -> None:
    journal = MoveJournal(photos / "sorted")
    journal.move(photos / "photos" / "a.jpg", photos / "sorted" / "Old Mill" / "a.jpg")
    path = photos / "sorted" / JOURNAL
    whole = path.read_bytes()
    for position in range(len(whole) - 1):
        for bit in range(7):
            data = bytearray(whole)
            data[position] ^= 1 << bit
            path.write_bytes(data)
            with pytest.raises(LmrError, match=r":[12]: not a line of moved files \("):
                MoveJournal(photos / "sorted")
    for n in range(len(whole) - 1):
        path.write_bytes(whole[:n])
        assert MoveJournal(photos / "sorted").moves == []


def test_lines_of_before_have_no_digest_and_are_read(photos: Path) -> None:
    (photos / "sorted" / JOURNAL).write_text('["/a", "x"]\n')
    assert MoveJournal(photos / "sorted").moves == [Move("/a", "x")]


def test_between_file_systems_a_file_is_copied_and_then_removed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_system(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    before = content(photos)
    monkeypatch.setattr(moves.os, "rename", other_system)
    move_both(photos)
    assert (photos / "sorted" / "Old Mill" / "a.jpg").read_bytes() == b"a.jpg" * 100
    assert not list((photos / "photos").iterdir())
    assert MoveJournal(photos / "sorted").undo().left == ()
    assert content(photos) == before


def test_a_copy_that_was_cut_off_before_its_original_went_is_finished(photos: Path) -> None:
    move_both(photos)
    (photos / "photos" / "b.jpg").write_bytes(b"b.jpg" * 100)
    MoveJournal(photos / "sorted").finish()
    assert not (photos / "photos" / "b.jpg").exists()
    assert (photos / "sorted" / "Old Mill" / "b.jpg").read_bytes() == b"b.jpg" * 100
