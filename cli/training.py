"""Training as the commands run it: progress, validation through the real vote, curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.options import images_folder, warn
from cli.progress import PictureBar, list_unreadable
from cli.reading import load_manifest
from cli.tars import index_tars
from cli.tensorboard import summary_writer, write_epoch
from cli.trained import CURVES, Trained, forget_trained
from cli.workers import default_workers
from retrieval.data.labels import require_meeting
from retrieval.errors import DamageError, LmrError
from retrieval.images.preprocess import ImageSpec
from retrieval.train.config import TrainConfig

if TYPE_CHECKING:
    from retrieval.models.network import DescriptorModel
    from retrieval.train.data import TrainingData
    from retrieval.train.distributed import Processes
    from retrieval.train.loop import Stage
    from retrieval.train.losses import LandmarkLoss
    from retrieval.train.run import Progress, Validate
    from retrieval.train.state import TrainingState

_RATE_HEADER = "backbone_rate,head_rate,loss"
N_VALIDATION_ROWS = 20_000  # training pictures in the index of a validation; more would take longer than the epoch


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stage trains on, and how."""

    data: "TrainingData"
    spec: ImageSpec
    config: TrainConfig


def train_network(
    model: "DescriptorModel",
    spec: ImageSpec,
    data: "TrainingData",
    config: TrainConfig,
    output: Path,
    values: Mapping[str, Any],
) -> "TrainingState":
    """Trains into `output` in one stage; values: as of `train_in_stages`."""
    return train_in_stages(model, [Plan(data, spec, config)], output, values)


def train_in_stages(
    model: "DescriptorModel", plans: Sequence[Plan], output: Path, values: Mapping[str, Any]
) -> "TrainingState":
    """Trains into `output`, resuming what is there; values: val, images, workers, device, threads, overwrite."""
    from retrieval.models.device import limit_threads, resolve_device
    from retrieval.parallel import is_first
    from retrieval.train.distributed import joined_processes
    from retrieval.train.loop import train_stages
    from retrieval.train.state import read_state

    if values.get("tensorboard"):
        summary_writer()  # refused now, not after the first epoch
    limit_threads(values["threads"])
    with joined_processes(resolve_device(values["device"])) as processes, PictureBar("training") as bar:
        stages = _make_stages(plans, output, values, processes, _StepBar(bar, plans))
        if is_first():
            _make_way(output, overwrite=values["overwrite"])
        processes.first_says(None)
        found = read_state(output)
        state = train_stages(model, stages)
    if is_first():
        if found is not None and found[1].epoch == len(state.log):
            _require_whole(output)
            warn(f"{output} is trained already; nothing to do")
        _tell(state, output, plans[-1].data)
    return state


def _require_whole(output: Path) -> None:
    """Raises LmrError where a finished training has lost its model since."""
    from retrieval.models.checkpoint import read_card, require_weights

    try:
        require_weights(output, read_card(output))
    except DamageError as error:
        raise LmrError(f"{output} is trained already, but is not whole: {error}; --overwrite trains anew") from error


def _make_stages(
    plans: Sequence[Plan], output: Path, values: Mapping[str, Any], processes: "Processes", bar: "_StepBar"
) -> "list[Stage]":
    from retrieval.train.loop import Stage, stage_folder
    from retrieval.train.run import Run

    workers = default_workers(values["workers"])
    stages = []
    for number, plan in enumerate(plans, start=1):
        validate, validation = None, None
        if values["val"] is not None:
            validate, validation = make_validation(
                plan.data,
                plan.spec,
                values["val"],
                values["images"],
                processes.device,
                workers,
                allow_disjoint=values.get("allow_disjoint", False),
            )
        folder = stage_folder(output, number, len(plans))
        run = Run(
            folder,
            processes.device,
            workers,
            validate,
            validation,
            on_step=partial(bar.show, number),
            on_epoch=partial(
                _tell_epoch, stage_folder(output, number, len(plans)) if values.get("tensorboard") else None
            ),
            on_warning=warn,
            processes=processes,
        )
        stages.append(Stage(plan.data, plan.spec, plan.config, run))
    return stages


def _tell_epoch(board: Path | None, row: Mapping[str, float]) -> None:
    """A line on stderr, and the figures for TensorBoard in a folder of the stage's."""
    warn("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    if board is not None:
        write_epoch(board / "tensorboard", row)


class _StepBar:
    """One bar over the steps of all stages. begins: pictures before each stage, and in all."""

    def __init__(self, bar: PictureBar, plans: Sequence[Plan]) -> None:
        self.bar, self.plans = bar, plans
        self.begins: list[int] = []
        self.n_shown = 0

    def show(self, number: int, progress: "Progress") -> None:
        """A step of the stage of this number was taken."""
        config = self.plans[number - 1].config
        if not self.begins:
            self.begins = self._measure()
            self.bar.begin(self.begins[-1])
        n_steps = progress.epoch * progress.n_steps + progress.step
        n_done = self.begins[number - 1] + n_steps * config.batch_size * config.accumulate
        self.bar.add(n_done - self.n_shown)
        self.n_shown = n_done
        stage = f"stage {number}/{len(self.plans)}, " if len(self.plans) > 1 else ""
        self.bar.note(f"{stage}epoch {progress.epoch + 1}/{config.epochs}, loss {progress.loss:.3f}")

    def _measure(self) -> list[int]:
        from retrieval.train.loader import count_steps

        begins = [0]
        for plan in self.plans:
            n_steps = count_steps(plan.data, plan.config) * plan.config.epochs
            begins.append(begins[-1] + n_steps * plan.config.batch_size * plan.config.accumulate)
        return begins


def _tell(state: "TrainingState", output: Path, data: "TrainingData") -> None:
    """Lists what could not be read, and draws the curves."""
    from cli.report.curves import save_training_curves
    from retrieval.train.state import LOG_NAME

    unreadable = trained_of(state, data).unreadable
    list_unreadable(unreadable, len(unreadable), len(data.landmark))
    try:
        save_training_curves(output / LOG_NAME, output / CURVES)
    except LmrError as error:
        warn(f"no picture of the curves: {error}")


def trained_of(state: "TrainingState", data: "TrainingData") -> Trained:
    """What a finished training tells. data: of the last stage."""
    ids = data.image_id
    unreadable = {str(ids[row]) if ids else f"row {row}": reason for row, reason in state.unreadable.items()}
    return Trained([dict(row) for row in state.log], unreadable)


def find_rates(model: "DescriptorModel", plan: Plan, picture: Path, values: Mapping[str, Any]) -> str:
    """Draws the loss at rising learning rates, with a CSV of the same name beside; the suggestion as text.

    picture: as `rate_table` takes it.
    """
    from cli.report.plots import plot_rates, to_png
    from retrieval.files.atomic import write_bytes
    from retrieval.models.device import limit_threads, resolve_device
    from retrieval.train.lr_finder import find_rate
    from retrieval.train.run import Run

    limit_threads(values["threads"])
    run = Run(picture.parent, resolve_device(values["device"]), default_workers(values["workers"]))
    found = find_rate(model, plan.data, plan.spec, plan.config, run)
    backbone, head = plan.config.backbone_rate, plan.config.head_rate
    lines = [
        f"{share * backbone:g},{share * head:g},{loss:g}" for share, loss in zip(found.share, found.loss, strict=True)
    ]
    table = rate_table(picture)
    write_bytes(table, ("\n".join([_RATE_HEADER, *lines]) + "\n").encode())
    write_bytes(picture, to_png(plot_rates((found.share * head).tolist(), found.loss.tolist(), found.best * head)))
    return f"{picture}, {table}: --backbone-rate {found.best * backbone:.2g} --head-rate {found.best * head:.2g}"


def rate_table(picture: Path) -> Path:
    """The CSV beside the picture of a search for a rate. LmrError: not a PNG, or something else has that name."""
    if picture.suffix.lower() != ".png":
        raise LmrError(f"--find-rate {picture}: it is drawn as a PNG; give a name that ends in .png")
    table = picture.with_suffix(".csv")
    if table.exists() and not table.read_bytes().startswith(_RATE_HEADER.encode()):
        raise LmrError(f"--find-rate {picture}: its table would replace {table}; give another name")
    return table


def make_validation(
    data: "TrainingData",
    spec: ImageSpec,
    val: Path,
    images: Path | None,
    device: Any,
    workers: int,
    *,
    allow_disjoint: bool = False,
) -> "tuple[Validate, str]":
    """A function that gives the GAP and top-1 of a network on the validation manifest, and the manifest's digest.

    A linear head answers by its classes, since its features are not made for cosines; others by the default vote.
    """
    from retrieval.images.source import PictureSource

    index_tars(val)
    manifest = load_manifest(val)
    queries = PictureSource(manifest, images_folder(images, val))
    truth = [frozenset(manifest.landmarks[code] for code in manifest.truths(i)) for i in range(len(manifest))]
    if not any(truth):
        raise LmrError(f"--val {val}: no row has a landmark_id; validation needs labelled pictures")
    if not allow_disjoint:
        require_meeting(manifest.landmarks, data.labels, (f"--val {val}", "the training data"))
    rows = np.sort(np.random.default_rng(0).permutation(np.flatnonzero(data.landmark >= 0))[:N_VALIDATION_ROWS])

    def by_vote(model: "DescriptorModel") -> tuple[Any, Any, Any]:
        from index.search.flat import FlatIndex
        from index.vote import VoteRule, best, vote
        from retrieval.embed.torch_embedder import Embedder

        embedder = Embedder(model, spec, device, n_workers=workers)
        index_rows, vectors = embedder.embed_all(data.source, rows)
        query_rows, descriptors = embedder.embed_all(queries, np.arange(len(manifest)))
        neighbours = FlatIndex.build(vectors).search(descriptors, VoteRule().k)
        return query_rows, *best(vote(neighbours, data.landmark[index_rows], VoteRule()), len(query_rows))

    def by_class(model: "DescriptorModel", head: Any) -> tuple[Any, Any, Any]:
        import torch

        from retrieval.train.classifier import Classifier, RawEmbedder

        embedder = RawEmbedder(model, spec, device, n_workers=workers)
        query_rows, features = embedder.embed_all(queries, np.arange(len(manifest)))
        classifier = Classifier(head, data.labels, "raw")
        sure, answer = classifier.probabilities(torch.from_numpy(features).to(device)).max(dim=1)
        return query_rows, answer.cpu().numpy(), sure.cpu().numpy()

    def validate(model: "DescriptorModel", loss: "LandmarkLoss") -> Mapping[str, float]:
        from index.metrics import gap

        query_rows, answer, score = by_class(model, loss.head()) if loss.config.name == "linear" else by_vote(model)
        right = np.array([data.labels[a] in truth[row] for a, row in zip(answer, query_rows, strict=True)], dtype=bool)
        n_landmark_queries = sum(map(bool, truth))
        figure = gap(score, right, n_landmark_queries, manifest.image_id[query_rows])
        return {"gap": figure, "top1": float(right.sum()) / n_landmark_queries}

    return validate, manifest.digest


def _make_way(output: Path, *, overwrite: bool) -> None:
    """Refuses a model that another run made; with `overwrite` the training starts afresh."""
    from retrieval.models.card import CARD, STATE_NAME, require_no_strangers

    if overwrite:
        forget_trained(output)
        for folder in (output, *output.glob("stage-*")):
            for old in (folder / STATE_NAME, *folder.glob("features-*")):  # whose pictures may be others by now
                old.unlink(missing_ok=True)
    elif (output / CARD).exists() and not (output / STATE_NAME).exists():
        raise LmrError(f"{output} holds a model already; give --overwrite or another --output")
    else:
        require_no_strangers(output)
