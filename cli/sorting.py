"""Links to pictures in folders by landmark, for people who sort their photos."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.folder_names import UNKNOWN, folder_name
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.atomic import write_bytes
from retrieval.images.source import picture_exists, read_picture

if TYPE_CHECKING:
    from lmr import Answer


def sort_into(folder: Path, answers: "Sequence[Answer]") -> tuple[int, int]:
    """Makes `folder/<landmark_id>/<picture>` links; pictures of no known landmark go to `_no_known_landmark`.

    A picture in a tar, where no link can lead, is copied. What is there already is left; two pictures of one name get
    a number. Returns how many links and copies there are for these answers. Raises LmrError when the folder cannot be
    written. URLs, unreadable pictures and the links that an earlier run made are left out.
    """
    n_links = n_copies = 0
    for answer in answers:
        source = Path(os.path.abspath(answer.image))
        if answer.unreadable is not None or not picture_exists(str(source)) or _is_own_link(source, folder):
            continue
        group = folder / (folder_name(answer.landmark_id) if answer.landmark_id else UNKNOWN)
        if source.parent == Path(os.path.abspath(group)):  # a copy of an earlier run
            continue
        try:
            group.mkdir(parents=True, exist_ok=True)
            if source.exists():
                _link(group, source)
                n_links += 1
            else:
                n_copies += _copy(group, source)
        except OSError as error:
            raise LmrError(f"--sort-into {folder}: {error.strerror}; choose another folder") from error
    return n_links, n_copies


def _is_own_link(source: Path, folder: Path) -> bool:
    """Whether this is a link in the folder, as where somebody sorts `photos` into `photos/sorted` again."""
    return source.is_symlink() and Path(os.path.abspath(folder)) in source.parents


def _link(group: Path, source: Path) -> None:
    """A symbolic link of the picture's name, or of its name with a number where that is another picture's."""
    for link in _names(group, source):
        if link.is_symlink() and Path(os.readlink(link)) == source:
            return
        if not link.is_symlink() and not link.exists():
            link.symlink_to(source)
            return


def _copy(group: Path, source: Path) -> bool:
    """A copy of a picture in a tar, named like a link; False when it can no longer be read."""
    try:
        content = read_picture(str(source))
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
