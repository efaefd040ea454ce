"""lmr train: backbone and class directions on labelled pictures."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from cli.network import build_network, network_options, picture_options
from cli.options import (
    MODEL,
    PATH,
    allow_disjoint_option,
    device_option,
    given_options,
    images_folder,
    images_option,
    overwrite_option,
    pick_values,
    read_stages,
    staged_config_option,
    value_options,
    workers_option,
    writes,
)
from cli.reading import load_manifest
from cli.tars import index_tars
from cli.terminal import say, say_lines
from retrieval.errors import LmrError
from retrieval.extras import require_extra
from retrieval.train.config import (
    AugmentConfig,
    BalanceConfig,
    DistillationConfig,
    LossConfig,
    LossName,
    TrainConfig,
)
from retrieval.words import counted

if TYPE_CHECKING:
    from cli.training import Plan
    from retrieval.models.network import DescriptorModel
    from retrieval.train.data import TrainingData

_TRAIN_HELP = {
    "epochs": "Passes over the pictures.",
    "batch_size": "Pictures in a batch.",
    "accumulate": "Batches over which one step is taken, as over one so many times as large.",
    "epoch_size": "Landmark pictures in an epoch. [default: all]",
    "freeze": "Of the backbone: none, all, or N for all but the last N blocks.",
    "plain_pictures": "Train on pictures as they are embedded, not varied; with --freeze all they are described once.",
    "optimizer": "What takes the steps.",
    "backbone_rate": "Peak learning rate of the backbone.",
    "head_rate": "Peak learning rate of neck and class directions.",
    "schedule": "How the rates fall after the warm-up; plateau: when GAP, or without --val the loss, gets no better.",
    "warmup": "Share of the steps in which the rates rise.",
    "rate_drop": "Factor of the schedules step and plateau.",
    "rate_drop_epochs": "Epochs between drops (step), or without a better one before a drop (plateau).",
    "weight_decay": "Not on norms and biases.",
    "clip_norm": "Largest norm of the gradient.",
    "ema": "Keep and validate a running average of the weights, such as 0.999; 0: the weights themselves.",
    "patience": "Stop after so many epochs without a larger GAP (needs --val); 0: never.",
    "precision": "Number format of the network; auto: what the device is fast in.",
    "compile": "Compile the backbone first (torch.compile).",
    "seed": "Of all that is random.",
}
_LOSS_HELP = {
    "margin": "How ArcFace's margins are chosen: by the count of a landmark's pictures, between two bounds; the same "
    "for all; by count, 0.05 to 0.5 rad; or by the length of a picture's features.",
    "margin_rad": "ArcFace margin of the landmark with the most pictures, radians; of all when fixed or adaptive.",
    "margin_rare_rad": "ArcFace margin of the landmark with the fewest pictures, radians.",
    "margin_cos": "CosFace margin, subtracted from the cosine.",
    "n_centres": "Directions of one landmark; 3 is sub-center ArcFace.",
    "scale": "Of the cosines before the softmax.",
    "label_smoothing": "Share of a softmax's target that all landmarks have alike.",
    "head_hidden": "Units of the linear head's hidden layer; 0 has none.",
    "dropout": "Share of the inputs of the linear head's last layer that are dropped.",
    "class_share": "Share of the landmarks that a step compares with, those of its batch among them.",
    "contrastive_cosine": "Contrastive: pictures of different landmarks are pushed below this cosine.",
    "triplet_margin": "Triplet: between the cosines of pictures of one landmark and of different ones.",
    "miner": "Which pairs of the batch count: contrastive, triplet, multi-similarity.",
    "background": "Non-landmarks are pushed away from every landmark, or are one class that is learnt.",
    "negative_weight": "Of the non-landmarks' loss; 0 leaves them out.",
    "negative_cosine": "Non-landmarks' best class similarity is pushed below this.",
}
_AUGMENT_HELP = {
    "min_area": "Smallest share of a picture that a random crop keeps.",
    "flip": "Probability of a mirror image.",
    "brightness": "Factor from 1 - this to 1 + this.",
    "contrast": "Factor from 1 - this to 1 + this.",
    "saturation": "Factor from 1 - this to 1 + this.",
    "hue": "Up to this share of the colour circle either way.",
    "greyscale": "Probability of grey.",
    "rotation": "Up to this many degrees either way.",
    "shift": "Up to this share of the side, in both directions.",
    "zoom": "Scale from 1 - this to 1 + this.",
    "blur": "Probability of a Gaussian blur.",
    "jpeg": "Probability of JPEG compression.",
    "erasing": "Probability of an erased rectangle.",
    "cutmix": "Probability that in a batch rectangles are swapped, labels with them; with --loss softmax or linear.",
}
_BALANCE_HELP = {
    "balance": "a in n_c^-a, how often a picture of a landmark with n_c pictures is drawn.",
    "negative_share": "Share of a batch that is non-landmarks.",
    "cap": "Pictures of a landmark at most, a random subset for all epochs; 0 = all.",
    "member": "Which random subset --cap takes, one for each network of an ensemble.",
    "floor": "Landmarks with fewer pictures repeat them up to this many in an epoch, each time altered anew.",
    "min_per_landmark": "Fewer pictures make a rare landmark.",
    "rare": "What the pictures of rare landmarks become.",
    "per_landmark": "Pictures of a landmark together in a batch, for losses over pairs; 0 = as they come.",
}

_DISTILLATION_HELP = {
    "distill_cosine": "With --teacher: weight of the cosine to its descriptors.",
    "distill_relations": "With --teacher: weight of the cosines between all pictures of a batch.",
}

_STAGE_HELP = _TRAIN_HELP | _LOSS_HELP | _BALANCE_HELP | _AUGMENT_HELP
_STAGE_KEYS = {name.replace("_", "-") for name in _STAGE_HELP} | {"data", "negatives", "loss", "size", "fit"}


def _outputs(given: Mapping[str, Any]) -> list[Path]:
    """What is written instead of a model, or the model; nothing by others than the first process of torchrun."""
    from cli.training import rate_table
    from retrieval.parallel import is_first

    picture: Path | None = given["find_rate"]
    if given["summary"] or not is_first():
        return []
    if picture is not None:
        return [picture, rate_table(picture)]
    return [given["show_batch"] or given["output"]]


@click.command(name="train")
@click.argument("manifest", type=PATH)
@click.option("--negatives", type=PATH, default=None, help="Manifest of non-landmarks, besides the manifest's own.")
@click.option("--val", type=PATH, default=None, help="Manifest to validate on after each epoch; keeps the best epoch.")
@click.option("--output", type=PATH, default=MODEL, show_default=True, help="Model folder to write.")
@allow_disjoint_option
@images_option
@network_options
@picture_options
@click.option(
    "--loss",
    "name",
    type=click.Choice(get_args(LossName)),
    default=LossConfig().name,
    show_default=True,
    help="What is minimised.",
)
@value_options(LossConfig(), _LOSS_HELP)
@value_options(TrainConfig(), _TRAIN_HELP)
@value_options(BalanceConfig(), _BALANCE_HELP)
@value_options(AugmentConfig(), _AUGMENT_HELP)
@click.option(
    "--teacher",
    type=PATH,
    multiple=True,
    help="Store of a larger model or an ensemble whose descriptors are imitated; several with all training pictures.",
)
@value_options(DistillationConfig(), _DISTILLATION_HELP)
@click.option(
    "--show-batch",
    type=PATH,
    default=None,
    help="Write a sheet of the first batch as the network sees it; no training.",
)
@click.option("--summary", is_flag=True, help="Print the layers with shapes and parameters; no training.")
@click.option("--tensorboard", is_flag=True, help="Also write the figures of each epoch for TensorBoard.")
@workers_option
@device_option
@staged_config_option(_STAGE_KEYS)
@click.option(
    "--find-rate",
    type=PATH,
    default=None,
    metavar="PNG",
    help="Train nothing: draw the loss at rising learning rates, and suggest one.",
)
@overwrite_option
@writes(_outputs)
def command(manifest: Path, output: Path, **values: Any) -> None:
    """Train a network on the labelled rows of MANIFEST (CSV, Parquet, or a folder or tar of folders).

    Rows without a landmark are used as negatives. A run that was stopped goes on where it was. The file of --config may
    end in [[stage]] tables: each is trained from the last one's weights, with its own values of the options from
    --epochs on, its own size and data. On several GPUs: torchrun --no-python --nproc-per-node N lmr train ...

    \b
    Example:
      lmr train train.csv --images images --backbone mobilenet_v3_small --epochs 2 --size 96
    """
    from cli.report.sheet import sheet_format
    from cli.show_batch import show_batch
    from cli.trained import find_trained, record_trained, tell_end, tell_trained_already, training_request
    from cli.training import find_rates, rate_table, train_in_stages, trained_of
    from retrieval.parallel import is_first

    if values["summary"]:
        print_summary(values)
        return
    if values["find_rate"] is not None:
        rate_table(values["find_rate"])  # refused now, not after the search
        require_extra(f"--find-rate {values['find_rate']}", "report", "matplotlib")
    sheet: Path | None = values["show_batch"]
    if sheet is not None:
        sheet_format(sheet)
    asked, configs, sets = _read_stages(manifest, values)
    request = training_request(asked, sets)
    trains = sheet is None and values["find_rate"] is None
    if trains and not values["overwrite"] and (found := find_trained(output, request)) is not None:
        tell_trained_already(output, found, len(sets[-1].landmark))
        return
    model, plans = _plan(asked, configs, sets)
    if sheet is not None:
        n_shown = show_batch(sheet, plans[0].data, plans[0].spec, plans[0].config)
        say(f"{sheet}: {counted(n_shown, 'picture')} of the first batch; nothing was trained")
        return
    if values["find_rate"] is not None:
        say(find_rates(model, plans[0], values["find_rate"], values))
        return
    trained = trained_of(train_in_stages(model, plans, output, values), sets[-1])
    if is_first():
        record_trained(output, request, trained)
        tell_end(output, trained)


def _read_stages(
    manifest: Path, values: Mapping[str, Any]
) -> "tuple[list[dict[str, Any]], list[TrainConfig], list[TrainingData]]":
    """The options of each stage, how it trains and on what: all that is checked and read before a network is made."""
    from cli.network import require_network

    stages = read_stages() or [{}]
    asked = [{**values, "manifest": manifest, **stage} for stage in stages]
    configs = [training_config(stage) for stage in asked]
    for stage, config in zip(stages, configs, strict=True):
        require_used(config, stage or given_options(), values["teacher"])
    require_network(values)
    kinds = [(*_files(stage), config.sampling) for stage, config in zip(asked, configs, strict=True)]
    sets = {
        (rows, others, rule): read_training_data(rows, others, values["images"], rule, values["teacher"])
        for rows, others, rule in dict.fromkeys(kinds)
    }
    return asked, configs, [sets[kind] for kind in kinds]


def _plan(
    asked: Sequence[Mapping[str, Any]], configs: Sequence[TrainConfig], sets: "Sequence[TrainingData]"
) -> "tuple[DescriptorModel, list[Plan]]":
    """The network, and what each stage trains it on and how."""
    import torch

    from cli.network import adjust_spec
    from cli.training import Plan

    torch.manual_seed(asked[0]["seed"])
    model, spec = build_network(asked[0])
    return model, [
        Plan(data, adjust_spec(spec, stage), config) for data, stage, config in zip(sets, asked, configs, strict=True)
    ]


def _files(stage: Mapping[str, Any]) -> tuple[Path, Path | None]:
    return stage["manifest"], stage["negatives"]


def training_config(stage: Mapping[str, Any]) -> TrainConfig:
    """How one stage is trained. LmrError for values that do not go together. stage: every option by its name."""
    return pick_values(
        TrainConfig,
        stage,
        loss=pick_values(LossConfig, stage),
        augment=pick_values(AugmentConfig, stage),
        sampling=pick_values(BalanceConfig, stage),
        distillation=pick_values(DistillationConfig, stage),
    )


def require_used(config: TrainConfig, given: Iterable[str], teachers: Sequence[Path]) -> None:
    """LmrError when one of these parameters was given in vain."""
    config.loss.require_used(given)
    for name in given:
        if name in _DISTILLATION_HELP and not teachers:
            raise LmrError(f"--{name.replace('_', '-')} goes with --teacher, a store of descriptors to imitate")


def print_summary(values: dict[str, Any]) -> None:
    """The layers of the network that would be trained."""
    from retrieval.models.summary import summarise, to_text

    model, spec = build_network(values)
    say_lines(to_text(summarise(model, spec.size), model))


def read_training_data(
    manifest: Path,
    negatives: Path | None,
    images: Path | None,
    rule: BalanceConfig | None = None,
    teachers: Sequence[Path] = (),
) -> "TrainingData":
    """Labelled pictures of one manifest, without landmarks that are too rare, and the non-landmarks of both.

    teachers: stores whose descriptors of these pictures are to be imitated.
    """
    import hashlib

    import numpy as np

    from retrieval.data.seen import record_seen
    from retrieval.images.bytes_source import JoinedSource
    from retrieval.images.source import PictureSource
    from retrieval.split.roles import without_rare
    from retrieval.train.data import TrainingData
    from retrieval.train.teacher import open_teacher

    for place in (manifest, negatives):
        if place is not None:
            index_tars(place)
    parts = [load_manifest(manifest)]
    if not parts[0].has_labels:
        raise LmrError(f"{manifest} has no landmark_id column; training needs labels")
    if rule is not None and rule.min_per_landmark:
        parts = [without_rare(parts[0], rule.min_per_landmark, rule.rare)]
    folders = [images_folder(images, manifest)]
    if negatives is not None:
        parts.append(load_manifest(negatives, is_background=True))
        folders.append(images_folder(images, negatives))
        if (parts[1].landmark >= 0).any():
            raise LmrError(f"{negatives} has rows with a landmark_id; negatives are pictures of no known landmark")
        both = np.intersect1d(parts[0].image_id, parts[1].image_id)
        if teachers and len(both):
            raise LmrError(
                f"{negatives}: {both[0]} is in {manifest} too; --teacher finds pictures by their ids, so give one of "
                "them another"
            )
    names = parts[0].landmarks
    landmark = np.concatenate([part.landmark for part in parts])
    used = np.unique(landmark[landmark >= 0])
    codes = np.where(landmark >= 0, np.searchsorted(used, landmark), -1).astype(np.int32)
    sources = [PictureSource(part, folder) for part, folder in zip(parts, folders, strict=True)]
    digest = hashlib.sha256(" ".join(part.digest for part in parts).encode()).hexdigest()
    joined = JoinedSource(sources, [len(part) for part in parts])
    labels = tuple(np.array(names, dtype=object)[used])
    image_id = tuple(name for part in parts for name in part.image_id)
    teacher = open_teacher(teachers, np.array(image_id, dtype=object)) if teachers else None
    record = record_seen(image_id, [labels[code] if code >= 0 else "" for code in codes])
    return TrainingData(joined, codes, labels, digest, image_id, teacher, record)
