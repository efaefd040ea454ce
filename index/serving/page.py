"""A page of similar images: what it says of each, and its JSON, which a client of a server reads back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from index.answer import Neighbour
from index.serving.gallery import Size

if TYPE_CHECKING:
    from index.folder.thumbnails import Kept


@dataclass(frozen=True, slots=True)
class Similar:
    """An image of the index that is similar to the one that was asked.

    neighbour: its score is the cosine of both descriptors in the index's space. rank: its place by similarity, from 1,
    copies counted. votes: it is one of the neighbours that the answer is made of. size: None where its file is gone.
    confidence: of its landmark in the answer, which is how sure it shows what the query shows; None where the index is
    not calibrated, or nothing voted for its landmark. folded: other images that are nearly the same as it.
    """

    neighbour: Neighbour
    rank: int
    votes: bool
    size: Size | None
    confidence: float | None
    folded: tuple[Neighbour, ...] = ()

    @property
    def width(self) -> int | None:
        """Pixels, upright."""
        return None if self.size is None else self.size.width

    @property
    def height(self) -> int | None:
        """Pixels, upright."""
        return None if self.size is None else self.size.height

    @property
    def megapixels(self) -> float | None:
        """Width times height, in millions."""
        return None if self.size is None else self.size.megapixels

    @property
    def pixels_per_inch(self) -> float | None:
        """Pixels per inch of the image on the whole of a common screen."""
        return None if self.size is None else self.size.pixels_per_inch

    def to_json(self) -> dict[str, Any]:
        """JSON object of `POST /v1/search` and `lmr search`."""
        near, size = self.neighbour, self.size
        return {
            "rank": self.rank,
            "image_id": near.image_id,
            "landmark_id": near.landmark_id,
            "name": near.name,
            "score": near.score,
            "confidence": self.confidence,
            "votes": self.votes,
            "path": near.path,
            "width": self.width,
            "height": self.height,
            "megapixels": self.megapixels,
            "pixels_per_inch": self.pixels_per_inch,
            "dpi": None if size is None else size.dpi,
            "columns": dict(near.columns),
            "folded": [{"image_id": n.image_id, "landmark_id": n.landmark_id, "score": n.score} for n in self.folded],
        }

    @classmethod
    def from_json(cls, told: "Mapping[str, Any]", kept: "Callable[[str], Kept | None]" = lambda _: None) -> "Similar":
        """What `to_json` told. kept: reads the thumbnail of an image_id.

        Raises KeyError, TypeError or ValueError for what is none.
        """
        near, *folded = (
            Neighbour(
                one["image_id"],
                one["landmark_id"],
                one["score"],
                one.get("path", ""),
                one.get("name", ""),
                kept(one["image_id"]),
                columns=one.get("columns", {}),
            )
            for one in (told, *told["folded"])
        )
        size = None if told["width"] is None else Size(told["width"], told["height"], told["dpi"])
        return cls(near, told["rank"], told["votes"], size, told["confidence"], tuple(folded))


@dataclass(frozen=True, slots=True)
class Page:
    """Some images of a list. n_rows_looked_at: images that are in order up to here. has_more: others follow."""

    items: tuple[Similar, ...]
    n_rows_looked_at: int
    has_more: bool

    def to_json(self) -> dict[str, Any]:
        """JSON object of `POST /v1/search`."""
        return {
            "items": [item.to_json() for item in self.items],
            "n_rows_looked_at": self.n_rows_looked_at,
            "has_more": self.has_more,
        }

    @classmethod
    def from_json(cls, told: "Mapping[str, Any]", kept: "Callable[[str], Kept | None]" = lambda _: None) -> "Page":
        """As `Similar.from_json`."""
        items = tuple(Similar.from_json(one, kept) for one in told["items"])
        return cls(items, told["n_rows_looked_at"], told["has_more"])
