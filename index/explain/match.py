"""The match of an image with the neighbour that decided: local features that agree on one geometry."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from index.rerank.verification import Comparing
    from retrieval.local.config import LocalKind
    from retrieval.local.extractor import Extractor
    from retrieval.local.features import LocalFeatures
    from retrieval.local.geometry import Match


@dataclass(frozen=True, slots=True, eq=False)
class ImageMatch:
    """What was found in common. kind: of the local features. query, row: of the two images; sizes are theirs."""

    match: "Match"
    kind: "LocalKind"
    query: "LocalFeatures"
    row: "LocalFeatures"

    def to_json(self) -> dict[str, Any]:
        """JSON object of `explanation.json`."""
        match = self.match
        return {
            "local": self.kind,
            "n_keypoints": [len(self.query), len(self.row)],
            "n_matches": match.n_matches,
            "n_inliers": match.n_inliers,
            "n_chance": match.n_chance,
            "surprise": match.surprise,
            "geometry": match.kind,
            "model": None if match.model is None else match.model.tolist(),
            "sizes": [list(self.query.size), list(self.row.size)],
            "inliers": [
                [*here, *there]
                for here, there in zip(match.points_query.tolist(), match.points_row.tolist(), strict=True)
            ],
        }


def extractor_of(folder: "IndexFolder", device: str = "auto", threads: int | None = None) -> "Extractor":
    """What extracts local features as those of the index are, or RootSIFT where it has none. Raises LmrError."""
    if folder.local is not None:
        return folder.local.open_extractor(device, threads)
    from retrieval.local.config import LocalOptions
    from retrieval.local.extractor import open_extractor

    return open_extractor(LocalOptions(kind="rootsift"), device, threads)


def match_images(
    folder: "IndexFolder",
    row: int,
    images: tuple[bytes, bytes | None],
    extractor: "Extractor",
    verifier: "Comparing | None" = None,
) -> "ImageMatch | str":
    """The match of an encoded image with a row of the index; or why there is none.

    images: the query; and the image of the row, or a thumbnail, whose features are taken where the index has none of
    it. verifier: None = nearest neighbours are matched. Raises UnreadableError for an image that cannot be decoded.
    """
    from retrieval.local.verifier import Verifier

    query, other = images
    features = None if folder.local is None else folder.local.features(row)
    if features is None and other is None:
        return "it could not be matched, as the index has no local features of it"
    if features is None:
        assert other is not None
        features = extractor.extract(extractor.decode(other))
    own = extractor.extract(extractor.decode(query))
    match = (verifier or Verifier()).verify(own, [features])[0]
    return ImageMatch(match, extractor.card.kind, own, features)
