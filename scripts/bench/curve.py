"""How good answers are with 1, 2, 5, 10 and all images of a landmark: untrained, adapted and trained. Prints JSON.

Index and training have the same images: so many of each landmark, drawn by the seed, each number those of the one below
and others. GAP and top-1 are of val, by nested cross-validation. What is finished in --work is not done again; all
images trained are the runs of scripts/bench/quality.py there. --output keeps the JSON for scripts/images.py to draw.

    python scripts/bench/curve.py --data ../shared/photos --weights ../shared/weights --work /tmp/quality \\
        --recipe lite2 --seeds 0,1,2 --output scripts/bench/curve.json
"""

import argparse
import csv
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from answers import rounded
from photos import NETWORKS, trained_embedding, untrained_embedding
from photos import lmr as command
from quality import Place, Run, embed, measure_run, read_json, training, write_json

import lmr

ALL = "all"
SYSTEMS = ("untrained", "adapted", "trained")
PRECISION = "fp32"
# Images of an epoch where there are few: as many steps as of all images would make of the same few ones by heart.
EPOCH_SIZE = {"1": 256, "2": 256, "5": 384, "10": 540}
FIGURES = "curve.json"


def main() -> None:
    """Measures every point and prints all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--work", type=Path, required=True, help="Folder that keeps what is finished.")
    parser.add_argument("--recipe", choices=list(NETWORKS), default="lite2")
    parser.add_argument("--numbers", default="1,2,5,10,all", help="Images of a landmark.")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--trained-seeds", help="Seeds of trainings on fewer than all images. [default: --seeds]")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--output", type=Path, help="File that keeps the JSON.")
    args = parser.parse_args()
    if not (args.data / "train.csv").exists():
        sys.exit(f"{args.data}: the photographs are not there; give --data")
    os.environ["LMR_PRECISION"] = PRECISION
    place = Place(args.data.resolve(), args.weights.resolve(), args.work.resolve())
    points = {
        system: {
            n: [point(place, args.recipe, system, n, int(seed)) for seed in seeds_of(args, system, n)]
            for n in args.numbers.split(",")
        }
        for system in args.systems.split(",")
    }
    seeds = {"seeds": args.seeds, "trained_seeds": args.trained_seeds or args.seeds}
    found = {"recipe": args.recipe, **seeds, "images": images_of(args.data), "points": points}
    print(json.dumps(found, indent=1))
    if args.output:
        write_json(args.output, found)


def seeds_of(args: argparse.Namespace, system: str, n: str) -> list[str]:
    """Seeds of a point."""
    few = system == "trained" and n != ALL and args.trained_seeds
    return (few or args.seeds).split(",")


def point(place: Place, recipe: str, system: str, n: str, seed: int) -> dict[str, Any]:
    """GAP and top-1 on val of one system with so many images of a landmark."""
    folder = place.work / "curve" / recipe / f"{n}-{seed}" / system
    folder.mkdir(parents=True, exist_ok=True)
    if system == "trained" and n == ALL:
        found = measure_run(place, Run(recipe, PRECISION, seed), public=False)["val"]
        return {key: found[key] for key in ("gap", "top1")}
    if not (folder / FIGURES).exists():
        manifest = folder.parent / "train.csv"
        draw(place.data / "train.csv", manifest, n, seed)
        {"untrained": untrained, "adapted": adapted, "trained": trained}[system](place, recipe, folder, manifest, seed)
        index, background = folder / "landmarks", folder / "background.h5"
        how = {"model": folder / "model", "whitening_power": 0 if system == "adapted" else 0.5}  # docs/training.md
        lmr.build_index([folder / "train.h5"], background=[background], output=index, overwrite=True, **how)
        found = lmr.calibrate(folder / "val.h5", index=index, overwrite=True).cross_validated
        write_json(folder / FIGURES, {"gap": rounded(found.gap), "top1": rounded(found.top1)})
    return read_json(folder / FIGURES)


def draw(manifest: Path, output: Path, n: str, seed: int) -> None:
    """So many rows of each landmark, in the order of the manifest."""
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    places = defaultdict(list)
    for i in np.random.default_rng(seed).permutation(len(rows)).tolist():
        places[rows[i]["landmark_id"]].append(i)
    most = len(rows) if n == ALL else int(n)
    kept = sorted(i for of_one in places.values() for i in of_one[:most])
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[i] for i in kept)


def untrained(place: Place, recipe: str, folder: Path, manifest: Path, seed: int) -> None:
    """Descriptors of the network as it comes, of which those of the rows of the manifest are taken."""
    source = place.work / f"{recipe}-untrained"
    source.mkdir(exist_ok=True)
    for part in ("train", "background", "val"):
        embed(place, source, part, untrained_embedding(recipe, place.weights))
    for name in ("model", "background.h5", "val.h5"):
        link(source / name, folder / name)
    if not (folder / "train.h5").exists():
        take_rows(source / "train.h5", manifest, folder / "train.h5")


def adapted(place: Place, recipe: str, folder: Path, manifest: Path, seed: int) -> None:
    """A neck trained on the untrained descriptors, without images."""
    before = folder.parent / "untrained"
    before.mkdir(exist_ok=True)
    untrained(place, recipe, before, manifest, seed)
    stores, model = {"negatives": before / "background.h5", "model": before / "model"}, folder / "model"
    lmr.train(before / "train.h5", **stores, output=model, seed=seed)
    for part in ("train", "background", "val"):
        if not (folder / f"{part}.h5").exists():
            lmr.embed(before / f"{part}.h5", model=model, output=folder / f"{part}.h5")


def trained(place: Place, recipe: str, folder: Path, manifest: Path, seed: int) -> None:
    """The network trained on these images alone, and on the background."""
    n = manifest.parent.name.partition("-")[0]
    run = Run(recipe, PRECISION, seed, options=("--epoch-size", str(EPOCH_SIZE[n])))
    images = ["--images", place.data / "images"]
    command(folder, "train", manifest, *training(place, run)[1:], *images)
    command(folder, "embed", manifest, *images, "--output", "train.h5", *trained_embedding(recipe))
    for part in ("background", "val"):
        embed(place, folder, part, trained_embedding(recipe))


def take_rows(store: Path, manifest_path: Path, output: Path) -> None:
    """A store of the rows of a manifest, from one that has them."""
    from dataclasses import replace

    from retrieval.data.manifest import read_manifest
    from retrieval.store.store import create_store, read_store

    manifest, all_rows = read_manifest(manifest_path), read_store(store)
    places = {name: i for i, name in enumerate(all_rows.image_id)}
    kept = all_rows.select(np.array([places[name] for name in manifest.image_id]))
    info = replace(kept.info, manifest_digest=manifest.digest)
    with create_store(output, manifest, list(kept.path), info) as writer:
        writer.write(np.arange(len(kept)), kept.vectors, kept.facts)
        writer.finish()


def link(source: Path, target: Path) -> None:
    if not target.exists():
        target.symlink_to(source)


def images_of(data: Path) -> dict[str, int]:
    """How many images of how many landmarks there are in all."""
    with (data / "train.csv").open(newline="", encoding="utf-8") as file:
        labels = [row["landmark_id"] for row in csv.DictReader(file)]
    return {"images": len(labels), "landmarks": len(set(labels))}


if __name__ == "__main__":
    main()
