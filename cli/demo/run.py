"""Walk of the demo: a small set of landmarks, trained on, indexed, calibrated, evaluated and asked about."""

import shutil
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cli.demo.choice import FOLDERS, TRAINED, UNTRAINED, better_on_val, refuse_others, take
from cli.demo.config import DemoJob, Training
from cli.terminal import warn_lines
from retrieval.files.lock import output_locks
from retrieval.models.request import PreparationRequest
from retrieval.parallel import count_workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.demo.scenes import DemoSet
    from index.evaluate.result import EvaluationResult
    from retrieval.images.spec import ImageSpec

# Random crops show things larger in training than they are when images are embedded (Touvron et al., Fixing the
# train-test resolution discrepancy, 2019); the ratio is that of docs/benchmarks.md, 288 pixels after training at 224.
EMBEDDED_LARGER = 9 / 7
PRECISION = 0.9  # of few hundred held-out images hardly one in three is surely right in 95 of 100 cases
N_SHOWN = 4  # queries on the sheet
STORES = ("train.h5", "val.h5", "background.h5", "test_solution.h5")
MADE = ("report.html", "sheet.jpg", "submission.csv")
OUTPUTS = (*FOLDERS, str(UNTRAINED), str(TRAINED), *STORES, "test.h5", *MADE)  # beside manifests


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a demo: GAP and top-1 on its test queries; paths of what it made.

    untrained_gap: of the network as it came. is_trained: whether the trained one answers.
    """

    gap: float
    top1: float
    untrained_gap: float
    is_trained: bool
    report: Path
    sheet: Path
    submission: Path


def run_demo(job: DemoJob) -> Outcome:
    """Trains to submission in the directory, each step by the function of its command, resumed where it stopped.

    Raises LmrError for a directory that holds something else, and for images that are too few.
    """
    from retrieval.data.image_source import images_place, index_tars

    outputs = (job.directory, *(job.directory / name for name in OUTPUTS))
    with output_locks(*outputs, wait=job.wait, progress=job.progress):
        job = _with_whole_paths(job)
        if job.images is not None:
            index_tars(images_place(job.images), job.progress)
        job.directory.mkdir(parents=True, exist_ok=True)
        with chdir(job.directory):
            training = job.settled()
            if training.may_lose and not job.overwrite:
                refuse_others((*FOLDERS, *STORES))
            return walk(prepare_images(job), training, job)


def _with_whole_paths(job: DemoJob) -> DemoJob:
    """The job with paths that hold in any working folder."""
    weights, images = job.network.weights, job.images
    network = replace(job.network, weights=weights.resolve()) if weights else job.network
    return replace(job, network=network, images=images.resolve() if images else None)


def prepare_images(job: DemoJob) -> "DemoSet":
    """Renders the set into the working folder, or splits the user's own images."""
    from cli.demo.own import split_own
    from cli.demo.scenes import render_demo

    n_workers = max(1, count_workers(job.workers, job.progress))
    if job.images is not None:
        job.step("splitting your pictures")
        return split_own(job.images, Path(), job.seed, n_workers, job.progress)
    job.step("rendering landmarks")
    n_before = 0

    def on_done(n_done: int, n_images: int) -> None:
        nonlocal n_before
        if n_before == 0:
            job.progress.begin("rendering", n_images)
        job.progress.add(n_done - n_before)
        n_before = n_done

    demo = render_demo(Path(), seed=job.seed, threads=n_workers, on_done=on_done)
    job.progress.end()
    return demo


def walk(demo: "DemoSet", training: Training, job: DemoJob) -> Outcome:
    """Trains to submission in the working folder."""
    import lmr
    from cli.report.answers import save_answers
    from cli.report.evaluation import write_report
    from cli.report.text import answer_text, evaluation_text, submission_text

    report, sheet, submission = Path("report.html"), Path("sheet.jpg"), Path("submission.csv")
    job.step("training a network from scratch" if training.network.is_from_scratch else "training")
    folder = TRAINED if training.may_lose else Path()
    spec = _train(demo, training, folder / "model", job)
    job.step("the same network untrained, for comparison")
    untrained_gap = _measure_untrained(demo, training, spec, job)
    job.step("descriptors, index, calibration")
    _index(demo, folder / "model", spec, folder, job)
    if training.may_lose:
        folder = better_on_val(job.progress)
    job.step("evaluating on the test pictures")
    measured = _evaluate(demo, folder, job)
    for text in measured.warnings:
        job.progress.tell(f"warning: {text}")
    warn_lines(evaluation_text(measured.to_json()))
    write_report(report, measured)
    index = take(folder, STORES) if training.may_lose else folder / "landmarks"
    job.step("asking about pictures, and writing a submission")
    asked = [str(measured.queries.path[row]) for row in across_landmarks(measured.queries.landmarks.tolist(), N_SHOWN)]
    found = lmr.open_index(index, device=job.device, threads=job.threads).query(asked)
    warn_lines("\n\n".join(answer_text(answer) for answer in found))
    job.progress.tell(save_answers(sheet, found, index))
    written = lmr.submit(demo.test, index=index, images=demo.images, output=submission, overwrite=True, **job.computing)
    job.progress.tell(submission_text(written))
    accuracy = measured.evaluation.accuracy
    is_trained = folder != UNTRAINED
    return Outcome(accuracy.gap, accuracy.top1, untrained_gap, is_trained, report, sheet, submission)


def across_landmarks(labels: "Sequence[tuple[str, ...]]", n: int) -> list[int]:
    """The positions of n queries of different landmarks, spread over their names; the last one shows none, if any does.

    labels: the landmarks of each query.
    """
    first: dict[str, int] = {}
    for row, names in enumerate(labels):
        first.setdefault(names[0] if names else "", row)
    other = [first.pop("")] if "" in first else []
    n_known = min(n - len(other), len(first))
    known = [row for _, row in sorted(first.items())]
    rows = [known[i * (len(known) - 1) // max(n_known - 1, 1)] for i in range(n_known)] + other
    return (rows + [row for row in range(len(labels)) if row not in rows])[:n]


def _train(demo: "DemoSet", training: Training, folder: Path, job: DemoJob) -> "ImageSpec":
    """Trains a network into a folder; returns how images are prepared when it embeds them."""
    import lmr
    from cli.report.plots import draw_curves
    from retrieval.models.checkpoint import load_model

    folder.parent.mkdir(exist_ok=True)
    trained = lmr.train(
        demo.train,
        negatives=demo.background if demo.background.exists() else None,
        images=demo.images,
        output=folder,
        network=training.network,
        size=training.size,
        training=training.config,
        overwrite=job.overwrite,
        **job.computing,
    )
    draw_curves(folder, trained, job.progress)
    model, card = load_model(folder)
    spec = card.image_spec
    return spec if model.image_size else replace(spec, size=round(EMBEDDED_LARGER * spec.size))


def _measure_untrained(demo: "DemoSet", training: Training, spec: "ImageSpec", job: DemoJob) -> float:
    """GAP on the test queries of the network that training began with, through the same steps."""
    _save_untrained(training, job)
    _index(demo, UNTRAINED / "model", spec, UNTRAINED, job)
    return _evaluate(demo, UNTRAINED, job).evaluation.accuracy.gap


def _save_untrained(training: Training, job: DemoJob) -> None:
    """The network as it came, in its folder; what is there of another one goes.

    One that has weights goes without a neck: a random one would only lose.
    """
    from retrieval.models.checkpoint import CARD, read_card, save_model
    from retrieval.models.device import seeded

    network, place = training.network, UNTRAINED / "model"
    network = network if network.is_from_scratch else replace(network, n_dimensions=0)
    with seeded(job.seed):
        model, made_for = network.build(PreparationRequest(size=training.size))
    with TemporaryDirectory() as scratch:
        asked = save_model(Path(scratch), model, made_for, made_by={"training": None})
    if (place / CARD).exists() and read_card(place).fingerprint == asked.fingerprint:
        return
    shutil.rmtree(UNTRAINED, ignore_errors=True)
    save_model(place, model, made_for, made_by={"training": None})


def _index(demo: "DemoSet", model: Path, spec: "ImageSpec", folder: Path, job: DemoJob) -> None:
    """Makes the calibrated index of a model and a preparation in a folder, with the stores that it is built from."""
    import lmr
    from index.calibrate.config import CalibrationSettings
    from index.calibrate.fit import calibrate_folder
    from index.folder.folder import open_folder
    from index.queries import QueriesJob, embed_queries
    from retrieval.data.manifest import read_manifest
    from retrieval.embed.complete import embed_manifest
    from retrieval.embed.fill import FillRun
    from retrieval.models.checkpoint import read_card

    index, card = folder / "landmarks", replace(read_card(model), image_spec=spec)
    asked = QueriesJob(
        images=demo.images, store=folder / "val.h5", engine="torch", overwrite=job.overwrite, **job.computing
    )
    stores = []
    for manifest in (demo.train, demo.background):
        if manifest.exists():
            stores.append(folder / f"{manifest.stem}.h5")
            run = FillRun(overwrite=job.overwrite)
            embed_manifest(read_manifest(manifest), demo.images, model, card, stores[-1], run=run, job=asked)
    background = tuple(stores[1:])
    lmr.build_index(
        tuple(stores[:1]),
        output=index,
        model=model,
        background=background,
        names=demo.names,
        engine="torch",
        overwrite=True,
        **job.computing,
    )
    opened = open_folder(index, device="cpu")
    settings = CalibrationSettings(precision=PRECISION, seed=job.seed)
    for text in calibrate_folder(opened, *embed_queries(demo.val, opened, asked), settings).warnings:
        job.progress.tell(f"warning: {text}")


def _evaluate(demo: "DemoSet", folder: Path, job: DemoJob) -> "EvaluationResult":
    """Evaluation on the test queries of the index in a folder, where a store keeps them embedded."""
    import lmr

    index, store = folder / "landmarks", folder / "test_solution.h5"
    return lmr.evaluate(
        demo.test_solution, index=index, images=demo.images, store=store, overwrite=job.overwrite, **job.computing
    )
