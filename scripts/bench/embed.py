"""Images a second of `lmr embed`'s path against other loops, in one run, on the same images.

    plain_loop                  a first script: torchvision Dataset, Pillow, DataLoader with two workers, eager float32
    open_metric_learning        its own `inference` and ImageBaseDataset, two workers; left out if not installed
    sentence_transformers_style as its `encode` goes over images: decoding in turn with the network, in the one
                                process, batches of 32, eager float32, unit vectors to numpy

All use a ResNet-50 with random weights; `lmr_openvino` is `lmr embed --engine openvino`, where that is installed.
Prints JSON with images a second by the clock and by processor time (that of worker processes too, and the one to
trust on a machine with other work), ratios to each loop in both, and the share reached of 1 / (1 / r_model + 1 /
(cores * r_decode)), where decoding and computing share the cores and nothing is lost.

    python scripts/bench/embed.py --images FOLDER [--size 224] [--seconds 20] [--rounds 3]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from retrieval.embed.embedder import Embedder
from retrieval.embed.torch_embedder import TorchEmbedder
from retrieval.images.given import list_images
from retrieval.images.preprocess import prepare
from retrieval.images.spec import ImageSpec
from retrieval.models.checkpoint import save_model
from retrieval.models.config import ModelConfig
from retrieval.models.network import build_model

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
BATCH, N_WORKERS = 32, 2  # of the other loops


class Folder:
    """Images of a folder, over and over, as a source of bytes."""

    def __init__(self, folder: Path) -> None:
        self.paths = [Path(image.where) for image in list_images([str(folder)])]

    def read(self, i: int) -> bytes:
        """Encoded image i."""
        return self.paths[i % len(self.paths)].read_bytes()


def preparation(size: int) -> v2.Compose:
    """What the plain loops do to an image that Pillow decoded."""
    steps = [v2.Resize((size, size)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([*steps, v2.Normalize(*IMAGENET)])


class PlainDataset(Dataset[torch.Tensor]):
    """Full Pillow decode, resize, normalise."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths = paths
        self.transform = preparation(size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with Image.open(self.paths[i]) as image:
            return self.transform(image.convert("RGB"))


def by_openvino(model: torch.nn.Module, spec: ImageSpec, n_workers: int) -> Embedder:
    """The embedder of `lmr embed --engine openvino`."""
    from retrieval.embed.torch_embedder import OpenVinoEmbedder

    with tempfile.TemporaryDirectory() as folder:
        card = save_model(Path(folder), model, spec, made_by={})
        return OpenVinoEmbedder(Path(folder), card, device="cpu", threads=None, n_workers=n_workers)


def one_by_one(paths: list[Path], size: int, network: torch.nn.Module) -> int:
    """A loop in the one process, batch by batch."""
    prepare_one = preparation(size)
    with torch.inference_mode():
        for i in range(0, len(paths), BATCH):
            images = [Image.open(path).convert("RGB") for path in paths[i : i + BATCH]]
            features = network(torch.stack([prepare_one(image) for image in images]))
            torch.nn.functional.normalize(features, dim=1).numpy()
    return len(paths)


def open_metric_learning(paths: list[Path], size: int, network: torch.nn.Module) -> int:
    """Its documented way: `inference` over an ImageBaseDataset with torchvision's transforms."""
    from oml.datasets import ImageBaseDataset
    from oml.inference import inference
    from torchvision import transforms

    steps = [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(*IMAGENET)]
    data = ImageBaseDataset(paths, transform=transforms.Compose(steps))
    return len(inference(network, data, batch_size=BATCH, num_workers=N_WORKERS))


@dataclass(frozen=True)
class Rate:
    """Images a second, by the clock and of processor time, that of ended worker processes too."""

    clock: float
    processor: float


def processor_s() -> float:
    """Processor time of this process and of its processes that have ended."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def rate(run: Callable[[], int], seconds: float) -> Rate:
    """That of repeated runs, after one that is not counted."""
    run()
    n, began, used = 0, time.perf_counter(), processor_s()
    while time.perf_counter() - began < seconds:
        n += run()
    return Rate(n / (time.perf_counter() - began), n / (processor_s() - used))


def summary(measured: dict[str, list[Rate]], cores: int) -> dict[str, object]:
    """Medians, ratios and shares, by the clock and of processor time."""
    result: dict[str, object] = {}
    for kind in ("clock", "processor"):
        runs = {name: [getattr(one, kind) for one in rates] for name, rates in measured.items()}
        median = {name: statistics.median(values) for name, values in runs.items()}
        decode = median["decode"] * (cores if kind == "clock" else 1)
        ideal = 1 / (1 / median["model"] + 1 / decode)
        ours = [name for name in ("lmr", "lmr_openvino") if name in median]
        result[kind] = {
            "images_per_s": {name: round(value, 2) for name, value in median.items()},
            "all_runs": {name: [round(value, 2) for value in values] for name, values in runs.items()},
            "ratios": {
                name: {
                    other: round(median[name] / value, 2)
                    for other, value in median.items()
                    if other not in (*ours, "decode", "model")
                }
                for name in ours
            },
            "ideal": round(ideal, 2),
            "share_of_ideal": round(median["lmr"] / ideal, 3),
        }
    return result


def main() -> None:
    """Measures the parts and both loops in turn, and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=Path("../shared/photos/originals"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3, help="Of which medians are given.")
    args = parser.parse_args()
    if not args.images.is_dir():
        sys.exit(f"{args.images}: there is no such folder of pictures; give --images")
    cores = len(os.sched_getaffinity(0))
    folder, spec = Folder(args.images), ImageSpec(size=args.size)
    n = 2 * len(folder.paths)
    model = build_model(ModelConfig(backbone="resnet50", pooling="avg", n_dimensions=0), image_size=args.size).eval()
    embedder = TorchEmbedder(model, spec, torch.device("cpu"), n_workers=cores)
    plain = torchvision.models.resnet50().eval()
    data = [folder.read(i) for i in range(len(folder.paths))]
    batch = np.stack([prepare(item, spec) for item in data[: embedder.batch_size]])

    def decode() -> int:
        for item in data:
            prepare(item, spec)
        return len(data)

    def compute() -> int:
        embedder.embed_batch(batch)
        return len(batch)

    def ours() -> int:
        return sum(len(described.rows) for described in embedder.embed(folder, range(n)))

    def theirs() -> int:
        loader = DataLoader(PlainDataset(folder.paths * 2, args.size), batch_size=BATCH, num_workers=N_WORKERS)
        with torch.inference_mode():
            return sum(len(plain(images)) for images in loader)

    runs = {"decode": decode, "model": compute, "lmr": ours, "plain_loop": theirs}
    if find_spec("openvino"):
        faster = by_openvino(model, spec, cores)
        runs["lmr_openvino"] = lambda: sum(len(described.rows) for described in faster.embed(folder, range(n)))
    runs["sentence_transformers_style"] = lambda: one_by_one(folder.paths, args.size, plain)
    if find_spec("oml"):
        runs["open_metric_learning"] = lambda: open_metric_learning(folder.paths * 2, args.size, plain)
    measured: dict[str, list[Rate]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            measured[name].append(rate(run, args.seconds / (3 if name in ("decode", "model") else 1)))
    result = {
        **summary(measured, cores),
        "dtype": str(embedder.dtype),
        "cores": cores,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
