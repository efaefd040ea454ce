"""The Python API: what the commands do, by the same words, and an index folder that answers questions.

A function takes the options of its command as keyword arguments: `help(lmr.embed)` shows them with their defaults,
the help of `lmr embed` says what they mean, `index/keywords.py` has their types. TypeError is raised for a word that a
function does not have, LmrError for a value that cannot be.

>>> import lmr
>>> landmarks = lmr.open_index("landmarks")
>>> landmarks.query(["images/test-arch-0.jpg"])[0].landmark_id
'arch'
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from index.answer import Answer, LandmarkScore, Neighbour
from index.landmarks import Landmarks, open_landmarks
from retrieval.jobs import build, shows_words_of
from retrieval.progress import PYTHON_WARNINGS, Progress

if TYPE_CHECKING:
    import index.keywords as keywords
    from index.bench import Benchmark
    from index.calibration import Calibration
    from index.clean.job import CleanReport
    from index.compare.results import Comparison
    from index.evaluate.job import ShareReport
    from index.evaluate.result import EvaluationResult
    from index.explain.job import LandmarkExplained
    from index.folder.build import BuildReport
    from index.info import Info
    from index.join import JoinReport
    from index.kaggle.scoring import Scores
    from index.kaggle.submit import SubmitReport
    from index.keywords import Place
    from index.serving.client import Connection
    from index.serving.config import ServingSettings
    from index.serving.labels import FeedbackReport
    from index.serving.service import Service
    from index.stats.job import Statistics
    from index.stats.measure import MeasureReport
    from index.tune.job import TuneResult
    from index.update.compact import Compacted
    from index.update.inspect import IndexExported, IndexVerified
    from index.update.job import IndexChange
    from index.update.sync import Synced
    from retrieval.download.google import Part
    from retrieval.download.job import ArchiveReport
    from retrieval.download.summary import DownloadPlan, DownloadReport
    from retrieval.embed.engine import Engine
    from retrieval.embed.fill import FillReport
    from retrieval.embed.onnx_export import Exported
    from retrieval.models.card import EnsembleCard
    from retrieval.models.network import DescriptorModel
    from retrieval.models.summary import Layer
    from retrieval.split.report import SplitReport
    from retrieval.train.first_batch import SeenImage
    from retrieval.train.lr_finder import RateTest
    from retrieval.train.record import Trained

__all__ = [
    "Answer",
    "LandmarkScore",
    "Landmarks",
    "Neighbour",
    "bench",
    "build_index",
    "calibrate",
    "clean",
    "compare",
    "connect",
    "download",
    "download_tars",
    "embed",
    "ensemble",
    "evaluate",
    "evaluate_share",
    "explain",
    "export",
    "feedback",
    "find_rate",
    "first_batch",
    "index_add",
    "index_compact",
    "index_export",
    "index_info",
    "index_merge",
    "index_relabel",
    "index_remove",
    "index_verify",
    "info",
    "join",
    "measure",
    "open_index",
    "open_service",
    "recipes",
    "score",
    "split",
    "stats",
    "submit",
    "summarise",
    "sync",
    "train",
    "tune",
    "undo_moves",
]


@shows_words_of("retrieval.download.job", "DownloadJob")
def download(
    manifest: "Place", images: "Place | None" = None, **words: "Unpack[keywords.DownloadWords]"
) -> "DownloadReport | DownloadPlan":
    """Downloads the images of a manifest, resized on arrival; what is there then, or in a dry run what would be done.

    Raises LmrError for what cannot be used or written. Images that cannot be had are counted in the report; its
    `require_any` raises LmrError where there is none at all.

    >>> report = lmr.download("train.csv", "images", size=288, per_host=4)  # doctest: +SKIP
    """
    from retrieval.download.job import DownloadJob
    from retrieval.download.job import download as run

    return run(build(DownloadJob, {"manifest": manifest, "images": images, **words}))


@shows_words_of("retrieval.download.job", "ArchiveJob")
def download_tars(
    tars: "Part", folder: "Place" = "images", **words: "Unpack[keywords.ArchiveWords]"
) -> "ArchiveReport":
    """Downloads tar files of Google Landmarks, checked against their md5; what is there then.

    Raises LmrError for a folder that holds another part's or cannot be written. Files that cannot be had are in the
    report; its `require_all` raises LmrError where there are any.

    >>> report = lmr.download_tars("index", "google-index", numbers="0-9")  # doctest: +SKIP
    """
    from retrieval.download.job import ArchiveJob
    from retrieval.download.job import download_tars as run

    return run(build(ArchiveJob, {"tars": tars, "folder": folder, **words}))


@shows_words_of("index.clean.job", "CleanJob")
def clean(manifest: "Place", **words: "Unpack[keywords.CleanWords]") -> "CleanReport":
    """Finds mislabelled, duplicate, low-quality and non-landmark images, and writes the decisions; what it came to.

    `gallery` renders a page of what is left out, which is written with the decisions.
    Raises WordsError for words that contradict each other, LmrError for what cannot be used.

    >>> lmr.clean("train.csv", store="train.h5", output="cleaned").state
    'written'
    >>> lmr.clean("train.csv", review="cleaned/decisions.csv", output="cleaned").state
    'reviewed'
    """
    from index.clean.job import CleanJob
    from index.clean.job import clean as run

    return run(build(CleanJob, {"manifest": manifest, **words}))


@shows_words_of("index.stats.job", "StatsJob")
def stats(manifest: "Place", **words: "Unpack[keywords.StatsWords]") -> "Statistics":
    """Counts and measures what is in a data set: landmarks, images, descriptors, duplicates, leakage.

    Raises WordsError for words that need another one, LmrError for what cannot be used.

    >>> found = lmr.stats("train.csv", images="images", test="test.csv")
    >>> found.leakage.same_look.test_pictures
    5
    """
    from index.stats.job import StatsJob
    from index.stats.job import stats as run

    return run(build(StatsJob, {"manifest": manifest, **words}))


@shows_words_of("index.stats.measure", "MeasureJob")
def measure(manifest: "Place", **words: "Unpack[keywords.MeasureWords]") -> "MeasureReport":
    """Measures the images of a data set, or a share of them, into a file that `stats` and `clean` take them from.

    Raises LmrError for what cannot be used.

    >>> lmr.measure("train.csv", images="images", facts="facts.sqlite", shard="1/2").facts.name
    'facts-1-of-2.sqlite'
    """
    from index.stats.measure import MeasureJob
    from index.stats.measure import measure as run

    return run(build(MeasureJob, {"manifest": manifest, **words}))


@shows_words_of("index.info", "InfoJob")
def info(path: "Place | None" = None, **words: "Unpack[keywords.InfoWords]") -> "Info":
    """Tells what a store, model, index folder, calibration or manifest is, and with `verify` whether it is whole.

    Raises LmrError for what is none of them, or is not as it was written.

    >>> lmr.info("train.h5", verify=True).verified
    'every byte is as it was written'
    """
    from index.info import InfoJob
    from index.info import info as run

    return run(build(InfoJob, {"path": path, **words}))


@shows_words_of("retrieval.split.job", "SplitJob")
def split(manifest: "Place", **words: "Unpack[keywords.SplitWords]") -> "SplitReport":
    """Splits a manifest into train, val, test and background, and writes their manifests; what it came to.

    Raises WordsError for words that contradict each other, LmrError for what cannot be used.

    >>> report = lmr.split("train.csv", output="parts", val=0.2, ignore_duplicates=True)
    >>> report.counts.parts["val"].landmarks
    4
    """
    from retrieval.split.job import SplitJob
    from retrieval.split.job import split as run

    return run(build(SplitJob, {"manifest": manifest, **words}))


@shows_words_of("retrieval.embed.job", "EmbedJob")
def embed(manifest: "Place" = "train.csv", **words: "Unpack[keywords.EmbedWords]") -> "tuple[Path, FillReport]":
    """Embeds the images of a manifest into a descriptor store; its path, and what was done.

    Raises LmrError.

    >>> store, report = lmr.embed("train.csv", model="model", output="flipped.h5", flip=True)
    >>> report.n_pictures, report.n_unreadable
    (44, 0)
    """
    from retrieval.embed.job import EmbedJob
    from retrieval.embed.job import embed as run

    return run(build(EmbedJob, {"manifest": manifest, **words}))


@shows_words_of("index.join", "JoinJob")
def join(parts: "Sequence[Place]", **words: "Unpack[keywords.JoinWords]") -> "JoinReport":
    """Joins the stores, submissions, outcomes or picture facts that the shares of one job made.

    The whole is equal to what the job makes without shares. Raises LmrError for parts that are not all shares of one
    job, each once.

    >>> shares = [lmr.embed("train.csv", output="shared.h5", shard=f"{i}/2")[0] for i in (1, 2)]
    >>> lmr.join(shares, output="shared.h5").n_rows
    44
    """
    from index.join import JoinJob
    from index.join import join as run

    return run(build(JoinJob, {"parts": parts, **words}))


@shows_words_of("index.build_index", "BuildJob")
def build_index(stores: "Sequence[Place]" = ("train.h5",), **words: "Unpack[keywords.BuildWords]") -> "BuildReport":
    """Builds an index folder from descriptor stores; what was done, and what became of its calibration.

    Raises LmrError for stores that do not fit each other or the model, and for a folder that was made from something
    else, which `overwrite` replaces.

    >>> report = lmr.build_index(["train.h5"], output="smaller", dimensions=4)
    >>> report.info.n_rows, report.info.d
    (32, 4)
    """
    from index.build_index import BuildJob
    from index.build_index import build_index as run

    return run(build(BuildJob, {"stores": stores, **words}))


@shows_words_of("index.update.job", "IndexAddJob")
def index_add(stores: "Sequence[Place]", **words: "Unpack[keywords.IndexAddWords]") -> "IndexChange":
    """Adds the labelled images of descriptor stores to an index folder; what was done.

    Images that it has already, with the same label and descriptor, are left as they are. Raises LmrError for stores of
    another model and for an image that the index has with another label or descriptor.

    >>> lmr.index_remove(["train-arch-0"], index="smaller").info.n_rows
    31
    >>> lmr.index_add(["train.h5"], index="smaller").n_added
    1
    """
    from index.update.job import IndexAddJob
    from index.update.job import add as run

    return run(build(IndexAddJob, {"stores": stores, **words}))


@shows_words_of("index.update.job", "IndexRemoveJob")
def index_remove(ids: Sequence[str] = (), **words: "Unpack[keywords.IndexRemoveWords]") -> "IndexChange":
    """Removes images by their image_id from an index folder and its background; what was done.

    Raises LmrError for ids that are not there or given twice, and where nothing would be left.
    """
    from index.update.job import IndexRemoveJob
    from index.update.job import remove as run

    return run(build(IndexRemoveJob, {"ids": (ids,) if isinstance(ids, str) else tuple(ids), **words}))


@shows_words_of("index.update.job", "IndexMergeJob")
def index_merge(folders: "Sequence[Place]", **words: "Unpack[keywords.IndexMergeWords]") -> "IndexChange":
    """Adds the rows of other index folders of the same model and whitening to one; what was done.

    Raises LmrError as `index_add`, and for folders that were whitened otherwise.

    >>> lmr.index_merge(["other"], index="landmarks").n_added  # doctest: +SKIP
    """
    from index.update.job import IndexMergeJob
    from index.update.job import merge as run

    return run(build(IndexMergeJob, {"folders": folders, **words}))


@shows_words_of("index.update.job", "IndexRelabelJob")
def index_relabel(labels: "Place", **words: "Unpack[keywords.IndexRelabelWords]") -> "IndexChange":
    """Gives landmarks (landmark_id,new_landmark_id) or images (image_id,landmark_id) other labels, by a CSV file.

    Raises LmrError for another table, and for landmarks and images that the index does not have.

    >>> lmr.index_relabel("labels.csv").n_relabelled  # doctest: +SKIP
    """
    from index.update.job import IndexRelabelJob
    from index.update.job import relabel as run

    return run(build(IndexRelabelJob, {"labels": labels, **words}))


@shows_words_of("index.update.sync", "SyncJob")
def sync(folder: "Place", **words: "Unpack[keywords.SyncWords]") -> "Synced":
    """Brings an index folder to what a folder of images holds now; only images that are new are embedded.

    Raises LmrError as `embed` and `index_add`.

    >>> lmr.sync("photos", index="landmarks").change.n_added  # doctest: +SKIP
    """
    from index.update.sync import SyncJob
    from index.update.sync import sync as run

    return run(build(SyncJob, {"folder": folder, **words}))


@shows_words_of("index.serving.labels", "FeedbackJob")
def feedback(**words: "Unpack[keywords.FeedbackWords]") -> "FeedbackReport":
    """Turns the feedback that `lmr serve` was given into manifests and tables of labels; what follows from it.

    Raises LmrError where there is no feedback, or something else is in the place of the output.

    >>> lmr.feedback(index="landmarks", manifest="train.csv").n_relabelled  # doctest: +SKIP
    """
    from index.serving.labels import FeedbackJob
    from index.serving.labels import turn_into_labels as run

    return run(build(FeedbackJob, words))


@shows_words_of("index.update.compact", "IndexCompactJob")
def index_compact(**words: "Unpack[keywords.IndexCompactWords]") -> "Compacted":
    """Trains the inverted file of an index folder anew over its rows, or makes another kind of it; what was done.

    Raises LmrError for a kind that cannot be.

    >>> lmr.index_compact(index="smaller").state
    'unchanged'
    """
    from index.update.compact import IndexCompactJob
    from index.update.compact import compact as run

    return run(build(IndexCompactJob, words))


@shows_words_of("index.update.inspect", "IndexInfoJob")
def index_info(index: "Place" = "landmarks", **words: "Unpack[keywords.IndexInfoWords]") -> Mapping[str, Any]:
    """Tells what an index folder is, what was changed in it, and what to do about that.

    Raises LmrError.

    >>> lmr.index_info("smaller")["changes"]["added"]
    1
    """
    from index.update.inspect import IndexInfoJob
    from index.update.inspect import info as run

    return run(build(IndexInfoJob, {"index": index, **words}))


@shows_words_of("index.update.inspect", "IndexVerifyJob")
def index_verify(index: "Place" = "landmarks", **words: "Unpack[keywords.IndexVerifyWords]") -> "IndexVerified":
    """Reads an index folder whole, and asks it for a sample of its own rows.

    Raises LmrError that names what is not as it was written.

    >>> lmr.index_verify("smaller").self_recall
    1.0
    """
    from index.update.inspect import IndexVerifyJob
    from index.update.inspect import verify as run

    return run(build(IndexVerifyJob, {"index": index, **words}))


@shows_words_of("index.update.inspect", "IndexExportJob")
def index_export(output: "Place", **words: "Unpack[keywords.IndexExportWords]") -> "IndexExported":
    """Writes image_id, landmark_id and path of the images of an index folder as a CSV manifest.

    Raises LmrError for another file in its place, which `overwrite` replaces.

    >>> lmr.index_export("rows.csv", index="smaller").n_images
    32
    """
    from index.update.inspect import IndexExportJob
    from index.update.inspect import export as run

    return run(build(IndexExportJob, {"output": output, **words}))


def train(
    manifest: "Place", *, stages: "Sequence[keywords.StageWords]" = (), **words: "Unpack[keywords.TrainWords]"
) -> "Trained":
    """Trains a network on the labelled images of a manifest into a model folder; its epochs, and unreadable images.

    Of a descriptor store (.h5) in the place of the manifest it trains an adapter behind the model that made it.
    words: as `index.keywords.TrainWords`. stages: for each stage of training the words that it has of its own.
    A training that was stopped goes on where it was. Raises LmrError, TypeError for a word that there is not.

    >>> trained = lmr.train("train.csv", output="trained", backbone="plain-cnn", size=32, epochs=1)
    >>> len(trained.log)
    1
    >>> lmr.train("train.csv", output="staged", stages=[{"size": 112}, {"size": 224}])  # doctest: +SKIP
    """
    from index.evaluate.validation import make_validation
    from index.whitening import fit_whitening
    from retrieval.train.job import train as run
    from retrieval.train.job import training_job

    return run(training_job({"manifest": manifest, **words}, stages), make_validation, fit_whitening)


def find_rate(
    manifest: "Place", *, stages: "Sequence[keywords.StageWords]" = (), **words: "Unpack[keywords.TrainWords]"
) -> "RateTest":
    """The learning rate range test: the loss at rising learning rates, and a suggestion. Takes the words of `train`.

    Trains the first stage only, for a few steps; nothing is written. Raises LmrError.

    >>> lmr.find_rate("train.csv", backbone="plain-cnn", size=32).best > 0
    True
    """
    from index.whitening import fit_whitening
    from retrieval.train.job import find_rate as run
    from retrieval.train.job import training_job

    return run(training_job({"manifest": manifest, **words}, stages), fit_whitening)


def first_batch(
    manifest: "Place", *, stages: "Sequence[keywords.StageWords]" = (), **words: "Unpack[keywords.TrainWords]"
) -> "list[SeenImage]":
    """The first batch of a training as the network would see it, with its labels. Takes the words of `train`.

    Nothing is trained or written. Raises LmrError.

    >>> len(lmr.first_batch("train.csv", backbone="plain-cnn", size=32, batch_size=8))
    8
    """
    from retrieval.train.job import first_batch as run
    from retrieval.train.job import training_job

    return run(training_job({"manifest": manifest, **words}, stages))


@shows_words_of("retrieval.models.request", "SummaryJob")
def summarise(**words: "Unpack[keywords.SummaryWords]") -> "tuple[list[Layer], DescriptorModel]":
    """The layers of a network with shapes and parameters, and the network itself.

    Raises LmrError.

    >>> layers, model = lmr.summarise(backbone="plain-cnn", size=64)
    """
    from retrieval.models.request import SummaryJob
    from retrieval.models.summary import summarise as run

    job = build(SummaryJob, words)
    model, spec = job.network.build(job.preparation)
    return run(model, spec.size), model


@shows_words_of("retrieval.models.ensemble", "EnsembleJob")
def ensemble(
    models: "Sequence[Place]", **words: "Unpack[keywords.EnsembleWords]"
) -> "tuple[Literal['made', 'unchanged'], EnsembleCard]":
    """Joins several model folders into one; whether that was there already, and its card.

    Raises LmrError.

    >>> state, card = lmr.ensemble(["model", "trained"], output="both", weight=(1, 0.5))
    >>> state, len(card.members)
    ('made', 2)
    """
    from retrieval.models.ensemble import EnsembleJob
    from retrieval.models.ensemble import ensemble as run

    return run(build(EnsembleJob, {"models": models, **words}))


@shows_words_of("retrieval.embed.export", "ExportJob")
def export(
    model: "Place" = "model", output: "Place" = "model.onnx", **words: "Unpack[keywords.ExportWords]"
) -> "Exported | None":
    """Writes a model as one ONNX file, checked against torch; None where it is there already.

    Raises LmrError.

    >>> exported = lmr.export("model", "model.onnx", flip=True)  # doctest: +SKIP
    """
    from retrieval.embed.export import ExportJob
    from retrieval.embed.export import export as run

    return run(build(ExportJob, {"model": model, "output": output, **words}))


@shows_words_of("index.bench", "BenchJob")
def bench(index: "Place" = "landmarks", **words: "Unpack[keywords.BenchWords]") -> "Benchmark":
    """Measures kinds of index on the rows of an index folder: recall, speed, memory and building time of each.

    Nothing is written. Raises LmrError for a folder that cannot be read, or has fewer than 1,000 rows.

    >>> lmr.bench("landmarks").rows  # doctest: +SKIP
    """
    from index.bench import BenchJob
    from index.bench import bench as run

    return run(build(BenchJob, {"index": index, **words}))


@shows_words_of("index.calibrate.job", "CalibrateJob")
def calibrate(queries: "Place", **words: "Unpack[keywords.CalibrateWords]") -> "Calibration":
    """Tunes the vote of an index folder and fits its confidence and thresholds on labelled queries.

    The queries are not in the index, and include images without a landmark as they come in use.
    Raises LmrError for queries that cannot be used, and where another calibration is there, which `overwrite` replaces.

    >>> calibration = lmr.calibrate("val.csv", index="landmarks", precision=0.9, overwrite=True)
    >>> 0 < calibration.threshold_precision.confidence <= 1
    True
    """
    from index.calibrate.job import CalibrateJob
    from index.calibrate.job import calibrate as run

    return run(build(CalibrateJob, {"queries": queries, **words}))


@shows_words_of("index.tune.job", "TuneJob")
def tune(
    queries: "Place", stores: "Sequence[Place]" = ("train.h5",), **words: "Unpack[keywords.TuneWords]"
) -> "TuneResult":
    """Chooses whitening, part of the descriptors, background and vote of an index on held-out labelled queries.

    With `apply` the index is built so, and calibrated. Raises LmrError for stores and queries that cannot be used.

    >>> result = lmr.tune("val.csv", ["train.h5"], tries=4)
    >>> result.found.n_tries
    4
    """
    from index.tune.job import TuneJob
    from index.tune.job import tune as run

    return run(build(TuneJob, {"queries": queries, "stores": stores, **words}))


@shows_words_of("index.evaluate.job", "EvaluateJob")
def evaluate(queries: "Place | None" = None, **words: "Unpack[keywords.EvaluateWords]") -> "EvaluationResult":
    """Evaluates an index folder on labelled queries, or with `leave_one_out` on its own images.

    Raises LmrError for queries that cannot be used.

    >>> result = lmr.evaluate("solution.csv", index="landmarks")
    >>> result.evaluation.accuracy.gap > 0.5
    True
    """
    from index.evaluate.job import EvaluateJob
    from index.evaluate.job import evaluate as run

    return run(build(EvaluateJob, {"queries": queries, **words}))


@shows_words_of("index.evaluate.job", "EvaluateShareJob")
def evaluate_share(queries: "Place | None" = None, **words: "Unpack[keywords.EvaluateShareWords]") -> "ShareReport":
    """Embeds labelled queries and asks them, or a share of them, and keeps what comes of it for `lmr.evaluate`.

    Raises LmrError for queries that cannot be used.

    >>> report = lmr.evaluate_share("val.csv", index="landmarks", store="asked.h5", shard="1/2")
    >>> report.output.name
    'asked-1-of-2.outcomes'
    """
    from index.evaluate.job import EvaluateShareJob
    from index.evaluate.job import evaluate_share as run

    return run(build(EvaluateShareJob, {"queries": queries, **words}))


@shows_words_of("index.explain.job", "ExplainJob")
def explain(landmark: str, **words: "Unpack[keywords.ExplainWords]") -> "LandmarkExplained":
    """Tells what is typical of a landmark in an index, what deviates, and what it is confused with.

    Its `maps` makes the similarity map of the two images by which it is confused.
    Raises LmrError for a landmark that the index does not have.

    >>> found = lmr.explain("arch", index="landmarks")
    >>> found.n_images, found.confused[0].landmark_id
    (8, 'castle')
    """
    from index.explain.job import ExplainJob
    from index.explain.job import explain as run

    return run(build(ExplainJob, {"landmark": landmark, **words}))


@shows_words_of("index.kaggle.submit", "SubmitJob")
def submit(test: "Place" = "test.csv", **words: "Unpack[keywords.SubmitWords]") -> "SubmitReport":
    """Writes a Kaggle submission (id,landmarks) for the images of a manifest; how many lines and answers it has.

    Raises LmrError for a manifest or an index that cannot be used, and for another file in the submission's place.

    >>> report = lmr.submit("test.csv", index="landmarks", output="submission.csv")
    >>> report.n_lines
    22
    """
    from index.kaggle.submit import SubmitJob
    from index.kaggle.submit import submit as run

    return run(build(SubmitJob, {"test": test, **words}))


def score(
    submission: str | Path,
    solution: str | Path,
    *,
    ignore_unknown: bool = False,
    allow_disjoint: bool = False,
    within: str | None = None,
    index: str | Path | None = None,
    column: Iterable[str] | Mapping[str, str] = (),
    progress: Progress = PYTHON_WARNINGS,
) -> "Scores":
    """Scores a submission file against a solution file: the metrics of `All`, and of `Public` and `Private`.

    ignore_unknown: leave out ids that the solution lacks. allow_disjoint: go on where their labels have nothing in
    common. within, index: a distance and the manifest of the index's images, where images so near a query are right;
    the solution is then a manifest with coordinates. column: what holds what in both manifests, as `lat=y`. Raises
    LmrError for files that are not these, or that do not fit.

    >>> scores = lmr.score("submission.csv", "solution.csv")
    >>> scores["All"].gap > 0.5
    True
    """
    from index.kaggle.scoring import score_files, score_places
    from retrieval.data.header.mapping import parse_columns
    from retrieval.errors import LmrError

    names = parse_columns(column)
    if within is not None and allow_disjoint:
        raise LmrError("`allow_disjoint` does not go with `within`, by which no labels are compared")
    if within is not None and index is not None:
        how: dict[str, Any] = {"names": names, "ignore_unknown": ignore_unknown, "progress": progress}
        return score_places(Path(submission), Path(solution), Path(index), within, **how)
    if within is not None or index is not None:
        raise LmrError("`within` and `index` go together: a distance, and the manifest of the index's images")
    if names.told:
        raise LmrError("`column` goes with `within`: it says where manifests have coordinates; submissions have none")
    return score_files(
        Path(submission),
        Path(solution),
        ignore_unknown=ignore_unknown,
        allow_disjoint=allow_disjoint,
        progress=progress,
    )


@shows_words_of("index.compare.job", "CompareJob")
def compare(recipes: Sequence[str], **words: "Unpack[keywords.CompareWords]") -> "Comparison":
    """Trains and scores the systems of several recipes on the same data; their figures, which are also written.

    Raises LmrError, also for a recipe that is none.

    >>> comparison = lmr.compare(["knn-imagenet", "arcface"], data="parts", seeds="0,1,2")  # doctest: +SKIP
    """
    from index.compare.job import CompareJob
    from index.compare.job import compare as run

    return run(build(CompareJob, {"recipes": recipes, **words}))


def recipes() -> dict[str, str]:
    """The recipes that are shipped, each with what it says about itself.

    >>> "arcface" in lmr.recipes()
    True
    """
    from index.compare.steps import step_options
    from retrieval.train.recipes.recipe import read_recipe, recipe_names

    options = step_options()
    return {name: read_recipe(name, options).about for name in recipe_names()}


def undo_moves(folder: str | Path, *, progress: Progress = PYTHON_WARNINGS) -> int:
    """Moves images that `Landmarks.sort_into` moved into a folder back to where they were; how many.

    Raises LmrError where nothing was moved, or where some cannot be moved back.
    """
    from index.sort_into import undo_moves as run

    return run(Path(folder), progress)


def open_index(
    path: str | Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    workers: int = 2,
    engine: "Engine" = "auto",
    progress: Progress = PYTHON_WARNINGS,
) -> Landmarks:
    """Opens an index folder and its network. device: one that computes, of several GPUs (cuda:0,1) each a part.

    engine: `torch`, `onnx` for the exported network beside the weights, `auto` for what starts fastest.
    Raises LmrError when the folder is missing, damaged or of another version, or the device or engine is not there.
    """
    how: dict[str, Any] = {"device": device, "threads": threads, "n_workers": workers, "engine": engine}
    return open_landmarks(path, progress=progress, **how)


def open_service(
    path: str | Path,
    settings: "ServingSettings | None" = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    engine: "Engine" = "auto",
    progress: Progress = PYTHON_WARNINGS,
) -> "Service":
    """Opens an index folder that answers many at once, as `lmr serve` does; it is to be closed.

    Another folder that is renamed into its place is opened beside it, and answers from then on. Takes and raises
    besides what `open_index` does.

    >>> service = lmr.open_service("landmarks", device="cpu")
    >>> service.query(open("images/test-arch-0.jpg", "rb").read()).result().landmark_id
    'arch'
    >>> service.close()
    """
    from index.serving.config import ServingSettings
    from index.serving.service import Service

    how: dict[str, Any] = {"device": device, "threads": threads, "engine": engine, "progress": progress}
    return Service(Path(path), settings or ServingSettings(), **how)


def connect(url: str, token: str | None = None, *, timeout_s: float = 60.0) -> "Connection":
    """Connects to a server of `lmr serve`, which gives the same answers without an index and a network here.

    timeout_s: for an image, with all waiting for a server that has too much to do. Raises LmrError for no URL.

    >>> server = lmr.connect("http://127.0.0.1:8080")
    >>> server.query(["holiday.jpg"])[0].landmark_id  # doctest: +SKIP
    'arch'
    """
    from index.serving.client import Connection

    return Connection(url, token, timeout_s=timeout_s)
