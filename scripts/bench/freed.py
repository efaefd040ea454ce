"""What it is worth that `lmr embed` keeps freed memory on a CPU, against the same network without. Prints JSON.

Each number is of a process of its own: images a second of processor time, the system's part of it, and its peak memory.

    python scripts/bench/freed.py --networks timm:tf_efficientnet_lite2,resnet50 --size 288 --batches 1,16
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from retrieval.embed.torch_embedder import TorchEmbedder
from retrieval.images.spec import ImageSpec
from retrieval.models.config import ModelConfig
from retrieval.models.network import build_model


def main() -> None:
    """Measures every network and batch, with freed memory kept and given back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="timm:tf_efficientnet_lite2,resnet50,mobilenet_v3_small")
    parser.add_argument("--size", type=int, default=288)
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--images", type=int, default=64, help="Of a measurement, made up.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", choices=["kept", "given back"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(alone(args.networks, args.size, int(args.batches), args.images, kept=args.alone == "kept")))
        return
    found: dict[str, Any] = {}
    for network in args.networks.split(","):
        for batch in args.batches.split(","):
            shape = ["--networks", network, "--batches", batch, "--size", args.size, "--images", args.images]
            rounds = [{how: measured(shape, how) for how in ("kept", "given back")} for _ in range(args.rounds)]
            row: dict[str, Any] = {how: middle([each[how] for each in rounds]) for how in ("kept", "given back")}
            row["ratio"] = round(row["kept"]["images_a_cpu_s"] / row["given back"]["images_a_cpu_s"], 3)
            found[f"{network}, {batch} at once"] = row
    print(json.dumps(found, indent=1))


def measured(shape: list[Any], how: str) -> dict[str, float]:
    """The figures of one process."""
    command = [sys.executable, __file__, *map(str, shape), "--alone", how]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def middle(rows: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}


def alone(network: str, size: int, batch: int, n_images: int, *, kept: bool) -> dict[str, float]:
    """Figures of a network with random weights on one thread."""
    model = build_model(ModelConfig(network, n_dimensions=0))
    with nullcontext() if kept else patch("retrieval.embed.torch_embedder.keep_freed_memory"):
        embedder = TorchEmbedder(model, ImageSpec(size=size), torch.device("cpu"), threads=1)
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    embedder.embed_batch(images)  # the first one is slower
    before = resource.getrusage(resource.RUSAGE_SELF)
    n_rounds = max(n_images // batch, 1)
    for _ in range(n_rounds):
        embedder.embed_batch(images)
    after = resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    used = after.ru_utime - before.ru_utime + system
    return {
        "images_a_cpu_s": n_rounds * batch / used,
        "system_share": system / used,
        "peak_mb": after.ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
