"""What an adapter is worth on held-out queries, and what it takes of time and memory on very many descriptors.

    python scripts/bench/adapter.py --stores lite0 --seeds 0,1,2 --work DIR
    python scripts/bench/adapter.py --rows 1000000 --dimensions 1280 --landmarks 20000 --work DIR

--stores is a folder with train.h5, background.h5, val.h5 and the model/ that made them. An index is built without
whitening, half whitened, with supervised whitening, and of the stores that an adapter makes, for each seed; GAP and
top-1 are the cross-validated ones of lmr calibrate on val.
--rows makes a store of so many descriptors as vectors.py makes them, and measures lmr train and lmr embed on it in
processes of their own: peak_mb of the resident set and own_mb of what is not mapped from files, both beyond a process
that imported the same modules. 10^6 bytes a MB. Prints JSON.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import memory
from vectors import make_world

from retrieval.progress import SILENT

WAYS: dict[str, dict[str, Any]] = {
    "no whitening": {"whitening_power": 0},
    "half PCA": {},
    "supervised, power 0.5": {"whitening": "supervised"},
    "supervised, power 1": {"whitening": "supervised", "whitening_power": 1.0},
}


def main() -> None:
    """Measures what an adapter gains, or what it takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", type=Path, help="folder of stores and their model")
    parser.add_argument("--seeds", default="0,1,2", help="(default %(default)s)")
    parser.add_argument("--hidden", type=int, default=0, help="units of a hidden layer (default none)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--dimensions", type=int, default=1280, help="(default %(default)s)")
    parser.add_argument("--landmarks", type=int, default=20_000, help="(default %(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.part:
        memory.PARTS = PARTS
        print(json.dumps(memory.watched(args)))
    elif args.stores:
        print(json.dumps(worth(args), indent=1))
    else:
        print(json.dumps(taken(args), indent=1))


def worth(args: argparse.Namespace) -> dict[str, Any]:
    """Cross-validated figures of every way, and of an adapter of each seed."""
    import lmr

    stores, work = args.stores.resolve(), args.work
    found: dict[str, Any] = {way: figures(stores, stores / "model", work, words) for way, words in WAYS.items()}
    for seed in map(int, args.seeds.split(",")):
        folder, began = work / f"seed-{seed}", time.perf_counter()
        own: dict[str, Any] = {"overwrite": True, "threads": args.threads, "device": "cpu", "progress": SILENT}
        base: dict[str, Any] = {"model": stores / "model", "negatives": stores / "background.h5", "seed": seed}
        lmr.train(stores / "train.h5", output=folder / "model", hidden=args.hidden, **base, **own)
        seconds = time.perf_counter() - began
        for name in ("train", "background", "val"):
            lmr.embed(stores / f"{name}.h5", model=folder / "model", output=folder / f"{name}.h5", **own)
        for way in ("no whitening", "half PCA"):
            one = figures(folder, folder / "model", work, WAYS[way])
            found.setdefault(f"adapter, {way} after it", []).append({"seed": seed, **one})
        found.setdefault("training_s", []).append(round(seconds, 1))
        print(json.dumps(found), file=sys.stderr)
    return found


def figures(folder: Path, model: Path, work: Path, words: dict[str, Any]) -> dict[str, float]:
    """GAP and top-1 of an index of the stores in a folder, as lmr calibrate finds them by cross-validation."""
    import lmr

    how: dict[str, Any] = {"overwrite": True, "device": "cpu", "progress": SILENT, "engine": "torch"}
    rows: dict[str, Any] = {"background": [folder / "background.h5"], "model": model, "thumbnails": 0}
    lmr.build_index([folder / "train.h5"], output=work / "landmarks", **rows, **words, **how)
    told = lmr.calibrate(folder / "val.h5", index=work / "landmarks", **how).cross_validated
    return {"gap": round(told.gap, 4), "top1": round(told.top1, 4)}


def taken(args: argparse.Namespace) -> dict[str, Any]:
    """Time and memory of training an adapter, and of the store that it makes."""
    if not (args.work / "train.h5").exists():
        make(args)
    words = ["--work", args.work, "--epochs", args.epochs, "--threads", args.threads]
    found = {}
    for part in PARTS:
        command = [sys.executable, __file__, "--part", part, *words]
        found[part] = json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE).stdout)
    empty = found.pop("nothing")
    size = round((args.work / "train.h5").stat().st_size / memory.MB)
    return {"store_mb": size, **{part: memory.beyond(one, empty) for part, one in found.items()}}


def make(args: argparse.Namespace) -> None:
    """A model that is not trained, and a store of made descriptors that says it is of that model."""
    from retrieval.embed.fill import info_of
    from retrieval.images.spec import ImageSpec
    from retrieval.models.checkpoint import save_model
    from retrieval.models.config import ModelConfig
    from retrieval.models.network import build_model

    config = ModelConfig("plain-cnn", "avg", n_dimensions=args.dimensions)
    card = save_model(args.work / "model", build_model(config, image_size=32), ImageSpec(size=32), made_by={})
    world, n_background = make_world(args.landmarks, args.dimensions), args.rows // 10
    landmark = np.concatenate([world.landmarks(args.rows), np.full(n_background, -1, np.int32)])
    blocks = itertools.chain((vectors for vectors, _ in world.rows(args.rows)), [world.background(n_background)])
    info = info_of(card, "made", "float16", args.dimensions)
    memory.write_store(args, "train.h5", landmark, blocks, info=info)


def nothing(args: argparse.Namespace) -> dict[str, Any]:
    import lmr  # noqa: F401
    from retrieval.train import loop  # noqa: F401

    return {}


def train(args: argparse.Namespace) -> dict[str, Any]:
    import lmr

    own = {"model": args.work / "model", "output": args.work / "adapted", "progress": SILENT}
    trained = lmr.train(
        args.work / "train.h5",
        **own,  # type: ignore[arg-type]
        epochs=args.epochs,
        class_share=0.1,
        threads=args.threads,
        device="cpu",
        overwrite=True,
    )
    return {"loss": trained.log[-1]["loss"]}


def embed(args: argparse.Namespace) -> dict[str, Any]:
    import lmr

    output = args.work / "train-adapted.h5"
    how = {"model": args.work / "adapted", "output": output, "threads": args.threads, "progress": SILENT}
    lmr.embed(args.work / "train.h5", **how, device="cpu", overwrite=True)  # type: ignore[arg-type]
    return {}


PARTS = {"nothing": nothing, "train": train, "embed": embed}

if __name__ == "__main__":
    main()
