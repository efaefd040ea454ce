"""Images a second of `lmr embed` on a GPU, beside its parts and the plain torch loop on the same card, in one run.

    decode        reading and preparing alone, in as many threads as decode
    model         the network alone: as `lmr embed` runs it, compiled by torch.compile, and eager in float32
    lmr           `lmr embed`'s path from files to descriptors; its goal is the slower of decode and model
    plain_loop    torchvision Dataset, Pillow, DataLoader with a worker for each core and pinned memory, eager float32
    nvjpeg        decoding and resizing alone on the card, by torchvision; `pixels_apart` is how far its pixels lie from
                  those that lmr makes, mean over images, of 255

ResNet-50 with random weights. Training on the card: `scripts/bench/train.py --device cuda`. Prints JSON with ratios;
one line where there is no such device. `--device cpu` checks the script without one.

    python scripts/bench/gpu_embed.py --images FOLDER [--device cuda] [--size 224] [--seconds 10] [--rounds 3]
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from embed import BATCH, Folder, PlainDataset, rate
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from retrieval.embed.torch_embedder import TorchEmbedder
from retrieval.errors import LmrError
from retrieval.images.preprocess import prepare
from retrieval.images.spec import ImageSpec
from retrieval.models.config import ModelConfig
from retrieval.models.device import resolve_device
from retrieval.models.network import build_model, to_input
from retrieval.parallel import count_cores


def decoded_by_nvjpeg(data: list[bytes], size: int, device: torch.device) -> torch.Tensor:
    """(n, 3, size, size) uint8: decoded whole and resized with antialiasing, both on the card."""
    encoded = [torch.frombuffer(bytearray(item), dtype=torch.uint8) for item in data]
    images = torchvision.io.decode_jpeg(encoded, torchvision.io.ImageReadMode.RGB, device=device)
    resized = [
        interpolate(image[None].float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
        for image in images
    ]
    return torch.cat(resized).round_().clamp_(0, 255).to(torch.uint8)


def runs_of(
    folder: Folder, spec: ImageSpec, device: torch.device, embedder: TorchEmbedder, n: int
) -> dict[str, Callable[[], int]]:
    """Each part and loop by its name; each gives how many images it did."""
    n_workers, plain = embedder.n_workers, torchvision.models.resnet50().eval().to(device)
    data = [folder.read(i) for i in range(len(folder.paths))]
    images = np.resize(np.stack([prepare(item, spec) for item in data]), (embedder.batch_size, spec.size, spec.size, 3))
    compiled = torch.compile(embedder._forward, dynamic=False)

    def decode() -> int:
        with ThreadPoolExecutor(n_workers) as pool:
            return sum(1 for _ in pool.map(partial(prepare, spec=spec), [data[i % len(data)] for i in range(n)]))

    def compute(describe: Callable[[torch.Tensor], torch.Tensor]) -> int:
        with torch.inference_mode():
            describe(to_input(torch.from_numpy(images).permute(0, 3, 1, 2), spec, device)).cpu()
        return len(images)

    def plain_loop() -> int:
        given = PlainDataset([folder.paths[i % len(folder.paths)] for i in range(n)], spec.size)
        loader = DataLoader(given, batch_size=BATCH, num_workers=n_workers, pin_memory=device.type == "cuda")
        with torch.inference_mode():
            return sum(len(plain(batch.to(device, non_blocking=True)).cpu()) for batch in loader)

    runs: dict[str, Callable[[], int]] = {
        "decode": decode,
        "model": lambda: len(embedder.embed_batch(images)),
        "model_compiled": lambda: compute(compiled),
        "model_eager_fp32": lambda: compute(plain),
        "lmr": lambda: sum(len(done.rows) for done in embedder.embed(folder, range(n))),
        "plain_loop": plain_loop,
    }
    if device.type == "cuda":
        runs["nvjpeg"] = lambda: len(decoded_by_nvjpeg(data, spec.size, device).cpu())
    return runs


def pixels_apart(folder: Folder, spec: ImageSpec, device: torch.device) -> float:
    """Mean difference of the card's pixels from lmr's, of 255."""
    data = [folder.read(i) for i in range(len(folder.paths))]
    ours = np.stack([prepare(item, spec) for item in data]).astype(np.float32)
    theirs = decoded_by_nvjpeg(data, spec.size, device).permute(0, 2, 3, 1).float().cpu().numpy()
    return float(np.abs(ours - theirs).mean())


def main() -> None:
    """Measures all in turn, and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--n", type=int, default=2048, help="Images of each run of a loop.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3, help="Of which medians are given.")
    args = parser.parse_args()
    try:
        device = resolve_device(args.device)
    except LmrError as error:
        sys.exit(str(error))
    folder, spec = Folder(args.images), ImageSpec(size=args.size)
    model = build_model(ModelConfig(backbone="resnet50", pooling="avg", n_dimensions=0), image_size=args.size).eval()
    embedder = TorchEmbedder(model, spec, device, n_workers=count_cores())
    settled = embedder.settle_batches(1_000_000)
    runs = runs_of(folder, spec, device, embedder, args.n)
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            measured[name].append(rate(run, args.seconds).clock)
    median = {name: statistics.median(values) for name, values in measured.items()}
    goal = min(median["decode"], median["model"])
    result = {
        "images_per_s": {name: round(value, 1) for name, value in median.items()},
        "all_runs": {name: [round(value, 1) for value in values] for name, values in measured.items()},
        "ratio_to_plain_loop": round(median["lmr"] / median["plain_loop"], 2),
        "share_of_slower_part": round(median["lmr"] / goal, 3),
        "pixels_apart": round(pixels_apart(folder, spec, device), 2) if device.type == "cuda" else None,
        "batches": settled,
        "dtype": str(embedder.dtype),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cores": count_cores(),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
