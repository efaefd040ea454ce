"""Images per second from encoded JPEGs to the network's input, ours against a full decode by Pillow and others'.

Both take the same bytes from memory to (size, size, 3) uint8 with bilinear antialiasing, in turns on one thread and
then on several. Prints one JSON document with rates and ratios.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from retrieval.arrays import UInt8Array
from retrieval.images.preprocess import prepare
from retrieval.images.signatures import IMAGE_SUFFIXES
from retrieval.images.spec import ImageSpec


def main() -> None:
    """Reads the images, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/photos/originals"))
    parser.add_argument("--size", type=int, default=224, help="side of the result in pixels (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="passes over the pictures (default %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for the second measurement")
    given = parser.parse_args()
    paths = sorted(path for path in given.folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        sys.exit(f"{given.folder} holds no pictures; give a folder of photographs")
    images = [path.read_bytes() for path in paths]
    spec = ImageSpec(size=given.size)
    ways: dict[str, Callable[[bytes], UInt8Array]] = {
        "lmr": lambda data: prepare(data, spec),
        "full_pillow": lambda data: prepare_in_full(data, given.size),
        **other_decoders(given.size),
    }
    summary: dict[str, object] = {"pictures": len(images), "size": given.size, "load_average": os.getloadavg()[0]}
    for n_threads in (1, given.threads):
        rates = {name: best_rate(way, images, n_threads, given.rounds) for name, way in ways.items()}
        ratios = {name: round(rates["lmr"]["per_cpu_s"] / rate["per_cpu_s"], 2) for name, rate in rates.items()}
        summary[f"threads_{n_threads}"] = {**rates, "ratio_per_cpu_s": ratios}
    print(json.dumps(summary, indent=2))


def prepare_in_full(data: bytes, size: int) -> UInt8Array:
    """The obvious way: decode all pixels, then resize."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.array(upright.resize((size, size), Image.Resampling.BILINEAR))


def other_decoders(size: int) -> dict[str, Callable[[bytes], UInt8Array]]:
    """JPEG decoders of torchcodec and simplejpeg, where they are installed; without colours, turns and checks."""

    def resized(pixels: UInt8Array) -> UInt8Array:
        return np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))

    ways: dict[str, Callable[[bytes], UInt8Array]] = {}
    with contextlib.suppress(ImportError):
        import torch
        from torchcodec.decoders import decode_jpeg

        torch.set_num_threads(1)
        ways["torchcodec"] = lambda data: resized(
            decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0).numpy()
        )
    with contextlib.suppress(ImportError):
        import simplejpeg

        ways["simplejpeg"] = lambda data: resized(simplejpeg.decode_jpeg(data, min_width=size, min_height=size))
    return ways


def best_rate(way: Callable[[bytes], UInt8Array], images: list[bytes], n_threads: int, rounds: int) -> dict[str, float]:
    """Images per second of the fastest pass, by the clock and by processor time."""
    with ThreadPoolExecutor(n_threads) as pool:
        walls, cpus = [], []
        for _ in range(rounds):
            wall, cpu = time.perf_counter(), time.process_time()
            list(pool.map(way, images))
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    return {"per_s": round(len(images) / min(walls), 1), "per_cpu_s": round(len(images) / min(cpus), 1)}


if __name__ == "__main__":
    main()
