"""The tar files in which Google Landmarks v2 is published: their names, numbers and places."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

# As github.com/cvdfoundation/google-landmark publishes them.
MIRROR = "https://s3.amazonaws.com/google-landmark"
N_ARCHIVES = {"train": 500, "index": 100, "test": 20}

Part = Literal["train", "index", "test"]


@dataclass(frozen=True, slots=True)
class Archives:
    """Archives of a part, by their numbers, from a mirror into a folder."""

    folder: Path
    part: str
    numbers: Sequence[int]
    mirror: str = MIRROR

    def __post_init__(self) -> None:
        if self.part not in get_args(Part):
            raise ValueError(f"part must be one of {', '.join(get_args(Part))}, got {self.part!r}")
        n = N_ARCHIVES[self.part]
        if not self.numbers or not all(0 <= number < n for number in self.numbers):
            raise ValueError(f"{self.part} has the archives 0 to {n - 1}, got {list(self.numbers)[:5]}")

    def names(self) -> list[str]:
        """File names, images_000.tar and so on."""
        return [f"images_{number:03d}.tar" for number in self.numbers]

    def url(self, name: str) -> str:
        """Address of an archive."""
        return f"{self.mirror.rstrip('/')}/{self.part}/{name}"

    def md5_urls(self, name: str) -> list[str]:
        """Addresses that its md5 file may have: as Google has it, and beside the archive."""
        md5_name, base = f"md5.{name.removesuffix('.tar')}.txt", self.mirror.rstrip("/")
        return [f"{base}/md5sum/{self.part}/{md5_name}", f"{base}/{self.part}/{md5_name}"]


def parse_numbers(text: str | None, part: str) -> list[int]:
    """`0-9,12` as numbers in order; all of the part for None. Raises ValueError."""
    if text is None:
        return list(range(N_ARCHIVES[part]))
    numbers: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise ValueError(f"numbers {text}: expected numbers and ranges, such as 0-9,12")
        numbers.update(range(int(first), int(last if dash else first) + 1))
    n = N_ARCHIVES[part]
    if not numbers or max(numbers) >= n:
        raise ValueError(f"numbers {text}: {part} has the archives 0 to {n - 1}")
    return sorted(numbers)
