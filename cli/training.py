"""Training as the commands run it: progress, validation through the real vote, curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.options import images_folder, warn
from cli.progress import PictureBar, list_unreadable
from cli.tars import index_tars
from cli.tensorboard import summary_writer, write_epoch
from retrieval.errors import LmrError
from retrieval.images import ImageSpec
from retrieval.training.config import TrainConfig

if TYPE_CHECKING:
    from retrieval.model import DescriptorModel
    from retrieval.training.loop import Progress, TrainingData, Validate
    from retrieval.training.state import TrainingState

N_VALIDATION_ROWS = 20_000  # training pictures in the index of a validation; more would take longer than the epoch


def train_network(
    model: "DescriptorModel",
    spec: ImageSpec,
    data: "TrainingData",
    config: TrainConfig,
    output: Path,
    values: Mapping[str, Any],
) -> "TrainingState":
    """Trains into `output`, resuming what is there; values: val, images, workers, device, threads, overwrite."""
    from cli.report.curves import save_training_curves
    from retrieval.device import limit_threads, resolve_device
    from retrieval.training.loop import Run, train
    from retrieval.training.state import LOG_NAME, read_state

    if values.get("tensorboard"):
        summary_writer()  # refused now, not after the first epoch
    limit_threads(values["threads"])
    device = resolve_device(values["device"])
    workers = default_workers(values["workers"])
    validate = None
    if values["val"] is not None:
        validate = make_validation(data, spec, values["val"], values["images"], device, workers)
    _make_way(output, overwrite=values["overwrite"])
    found = read_state(output)
    with PictureBar("training") as bar:
        started = False

        def on_step(progress: "Progress") -> None:
            nonlocal started
            if not started:
                bar.begin(progress.n_steps * config.epochs * config.batch_size)
                bar.add((progress.epoch * progress.n_steps + progress.step - 1) * config.batch_size)
                started = True
            bar.add(config.batch_size)
            bar.note(f"epoch {progress.epoch + 1}/{config.epochs}, loss {progress.loss:.3f}")

        def on_epoch(row: Mapping[str, float]) -> None:
            warn("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
            if values.get("tensorboard"):
                write_epoch(output / "tensorboard", row)

        state = train(model, data, spec, config, Run(output, device, workers, validate, on_step, on_epoch))
    if found is not None and found[1].epoch == len(state.log):
        warn(f"{output} is trained already; nothing to do")
    list_unreadable(
        {str(row): reason for row, reason in state.unreadable.items()}, len(state.unreadable), len(data.landmark)
    )
    try:
        save_training_curves(output / LOG_NAME, output / "training.png")
    except LmrError as error:
        warn(f"no picture of the curves: {error}")
    return state


def make_validation(
    data: "TrainingData", spec: ImageSpec, val: Path, images: Path | None, device: Any, workers: int
) -> "Validate":
    """A function that gives the GAP and top-1 of a network on the validation manifest, by the default vote."""
    from retrieval.manifest import read_manifest
    from retrieval.pictures import PictureSource

    index_tars(val)
    manifest = read_manifest(val, on_warning=warn)
    queries = PictureSource(manifest, images_folder(images, val))
    truth = [frozenset(manifest.landmarks[code] for code in manifest.truths(i)) for i in range(len(manifest))]
    if not any(truth):
        raise LmrError(f"--val {val}: no row has a landmark_id; validation needs labelled pictures")
    rows = np.sort(np.random.default_rng(0).permutation(np.flatnonzero(data.landmark >= 0))[:N_VALIDATION_ROWS])

    def validate(model: "DescriptorModel") -> Mapping[str, float]:
        from index.metrics import gap
        from index.search import FlatIndex
        from index.voting import VoteRule, best, vote
        from retrieval.embedding import Embedder

        embedder = Embedder(model, spec, device, n_workers=workers)
        index_rows, vectors = embedder.embed_all(data.source, rows)
        query_rows, descriptors = embedder.embed_all(queries, np.arange(len(manifest)))
        landmark = data.landmark[index_rows]
        neighbours = FlatIndex.build(vectors).search(descriptors, VoteRule().k)
        answer, score = best(vote(neighbours, landmark, VoteRule()), len(query_rows))
        right = np.array([data.labels[a] in truth[row] for a, row in zip(answer, query_rows, strict=True)], dtype=bool)
        n_landmark_queries = sum(map(bool, truth))
        figure = gap(score, right, n_landmark_queries, manifest.image_id[query_rows])
        return {"gap": figure, "top1": float(right.sum()) / n_landmark_queries}

    return validate


def default_workers(asked: int | None) -> int:
    """As many as asked for, else one for each core this process may use."""
    import os

    if asked is not None:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make_way(output: Path, *, overwrite: bool) -> None:
    """Refuses a model that another run made; with `overwrite` the training starts afresh."""
    from retrieval.training.state import STATE_NAME

    if overwrite:
        if (output / STATE_NAME).exists():
            (output / STATE_NAME).unlink()
    elif (output / "model.json").exists() and not (output / STATE_NAME).exists():
        raise LmrError(f"{output} holds a model already; give --overwrite or another --output")
