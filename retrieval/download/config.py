"""Form in which images are kept."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from retrieval.jobs import option

Resize = Literal["shorter", "longer", "center-crop", "square-pad"]
Layout = Literal["flat", "google"]


@dataclass(frozen=True, slots=True)
class Form:
    """Form in which images are kept.

    resize: `shorter` and `longer` bring that side to `size` and enlarge nothing; `center-crop` and `square-pad` make
    squares of that side, of the middle or of everything on white; None = the file as it came. quality: of the JPEG.
    The defaults take 12 kB an image: 1.2 million of them are 15 GB, their originals 350 GB.
    """

    resize: Resize | None = option(
        "longer",
        help="Side that becomes `size`: the shorter or longer one (nothing is enlarged); or a square of the middle, or "
        "of everything on white.",
    )
    size: int = option(256, help="Pixels.")
    quality: int = option(85, help="JPEG quality, 1 to 100.")
    layout: Layout = option("flat", help="<id>.jpg, or as Google keeps them, a/b/c/<id>.jpg.")

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be from 1 to 100, not {self.quality}")

    def words(self) -> str:
        """The words that ask for it, for messages."""
        kept = f"`resize` {self.resize} `size` {self.size} `quality` {self.quality}"
        return f"{kept if self.resize else '`keep_original`'} `layout` {self.layout}"

    def to_json(self) -> dict[str, Any]:
        """JSON of what makes one folder of images different from another."""
        return asdict(self) if self.resize else {"resize": None, "layout": self.layout}
