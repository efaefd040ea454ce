"""Images a second of `lmr embed`'s path against a plain torchvision loop, in one run, on the same images.

The plain loop is what a first script does: a torchvision Dataset that opens images with Pillow, a DataLoader with two
workers, the eager network in float32. Both use the same random ResNet-50 weights. Prints JSON; also the share reached
of 1 / (1 / r_model + 1 / (cores * r_decode)), where decoding and computing share the cores and nothing is lost.

    python scripts/bench/embed.py --images FOLDER [--size 224] [--seconds 20] [--rounds 3]
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from retrieval.embed.torch_embedder import TorchEmbedder
from retrieval.images.given import list_images
from retrieval.images.preprocess import prepare
from retrieval.images.spec import ImageSpec
from retrieval.models.config import ModelConfig
from retrieval.models.network import build_model


class Folder:
    """Images of a folder, over and over, as a source of bytes."""

    def __init__(self, folder: Path) -> None:
        self.paths = [Path(image.where) for image in list_images([str(folder)])]

    def read(self, i: int) -> bytes:
        """Encoded image i."""
        return self.paths[i % len(self.paths)].read_bytes()


class PlainDataset(Dataset[torch.Tensor]):
    """Full Pillow decode, resize, normalise."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths = paths
        steps = [v2.Resize((size, size)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        self.transform = v2.Compose([*steps, v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with Image.open(self.paths[i]) as image:
            return self.transform(image.convert("RGB"))


def rate(run: Callable[[], int], seconds: float) -> float:
    """Images a second of repeated runs, after one that is not counted."""
    run()
    n, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        n += run()
    return n / (time.perf_counter() - began)


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
        loader = DataLoader(PlainDataset(folder.paths * 2, args.size), batch_size=32, num_workers=2)
        with torch.inference_mode():
            return sum(len(plain(images)) for images in loader)

    measured: dict[str, list[float]] = {"decode_per_core": [], "model": [], "lmr": [], "plain_loop": []}
    for _ in range(args.rounds):
        for name, run in (("decode_per_core", decode), ("model", compute), ("lmr", ours), ("plain_loop", theirs)):
            measured[name].append(rate(run, args.seconds / (1 if name in ("lmr", "plain_loop") else 3)))
    median = {name: statistics.median(values) for name, values in measured.items()}
    ideal = 1 / (1 / median["model"] + 1 / (cores * median["decode_per_core"]))
    result = {
        "pictures_per_s": {name: round(value, 1) for name, value in median.items()},
        "all_runs": {name: [round(value, 1) for value in values] for name, values in measured.items()},
        "ratio_to_plain_loop": round(median["lmr"] / median["plain_loop"], 2),
        "ideal": round(ideal, 1),
        "share_of_ideal": round(median["lmr"] / ideal, 3),
        "dtype": str(embedder.dtype),
        "cores": cores,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
