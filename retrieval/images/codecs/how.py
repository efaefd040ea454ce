"""Settings of decoding."""

from dataclasses import dataclass
from typing import Literal

from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.images.spec import Colors

_AMPLE = 2  # times the side that is asked for; what is made smaller by averaging keeps as much


@dataclass(frozen=True, slots=True)
class How:
    """side: pixels that a side of the result needs at least, None = full scale. measured: which side that is.

    colors: `srgb` follows the colour profile, `as-stored` takes the numbers as they are.
    """

    side: int | None = None
    measured: Literal["shorter", "longer"] = "shorter"
    limits: Limits = DEFAULT_LIMITS
    colors: Colors = "srgb"

    def shorter_side(self, size: tuple[int, int]) -> int | None:
        """Least length of the shorter side of an image of this size."""
        if self.side is None or self.measured == "shorter":
            return self.side
        return -(-self.side * min(size) // max(size))

    def factor(self, size: tuple[int, int]) -> int:
        """By how much an image that was decoded at this size may be made smaller, and no more."""
        needed = self.shorter_side(size)
        return 1 if needed is None else max(1, min(size) // (_AMPLE * needed))
