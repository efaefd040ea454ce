"""What is asked of a download: how to fetch, and in what form pictures are kept."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from retrieval.images.decode import DEFAULT_LIMITS, Limits

Resize = Literal["shorter", "longer", "center-crop", "square-pad"]
Layout = Literal["flat", "google"]

USER_AGENT = "lmr/0.1 (downloads the pictures of a data set; no contact given, --user-agent sets one)"


@dataclass(frozen=True, slots=True)
class FetchRules:
    """How pictures are fetched.

    connections: at once in total, per_host of them to one host. timeout_s: for one try of one picture, redirects
    included. idle_s: longest time without a byte. n_retries: further tries after 429, 5xx, timeouts and cut
    connections, after back_off_s, twice that, four times that. max_wait_s: the longest Retry-After that is waited for;
    a host that asks for more is left for a later run. allow_private: also loopback, private and link-local addresses.
    """

    connections: int = 64
    per_host: int = 8
    timeout_s: float = 60.0
    idle_s: float = 15.0
    n_retries: int = 3
    back_off_s: float = 1.0
    max_wait_s: float = 120.0
    allow_private: bool = False
    user_agent: str = USER_AGENT
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        for name, least in (("connections", 1), ("per_host", 1), ("n_retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("timeout_s", "idle_s", "back_off_s", "max_wait_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive number, not {getattr(self, name):g}")


@dataclass(frozen=True, slots=True)
class Form:
    """In what form pictures are kept.

    resize: `shorter` and `longer` bring that side to `size` and enlarge nothing; `center-crop` and `square-pad` make
    squares of that side, of the middle or of everything on white; None = the file as it came. quality: of the JPEG.
    The defaults take 12 kB a picture: 1.2 million of them are 15 GB, their originals 350 GB.
    """

    resize: Resize | None = "longer"
    size: int = 256
    quality: int = 85
    layout: Layout = "flat"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be from 1 to 100, not {self.quality}")

    def options(self) -> str:
        """As the options of `lmr download`, for messages."""
        kept = f"--resize {self.resize} --size {self.size} --quality {self.quality}"
        return f"{kept if self.resize else '--keep-original'} --layout {self.layout}"

    def to_json(self) -> dict[str, Any]:
        """What makes one folder of pictures different from another."""
        return asdict(self) if self.resize else {"resize": None, "layout": self.layout}
