"""An opened index folder with its network: images in, answers out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from index.answer import Answer, LandmarkScore, Neighbour
from index.rerank.config import VerifyJob
from retrieval.local.config import MatcherName
from retrieval.progress import PYTHON_WARNINGS, Progress
from retrieval.words import counted, visible

if TYPE_CHECKING:
    from index.explain.explanation import Explanation, Explanations
    from index.explain.job import LandmarkExplained
    from index.folder.folder import IndexFolder
    from index.folder.verified import Verifying
    from index.keywords import Place
    from index.recognition import Answers
    from index.rerank.verification import Comparing
    from index.sort_into import Mode, Sorted
    from retrieval.arrays import FloatArray
    from retrieval.embed.embedder import Embedder
    from retrieval.embed.engine import Engine
    from retrieval.explain.network import ExplainedNetwork
    from retrieval.explain.saliency import ClassMaps
    from retrieval.images.given import ImageLike
    from retrieval.local.extractor import Extractor

N_LANDMARKS = 5  # landmarks listed with an answer


@dataclass(frozen=True, slots=True)
class _Asking:
    """What `Landmarks.query` is asked beside the images."""

    threshold: float | None
    n_landmarks: int
    allow_private: bool
    verifying: VerifyJob

    @property
    def progress(self) -> Progress:
        """What is told how far it is."""
        return self.verifying.progress


@dataclass(frozen=True, slots=True)
class _Told:
    """Answers to images, and what they are made of: those of `found`, of the readable ones, in their order.

    verifier: what compared neighbours, None where none was.
    """

    answers: list[Answer]
    folder: "IndexFolder"
    images: Sequence["ImageLike"]
    found: "Answers"
    readable: list[int]
    verifier: "Comparing | None"


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

    def __repr__(self) -> str:
        rows = self.folder.rows
        state = "calibrated" if self.is_calibrated else "not calibrated"
        return (
            f"<Landmarks '{visible(str(self.folder.path))}': {counted(len(rows), 'picture')} of "
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

    def query(
        self,
        images: Sequence["ImageLike"],
        *,
        threshold: float | None = None,
        n_landmarks: int = N_LANDMARKS,
        allow_private: bool = False,
        verify: bool = False,
        verify_top: int | None = None,
        matcher: MatcherName | None = None,
        progress: Progress = PYTHON_WARNINGS,
    ) -> list[Answer]:
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
        verifying = VerifyJob(verify=verify, n_verify_top=verify_top, matcher=matcher, progress=progress)
        asking = _Asking(threshold, n_landmarks, allow_private, verifying)
        return self._ask(images, asking).answers

    def explain(
        self,
        image: "ImageLike",
        *,
        threshold: float | None = None,
        n_landmarks: int = N_LANDMARKS,
        allow_private: bool = False,
        verify: bool = False,
        verify_top: int | None = None,
        matcher: MatcherName | None = None,
        classifier: "Place | None" = None,
        progress: Progress = PYTHON_WARNINGS,
    ) -> "Explanation":
        """Why an image gets its answer: the votes, the terms of the confidence, the image that decided.

        classifier: model folder of lmr train, whose most probable class is explained too; LmrError where it has none,
        or the network of the index is another one. Takes and raises besides what `query` does.
        """
        verifying = VerifyJob(verify=verify, n_verify_top=verify_top, matcher=matcher, progress=progress)
        asking = _Asking(threshold, n_landmarks, allow_private, verifying)
        return self._explain([image], asking, classifier)[0]

    def explain_all(
        self,
        images: Sequence["ImageLike"],
        *,
        threshold: float | None = None,
        n_landmarks: int = N_LANDMARKS,
        allow_private: bool = False,
        verify: bool = False,
        verify_top: int | None = None,
        matcher: MatcherName | None = None,
        classifier: "Place | None" = None,
        progress: Progress = PYTHON_WARNINGS,
    ) -> "Explanations":
        """As `explain`, of images that are asked together: their `answers`, and an explanation when it is taken.

        An image is read again for its explanation; what URLs lead to is fetched once and held. Takes and raises what
        `explain` does.
        """
        verifying = VerifyJob(verify=verify, n_verify_top=verify_top, matcher=matcher, progress=progress)
        asking = _Asking(threshold, n_landmarks, allow_private, verifying)
        return self._explain(images, asking, classifier)

    def _explain(self, images: Sequence["ImageLike"], asking: "_Asking", classifier: "Place | None") -> "Explanations":
        from index.explain.explanation import Explanations, Opened, open_classifier
        from retrieval.images.given import GivenImages

        model = None if classifier is None else Path(classifier)
        classes = None if model is None else open_classifier(self.folder, model, self.device, self.threads)
        told = self._ask(images, asking, hold=True)
        queries = {i: query for query, i in enumerate(told.readable)}
        held = GivenImages(told.images, asking.allow_private)
        opened = Opened(lambda: self._explainer, lambda: self._extractor, told.verifier, classes)
        return Explanations(told.folder, held, told.answers, told.found, queries, opened)

    @cached_property
    def _explainer(self) -> "ExplainedNetwork":
        """The network of the index, ready to be explained. Raises LmrError."""
        from retrieval.explain.maps import open_explainer

        folder = self.folder
        return open_explainer(folder.model_path, space=folder.whitening, device=self.device, threads=self.threads)

    def _ask(self, images: Sequence["ImageLike"], asking: "_Asking", *, hold: bool = False) -> "_Told":
        """The answers to images, and what they are made of.

        hold: what URLs lead to is held, so that it can be read again; as it is where neighbours are verified.
        """
        from index.recognition import answer
        from retrieval.images.given import GivenImages

        folder, verifying = self._verifying(asking.verifying) if asking.verifying.verify else (self.folder, None)
        cut, shown_threshold = _threshold(folder, asking.threshold)
        given = GivenImages(images, asking.allow_private)
        names = list(map(_name_of, images))
        if hold or verifying is not None:
            images = [given.fetched(i) for i in range(len(images))]
        descriptors, unreadable = self.embed(images, allow_private=asking.allow_private)
        readable = [i for i in range(len(images)) if i not in unreadable]
        if verifying is not None:
            from index.folder.verified import extracted

            read_again = GivenImages([images[i] for i in readable], asking.allow_private)
            verifying = replace(verifying, queries=extracted(self._extractor, read_again), cut=cut)
            asking.progress.begin("verifying", len(readable))
        found = answer(folder, descriptors, verifying=verifying)
        if verifying is not None:
            asking.progress.end()
            verifying.verification.ledger.tell(asking.progress)
        n_enough = None if verifying is None else verifying.verification.n_inliers
        answers = [_unreadable(name, unreadable.get(i, "")) for i, name in enumerate(names)]
        for row, i in enumerate(readable):
            told = self._answer(found, row, cut, asking.n_landmarks)
            in_index = self._row_id(found.same_picture[row])
            answers[i] = replace(told, image=names[i], threshold=shown_threshold, in_index=in_index, n_enough=n_enough)
        verifier = None if verifying is None else verifying.verification.verifier
        return _Told(answers, folder, images, found, readable, verifier)

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

        how = Computing(self.device, self.threads, self.n_workers)
        folder, verification = open_verification(self.folder, job, how)
        if verification.rule is None:
            job.progress.warn(
                f"{self.folder.path} is not calibrated for verified answers: inliers are shown, and change no answer; "
                "lmr calibrate `verify` makes them count"
            )
        return folder, Verifying(verification, lambda _: None, progress=job.progress)

    @cached_property
    def _extractor(self) -> "Extractor":
        """The extractor that made the local features of the rows, or RootSIFT where there are none. Raises LmrError."""
        from index.explain.match import extractor_of

        return extractor_of(self.folder, self.device, self.threads)

    def _answer(self, found: "Answers", row: int, cut: float, n_landmarks: int) -> Answer:
        """The answer to one query, without its image. cut: ranking key from which on it is answered."""
        votes = found.votes
        shown = range(*votes.query.searchsorted([row, row + 1]))[:n_landmarks]
        landmarks = tuple(
            LandmarkScore(
                label := found.landmarks[votes.landmark[i]],
                self._name(label)[0],
                self._confidence(found.vote_logit[i]),
                float(votes.score[i]),
            )
            for i in shown
        )
        answered = found.landmark[row] >= 0 and found.logit[row] >= cut
        label = found.landmarks[found.landmark[row]] if answered else None
        name, address = self._name(label) if label else ("", "")
        return Answer(
            image="",
            landmark_id=label,
            name=name,
            address=address,
            confidence=self._confidence(found.logit[row]),
            threshold=None,
            landmarks=landmarks,
            neighbours=self._neighbours(found, row),
        )

    def _confidence(self, logit: float) -> float | None:
        import numpy as np

        from index.confidence import sigmoid

        return float(sigmoid(np.asarray(logit))) if self.is_calibrated else None

    def _row_id(self, row: int) -> str | None:
        return str(self.folder.rows.image_id[row]) if row >= 0 else None

    def _neighbours(self, found: "Answers", row: int) -> tuple[Neighbour, ...]:
        import numpy as np

        from index.rerank.evidence import UNVERIFIED

        rows, near = self.folder.rows, found.neighbours
        inliers = np.full(near.k, UNVERIFIED) if found.evidence is None else found.evidence.inliers[row]
        pairs = zip(near.rows[row], near.scores[row], inliers.tolist(), strict=True)
        return tuple(
            Neighbour(
                str(rows.image_id[i]),
                label,
                float(score),
                str(rows.path[i]),
                self._name(label)[0],
                self.folder.kept(int(i)),
                None if n == UNVERIFIED else n,
            )
            for i, score, n in pairs
            if i >= 0
            for label in (rows.landmarks[rows.landmark[i]],)
        )

    def _name(self, label: str) -> tuple[str, str]:
        known = self.folder.names.get(label)
        return (known.name, known.address) if known else (label, "")


def _threshold(folder: "IndexFolder", asked: float | None) -> tuple[float, float | None]:
    """The ranking key from which on an image is answered, and the confidence to show for it."""
    from index.confidence import logit_of
    from retrieval.errors import LmrError

    calibration = folder.calibration
    if asked is not None:
        if calibration is None:
            raise LmrError(f"{folder.path} is not calibrated, so a threshold has no meaning; run lmr calibrate")
        if not 0 <= asked <= 1:
            raise LmrError(f"threshold must lie in [0, 1], got {asked}")
        return logit_of(asked), asked
    if calibration is None:
        return float("-inf"), None
    return calibration.threshold_precision.logit, calibration.threshold_precision.confidence


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
        folder = open_folder(path, device=device, threads=threads, progress=progress)
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


def _name_of(image: "ImageLike") -> str:
    return str(image) if isinstance(image, str | Path) else type(image).__name__


def _unreadable(image: str, reason: str) -> Answer:
    return Answer(image, None, "", "", None, None, (), (), None, reason)
