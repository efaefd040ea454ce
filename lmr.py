"""The Python API: what the commands do, by the same words, and an index folder that answers questions.

>>> import lmr
>>> landmarks = lmr.open_index("landmarks")
>>> landmarks.query(["images/test-arch-0.jpg"])[0].landmark_id
'arch'
"""

import functools
import inspect
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import numpy as np

from index.answer import Answer, LandmarkScore, Neighbour
from index.build_index import BuildJob
from index.calibrate.job import CalibrateJob
from index.calibration import Calibration
from index.clean.job import CleanJob, CleanReport
from index.compare.job import CompareJob
from index.evaluate.job import EvaluateJob
from index.info import Info, InfoJob
from index.kaggle.submit import SubmitJob, SubmitReport
from index.stats.job import Statistics, StatsJob
from retrieval.download.job import ArchiveJob, ArchiveReport, DownloadJob
from retrieval.embed.export import ExportJob
from retrieval.embed.job import EmbedJob
from retrieval.jobs import build, named_arguments
from retrieval.models.ensemble import EnsembleJob
from retrieval.progress import PYTHON_WARNINGS, Progress
from retrieval.split.job import SplitJob
from retrieval.words import counted, visible

if TYPE_CHECKING:
    from PIL.Image import Image

    from index.compare.results import Comparison
    from index.evaluate.result import EvaluationResult
    from index.folder.build import BuildReport
    from index.folder.folder import IndexFolder
    from index.recognition import Answers
    from index.sort_into import Mode, Sorted
    from retrieval.arrays import FloatArray
    from retrieval.download.summary import DownloadPlan, DownloadReport
    from retrieval.embed.embedder import Embedder
    from retrieval.embed.fill import FillReport
    from retrieval.embed.onnx_export import Exported
    from retrieval.models.card import EnsembleCard
    from retrieval.models.network import DescriptorModel
    from retrieval.models.summary import Layer
    from retrieval.split.report import SplitReport
    from retrieval.train.first_batch import SeenImage
    from retrieval.train.lr_finder import RateTest
    from retrieval.train.record import Trained

    ImageLike = str | Path | bytes | Image

P = ParamSpec("P")
J = TypeVar("J")
R = TypeVar("R")

__all__ = [
    "Answer",
    "LandmarkScore",
    "Landmarks",
    "Neighbour",
    "build_index",
    "calibrate",
    "clean",
    "compare",
    "download",
    "download_tars",
    "embed",
    "ensemble",
    "evaluate",
    "export",
    "find_rate",
    "first_batch",
    "info",
    "open_index",
    "recipes",
    "score",
    "split",
    "stats",
    "submit",
    "summarise",
    "train",
    "undo_moves",
]

N_LANDMARKS = 5  # landmarks listed with an answer

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # of PIL images, kept as they are
_TIFF_MODES = ("I", "F")  # which PNG cannot hold


def _takes(kind: Callable[P, J]) -> Callable[[Callable[[J], R]], Callable[P, R]]:
    """A function of a job as one of the words that make the job, those of its parts among them.

    Raises TypeError for a word that the job does not have, LmrError for a value that cannot be.
    """

    def decorate(run: Callable[[J], R]) -> Callable[P, R]:
        @functools.wraps(run)
        def call(*args: P.args, **words: P.kwargs) -> R:
            return run(build(kind, words | named_arguments(kind, args, words)))

        call.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
        return call

    return decorate


@_takes(DownloadJob)
def download(job: DownloadJob) -> "DownloadReport | DownloadPlan":
    """Downloads the images of a manifest, resized on arrival; what is there then, or in a dry run what would be done.

    Raises LmrError for what cannot be used or written. Images that cannot be had are counted in the report; its
    `require_any` raises LmrError where there is none at all.

    >>> report = lmr.download("train.csv", "images", size=288, per_host=4)  # doctest: +SKIP
    """
    from retrieval.download.job import download as run

    return run(job)


@_takes(ArchiveJob)
def download_tars(job: ArchiveJob) -> ArchiveReport:
    """Downloads tar files of Google Landmarks, checked against their md5; what is there then.

    Raises LmrError for a folder that holds another part's or cannot be written. Files that cannot be had are in the
    report; its `require_all` raises LmrError where there are any.

    >>> report = lmr.download_tars("index", "google-index", numbers="0-9")  # doctest: +SKIP
    """
    from retrieval.download.job import download_tars as run

    return run(job)


@_takes(CleanJob)
def clean(job: CleanJob) -> CleanReport:
    """Finds mislabelled, duplicate, low-quality and non-landmark images, and writes the decisions; what it came to.

    `gallery` renders a page of what is left out, which is written with the decisions.
    Raises WordsError for words that contradict each other, LmrError for what cannot be used.

    >>> lmr.clean("train.csv", store="train.h5", output="cleaned").state
    'written'
    >>> lmr.clean("train.csv", review="cleaned/decisions.csv", output="cleaned").state
    'reviewed'
    """
    from index.clean.job import clean as run

    return run(job)


@_takes(StatsJob)
def stats(job: StatsJob) -> Statistics:
    """Counts and measures what is in a data set: landmarks, images, descriptors, duplicates, leakage.

    Raises WordsError for words that need another one, LmrError for what cannot be used.

    >>> found = lmr.stats("train.csv", images="images", test="test.csv")
    >>> found.document["leakage"]["same_look"]["test_pictures"]
    5
    """
    from index.stats.job import stats as run

    return run(job)


@_takes(InfoJob)
def info(job: InfoJob) -> Info:
    """Tells what a store, model, index folder, calibration or manifest is, and with `verify` whether it is whole.

    Raises LmrError for what is none of them, or is not as it was written.

    >>> lmr.info("train.h5", verify=True).verified
    'every byte is as it was written'
    """
    from index.info import info as run

    return run(job)


@_takes(SplitJob)
def split(job: SplitJob) -> "SplitReport":
    """Splits a manifest into train, val, test and background, and writes their manifests; what it came to.

    Raises WordsError for words that contradict each other, LmrError for what cannot be used.

    >>> report = lmr.split("train.csv", output="parts", val=0.2, ignore_duplicates=True)
    >>> report.counts.parts["val"].landmarks
    4
    """
    from retrieval.split.job import split as run

    return run(job)


@_takes(EmbedJob)
def embed(job: EmbedJob) -> "tuple[Path, FillReport]":
    """Embeds the images of a manifest into a descriptor store; its path, and what was done.

    Raises LmrError.

    >>> store, report = lmr.embed("train.csv", model="model", output="flipped.h5", flip=True)
    >>> report.n_pictures, report.n_unreadable
    (44, 0)
    """
    from retrieval.embed.job import embed as run

    return run(job)


@_takes(BuildJob)
def build_index(job: BuildJob) -> "BuildReport":
    """Builds an index folder from descriptor stores; what was done, and what became of its calibration.

    Raises LmrError for stores that do not fit each other or the model, and for a folder that was made from something
    else, which `overwrite` replaces.

    >>> report = lmr.build_index(["train.h5"], output="smaller", dimensions=4)
    >>> report.info.n_rows, report.info.d
    (32, 4)
    """
    from index.build_index import build_index as run

    return run(job)


def train(manifest: str | Path, *, stages: Sequence[Mapping[str, Any]] = (), **words: Any) -> "Trained":
    """Trains a network on the labelled images of a manifest into a model folder; its epochs, and unreadable images.

    words: those of `retrieval.train.job.TrainJob` and of its parts. stages: for each stage of training the words that
    it has of its own, `manifest`, `negatives`, `size`, `fit` and those of the training.
    A training that was stopped goes on where it was. Raises LmrError, TypeError for a word that there is not.

    >>> trained = lmr.train("train.csv", output="trained", backbone="plain-cnn", size=32, epochs=1)
    >>> len(trained.log)
    1
    >>> lmr.train("train.csv", output="staged", stages=[{"size": 112}, {"size": 224}])  # doctest: +SKIP
    """
    from index.evaluate.validation import make_validation
    from retrieval.train.job import train as run
    from retrieval.train.job import training_job

    return run(training_job({"manifest": manifest, **words}, stages), make_validation)


def find_rate(manifest: str | Path, *, stages: Sequence[Mapping[str, Any]] = (), **words: Any) -> "RateTest":
    """The learning rate range test: the loss at rising learning rates, and a suggestion. Takes the words of `train`.

    Trains the first stage only, for a few steps; nothing is written. Raises LmrError.

    >>> lmr.find_rate("train.csv", backbone="plain-cnn", size=32).best > 0
    True
    """
    from retrieval.train.job import find_rate as run
    from retrieval.train.job import training_job

    return run(training_job({"manifest": manifest, **words}, stages))


def first_batch(manifest: str | Path, *, stages: Sequence[Mapping[str, Any]] = (), **words: Any) -> "list[SeenImage]":
    """The first batch of a training as the network would see it, with its labels. Takes the words of `train`.

    Nothing is trained or written. Raises LmrError.

    >>> len(lmr.first_batch("train.csv", backbone="plain-cnn", size=32, batch_size=8))
    8
    """
    from retrieval.train.job import first_batch as run
    from retrieval.train.job import training_job

    return run(training_job({"manifest": manifest, **words}, stages))


def summarise(**words: Any) -> "tuple[list[Layer], DescriptorModel]":
    """The layers of a network with shapes and parameters, and the network itself.

    words: those of `retrieval.models.request.NetworkRequest` and PreparationRequest. Raises LmrError.

    >>> layers, model = lmr.summarise(backbone="plain-cnn", size=64)
    """
    from retrieval.models.request import SummaryJob
    from retrieval.models.summary import summarise as run

    job = build(SummaryJob, words)
    model, spec = job.network.build(job.preparation)
    return run(model, spec.size), model


@_takes(EnsembleJob)
def ensemble(job: EnsembleJob) -> "tuple[Literal['made', 'unchanged'], EnsembleCard]":
    """Joins several model folders into one; whether that was there already, and its card.

    Raises LmrError.

    >>> state, card = lmr.ensemble(["model", "trained"], output="both", weight=(1, 0.5))
    >>> state, len(card.members)
    ('made', 2)
    """
    from retrieval.models.ensemble import ensemble as run

    return run(job)


@_takes(ExportJob)
def export(job: ExportJob) -> "Exported | None":
    """Writes a model as one ONNX file, checked against torch; None where it is there already.

    Raises LmrError.

    >>> exported = lmr.export("model", "model.onnx", flip=True)  # doctest: +SKIP
    """
    from retrieval.embed.export import export as run

    return run(job)


@_takes(CalibrateJob)
def calibrate(job: CalibrateJob) -> Calibration:
    """Tunes the vote of an index folder and fits its confidence and thresholds on labelled queries.

    The queries are not in the index, and include images without a landmark as they come in use.
    Raises LmrError for queries that cannot be used, and where another calibration is there, which `overwrite` replaces.

    >>> calibration = lmr.calibrate("val.csv", index="landmarks", precision=0.9, overwrite=True)
    >>> 0 < calibration.threshold_precision.confidence <= 1
    True
    """
    from index.calibrate.job import calibrate as run

    return run(job)


@_takes(EvaluateJob)
def evaluate(job: EvaluateJob) -> "EvaluationResult":
    """Evaluates an index folder on labelled queries, or with `leave_one_out` on its own images.

    Raises LmrError for queries that cannot be used.

    >>> result = lmr.evaluate("solution.csv", index="landmarks")
    >>> result.evaluation.accuracy.gap > 0.5
    True
    """
    from index.evaluate.job import evaluate as run

    return run(job)


@_takes(SubmitJob)
def submit(job: SubmitJob) -> SubmitReport:
    """Writes a Kaggle submission (id,landmarks) for the images of a manifest; how many lines and answers it has.

    Raises LmrError for a manifest or an index that cannot be used, and for another file in the submission's place.

    >>> report = lmr.submit("test.csv", index="landmarks", output="submission.csv")
    >>> report.n_lines
    22
    """
    from index.kaggle.submit import submit as run

    return run(job)


def score(
    submission: str | Path,
    solution: str | Path,
    *,
    ignore_unknown: bool = False,
    allow_disjoint: bool = False,
    progress: Progress = PYTHON_WARNINGS,
) -> dict[str, dict[str, Any]]:
    """Scores a submission file against a solution file: the metrics of `All`, and of `Public` and `Private`.

    ignore_unknown: leave out ids that the solution lacks. allow_disjoint: go on where their labels have nothing in
    common. Raises LmrError for files that are not these, or that do not fit each other.

    >>> scores = lmr.score("submission.csv", "solution.csv")
    >>> scores["All"]["gap"] > 0.5
    True
    """
    from index.kaggle.scoring import score_files

    return score_files(
        Path(submission),
        Path(solution),
        ignore_unknown=ignore_unknown,
        allow_disjoint=allow_disjoint,
        progress=progress,
    )


@_takes(CompareJob)
def compare(job: CompareJob) -> "Comparison":
    """Trains and scores the systems of several recipes on the same data; their figures, which are also written.

    Raises LmrError, also for a recipe that is none.

    >>> comparison = lmr.compare(["knn-imagenet", "arcface"], data="parts", seeds="0,1,2")  # doctest: +SKIP
    """
    from index.compare.job import compare as run

    return run(job)


def recipes() -> dict[str, str]:
    """The recipes that are shipped, each with what it says about itself.

    >>> "arcface" in lmr.recipes()
    True
    """
    from index.compare.steps import step_options
    from retrieval.train.recipes.recipe import read_recipe, recipe_names

    options = step_options()
    return {name: read_recipe(name, options).about for name in recipe_names()}


class Landmarks:
    """An opened index folder with its network: ask it what images show."""

    def __init__(self, folder: "IndexFolder", embedder: "Embedder") -> None:
        self.folder = folder
        self.embedder = embedder

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

    def embed(
        self, images: Sequence["ImageLike"], *, allow_private: bool = False
    ) -> "tuple[FloatArray, dict[int, str]]":
        """Unit descriptors (b, d) of the readable images in their order, and position -> reason of the others.

        allow_private: whether URLs may lead to loopback, private and link-local addresses.
        """
        unreadable: dict[int, str] = {}
        vectors = []
        for batch in self.embedder.embed(_Given(images, allow_private), range(len(images))):
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
    ) -> list[Answer]:
        """One answer for each image (paths, URLs, encoded bytes or PIL images), in their order.

        threshold: confidence below which an image shows no known landmark; None = the calibrated one for precision.
        allow_private: whether URLs may lead to loopback, private and link-local addresses.
        Raises LmrError for a threshold on an index that is not calibrated, TypeError for what is no image.
        """
        from index.recognition import answer

        cut, shown_threshold = self._threshold(threshold)
        descriptors, unreadable = self.embed(images, allow_private=allow_private)
        found = answer(self.folder, descriptors)
        told = (
            replace(self._answer(found, row, cut, n_landmarks), threshold=shown_threshold, in_index=self._row_id(same))
            for row, same in enumerate(found.same_picture)
        )
        names = map(_name_of, images)
        return [
            _unreadable(name, unreadable[i]) if i in unreadable else replace(next(told), image=name)
            for i, name in enumerate(names)
        ]

    def sort_into(self, folder: str | Path, answers: Sequence[Answer], *, mode: "Mode" = "link") -> "Sorted":
        """Links, copies or moves the images of answers into `folder/<name of the landmark>/`; what was done.

        Images in tars are copied. Moves are undone by `lmr.undo_moves`. Raises LmrError where the folder cannot be
        written.
        """
        from index.sort_into import group_names, sort_into

        return sort_into(Path(folder), answers, group_names(self.folder), mode)

    def _threshold(self, asked: float | None) -> tuple[float, float | None]:
        """The ranking key from which on an image is answered, and the confidence to show for it."""
        from index.confidence import logit_of
        from retrieval.errors import LmrError

        calibration = self.folder.calibration
        if asked is not None:
            if calibration is None:
                raise LmrError(
                    f"{self.folder.path} is not calibrated, so a threshold has no meaning; run lmr calibrate"
                )
            if not 0 <= asked <= 1:
                raise LmrError(f"threshold must lie in [0, 1], got {asked}")
            return logit_of(asked), asked
        if calibration is None:
            return float("-inf"), None
        return calibration.threshold_precision.logit, calibration.threshold_precision.confidence

    def _answer(self, found: "Answers", row: int, cut: float, n_landmarks: int) -> Answer:
        """The answer to one query, without its image. cut: ranking key from which on it is answered."""
        votes = found.votes
        shown = range(*np.searchsorted(votes.query, [row, row + 1]))[:n_landmarks]
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
        from index.confidence import sigmoid

        return float(sigmoid(np.asarray(logit))) if self.is_calibrated else None

    def _row_id(self, row: int) -> str | None:
        return str(self.folder.rows.image_id[row]) if row >= 0 else None

    def _neighbours(self, found: "Answers", row: int) -> tuple[Neighbour, ...]:
        rows = self.folder.rows
        pairs = zip(found.neighbours.rows[row], found.neighbours.scores[row], strict=True)
        return tuple(
            Neighbour(
                str(rows.image_id[i]),
                label,
                float(score),
                str(rows.path[i]),
                self._name(label)[0],
                self.folder.kept(int(i)),
            )
            for i, score in pairs
            if i >= 0
            for label in (rows.landmarks[rows.landmark[i]],)
        )

    def _name(self, label: str) -> tuple[str, str]:
        known = self.folder.names.get(label)
        return (known.name, known.address) if known else (label, "")


def undo_moves(folder: str | Path, *, progress: Progress = PYTHON_WARNINGS) -> int:
    """Moves images that `Landmarks.sort_into` moved into a folder back to where they were; how many.

    Raises LmrError where nothing was moved, or where some cannot be moved back.
    """
    from index.sort_into import undo_moves as run

    return run(Path(folder), progress)


def open_index(path: str | Path, *, device: str = "auto", threads: int | None = None, workers: int = 2) -> Landmarks:
    """Opens an index folder and its network.

    Raises LmrError when the folder is missing, damaged or of another version, or the device is not there.
    """
    from index.folder.folder import N_TRIES, is_current, open_folder
    from retrieval.embed.load import open_card, plan_embedder
    from retrieval.errors import LmrError

    for tries_left in reversed(range(N_TRIES)):
        folder = open_folder(path, device=device, threads=threads)
        model = folder.model_path
        try:
            load = plan_embedder(model, open_card(model), device=device, threads=threads, n_workers=workers)
            landmarks = Landmarks(folder, load())
        except (LmrError, OSError):
            if not tries_left or is_current(folder):
                raise
            continue
        if is_current(folder):
            return landmarks
    raise LmrError(f"{path} was replaced each time while it was read; run this again")


class _Given:
    """The images of one question as a source of bytes."""

    def __init__(self, images: Sequence["ImageLike"], allow_private: bool) -> None:
        _require_images(images)
        self.images, self.allow_private = images, allow_private
        self._lock = threading.Lock()  # two threads cannot load one PIL image

    def read(self, i: int) -> bytes:
        """Encoded image i. Raises UnreadableError."""
        from retrieval.data.image_source import QueryImage

        image = self.images[i]
        if isinstance(image, bytes):
            return image
        if isinstance(image, str | Path):
            return QueryImage(str(image), self.allow_private).read()
        with self._lock:
            return _encoded(image)


def _require_images(images: Sequence["ImageLike"]) -> None:
    from PIL.Image import Image

    if isinstance(images, str | bytes | Path | Image):
        raise TypeError(f"images must be a list of images, got one {type(images).__name__}")
    for i, image in enumerate(images):
        if not isinstance(image, str | bytes | Path | Image):
            raise TypeError(f"images[{i}] must be a path, URL, encoded bytes or PIL image, got {type(image).__name__}")


def _encoded(image: "Image") -> bytes:
    """A PIL image without loss and with its EXIF. Raises UnreadableError for a file that PIL cannot load."""
    from retrieval.errors import UnreadableError

    buffer = io.BytesIO()
    try:
        exif = image.getexif()
        if image.mode not in _PNG_MODES + _TIFF_MODES:
            image = image.convert("RGBA" if image.mode in ("La", "PA", "RGBa") else "RGB")
        image.save(buffer, "TIFF" if image.mode in _TIFF_MODES else "PNG", exif=exif)
    except Exception as error:  # Pillow opens lazily, and raises almost anything for a broken file
        raise UnreadableError(f"broken picture: {' '.join(str(error).split()) or type(error).__name__}") from error
    return buffer.getvalue()


def _name_of(image: "ImageLike") -> str:
    return str(image) if isinstance(image, str | Path) else type(image).__name__


def _unreadable(image: str, reason: str) -> Answer:
    return Answer(image, None, "", "", None, None, (), (), None, reason)
