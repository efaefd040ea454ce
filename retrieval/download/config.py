"""In what form pictures are kept."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Resize = Literal["shorter", "longer", "center-crop", "square-pad"]
Layout = Literal["flat", "google"]


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
