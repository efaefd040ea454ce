"""Links to pictures in folders by landmark, for people who sort their photos."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.errors import LmrError

if TYPE_CHECKING:
    from lmr import Answer

UNKNOWN = "_no_known_landmark"


def sort_into(folder: Path, answers: "Sequence[Answer]") -> int:
    """Makes `folder/<landmark_id>/<picture>` links; pictures of no known landmark go to `_no_known_landmark`.

    Links that are there already are left; two pictures of one name get a number. Returns how many links there are for
    these answers. Raises LmrError when the folder cannot be written. URLs, unreadable pictures and the links that
    an earlier run made are left out.
    """
    n_links = 0
    for answer in answers:
        source = Path(os.path.abspath(answer.image))
        if answer.unreadable is not None or not source.exists() or _is_own_link(source, folder):
            continue
        group = folder / _folder_name(answer.landmark_id or UNKNOWN)
        try:
            group.mkdir(parents=True, exist_ok=True)
            _link(group, source)
        except OSError as error:
            raise LmrError(f"--sort-into {folder}: {error.strerror}; choose another folder") from error
        n_links += 1
    return n_links


def _is_own_link(source: Path, folder: Path) -> bool:
    """Whether this is a link in the folder, as where somebody sorts `photos` into `photos/sorted` again."""
    return source.is_symlink() and Path(os.path.abspath(folder)) in source.parents


def _folder_name(label: str) -> str:
    """The landmark_id without what would lead out of the folder."""
    name = label.replace(os.sep, "_")
    return name.replace(".", "_") if name in (".", "..") else name


def _link(group: Path, source: Path) -> None:
    """A symbolic link of the picture's name, or of its name with a number where that is another picture's."""
    for number in range(1, 1_000_000):
        name = source.name if number == 1 else f"{source.stem}-{number}{source.suffix}"
        link = group / name
        if link.is_symlink() and Path(os.readlink(link)) == source:
            return
        if not link.is_symlink() and not link.exists():
            link.symlink_to(source)
            return
    raise LmrError(f"{group}: too many pictures are named {source.name}")
