"""What `lmr demo` is asked for, and what it trains."""

from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

from retrieval.device_name import require_one_device
from retrieval.images.spec import MOST_PIXELS
from retrieval.jobs import ComputingJob, WritingJob, option
from retrieval.models.packaged import EXTRA, LITE2
from retrieval.models.request import NetworkRequest
from retrieval.train.config import AugmentConfig, TrainConfig
from retrieval.train.loss_config import LossConfig

SIZE = 64  # pixels: the rendered details survive it, and training takes one to four minutes on two cores
EPOCHS = 26
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

    @property
    def may_lose(self) -> bool:
        """True where the network may answer better as it comes: few images can spoil one that was trained on many."""
        return not self.network.is_from_scratch
