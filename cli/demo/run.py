"""Walk of the demo: a small set of landmarks, trained on, indexed, calibrated, evaluated and asked about."""

from contextlib import chdir
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.terminal import warn_lines
from retrieval.device_name import require_one_device
from retrieval.files.lock import output_locks
from retrieval.images.spec import MOST_PIXELS
from retrieval.jobs import ComputingJob, WritingJob, option
from retrieval.models.packaged import EXTRA, LITE2
from retrieval.models.request import NetworkRequest, PreparationRequest
from retrieval.parallel import count_workers
from retrieval.train.config import AugmentConfig, TrainConfig
from retrieval.train.loss_config import LossConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.demo.scenes import DemoSet
    from index.evaluate.result import EvaluationResult
    from retrieval.images.spec import ImageSpec

SIZE = 64  # pixels: the rendered details survive it, and training takes one to four minutes on two cores
EPOCHS = 26
# Random crops show things larger in training than they are when images are embedded (Touvron et al., Fixing the
# train-test resolution discrepancy, 2019); the ratio is that of docs/benchmarks.md, 288 pixels after training at 224.
EMBEDDED_LARGER = 9 / 7
BACKBONE = "resnet18"
LAST_LAYER, WHOLE_FROM = "layer3", 128  # below these pixels layer4 has a map of less than 4 x 4 left
# One's own pictures with the weights of a package: a few passes over its last blocks, which did better on a thousand
# pictures than training all of them (docs/training.md) and take half the time.
OWN_SIZE, OWN_EPOCHS, OWN_FREEZE = 224, 10, "5"
# From random weights: higher rates, and a milder loss than fine-tuning takes.
FROM_SCRATCH = TrainConfig(
    backbone_rate=1.5e-3,
    head_rate=1e-2,
    weight_decay=0.02,
    loss=LossConfig(margin_rad=0.1, margin_rare_rad=0.2, scale=16.0, negative_weight=0.5),
    augment=AugmentConfig(
        flip=0.0, greyscale=0.0, brightness=0.4, saturation=0.4, hue=0.0
    ),  # no rendered landmark is ever seen mirrored
)
PRECISION = 0.9  # of few hundred held-out images hardly one in three is surely right in 95 of 100 cases
N_SHOWN = 4  # queries on the sheet
STORES = ("train.h5", "val.h5", "background.h5", "test_solution.h5", "test.h5")
OUTPUTS = ("model", "untrained", "landmarks", *STORES, "report.html", "sheet.jpg", "submission.csv")  # beside manifests


@dataclass(frozen=True, kw_only=True)
class DemoNetwork(NetworkRequest):
    """The network of the demo: a small one."""

    backbone: str = option(
        "",
        default_text=f"{BACKBONE}; with images {LITE2} where the extra {EXTRA} is installed",
        help=f"{LITE2}, any torchvision classification network, timm:NAME, plain-cnn or plain-mlp.",
    )
    n_dimensions: int = option(128, help="Length of a descriptor; 0 = the pooled features, without a neck.")

    @property
    def is_from_scratch(self) -> bool:
        """True where it starts from random weights."""
        return not (self.weights or self.pretrained or self.packaged)

    def for_size(self, size: int) -> "DemoNetwork":
        """The network for inputs of this size: ours ends at layer3 where it is trained from scratch on small ones."""
        own = self.backbone == BACKBONE and self.is_from_scratch and size < WHOLE_FROM
        return replace(self, last_layer=self.last_layer or (LAST_LAYER if own else None))


@dataclass(frozen=True)
class DemoJob(ComputingJob, WritingJob):
    """Make a small set of landmarks and run everything on it. images: None = landmarks are rendered."""

    directory: Path = option(Path("lmr-demo"), is_argument=True)
    _: KW_ONLY
    images: Path | None = option(None, help="Your own images, FOLDER/<landmark>/<image> or a tar, instead.")
    seed: int = option(0, help="Random seed of the landmarks, the split and the training.")
    epochs: int | None = option(
        None, low=1, default_text=f"{EPOCHS}; {OWN_EPOCHS} with {LITE2}", help="Passes over the images."
    )
    size: int | None = option(
        None,
        low=16,
        high=MOST_PIXELS,
        default_text=f"{SIZE}; {OWN_SIZE} with {LITE2}",
        help="Side of the input in pixels.",
    )
    network: DemoNetwork = field(default_factory=DemoNetwork)
    serve: bool = option(False, help="Serve the page of what was made in the end, until Ctrl-C.")

    def __post_init__(self) -> None:
        """Raises LmrError for several GPUs at once."""
        super().__post_init__()
        require_one_device(self.device, "the demo trains too, so give it one")

    @property
    def computing(self) -> dict[str, Any]:
        """Words of each step: how it computes, and who is told of it."""
        return {word: getattr(self, word) for word in ("device", "threads", "workers", "wait", "progress")}

    def settled(self) -> "Training":
        """What is run: a small network from scratch, or lite2 for one's own images where that is installed."""
        network = self.network if self.images is None else self.network.named(self.progress)
        if not self.network.backbone and (self.images is None or network.packaged is None):
            network = replace(network, backbone=BACKBONE)
        is_packaged = network.packaged is not None
        size = self.size or (OWN_SIZE if is_packaged else SIZE)
        config = TrainConfig(freeze=OWN_FREEZE) if is_packaged else TrainConfig()
        config = FROM_SCRATCH if network.is_from_scratch else config
        epochs = self.epochs or (OWN_EPOCHS if is_packaged else EPOCHS)
        return Training(network.for_size(size), size, replace(config, epochs=epochs, seed=self.seed))

    def step(self, text: str) -> None:
        """Tells which step begins."""
        self.progress.tell(f"-- {text}")


@dataclass(frozen=True, slots=True)
class Training:
    """What a demo trains, on images of which size, and how."""

    network: DemoNetwork
    size: int
    config: TrainConfig


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a demo: GAP and top-1 on its test queries, trained and untrained; paths of what it made."""

    gap: float
    top1: float
    untrained_gap: float
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
        job = replace(job, images=job.images.resolve() if job.images else None)
        if job.images is not None:
            index_tars(images_place(job.images), job.progress)
        job.directory.mkdir(parents=True, exist_ok=True)
        with chdir(job.directory):
            return walk(prepare_images(job), job)


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


def walk(demo: "DemoSet", job: DemoJob) -> Outcome:
    """Trains to submission in the working folder."""
    import lmr
    from cli.report.answers import save_answers
    from cli.report.evaluation import write_report
    from cli.report.text import answer_text, evaluation_text, submission_text

    report, sheet, submission = Path("report.html"), Path("sheet.jpg"), Path("submission.csv")
    training = job.settled()
    job.step("training a network from scratch" if training.network.is_from_scratch else "training")
    spec = _train(demo, training, job)
    job.step("the same network untrained, for comparison")
    untrained_gap = _measure_untrained(demo, training, spec, job)
    job.step("descriptors, index, calibration")
    index = _index(demo, Path("model"), spec, Path(), job)
    job.step("evaluating on the test pictures")
    measured = _evaluate(demo, index, Path("test_solution.h5"), job)
    for text in measured.warnings:
        job.progress.tell(f"warning: {text}")
    warn_lines(evaluation_text(measured.to_json()))
    write_report(report, measured)
    job.step("asking about pictures, and writing a submission")
    asked = [str(measured.queries.path[row]) for row in across_landmarks(measured.queries.landmarks.tolist(), N_SHOWN)]
    found = lmr.open_index(index, device=job.device, threads=job.threads).query(asked)
    warn_lines("\n\n".join(answer_text(answer) for answer in found))
    job.progress.tell(save_answers(sheet, found, index))
    written = lmr.submit(demo.test, index=index, images=demo.images, output=submission, overwrite=True, **job.computing)
    job.progress.tell(submission_text(written))
    accuracy = measured.evaluation.accuracy
    return Outcome(accuracy.gap, accuracy.top1, untrained_gap, report, sheet, submission)


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


def _train(demo: "DemoSet", training: Training, job: DemoJob) -> "ImageSpec":
    """Trains a network; returns how images are prepared when it embeds them."""
    import lmr
    from cli.report.plots import draw_curves
    from retrieval.models.checkpoint import load_model

    folder = Path("model")
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
    """GAP on the test queries of the network that training began with, through the same steps.

    One that has weights goes without a neck: a random one would only lose.
    """
    from retrieval.models.checkpoint import CARD, save_model
    from retrieval.models.device import seeded

    folder = Path("untrained")
    folder.mkdir(exist_ok=True)
    if job.overwrite or not (folder / "model" / CARD).exists():
        network = training.network
        network = network if network.is_from_scratch else replace(network, n_dimensions=0)
        with seeded(job.seed):
            model, made_for = network.build(PreparationRequest(size=training.size))
        save_model(folder / "model", model, made_for, made_by={"training": None})
    index = _index(demo, folder / "model", spec, folder, job)
    return _evaluate(demo, index, folder / "test.h5", job).evaluation.accuracy.gap


def _index(demo: "DemoSet", model: Path, spec: "ImageSpec", folder: Path, job: DemoJob) -> Path:
    """The calibrated index of a model and a preparation in a folder, with the stores that it is built from."""
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
    return index


def _evaluate(demo: "DemoSet", index: Path, store: Path, job: DemoJob) -> "EvaluationResult":
    """Evaluation on the test queries, which the store keeps embedded."""
    import lmr

    return lmr.evaluate(
        demo.test_solution, index=index, images=demo.images, store=store, overwrite=job.overwrite, **job.computing
    )
