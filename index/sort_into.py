"""Sorts images into folders by landmark: links, copies, or the images themselves; and puts moved ones back."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from retrieval.data.names import shown_name
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.atomic import write_bytes
from retrieval.files.folder_names import UNKNOWN, folder_name
from retrieval.files.moves import JOURNAL, MoveJournal
from retrieval.images.given import image_exists, list_images, read_image
from retrieval.words import agreeing

if TYPE_CHECKING:
    from index.answer import Answer
    from index.folder.folder import IndexFolder
    from retrieval.progress import Progress

Mode = Literal["link", "copy", "move"]

N_TOLD = 5  # images that could not be moved back, named with the reason


@dataclass(frozen=True, slots=True)
class Sorted:
    """Numbers of links and copies that there are for the answers, and of images that were moved.

    n_left: links that were not moved, since what they lead to would stay behind. moved: old place -> new place.
    """

    n_links: int
    n_copies: int
    n_moved: int
    n_left: int
    moved: Mapping[str, str] = field(default_factory=dict)

    def follow(self, answers: "Sequence[Answer]") -> "list[Answer]":
        """The answers with their images where they are after the moves."""
        return [replace(answer, image=self.moved.get(answer.image, answer.image)) for answer in answers]

    def told(self) -> str:
        """For a person."""
        parts = [(self.n_links, "links"), (self.n_copies, "copies"), (self.n_moved, "moved")]
        parts.append((self.n_left, "links left where they are"))
        return ", ".join(f"{n} {what}" for n, what in parts if n) or "nothing to do"


def sort_into(folder: Path, answers: "Sequence[Answer]", names: Mapping[str, str], mode: Mode = "link") -> Sorted:
    """Puts each image into `folder/<name of its landmark>/`; without a known landmark into `_no_known_landmark`.

    names: of the folder for each landmark_id, as `group_names` gives them. An image in a tar is always copied. What
    is there already is left; two images of one name get a number. Moves are journalled (`retrieval.files.moves`).
    Raises LmrError when the folder cannot be written. URLs, unreadable images and what an earlier run put there are
    left out.
    """
    done, moved = Counter[str](), dict[str, str]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        journal = MoveJournal(folder)
        journal.finish()
        for answer in answers:
            source = Path(os.path.abspath(answer.image))
            if answer.unreadable is not None or not image_exists(str(source)) or _is_own_link(source, folder):
                continue
            group = folder / (names[answer.landmark_id] if answer.landmark_id else UNKNOWN)
            if source.parent == Path(os.path.abspath(group)):  # put there by an earlier run
                continue
            group.mkdir(parents=True, exist_ok=True)
            what = _put(group, source, mode, journal)
            done[what] += 1
            if what == "move":
                moved[answer.image] = str(folder / journal.moves[-1].target)
    except OSError as error:
        raise LmrError(f"{folder}: {error.filename or folder}: {error.strerror}; choose another folder") from error
    return Sorted(done["link"], done["copy"], done["move"], done["left"], moved)


def group_names(index: "IndexFolder") -> dict[str, str]:
    """The folder of each landmark_id: `Hawa Mahal` of `Hawa_Mahal`, as its own folder was called, else the landmark_id.

    Different landmarks have different folders: a landmark_id holds no white space.
    """
    known = index.names
    names = {label: known[label].name if label in known else label for label in index.rows.landmarks}
    return {label: folder_name(name if shown_name(label, name) == name else label) for label, name in names.items()}


def count_moved(images: Sequence[str], folder: Path) -> int:
    """Number of images that earlier runs moved into the folder; 0 where one of these was not moved, or is unknown.

    images: files, folders and tars.
    """
    moves = [move for move in MoveJournal(folder).moves if (folder / move.target).is_file()]
    sources = [Path(move.source) for move in moves]
    for place in map(os.path.abspath, images):
        if not any(source.is_relative_to(place) for source in sources) or _holds_images(place):
            return 0
    return len(moves)


def _holds_images(place: str) -> bool:
    """True for an image, and for a folder with some."""
    try:
        return bool(list_images([place]))
    except LmrError:
        return False


def undo_moves(folder: Path, progress: "Progress") -> int:
    """Moves images back to where they were; how many. Raises LmrError where nothing was moved, or some stay."""
    journal = MoveJournal(folder)
    if not journal.moves:
        raise LmrError(f"{folder}: nothing was moved there (no {JOURNAL})")
    undone = journal.undo()
    for move, reason in undone.left[:N_TOLD]:
        progress.warn(f"{folder / move.target} stays: {reason} ({move.source})")
    if undone.left:
        raise LmrError(
            f"{folder}: {undone.n_back} moved back, {len(undone.left)} "
            f"{agreeing(len(undone.left), 'stays', 'stay')}; make room and run this again"
        )
    return undone.n_back


def _put(group: Path, source: Path, mode: Mode, journal: MoveJournal) -> str:
    """Places one image and says what was done: link, copy, move, left or '' when it can no longer be read."""
    if not source.exists() or mode == "copy":
        return "copy" if _copy(group, source) else ""
    if mode == "link":
        _link(group, source)
        return "link"
    if source.is_symlink():
        return "left"
    journal.move(source, next(name for name in _names(group, source) if not os.path.lexists(name)))
    return "move"


def _is_own_link(source: Path, folder: Path) -> bool:
    """True for a link in the folder, as where somebody sorts `photos` into `photos/sorted` again."""
    return source.is_symlink() and Path(os.path.abspath(folder)) in source.parents


def _link(group: Path, source: Path) -> None:
    """A symbolic link of the image's name, or of its name with a number where that is another image's."""
    for link in _names(group, source):
        if link.is_symlink() and Path(os.readlink(link)) == source:
            return
        if not link.is_symlink() and not link.exists():
            link.symlink_to(source)
            return


def _copy(group: Path, source: Path) -> bool:
    """A copy of an image, named like a link; False when it can no longer be read."""
    try:
        content = read_image(str(source))
    except UnreadableError:
        return False
    for copy in _names(group, source):
        if copy.is_file() and not copy.is_symlink() and copy.read_bytes() == content:
            return True
        if not copy.is_symlink() and not copy.exists():
            write_bytes(copy, content)
            return True
    return False


def _names(group: Path, source: Path) -> Iterator[Path]:
    """The names that it may have in the folder of its landmark."""
    for number in range(1, 1_000_000):
        yield group / (source.name if number == 1 else f"{source.stem}-{number}{source.suffix}")
    raise LmrError(f"{group}: too many pictures are named {source.name}")
