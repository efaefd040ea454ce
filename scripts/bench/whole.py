"""The best system with every labelled photograph in it: networks trained on train and val, alone and together.

Their settings are those of scripts/bench/photos.py, which were chosen on val by networks that had not seen it. Nothing
is left to calibrate on: the default vote answers, every image, and only the public half of test is scored, once for
each. A call that was stopped goes on in --work. Prints JSON.

    python scripts/bench/whole.py --data ../shared/photos --weights ../shared/weights --work /tmp/quality \\
        --members lite2-0,lite2-1,lite2-2
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from answers import interval, read_answers
from photos import NETWORKS, TRAINING, lmr, network_of, trained_embedding
from quality import FIGURES, SUBMISSION, Place, join_stores, read_json, submitted, write_json

PRECISION = "fp32"
PUBLIC = "test_solution_public.csv"


def main() -> None:
    """Trains what is not there, and scores every member and all as one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--work", type=Path, required=True, help="Folder that keeps what is finished.")
    parser.add_argument("--members", default="lite2-0,lite2-1,lite2-2", help=f"SEED of {', '.join(NETWORKS)}.")
    args = parser.parse_args()
    if not (args.data / "train.csv").exists():
        sys.exit(f"{args.data}: the photographs are not there; give --data")
    os.environ["LMR_PRECISION"] = PRECISION
    place = Place(args.data.resolve(), args.weights.resolve(), args.work.resolve() / "whole")
    place.work.mkdir(parents=True, exist_ok=True)
    manifests = {"all": write_all(place), "background": place.data / "background.csv", "public": place.data / PUBLIC}
    names = args.members.split(",")
    found = {name: one(place, name, manifests) for name in names}
    if len(names) > 1:
        found["+".join(names)] = together(place, names, manifests)
    print(json.dumps(found, indent=1))


def write_all(place: Place) -> Path:
    """The manifest of train and val."""
    rows = []
    for part in ("train", "val"):
        with (place.data / f"{part}.csv").open(newline="", encoding="utf-8") as file:
            rows += [(row["id"], row["landmark_id"]) for row in csv.DictReader(file)]
    path = place.work / "all.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "landmark_id"), *rows])
    return path


def one(place: Place, name: str, manifests: dict[str, Path]) -> dict[str, Any]:
    """Figures of one network. name: its recipe and seed, as in lite2-0."""
    recipe, _, seed = name.rpartition("-")
    folder, images = place.work / name, ["--images", place.data / "images"]
    folder.mkdir(exist_ok=True)
    if "training_s" not in read_json(folder / "cost.json"):
        network = [*network_of(recipe, place.weights), *TRAINING[recipe], "--seed", seed, "--precision", PRECISION]
        lmr(folder, "train", manifests["all"], *images, "--negatives", manifests["background"], *network)
        log = list(csv.DictReader((folder / "model" / "training.csv").open()))
        cost = {"training_s": float(log[-1]["seconds"]), "cores": len(os.sched_getaffinity(0))}
        write_json(folder / "cost.json", cost)
    for store, manifest in manifests.items():
        if not (folder / f"{store}.h5").exists():
            lmr(folder, "embed", manifest, *images, "--output", f"{store}.h5", *trained_embedding(recipe))
    return read_json(folder / "cost.json") | scored(place, folder)


def together(place: Place, names: Sequence[str], manifests: dict[str, Path]) -> dict[str, Any]:
    """Figures of several networks as one, their descriptors joined as `lmr ensemble` joins them."""
    folder, members = place.work / "+".join(names), [place.work / name for name in names]
    folder.mkdir(exist_ok=True)
    lmr(folder, "ensemble", *(member / "landmarks" / "model" for member in members), "--output", "model")
    for store, manifest in manifests.items():
        if not (folder / f"{store}.h5").exists():
            join_stores([member / f"{store}.h5" for member in members], folder, manifest)
    return scored(place, folder)


def scored(place: Place, folder: Path) -> dict[str, Any]:
    """Index of all, answers to the public half, and what they are worth."""
    known = read_json(folder / FIGURES)
    if "gap" not in known:
        lmr(folder, "build-index", "all.h5", "--background", "background.h5", "--overwrite")
        known = submitted(place, folder, "--output", SUBMISSION)
        known["gap_interval"] = interval([read_answers(folder / SUBMISSION, place.data / PUBLIC)])
        write_json(folder / FIGURES, known)
    return known


if __name__ == "__main__":
    main()
