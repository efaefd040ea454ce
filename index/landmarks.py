"""An opened index folder with its network: images in, answers out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from index.answer import Answer
from index.asking.job import N_LANDMARKS, AskJob, ExplainAskJob
from index.rerank.config import VerifyJob
from retrieval.jobs import build, shows_words_of
from retrieval.progress import Progress
from retrieval.words import counted, visible

if TYPE_CHECKING:
    from index.asking.answers import Threshold
    from index.explain.comparison import Compared, MapsWanted, Opened
    from index.explain.explanation import Explanation, Explanations
    from index.explain.job import LandmarkExplained
    from index.folder.folder import IndexFolder
    from index.folder.verified import Verifying
    from index.keywords import AskWords, ExplainAskWords, Place, SearchWords
    from index.recognition import Answers
    from index.rerank.verification import Verification
    from index.serving.gallery import Box
    from index.serving.page import Page
    from index.sort_into import Mode, Sorted
    from retrieval.arrays import FloatArray
    from retrieval.embed.embedder import Embedder
    from retrieval.embed.engine import Engine
    from retrieval.explain.network import ExplainedNetwork
    from retrieval.explain.saliency import ClassMaps
    from retrieval.images.given import GivenImages, ImageLike
    from retrieval.local.extractor import Extractor
__all__ = ["N_LANDMARKS", "Landmarks", "open_landmarks"]


@dataclass(frozen=True, slots=True)
class _Way:
    """How descriptors are answered. verifying: of no queries yet, None where neighbours are not verified."""

    folder: "IndexFolder"
    threshold: "Threshold"
    verifying: "Verifying | None"
    job: AskJob


@dataclass(frozen=True, slots=True)
class _Told:
    """Answers to images, and what they are made of: those of `found`, of the readable ones, in their order."""

    answers: list[Answer]
    images: Sequence["ImageLike"]
    found: "Answers"
    readable: list[int]


class Landmarks:
    """An opened index folder with its network: ask it what images show."""

    def __init__(
        self,
        folder: "IndexFolder",
        embedder: "Embedder",
        *,
        device: str = "auto",
        threads: int | None = None,
        n_workers: int = 1,
    ) -> None:
        """device, threads: of what explains and verifies. n_workers: images that are compared at once."""
        self.folder = folder
        self.embedder = embedder
        self.device, self.threads, self.n_workers = device, threads, n_workers
        self._verifications: dict[tuple[int | None, str | None], tuple[IndexFolder, Verification]] = {}

    def __repr__(self) -> str:
        rows = self.folder.rows
        state = "calibrated" if self.is_calibrated else "not calibrated"
        return (
            f"<Landmarks '{visible(str(self.folder))}': {counted(len(rows), 'picture')} of "
            f"{counted(len(rows.landmarks), 'landmark')}, {state}>"
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>"

    @property
    def is_calibrated(self) -> bool:
        """True where answers carry a confidence; `lmr calibrate` makes it so."""
        return self.folder.calibration is not None

    @property
    def warnings(self) -> list[str]:
        """Lines on an index that was changed since it was calibrated or trained, and on its exported network."""
        from index.folder.changes import tell_changed

        return [*tell_changed(self.folder), *filter(None, [self.embedder.note])]

    def embed(
        self, images: Sequence["ImageLike"], *, allow_private: bool = False
    ) -> "tuple[FloatArray, dict[int, str]]":
        """Unit descriptors (b, d) of the readable images in their order, and position -> reason of the others.

        allow_private: whether URLs may lead to loopback, private and link-local addresses.
        """
        import numpy as np

        from retrieval.images.given import GivenImages

        unreadable: dict[int, str] = {}
        vectors = []
        for batch in self.embedder.embed(GivenImages(images, allow_private), range(len(images))):
            vectors.append(batch.vectors)
            unreadable |= batch.unreadable
        return np.concatenate(vectors) if vectors else np.zeros((0, self.embedder.d), np.float32), unreadable

    @shows_words_of("index.asking.job", "AskJob")
    def query(self, images: Sequence["ImageLike"], **words: "Unpack[AskWords]") -> list[Answer]:
        """One answer for each image (paths, URLs, encoded bytes or PIL images), in their order.

        threshold: confidence below which an image shows no known landmark; None = the calibrated one for precision.
        allow_private: whether URLs may lead to loopback, private and link-local addresses. verify: the best
        `verify_top` neighbours are compared with the image by local features, None = as calibrated, else 20. Those that
        could not change the landmark, nor whether it is named, are spared, and the confidence is that of the others.
        matcher: pairs local features, None = as calibrated, else by nearest neighbours.
        progress: is told how far that is, and of what could not be compared.
        Raises LmrError for a threshold on an index that is not calibrated, and for `verify` on one without local
        features; TypeError for what is no image.
        """
        return self._ask(images, self._way(build(AskJob, words))).answers

    @shows_words_of("index.asking.job", "AskJob")
    def answer_descriptors(
        self,
        descriptors: "FloatArray",
        names: Sequence[str],
        images: Sequence["ImageLike"] = (),
        **words: "Unpack[AskWords]",
    ) -> list[Answer]:
        """The answers to images by descriptors that `embed` gave, in their order; words and errors as of `query`.

        descriptors: (q, d). names: of the q images, for people. images: themselves, which `verify` needs.
        Raises ValueError for another number of them.
        """
        from retrieval.images.given import GivenImages

        way = self._way(build(AskJob, words))
        for name, given in {"names": names, "images": images if way.verifying else names}.items():
            if len(given) != len(descriptors):
                raise ValueError(f"{len(given)} {name} do not fit {len(descriptors)} descriptors")
        return self._answers(way, descriptors, names, GivenImages(images, way.job.allow_private))[0]

    @shows_words_of("index.asking.job", "ExplainAskJob")
    def explain(self, image: "ImageLike", **words: "Unpack[ExplainAskWords]") -> "Explanation":
        """Why an image gets its answer: the votes, the terms of the confidence, the image that decided.

        classifier: model folder of lmr train, whose most probable class is explained too; LmrError where it has none,
        or the network of the index is another one. Takes and raises besides what `query` does.
        """
        return self.explain_all([image], **words)[0]

    @shows_words_of("index.asking.job", "ExplainAskJob")
    def explain_all(self, images: Sequence["ImageLike"], **words: "Unpack[ExplainAskWords]") -> "Explanations":
        """As `explain`, of images that are asked together: their `answers`, and an explanation when it is taken.

        An image is read again for its explanation; what URLs lead to is fetched once and held. Takes and raises what
        `explain` does.
        """
        from index.explain.explanation import Explanations, open_classifier
        from retrieval.images.given import GivenImages

        job = build(ExplainAskJob, words)
        model = job.classifier
        classes = None if model is None else open_classifier(self.folder, model, self.device, self.threads)
        way = self._way(job)
        told = self._ask(images, way, hold=True)
        queries = {i: query for query, i in enumerate(told.readable)}
        held = GivenImages(told.images, job.allow_private)
        verifier = None if way.verifying is None else way.verifying.verification.verifier
        opened = replace(self.opened, verifier=verifier)
        return Explanations(way.folder, held, told.answers, told.found, queries, opened, classes)

    @shows_words_of("index.serving.config", "SearchJob")
    def search(
        self,
        image: "ImageLike | None" = None,
        *,
        image_id: str | None = None,
        box: "Box | None" = None,
        allow_private: bool = False,
        **words: "Unpack[SearchWords]",
    ) -> "Page":
        """The images of the index that are most similar to an image, or to the one of it with this image_id.

        box: only this part is searched for: left, top, right and bottom as shares of the upright image. landmark: only
        images of this landmark_id. sort: `similarity`, or `megapixels` or `pixels_per_inch` among the 1,000 most
        similar. fold: images that are nearly the same are listed as one. sure: only those whose landmark reaches
        the threshold in the answer. first, n: the part of the list.
        Raises LmrError for a box without an image, an image_id or landmark_id that is not there, an index that is not
        calibrated where `sure` needs it; UnreadableError for the image; TypeError for what is no image.

        >>> page = lmr.open_index("landmarks").search("images/test-arch-0.jpg", n=3)
        >>> [item.neighbour.landmark_id for item in page.items]
        ['arch', 'arch', 'arch']
        """
        from index.serving.similar import search_image

        return search_image(self, image, image_id, box, allow_private=allow_private, **words)

    def compare(
        self,
        image: "ImageLike",
        image_id: str,
        *,
        box: "Box | None" = None,
        maps: "MapsWanted" = "all",
        allow_private: bool = False,
    ) -> "Compared":
        """An image beside the one of the index with this image_id: what is found in both, and what makes them similar.

        box: as of `search`. maps: `none`, `similarity`, or `all`, which takes seconds and needs captum.
        Raises LmrError for an image_id that is not there; UnreadableError for the image; TypeError for what is none.

        >>> landmarks = lmr.open_index("landmarks")
        >>> landmarks.compare("images/test-arch-0.jpg", "train-arch-0", maps="none").neighbour.landmark_id
        'arch'
        """
        from index.serving.gallery import WHOLE
        from index.serving.similar import compare
        from retrieval.images.given import GivenImages

        data = GivenImages([image], allow_private).read(0)
        return compare(self, data, image_id, box=WHOLE if box is None else box, maps=maps)

    @property
    def opened(self) -> "Opened":
        """What images are compared with, opened when it is asked for."""
        from index.explain.comparison import Opened

        return Opened(lambda: self._explainer, lambda: self._extractor)

    @cached_property
    def _explainer(self) -> "ExplainedNetwork":
        """The network of the index, ready to be explained. Raises LmrError."""
        from retrieval.explain.maps import open_explainer

        folder = self.folder
        return open_explainer(folder.model_path, space=folder.whitening, device=self.device, threads=self.threads)

    def _way(self, job: AskJob) -> _Way:
        """How a job has descriptors answered. Raises LmrError for what this index cannot do."""
        from index.asking.answers import threshold_of

        folder, verifying = self._verifying(job) if job.verify else (self.folder, None)
        return _Way(folder, threshold_of(folder, job.threshold), verifying, job)

    def _ask(self, images: Sequence["ImageLike"], way: _Way, *, hold: bool = False) -> _Told:
        """The answers to images, and what they are made of.

        hold: what URLs lead to is held, so that it can be read again; as it is where neighbours are verified.
        """
        from index.asking.answers import unreadable_answer
        from retrieval.images.given import GivenImages

        allow_private = way.job.allow_private
        given = GivenImages(images, allow_private)
        names = list(map(name_of, images))
        if hold or way.verifying is not None:
            images = [given.fetched(i) for i in range(len(images))]
        descriptors, unreadable = self.embed(images, allow_private=allow_private)
        readable = [i for i in range(len(images)) if i not in unreadable]
        read_again = GivenImages([images[i] for i in readable], allow_private)
        told, found = self._answers(way, descriptors, [names[i] for i in readable], read_again)
        answers = [unreadable_answer(name, unreadable.get(i, "")) for i, name in enumerate(names)]
        for i, one in zip(readable, told, strict=True):
            answers[i] = one
        return _Told(answers, images, found, readable)

    def _answers(
        self, way: _Way, descriptors: "FloatArray", names: Sequence[str], images: "GivenImages"
    ) -> "tuple[list[Answer], Answers]":
        """The answers to descriptors, and what was found. images: read again where neighbours are verified."""
        from index.asking.answers import answers_of
        from index.recognition import answer

        verifying, n_enough, progress = way.verifying, None, way.job.progress
        if verifying is not None:
            from index.folder.verified import extracted

            verifying = replace(verifying, queries=extracted(self._extractor, images), cut=way.threshold.logit)
            n_enough = verifying.verification.n_inliers
            progress.begin("verifying", len(names))
        found = answer(way.folder, descriptors, verifying=verifying)
        if verifying is not None:
            progress.end()
            verifying.verification.ledger.tell(progress)
        listed = way.job.n_landmarks
        return answers_of(way.folder, found, names, way.threshold, n_landmarks=listed, n_enough=n_enough), found

    def explain_class(
        self, image: "ImageLike", model: "Place", landmark: str | None = None, *, allow_private: bool = False
    ) -> "ClassMaps":
        """The nine maps of what in an image speaks for a class of the classifier that was trained with a model.

        model: its folder, which may be another model than that of the index. landmark: None = the most probable class.
        Raises LmrError where there is no classifier, no such class or no captum, UnreadableError for the image.
        """
        from retrieval.explain.saliency import ExplainedClassifier
        from retrieval.images.given import GivenImages

        classifier = ExplainedClassifier(Path(model), device=self.device, threads=self.threads)
        return classifier.maps(GivenImages([image], allow_private).read(0), landmark)

    def explain_landmark(self, landmark: str) -> "LandmarkExplained":
        """As `lmr.explain`: what is typical of the landmark of this landmark_id or name, and what it is confused with.

        Raises LmrError for one that the index does not have.
        """
        from index.explain.landmark import explain_landmark

        return explain_landmark(self.folder, landmark)

    def sort_into(self, folder: "Place", answers: Sequence[Answer], *, mode: "Mode" = "link") -> "Sorted":
        """Links, copies or moves the images of answers into `folder/<name of the landmark>/`; what was done.

        Images in tars are copied. Moves are undone by `lmr.undo_moves`. Raises LmrError where the folder cannot be
        written.
        """
        from index.sort_into import group_names, sort_into

        return sort_into(Path(folder), answers, group_names(self.folder), mode)

    def _verifying(self, job: VerifyJob) -> "tuple[IndexFolder, Verifying]":
        """The folder as it answers by verified neighbours, and how these are verified, of no queries yet."""
        from index.folder.verified import Computing, Verifying, open_verification
        from index.rerank.verification import Ledger

        asked = job.n_verify_top, job.matcher
        if asked not in self._verifications:
            how = Computing(self.device, self.threads, self.n_workers)
            self._verifications[asked] = open_verification(self.folder, job, how)
        folder, verification = self._verifications[asked]
        if verification.rule is None:
            job.progress.warn(
                f"{self.folder} is not calibrated for verified answers: inliers are shown, and change no answer; "
                "lmr calibrate `verify` makes them count"
            )
        verification = replace(verification, ledger=Ledger())
        return folder, Verifying(verification, lambda _: None, progress=job.progress)

    @cached_property
    def _extractor(self) -> "Extractor":
        """The extractor that made the local features of the rows, or RootSIFT where there are none. Raises LmrError."""
        from index.explain.match import extractor_of

        return extractor_of(self.folder, self.device, self.threads)


def open_landmarks(
    path: "Place",
    *,
    device: str,
    threads: int | None,
    n_workers: int,
    progress: Progress,
    engine: "Engine" = "auto",
) -> Landmarks:
    """Opens an index folder and its network.

    Raises LmrError when the folder is missing, damaged or of another version, or the device or engine is not there.
    """
    from index.folder.folder import N_TRIES, is_current, open_folder
    from retrieval.embed.load import open_card, plan_embedder
    from retrieval.errors import LmrError

    for tries_left in reversed(range(N_TRIES)):
        folder = open_folder(path, device=device, threads=threads, on_server=True, progress=progress)
        model = folder.model_path
        try:
            card = open_card(model)
            load = plan_embedder(model, card, device=device, threads=threads, n_workers=n_workers, engine=engine)
            landmarks = Landmarks(folder, load(), device=device, threads=threads, n_workers=n_workers)
        except (LmrError, OSError):
            if not tries_left or is_current(folder):
                raise
            continue
        if is_current(folder):
            return landmarks
    raise LmrError(f"{path} was replaced each time while it was read; run this again")


def name_of(image: "ImageLike") -> str:
    """What the answer to an image is called: its path or URL, else what it is."""
    return str(image) if isinstance(image, str | Path) else type(image).__name__
