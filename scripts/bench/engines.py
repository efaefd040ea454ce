"""What computes a network fastest on a CPU: torch, torch.compile, ONNX Runtime or OpenVINO, in one run.

All compute the same network with random weights, from prepared pixels to unit descriptors. Rates are images a second
of processor time, so that other work on the machine counts little; `ready_s` is the processor time until the first
batch of each size is done, with compiling. Differences are the largest of any number of a descriptor from torch's in
float32. Needs the extras `onnx` and `timm`; without the package openvino its lines are left out. Prints JSON.

    python scripts/bench/engines.py [--networks resnet50,mobilenet_v2] [--batches 1,16,32] [--threads 1] [--rounds 3]
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from retrieval.embed import torch_embedder
from retrieval.embed.onnx_embedder import OUTPUT, OnnxEmbedder
from retrieval.embed.onnx_export import export_onnx
from retrieval.embed.torch_embedder import TorchEmbedder
from retrieval.images.spec import ImageSpec
from retrieval.models.card import ModelCard
from retrieval.models.checkpoint import save_model
from retrieval.models.config import ModelConfig
from retrieval.models.network import DescriptorModel, build_model, to_input

CPU = torch.device("cpu")
Describe = Callable[[np.ndarray], np.ndarray]
PLAIN, OURS = "torch fp32 eager", "torch bf16"


def eager(model: DescriptorModel, spec: ImageSpec) -> Describe:
    """The network as a first script calls it."""

    def describe(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            given = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
            mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (spec.mean, spec.std))
            return model(((given - mean) / std).contiguous()).numpy()

    return describe


def embedder_of(model: DescriptorModel, spec: ImageSpec, dtype: torch.dtype) -> TorchEmbedder:
    """The embedder of `lmr embed` in this number format: batch norms folded, channels last."""
    before, torch_embedder.fast_dtype = torch_embedder.fast_dtype, lambda _: dtype
    try:
        return TorchEmbedder(model, spec, CPU)
    finally:
        torch_embedder.fast_dtype = before


def compiled(model: DescriptorModel, spec: ImageSpec, dtype: torch.dtype) -> Describe:
    """The same, its network compiled for each size of a batch."""
    embedder = embedder_of(model, spec, dtype)
    run = torch.compile(embedder._forward, dynamic=False)

    def describe(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return run(to_input(torch.from_numpy(images).permute(0, 3, 1, 2), spec, CPU)).float().numpy()

    return describe


def by_openvino(path: Path, precision: str, threads: int) -> Describe:
    """The exported file, read by OpenVINO."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    network = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda images: network([images])[OUTPUT]


def engines(
    model: DescriptorModel, card: ModelCard, path: Path, threads: int
) -> Iterator[tuple[str, Callable[[], Describe]]]:
    """Each engine by its name, and what makes it ready."""
    spec = card.image_spec
    yield PLAIN, lambda: eager(model, spec)
    yield "torch fp32", lambda: embedder_of(model, spec, torch.float32).embed_batch
    yield OURS, lambda: embedder_of(model, spec, torch.bfloat16).embed_batch
    yield "torch.compile fp32", lambda: compiled(model, spec, torch.float32)
    yield "torch.compile bf16", lambda: compiled(model, spec, torch.bfloat16)
    yield "onnxruntime fp32", lambda: OnnxEmbedder(path, card, ["CPUExecutionProvider"], threads, 1).embed_batch
    if find_spec("openvino"):
        yield "openvino fp32", lambda: by_openvino(path, "f32", threads)
        yield "openvino bf16", lambda: by_openvino(path, "bf16", threads)


def rate(describe: Describe, images: np.ndarray, least_s: float) -> float:
    """Images a second of processor time."""
    n, began, took = 0, time.process_time(), 0.0
    while took < least_s:
        describe(images)
        n, took = n + len(images), time.process_time() - began
    return n / took


def measure(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One network by all engines and in all batch sizes."""
    spec = ImageSpec(size=args.size)
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone=name, pooling="avg", n_dimensions=0), image_size=args.size).eval()
    card = save_model(folder / "model", model, spec, made_by={})
    path = folder / "model.onnx"
    export_onnx(folder / "model", card, path)
    images = np.random.default_rng(0).integers(0, 256, (max(args.batches), args.size, args.size, 3), dtype=np.uint8)
    expected = eager(model, spec)(images)
    ready: dict[str, Describe] = {}
    result: dict[str, Any] = {}
    for engine, make in engines(model, card, path, args.threads):
        began = time.process_time()
        try:
            ready[engine] = make()
            found = [ready[engine](images[:batch]) for batch in args.batches]
        except Exception as error:  # of any library; the others are measured all the same
            ready.pop(engine, None)
            result[engine] = {"failed": (str(error) or type(error).__name__).splitlines()[0][:160]}
            continue
        took = time.process_time() - began
        difference = max(float(np.abs(given - expected[: len(given)]).max()) for given in found)
        result[engine] = {"ready_s": round(took, 1), "difference": float(f"{difference:.2g}")}
    for batch in args.batches:
        runs: dict[str, list[float]] = {engine: [] for engine in ready}
        for _ in range(args.rounds):
            for engine, describe in ready.items():
                runs[engine].append(rate(describe, images[:batch], args.seconds))
        median = {engine: statistics.median(values) for engine, values in runs.items()}
        for engine, value in median.items():
            result[engine][f"batch_{batch}"] = {
                "images_per_processor_s": round(value, 2),
                "times_torch_fp32_eager": round(value / median[PLAIN], 2),
                "times_torch_bf16": round(value / median[OURS], 2),
            }
    return result


def main() -> None:
    """Measures each network, and prints all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet50,mobilenet_v2,timm:tf_efficientnet_lite0")
    parser.add_argument("--batches", default="1,16,32")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="Of processor time, for each figure of a round.")
    parser.add_argument("--rounds", type=int, default=3, help="Of which medians are given.")
    args = parser.parse_args()
    args.batches = [int(batch) for batch in args.batches.split(",")]
    torch.set_num_threads(args.threads)
    found: dict[str, Any] = {}
    for name in args.networks.split(","):
        print(f"measuring {name}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(name, args, Path(folder))
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    if find_spec("openvino"):
        from openvino import get_version

        versions["openvino"] = get_version()
    machine = {"machine": platform.processor() or platform.machine(), "threads": args.threads, **versions}
    print(json.dumps({"networks": found, **machine}, indent=1))


if __name__ == "__main__":
    main()
