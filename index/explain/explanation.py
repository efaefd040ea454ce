"""Explanations of answers: the votes, the confidence, and the image that decided beside the query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from index.answer import Answer, headline
from index.explain.comparison import Compared, Opened, ShownImage, compare_images, shown_image, values_of_maps
from index.explain.votes import VoteExplanation, explain_votes
from retrieval.errors import LmrError, UnreadableError
from retrieval.words import visible

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from index.recognition import Answers
    from retrieval.explain.saliency import ClassMaps, ExplainedClassifier
    from retrieval.images.given import GivenImages


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation(Compared):
    """Why an image got its answer; also why it was turned away.

    votes: None of an unreadable image, and where there was nothing to compare it with. It is compared with the
    neighbour that gave most to the best landmark (`votes.decisive`); with none without votes. of_class: what of the
    image makes its most probable class, called `class_name`, by the classifier that was given; None without one.
    """

    answer: Answer
    votes: VoteExplanation | None
    of_class: "ClassMaps | None" = None
    class_name: str = ""

    def __repr__(self) -> str:
        return f"<Explanation '{visible(self.answer.image)}': {visible(headline(self.answer))}>"

    def to_json(self) -> dict[str, Any]:
        """JSON object of `explanation.json`."""
        return {
            "answer": self.answer.to_json(),
            "votes": None if self.votes is None else self.votes.to_json(),
            "decided": None if self.votes is None else self.votes.decisive.neighbour.image_id,
            "match": None if self.match is None else self.match.to_json(),
            "maps": self.maps_json,
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
            "maps": values_of_maps(self.of_class.maps),
        }


class Explanations(Sequence[Explanation]):
    """The explanations of images that were asked together, each made when it is taken.

    answers: to all of them, as `Landmarks.query` gives them. queries: the row in `found` of each readable image.
    classifier: what knows classes, None where none was given.
    """

    def __init__(
        self,
        folder: "IndexFolder",
        images: "GivenImages",
        answers: Sequence[Answer],
        found: "Answers",
        queries: Mapping[int, int],
        opened: Opened,
        classifier: "ExplainedClassifier | None" = None,
    ) -> None:
        self.answers = answers
        self._folder, self._images, self._found, self._queries = folder, images, found, queries
        self._opened, self._classifier = opened, classifier

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
        query = self._shown_query(i)
        decisive = votes.decisive
        by = compare_images(self._folder, query, decisive.row, self._opened, neighbour=decisive.neighbour)
        told = Explanation(answer, votes, **{field.name: getattr(by, field.name) for field in fields(by)})
        if self._classifier is None or query.data is None:
            return told
        of_class = self._classifier.maps(query.data)
        known = self._folder.names.get(of_class.label)
        return replace(told, of_class=of_class, class_name=known.name if known else of_class.label)

    def _shown_query(self, i: int) -> ShownImage:
        try:
            return shown_image(self._images.read(i))
        except UnreadableError as error:  # it was there when it was asked
            return ShownImage(None, note=f"{self.answers[i].image} cannot be shown: {error}")


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
            f"{model} has another network than {folder}, so that its classes explain no answer of it; give the "
            "model that the index was built with as `classifier`"
        )
    return ExplainedClassifier(model, device=device, threads=threads)
