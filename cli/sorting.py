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
    these answers. Raises LmrError when the folder cannot be written. URLs and unreadable pictures are left out.
    """
    n_links = 0
    for answer in answers:
        source = Path(answer.image).absolute()
        if answer.unreadable is not None or not source.exists():
            continue
        group = folder / (answer.landmark_id or UNKNOWN).replace(os.sep, "_")
        try:
            group.mkdir(parents=True, exist_ok=True)
            _link(group, source)
        except OSError as error:
            raise LmrError(f"--sort-into {folder}: {error.strerror}; choose another folder") from error
        n_links += 1
    return n_links


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
