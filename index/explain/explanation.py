"""Explanations of answers: the votes, the confidence, and the image that decided beside the query."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from index.answer import Answer, Neighbour, headline
from index.explain.match import ImageMatch, match_images
from index.explain.votes import VoteExplanation, explain_votes
from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import anywhere
from retrieval.words import visible

if TYPE_CHECKING:
    from PIL.Image import Image

    from index.folder.folder import IndexFolder
    from index.recognition import Answers
    from index.rerank.verification import Comparing
    from retrieval.explain.maps import Maps, NamedMap
    from retrieval.explain.network import ExplainedNetwork
    from retrieval.explain.saliency import ClassMaps, ExplainedClassifier
    from retrieval.images.given import GivenImages
    from retrieval.local.extractor import Extractor

SHOWN_PX = 1024  # longer side at which images are compared and drawn


@dataclass(frozen=True, slots=True, eq=False)
class ShownImage:
    """An image of an explanation. pixels: RGB, upright; None where there is nothing to show.

    data: encoded, None where there is none. is_kept: it is a thumbnail that the index kept. note: where it is not the
    image itself, or there is none, why; else ''.
    """

    pixels: "Image | None"
    data: bytes | None = None
    is_kept: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation:
    """Why an image got its answer; also why it was turned away.

    votes: None of an unreadable image, and where there was nothing to compare it with. query, row: the image, and the
    neighbour that gave most to the best landmark (`votes.decisive`); None without votes. match: what is found in both;
    None, and why, where they could not be compared. maps: what of the two images makes their similarity; None, and why,
    where the network cannot be looked into. of_class: what of the image makes its most probable class, called
    `class_name`, by the classifier that was given; None without one.
    """

    answer: Answer
    votes: VoteExplanation | None
    query: ShownImage | None = None
    row: ShownImage | None = None
    match: ImageMatch | None = None
    why_no_match: str = ""
    maps: "Maps | None" = None
    why_no_maps: str = ""
    of_class: "ClassMaps | None" = None
    class_name: str = ""

    def __repr__(self) -> str:
        return f"<Explanation '{visible(self.answer.image)}': {visible(headline(self.answer))}>"

    @property
    def notes(self) -> list[str]:
        """Lines on what could not be shown, or not as it was."""
        shown = [one.note for one in (self.query, self.row) if one is not None]
        of_maps = () if self.maps is None else self.maps.notes
        return [note for note in (*shown, self.why_no_match, self.why_no_maps, *of_maps) if note]

    def to_json(self) -> dict[str, Any]:
        """JSON object of `explanation.json`."""
        return {
            "answer": self.answer.to_json(),
            "votes": None if self.votes is None else self.votes.to_json(),
            "decided": None if self.votes is None else self.votes.decisive.neighbour.image_id,
            "match": None if self.match is None else self.match.to_json(),
            "maps": None if self.maps is None else {"score": self.maps.score, "maps": _maps_json(self.maps.maps)},
            "class": self._class_json(),
            "notes": self.notes,
        }

    def _class_json(self) -> dict[str, Any] | None:
        if self.of_class is None:
            return None
        return {
            "landmark_id": self.of_class.label,
            "name": self.class_name,
            "probability": self.of_class.probability,
            "maps": _maps_json(self.of_class.maps),
        }


@dataclass(frozen=True, slots=True)
class Opened:
    """What explanations need of an opened index, each opened when it is asked for, or LmrError raised.

    verifier: what compared neighbours, None where none was. classifier: what knows classes, None where none was given.
    """

    network: "Callable[[], ExplainedNetwork]"
    extractor: "Callable[[], Extractor]"
    verifier: "Comparing | None" = None
    classifier: "ExplainedClassifier | None" = None


class Explanations(Sequence[Explanation]):
    """The explanations of images that were asked together, each made when it is taken.

    answers: to all of them, as `Landmarks.query` gives them. queries: the row in `found` of each readable image.
    """

    def __init__(
        self,
        folder: "IndexFolder",
        images: "GivenImages",
        answers: Sequence[Answer],
        found: "Answers",
        queries: Mapping[int, int],
        opened: "Opened",
    ) -> None:
        self.answers = answers
        self._folder, self._images, self._found, self._queries = folder, images, found, queries
        self._opened = opened

    def __len__(self) -> int:
        return len(self.answers)

    @overload
    def __getitem__(self, i: int) -> Explanation: ...

    @overload
    def __getitem__(self, i: slice) -> list[Explanation]: ...

    def __getitem__(self, i: int | slice) -> Explanation | list[Explanation]:
        """The explanation of image i, or those of several. Raises IndexError."""
        if isinstance(i, slice):
            return [self[place] for place in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        answer, votes = self.answers[i], None
        if i in self._queries:
            votes = explain_votes(self._folder, self._found, self._queries[i], answer.neighbours)
        if votes is None:
            return Explanation(answer, None)
        query, row = self._shown_query(i), _shown_row(votes.decisive.neighbour)
        if query.data is None:
            return Explanation(answer, votes, query, row)
        match, why_no_match = self._match(votes.decisive.row, query.data, row.data)
        maps, why_no_maps = self._maps(votes.decisive.row, query.data, None if row.is_kept else row.data)
        told = Explanation(answer, votes, query, row, match, why_no_match, maps, why_no_maps)
        if self._opened.classifier is None:
            return told
        of_class = self._opened.classifier.maps(query.data)
        known = self._folder.names.get(of_class.label)
        return replace(told, of_class=of_class, class_name=known.name if known else of_class.label)

    def _shown_query(self, i: int) -> ShownImage:
        try:
            data = self._images.read(i)
            return ShownImage(_pixels(data), data)
        except UnreadableError as error:  # it was there when it was asked
            return ShownImage(None, note=f"{self.answers[i].image} cannot be shown: {error}")

    def _match(self, row: int, query: bytes, other: bytes | None) -> tuple[ImageMatch | None, str]:
        """The match of two images, or why there is none."""
        try:
            extractor = self._opened.extractor()
        except LmrError as error:
            return None, f"the images are not matched: {anywhere(error)}"
        match = match_images(self._folder, row, (query, other), extractor, self._opened.verifier)
        return (None, match) if isinstance(match, str) else (match, "")

    def _maps(self, row: int, query: bytes, other: bytes | None) -> "tuple[Maps | None, str]":
        """The maps of two images, or why there are none."""
        from retrieval.explain.maps import Maps, Pair

        try:
            network = self._opened.network()
            from retrieval.explain.saliency import saliency_maps
            from retrieval.explain.similarity import similarity_maps

            pair = Pair(query, other, self._folder.index.vectors(np.array([row]))[0])
            similar = similarity_maps(network, pair)
        except LmrError as error:
            return None, f"there are no maps: {anywhere(error)}"
        try:
            return Maps(similar.score, (*similar.maps, *saliency_maps(network, pair)), similar.notes), ""
        except LmrError as error:
            return similar, f"there are no saliency maps: {anywhere(error)}"


def open_classifier(folder: "IndexFolder", model: Path, device: str, threads: int | None) -> "ExplainedClassifier":
    """The classifier that was trained with the network of an index, or with one of its ensemble.

    model: the folder that lmr train wrote. Raises LmrError: it has none, it is another network, captum is missing.
    """
    from retrieval.embed.load import open_card
    from retrieval.explain.saliency import ExplainedClassifier
    from retrieval.models.folder import read_card

    own = {member.card.weights_sha256 for member in open_card(folder.model_path).members}
    if read_card(model).weights_sha256 not in own:
        raise LmrError(
            f"{model} has another network than {folder.path}, so that its classes explain no answer of it; give the "
            "model that the index was built with as `classifier`"
        )
    return ExplainedClassifier(model, device=device, threads=threads)


def _maps_json(maps: "Sequence[NamedMap]") -> list[dict[str, Any]]:
    """The sums of maps, and the values of those that sum to the score."""
    return [
        {
            "name": one.name,
            "sides": [
                {
                    "sum": float(values.sum(dtype=np.float64)),
                    "rest": rest,
                    "values": None if rest is None else values.tolist(),
                }
                for values, rest in ((one.query, one.query_rest), (one.row, one.row_rest))
                if values is not None
            ],
        }
        for one in maps
    ]


def _shown_row(near: Neighbour) -> ShownImage:
    """The image of a neighbour, or what the index keeps of it."""
    from retrieval.images.given import read_image

    where = near.path or near.image_id
    try:
        data = read_image(near.path)
        return ShownImage(_pixels(data), data)
    except UnreadableError as error:
        problem = f"{where} cannot be shown: {error if near.path else 'it is not known where it is'}"
    try:
        if (small := near.thumbnail) is not None:
            return ShownImage(_pixels(small), small, True, f"{problem}; the index has kept this thumbnail of it")
    except UnreadableError:
        pass
    return ShownImage(None, note=f"{problem}; the index has kept no thumbnail of it (lmr build-index keeps some)")


def _pixels(data: bytes) -> "Image":
    """An encoded image, its longer side at most SHOWN_PX. Raises UnreadableError."""
    from retrieval.images.decode import decode
    from retrieval.images.limits import contain

    pixels = decode(data, SHOWN_PX, measured="longer")
    return contain(pixels, SHOWN_PX) if max(pixels.size) > SHOWN_PX else pixels
