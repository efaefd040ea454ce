"""One question to a large index from a new process: by ONNX, by torch, and by a plain script of torchvision and FAISS.

    python scripts/bench/cold.py --folder DIR [--rows 1200000] [--runs 5]

Makes an index of --rows made descriptors (as vectors.py makes them, 512 columns, ids and paths as long as those of
Google Landmarks) in --folder, unless it is there: kind ivf-pq, and MobileNetV2 with random weights as its network.
Then `lmr query IMAGE` is run as a new process by each engine in turns, and so is the plain script, which imports torch,
torchvision and FAISS, reads the same weights and the same inverted file whole, and prints the nearest row. Medians of
wall and processor seconds after one run of each that does not count, so that the disk's cache is warm and all modules
are compiled; the ratios are to the plain script, below 1: lmr is faster. Prints JSON.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).resolve().parent))

D, LANDMARKS, SIDE = 512, 30_000, 640  # columns, landmarks, pixels
GOALS_S = {"onnx": 1.5, "torch": 4.0}
LMR = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); from cli.main import program; program()"]
PLAIN = """
import sys
from pathlib import Path
import faiss, numpy as np, torch, torchvision
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import functional as F
folder = Path(sys.argv[1])
network = torchvision.models.mobilenet_v2().features
(weights,) = (folder / "model").glob("weights-*.safetensors")
own = {name.partition("features.")[2]: value for name, value in load_file(weights).items() if "features." in name}
network.load_state_dict(own)
image = F.to_tensor(Image.open(sys.argv[2]).convert("RGB").resize((224, 224)))
image = F.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
with torch.inference_mode():
    found = network.eval()(image[None]).mean(dim=(2, 3)).numpy()[:, :512]
found = np.ascontiguousarray(found / np.linalg.norm(found))
index = faiss.read_index(str(folder / "search.faiss"))
print(index.search(found, 20)[1][0, 0])
"""


def main() -> None:
    """Makes what is missing, measures in turns, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, type=Path, help="where the index is, or is made")
    parser.add_argument("--rows", type=int, default=1_200_000, help="(default %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="of each (default %(default)s)")
    parser.add_argument("--make", action="store_true", help="make the index and measure nothing")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    index = args.folder / f"landmarks-{args.rows}"
    if not index.exists():
        make_index(args.folder, index, args.rows)
    if not args.make:
        print(json.dumps(measure(args.folder / "query.jpg", index, args.runs), indent=1))


def make_index(folder: Path, index: Path, rows: int) -> None:
    """A network with random weights, a store of made descriptors that says it is of that network, and their index."""
    picture = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / "query.jpg", quality=90)
    (folder / "one.csv").write_text("id,landmark_id,path\nquery,l0,query.jpg\n")
    network = ("--backbone", "mobilenet_v2", "--dimensions", str(D), "--size", "224")
    run("embed", "one.csv", "--output", "one.h5", "--images", ".", *network, where=folder)
    store = folder / f"rows-{rows}.h5"
    if not store.exists():
        write_store(folder / "one.h5", store, rows)
    how = ("--kind", "ivf-pq", "--whitening-power", "0", "--thumbnails", "0", "--engine", "onnx")
    run("build-index", store.name, "--output", index.name, *how, where=folder)
    store.unlink()


def write_store(like: Path, output: Path, n: int) -> None:
    """A finished store of n made descriptors, of the model of another one."""
    from vectors import make_world

    from retrieval.store.file import lay_out
    from retrieval.store.layout import Columns
    from retrieval.store.store import open_descriptors, partial_path, resume_store

    world = make_world(LANDMARKS, D)
    landmark = np.concatenate([of_block for _, of_block in world.rows(n)]).astype(np.int32)
    labels = tuple(f"landmark_{i:06}" for i in range(LANDMARKS))
    ids = [f"{i:016x}" for i in range(n)]
    paths = (f"images/{name[-3]}/{name[-2]}/{name[-1]}/{name}.jpg" for name in ids)
    lay_out(partial_path(output), Columns(ids, landmark, labels, paths, None, {}), open_descriptors(like).info)
    with resume_store(output) as writer:
        start = 0
        for vectors, _ in world.rows(n):
            writer.write(np.arange(start, start + len(vectors)), vectors.astype(np.float16))
            start += len(vectors)
        writer.finish()


def measure(picture: Path, index: Path, runs: int) -> dict[str, object]:
    """Median seconds of each way, and the ratios to the plain script."""
    ways = {
        f"lmr query by {name}": [*LMR, "query", str(picture), "--index", str(index), "--engine", name]
        for name in GOALS_S
    }
    ways["plain script"] = [sys.executable, "-c", PLAIN, str(index), str(picture)]
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(runs + 1):
        for name, words in ways.items():
            seconds = timed(words, picture.parent / "compiled")
            if turn:
                spent[name].append(seconds)
    found = {name: tuple(statistics.median(one[i] for one in each) for i in (0, 1)) for name, each in spent.items()}
    plain = found["plain script"]
    report: dict[str, object] = {
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "index_mb": round(sum(path.stat().st_size for path in index.rglob("*") if path.is_file()) / 1e6),
        "goals_wall_s": GOALS_S,
    }
    for name, (wall, cpu) in found.items():
        ratios = {"ratio_of_wall_s": round(wall / plain[0], 2), "ratio_of_cpu_s": round(cpu / plain[1], 2)}
        report[name] = {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3), **ratios}
    return report


def timed(words: list[str], compiled: Path) -> tuple[float, float]:
    """Wall and processor seconds of a new process. compiled: keeps modules. Raises CalledProcessError for a failure."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}  # as after an installation
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, env=environment)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(*words: str, where: Path) -> None:
    """Runs lmr; what it says goes to stderr. Raises CalledProcessError."""
    subprocess.run([*LMR, *words], check=True, cwd=where, stdout=sys.stderr)


if __name__ == "__main__":
    main()
