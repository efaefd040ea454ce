"""Training steps a second, ours against a plain PyTorch loop, on the same random images.

The plain loop is what a first script does: the eager network in float32 with its tensors as torch makes them, and
pytorch-metric-learning's ArcFaceLoss. Ours: channels last, freed memory kept, one fused kernel for AdamW, the number
format of `lmr train --precision auto`; beside it the same in the others.
Each runs in a process of its own, in turns. Images are made beforehand: only the steps are timed. Prints JSON.

    python scripts/bench/train.py [--backbone resnet50] [--size 224] [--steps 6] [--precisions bf16] [--device cuda]
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
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from pytorch_metric_learning.losses import ArcFaceLoss
from torch import nn

from retrieval.errors import LmrError
from retrieval.models.config import ModelConfig
from retrieval.models.device import DTYPES, keep_freed_memory, memory_format, place, resolve_device, training_dtype
from retrieval.models.network import build_model
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss

BATCH, N_CLASSES = 32, 100


def main() -> None:
    """Runs all in turn, three times each, and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", default="cpu", help="Both run on it; on CUDA the memory is that of the card.")
    parser.add_argument("--precisions", default="", help="Number formats to run ours in too, as bf16,fp32.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.backbone, args.size, args.steps, resolve_device(args.device))))
        return
    try:
        device = resolve_device(args.device)
    except LmrError as error:
        sys.exit(str(error))
    names = ["lmr", "plain_loop", *(f"lmr_{precision}" for precision in args.precisions.split(",") if precision)]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(args.repeats):
        for name, done in runs.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
            done.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    rate = {name: statistics.median(run["pictures_per_s"] for run in done) for name, done in runs.items()}
    result = {
        "backbone": args.backbone,
        "pictures_per_s": rate,
        "ratio_to_plain_loop": round(rate["lmr"] / rate["plain_loop"], 2),
        "cpu_s_a_step": {name: statistics.median(run["cpu_s_a_step"] for run in done) for name, done in runs.items()},
        "peak_mb": {name: max(run["peak_mb"] for run in done) for name, done in runs.items()},
        "all_runs": {name: [run["pictures_per_s"] for run in done] for name, done in runs.items()},
        "dtype": str(training_dtype(device)),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=1))


def measure(name: str, backbone: str, size: int, n_steps: int, device: torch.device) -> dict[str, float]:
    """Images a second over n_steps after two that are not counted, and the most memory held, MB."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone=backbone), image_size=size).train().to(device)
    images = torch.randn(BATCH, 3, size, size, device=device)
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    if name != "plain_loop":
        keep_freed_memory()
        place(model, device)
        images = images.contiguous(memory_format=memory_format(device))
        loss: nn.Module = LandmarkLoss(LossConfig(), model.d, np.full(N_CLASSES, 10))
        dtype = training_dtype(device) if name == "lmr" else DTYPES[name.removeprefix("lmr_")]
        if dtype != torch.float32:
            autocast = partial(torch.autocast, device.type, dtype)
    else:
        loss = ArcFaceLoss(N_CLASSES, model.d)
    loss.to(device)
    optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr=1e-4, fused=name != "plain_loop")
    labels = torch.arange(BATCH, device=device) % N_CLASSES
    began, used = 0.0, 0.0
    for step in range(n_steps + 2):
        if step == 2:
            settle(device)
            began, used = time.perf_counter(), time.process_time()
        with autocast():
            descriptors = model(images)
        optimizer.zero_grad()
        loss(descriptors, labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    settle(device)
    rate = BATCH * n_steps / (time.perf_counter() - began)
    cpu_s_a_step = (time.process_time() - used) / n_steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    return {"pictures_per_s": round(rate, 2), "cpu_s_a_step": round(cpu_s_a_step, 3), "peak_mb": round(peak / 1024**2)}


def settle(device: torch.device) -> None:
    """Waits for all that a GPU was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
