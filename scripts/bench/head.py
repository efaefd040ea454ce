"""One training step of the classification head over many landmarks: sampled classes against all of them.

A step is the loss of a batch of random unit descriptors, its gradient, clipping and AdamW, in float32. Both run the
same loss, in a process of their own each, in turns. Peak memory is what torch allocated on a GPU; on a CPU what the
process held beyond what it held before the head was made. Run it on an idle machine. Prints JSON; ratios are all
classes / sampled ones.

    python scripts/bench/head.py [--landmarks 203094] [--share 0.1] [--loss arcface] [--device cuda]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from retrieval.models.device import keep_freed_memory
from retrieval.train.loss_config import COSINE_SOFTMAX, LossConfig
from retrieval.train.losses import LandmarkLoss

N_WARM_UP = 2


def main() -> None:
    """Runs both in turn, three times each, and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landmarks", type=int, default=203_094)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--loss", choices=COSINE_SOFTMAX, default="arcface")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=["sampled", "all"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args)))
        return
    runs: dict[str, list[dict[str, float]]] = {"all": [], "sampled": []}
    for _ in range(args.repeats):
        for name, done in runs.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
            done.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    step_ms = {name: statistics.median(run["step_ms"] for run in done) for name, done in runs.items()}
    peak_mb = {name: max(run["peak_mb"] for run in done) for name, done in runs.items()}
    on_gpu = torch.device(args.device).type == "cuda"
    result = {
        **{name: getattr(args, name) for name in ("loss", "landmarks", "dimensions", "batch", "share", "device")},
        "step_ms": step_ms,
        "peak_mb": peak_mb,
        "time_ratio": round(step_ms["all"] / step_ms["sampled"], 2),
        "memory_ratio": round(peak_mb["all"] / max(1, peak_mb["sampled"]), 2),
        "all_runs_ms": {name: [run["step_ms"] for run in done] for name, done in runs.items()},
        "machine": torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=1))


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step, median over some after two that are not counted, and the most memory, MB."""
    device = torch.device(args.device)
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(0)
    held_before = held_mb(device)
    config = LossConfig(args.loss, class_share=args.share if args.only == "sampled" else 1.0)
    rng = np.random.default_rng(0)
    loss = LandmarkLoss(config, args.dimensions, rng.integers(1, 100, args.landmarks)).to(device)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-3, fused=True)
    loss.attach(optimizer)
    descriptors = nn.functional.normalize(torch.randn(args.batch, args.dimensions, device=device), dim=1)
    descriptors.requires_grad_()
    times = []
    for _ in range(args.steps + N_WARM_UP):
        labels = torch.from_numpy(rng.integers(0, args.landmarks, args.batch)).to(device)
        began = time.perf_counter()
        optimizer.zero_grad()
        loss(descriptors, labels).backward()
        nn.utils.clip_grad_norm_(loss.parameters(), 5.0)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    peak_mb = held_mb(device) - held_before
    return {"step_ms": round(statistics.median(times[N_WARM_UP:]), 2), "peak_mb": round(peak_mb)}


def held_mb(device: torch.device) -> float:
    """The most memory held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
