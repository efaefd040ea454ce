"""lmr train: backbone and class directions on labelled pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.network import build_network, network_options, picture_options
from cli.options import (
    MODEL,
    PATH,
    config_option,
    device_option,
    images_folder,
    images_option,
    overwrite_option,
    pick_values,
    value_options,
    warn,
    workers_option,
)
from cli.tars import index_tars
from retrieval.errors import LmrError
from retrieval.training.config import AugmentConfig, LossConfig, TrainConfig

if TYPE_CHECKING:
    from retrieval.training.loop import TrainingData

_TRAIN_HELP = {
    "epochs": "Passes over the pictures.",
    "batch_size": "Pictures in a batch.",
    "epoch_size": "Landmark pictures in an epoch. [default: all]",
    "optimizer": "What takes the steps.",
    "backbone_rate": "Peak learning rate of the backbone.",
    "head_rate": "Peak learning rate of neck and class directions.",
    "weight_decay": "Not on norms and biases.",
    "warmup": "Share of the steps in which the rates rise.",
    "clip_norm": "Largest norm of the gradient.",
    "balance": "a in n_c^-a, how often a picture of a landmark with n_c pictures is drawn.",
    "negative_share": "Share of a batch that is non-landmarks.",
    "seed": "Of all that is random.",
}
_LOSS_HELP = {
    "margin_rad": "ArcFace margin of the landmark with the most pictures, radians.",
    "margin_rare_rad": "ArcFace margin of the landmark with the fewest pictures, radians.",
    "scale": "Of the cosines before the softmax.",
    "negative_weight": "Of the non-landmarks' loss; 0 leaves them out.",
    "negative_cosine": "Non-landmarks' best class similarity is pushed below this.",
}
_AUGMENT_HELP = {"min_area": "Smallest share of a picture that a random crop keeps."}


@click.command(name="train")
@click.argument("manifest", type=PATH)
@click.option("--negatives", type=PATH, default=None, help="Manifest of non-landmarks, besides the manifest's own.")
@click.option("--val", type=PATH, default=None, help="Manifest to validate on after each epoch; keeps the best epoch.")
@click.option("--output", type=PATH, default=MODEL, show_default=True, help="Model folder to write.")
@images_option
@network_options
@picture_options
@click.option(
    "--loss",
    "name",
    type=click.Choice(["arcface", "softmax"]),
    default=LossConfig().name,
    show_default=True,
    help="What is minimised.",
)
@value_options(LossConfig(), _LOSS_HELP)
@value_options(TrainConfig(), _TRAIN_HELP)
@value_options(AugmentConfig(), _AUGMENT_HELP)
@click.option("--summary", is_flag=True, help="Print the layers with shapes and parameters; no training.")
@click.option("--tensorboard", is_flag=True, help="Also write the figures of each epoch for TensorBoard.")
@workers_option
@device_option
@config_option
@overwrite_option
def command(manifest: Path, output: Path, **values: Any) -> None:
    """Train a network on the labelled rows of MANIFEST (CSV, Parquet, or a folder or tar of folders).

    Rows without a landmark are used as negatives. A run that was stopped goes on where it was.

    \b
    Example:
      lmr train train.csv --images images --backbone mobilenet_v3_small --epochs 2 --size 96
    """
    import torch

    from cli.training import train_network

    if values["summary"]:
        print_summary(values)
        return
    data = read_training_data(manifest, values["negatives"], values["images"])
    config = pick_values(
        TrainConfig, values, loss=pick_values(LossConfig, values), augment=pick_values(AugmentConfig, values)
    )
    torch.manual_seed(values["seed"])
    model, spec = build_network(values)
    state = train_network(model, spec, data, config, output, values)
    last = state.log[-1]
    figures = "".join(f", {name} {last[name]:.3f}" for name in ("gap", "top1") if name in last)
    click.echo(
        f"{output}: trained {len(state.log)} epochs in {last['seconds']:.0f} s, loss {last['loss']:.3f}{figures}"
    )


def print_summary(values: dict[str, Any]) -> None:
    """The layers of the network that would be trained."""
    from retrieval.summary import summarise, to_text

    model, spec = build_network(values)
    click.echo(to_text(summarise(model, spec.size), model))


def read_training_data(manifest: Path, negatives: Path | None, images: Path | None) -> "TrainingData":
    """Labelled pictures of one manifest and the non-landmarks of both."""
    import hashlib

    import numpy as np

    from retrieval.manifest import read_manifest
    from retrieval.pictures import PictureSource
    from retrieval.sources import JoinedSource
    from retrieval.training.loop import TrainingData

    for place in (manifest, negatives):
        if place is not None:
            index_tars(place)
    parts = [read_manifest(manifest, on_warning=warn)]
    if not parts[0].has_labels:
        raise LmrError(f"{manifest} has no landmark_id column; training needs labels")
    folders = [images_folder(images, manifest)]
    if negatives is not None:
        parts.append(read_manifest(negatives, on_warning=warn))
        folders.append(images_folder(images, negatives))
        if (parts[1].landmark >= 0).any():
            raise LmrError(f"{negatives} has rows with a landmark_id; negatives are pictures of no known landmark")
    names = parts[0].landmarks
    landmark = np.concatenate([part.landmark for part in parts])
    used = np.unique(landmark[landmark >= 0])
    codes = np.where(landmark >= 0, np.searchsorted(used, landmark), -1).astype(np.int32)
    sources = [PictureSource(part, folder) for part, folder in zip(parts, folders, strict=True)]
    digest = hashlib.sha256(" ".join(part.digest for part in parts).encode()).hexdigest()
    joined = JoinedSource(sources, [len(part) for part in parts])
    labels = tuple(np.array(names, dtype=object)[used])
    return TrainingData(joined, codes, labels, digest)
