"""A landmark as its index sees it: the job, and what it tells."""

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.answer import Neighbour
from index.folder.config import INDEX_FOLDER
from retrieval.data.names import shown_name
from retrieval.device_name import FORM, parse_device
from retrieval.errors import LmrError, UnreadableError
from retrieval.jobs import Job, option

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from retrieval.explain.maps import Maps

N_SHOWN = 8  # typical images, and deviant ones


@dataclass(frozen=True)
class ExplainJob(Job):
    """Tell what is typical of a landmark, and what it is confused with."""

    landmark: str = option(is_argument=True)
    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder.")
    top: int = option(N_SHOWN, low=1, help="Typical and deviant images listed.")
    device: str = option("auto", metavar=FORM, help="Device of the search and of the maps.")
    threads: int | None = option(None, low=1, default_text="all cores", help="CPU threads.")

    def __post_init__(self) -> None:
        """Raises LmrError for what cannot be a device."""
        super().__post_init__()
        parse_device(self.device)


@dataclass(frozen=True, slots=True)
class OwnImage:
    """An image of the landmark. similarity: mean cosine with its other images.

    nearest: the nearest image of another landmark; None where the index has no other.
    """

    image: Neighbour
    nearest: Neighbour | None

    @property
    def similarity(self) -> float:
        """Mean cosine with the other images of the landmark."""
        return self.image.score

    def to_json(self) -> dict[str, Any]:
        """JSON object of `lmr explain`."""
        return {
            "image_id": self.image.image_id,
            "path": self.image.path,
            "similarity": self.similarity,
            "nearest": None if self.nearest is None else _neighbour_json(self.nearest),
        }


@dataclass(frozen=True, slots=True)
class Confused:
    """A landmark that another one is confused with.

    n_taken: images of the landmark that are answered with this one when they are left out. n_given: images of this one
    that are answered with the landmark. n_nearest: images of the landmark whose nearest image of another landmark
    shows this one.
    """

    landmark_id: str
    name: str
    n_images: int
    n_taken: int
    n_given: int
    n_nearest: int

    @property
    def shown(self) -> str:
        """Its name and landmark_id, for people."""
        return shown_name(self.landmark_id, self.name)

    def to_json(self) -> dict[str, Any]:
        """JSON object of `lmr explain`."""
        keys = ("landmark_id", "name", "n_images", "n_taken", "n_given", "n_nearest")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True, slots=True)
class LandmarkExplained:
    """What there is to say of a landmark.

    typical, deviant: its images with the highest and the lowest mean cosine with its others, the most so first; none
    is both. similarity: mean cosine of two of its images, None of one. n_asked: images that were left out and asked;
    n_right: those that were answered with the landmark, None where none can be left out. confused: the landmarks that
    it is confused with, most of all first. closest: its image and the other one, of which it is confused with most,
    that are most alike. notes: what could not be told, and why.
    """

    landmark_id: str
    name: str
    n_images: int
    similarity: float | None
    typical: tuple[OwnImage, ...]
    deviant: tuple[OwnImage, ...]
    n_asked: int
    n_right: int | None
    confused: tuple[Confused, ...]
    closest: tuple[Neighbour, Neighbour] | None
    notes: tuple[str, ...]
    folder: "IndexFolder" = field(repr=False, compare=False)
    closest_row: int = field(default=-1, repr=False, compare=False)

    @property
    def shown(self) -> str:
        """Its name and landmark_id, for people."""
        return shown_name(self.landmark_id, self.name)

    def to_json(self) -> dict[str, Any]:
        """JSON document of `lmr explain`."""
        closest = None
        if self.closest is not None:
            own, other = self.closest
            closest = {"own": _neighbour_json(own), "other": _neighbour_json(other), "similarity": own.score}
        return {
            "landmark_id": self.landmark_id,
            "name": self.name,
            "n_images": self.n_images,
            "similarity": self.similarity,
            "typical": [one.to_json() for one in self.typical],
            "deviant": [one.to_json() for one in self.deviant],
            "n_asked": self.n_asked,
            "n_right": self.n_right,
            "confused": [one.to_json() for one in self.confused],
            "closest": closest,
            "notes": list(self.notes),
        }

    def maps(self, *, device: str = "auto", threads: int | None = None) -> "Maps":
        """The similarity map of the closest pair. Raises LmrError where it cannot be made, with the reason."""
        import numpy as np

        from retrieval.explain.maps import Pair, open_explainer
        from retrieval.images.given import read_image

        if self.closest is None:
            raise LmrError("there is no second landmark to compare with")
        read = []
        for image in self.closest:
            try:
                read.append(read_image(image.path))
            except UnreadableError as error:
                raise LmrError(f"{image.path or image.image_id} cannot be read ({error})") from error
        space = self.folder.whitening
        network = open_explainer(self.folder.model_path, space=space, device=device, threads=threads)
        from retrieval.explain.similarity import similarity_maps

        vector = self.folder.index.vectors(np.array([self.closest_row]))[0]
        try:
            return similarity_maps(network, Pair(read[0], read[1], vector))
        except UnreadableError as error:
            raise LmrError(f"the images of the closest pair cannot be read ({error})") from error


def explain(job: ExplainJob) -> LandmarkExplained:
    """The account of a landmark. Raises LmrError for an index that cannot be read, and as `explain_landmark`."""
    from index.explain.landmark import explain_landmark
    from index.folder.folder import open_folder

    folder = open_folder(job.index, device=job.device, threads=job.threads, on_server=True, progress=job.progress)
    return explain_landmark(folder, job.landmark, top=job.top)


def _neighbour_json(image: Neighbour) -> dict[str, Any]:
    return {key: getattr(image, key) for key in ("image_id", "landmark_id", "name", "path", "score")}
