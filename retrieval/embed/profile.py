"""Profile of an embedding: where its time went, and what it ran at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Of an image, in the threads that decode; then of a batch, one after the other in the thread that computes.
OF_IMAGES = ("read", "decode", "resize")
WAIT = "wait"  # of the thread that computes, for images
OF_BATCHES = (WAIT, "transfer", "forward", "write")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage. seconds: in all of its n_threads together. share: of the time of these threads.

    rate: images a second if there were nothing else, None where there was no image.
    """

    name: str
    seconds: float
    n_threads: int
    share: float
    rate: float | None


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time went. wall_s: from the first image to the finished store. bound: what decided the rate."""

    n_images: int
    wall_s: float
    stages: tuple[Stage, ...]
    bound: str

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.n_images / self.wall_s if self.wall_s else 0.0

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        stages = {
            stage.name: {
                "seconds": stage.seconds,
                "threads": stage.n_threads,
                "share": stage.share,
                "images_per_s": stage.rate,
            }
            for stage in self.stages
        }
        totals = {"images": self.n_images, "seconds": self.wall_s, "images_per_s": self.rate}
        return {**totals, "bound": self.bound, "stages": stages}


def profile_of(
    seconds: Mapping[str, float], *, n_images: int, wall_s: float, n_workers: int, is_ahead: bool
) -> Profile:
    """What a stopwatch measured. is_ahead: images are decoded while the network computes, not in turn with it."""
    stages = []
    for name in (*OF_IMAGES, *OF_BATCHES):
        took, n_threads = seconds.get(name, 0.0), n_workers if name in OF_IMAGES else 1
        share = took / (n_threads * wall_s) if wall_s else 0.0
        rate = n_threads * n_images / took if took and n_images and name != WAIT else None
        stages.append(Stage(name, took, n_threads, share, rate))
    return Profile(n_images, wall_s, tuple(stages), _bound({s.name: s.seconds / s.n_threads for s in stages}, is_ahead))


def _bound(alone_s: Mapping[str, float], is_ahead: bool) -> str:
    """What decides the rate. alone_s: seconds that each stage would take if there were nothing else."""
    images = {name: alone_s[name] for name in OF_IMAGES}
    network = alone_s["forward"] + alone_s["transfer"]
    if alone_s["write"] >= max(network, sum(images.values())):
        return "writing"
    slowest = {"read": "reading", "decode": "decoding", "resize": "resizing"}[max(images, key=images.__getitem__)]
    largest = "the network" if network > sum(images.values()) else slowest
    return largest if is_ahead else f"{largest} most; images and network take turns on the same cores"
