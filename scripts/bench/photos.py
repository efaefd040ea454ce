"""The whole job on real photographs: train, index, calibrate on val, answer test; scored on the public half.

Every step is a command of lmr, printed as it runs, so that anyone can rerun it by hand. The same network untrained
goes through the same steps (without training) in the same run, as the reference. Prints JSON.

    python scripts/bench/photos.py --data ../shared/photos --weights ../shared/weights --work /tmp/photos

lite0-whole is lite0 with all of it trained, on smaller images; lite0-small has small images and few epochs, for what
needs many trainings. With --network ensemble the three trained networks that are in --work answer together.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NORMALISATION = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
LITE0 = ["--backbone", "timm:tf_efficientnet_lite0", "--weights", "{weights}/tf_efficientnet_lite0.pt", *NORMALISATION]
NETWORKS = {
    "lite2": ["--backbone", "lite2"],  # of the extra `weights`
    "lite0": LITE0,
    "lite0-whole": LITE0,
    "lite0-small": LITE0,
    "mobilenetv2": [
        *["--backbone", "timm:mobilenetv2_100", "--weights", "{weights}/mobilenetv2_100.pt"],
        *["--backbone-option", "pad_type=same", "--backbone-option", "bn_eps=0.001", *NORMALISATION],
    ],
}
# Chosen on val, like all that follows.
PARTLY = ["--epochs", "18", "--freeze", "5", "--ema", "0.996"]
TRAINING = {
    "lite2": ["--size", "260", *PARTLY],
    "lite0": ["--size", "256", *PARTLY],
    "lite0-whole": ["--size", "224", "--epochs", "16"],
    "lite0-small": ["--size", "128", "--epochs", "8", "--freeze", "5", "--ema", "0.99"],
    "mobilenetv2": ["--size", "256", *PARTLY],
}
# Of descriptors: 9/7 of the training size.
SIZE = {"lite2": "336", "lite0": "328", "lite0-whole": "288", "lite0-small": "165", "mobilenetv2": "328"}
UNTRAINED_SIZE = "288"
TEST_TIME = ["--fit", "pad", "--flip"]
TRAINED_ONLY = ["--descriptor", "both"]
ENSEMBLE = ("lite0", "lite0-whole", "mobilenetv2")  # with equal weights


def main() -> None:
    """Runs one network, trained and untrained, and prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--work", type=Path, required=True, help="Folder for models, stores and submissions.")
    parser.add_argument("--network", choices=[*NETWORKS, "ensemble"], default="lite0")
    parser.add_argument("--train-option", action="append", default=[], help="Further option of lmr train.")
    args = parser.parse_args()
    if not (args.data / "train.csv").exists():
        sys.exit(f"{args.data}: the photographs are not there; give --data")
    data = args.data.resolve()
    if args.network == "ensemble":
        print(
            json.dumps(
                {"network": "ensemble", "members": ENSEMBLE, "trained": ensemble(args.work.resolve(), data)}, indent=1
            )
        )
        return
    network = network_of(args.network, args.weights)
    trained, untrained = args.work / f"{args.network}-trained", args.work / f"{args.network}-untrained"
    for folder in (trained, untrained):
        folder.mkdir(parents=True, exist_ok=True)
    lmr(
        trained,
        "train",
        data / "train.csv",
        "--negatives",
        data / "background.csv",
        *network,
        *TRAINING[args.network],
        *args.train_option,
    )
    log = list(csv.DictReader((trained / "model" / "training.csv").open()))
    result = {
        "network": args.network,
        "training_s": float(log[-1]["seconds"]),  # a run that was stopped goes on: of all its parts
        "trained": answer(trained, data, trained_embedding(args.network)),
        "untrained": answer(untrained, data, untrained_embedding(args.network, args.weights)),
        "cores": len(os.sched_getaffinity(0)),
    }
    result["gap_ratio"] = round(result["trained"]["gap"] / result["untrained"]["gap"], 3)
    print(json.dumps(result, indent=1))


def network_of(name: str, weights: Path) -> list[str]:
    """The options of lmr train and lmr embed that name a network and its weights."""
    return [part.format(weights=weights.resolve()) for part in NETWORKS[name]]


def trained_embedding(name: str) -> list[str]:
    """The options of lmr embed after training."""
    return ["--size", SIZE[name], *TEST_TIME, *TRAINED_ONLY]


def untrained_embedding(name: str, weights: Path) -> list[str]:
    """The options of lmr embed without training."""
    return [*network_of(name, weights), "--dimensions", "0", "--size", UNTRAINED_SIZE, *TEST_TIME]


def ensemble(work: Path, data: Path) -> dict[str, Any]:
    """The networks as one, each as its own run left it in its index folder."""
    folder = work / "ensemble"
    folder.mkdir(exist_ok=True)
    members = [work / f"{name}-trained" / "landmarks" / "model" for name in ENSEMBLE]
    lmr(folder, "ensemble", *members, "--output", "model")
    return answer(folder, data, [])


def answer(folder: Path, data: Path, embedding: list[str]) -> dict[str, Any]:
    """Descriptors, index, calibration on val, submission; the figures on the public half and on val."""
    began = time.perf_counter()
    lmr(folder, "embed", data / "train.csv", *embedding, "--output", "train.h5")
    lmr(folder, "embed", data / "background.csv", *embedding, "--output", "background.h5")
    lmr(folder, "build-index", "train.h5", "--background", "background.h5")
    calibration = json.loads(lmr(folder, "calibrate", data / "val.csv", "--store", "val.h5", "--json"))
    lmr(folder, "submit", data / "test.csv", "--store", "test.h5", "--images", data / "images")
    answering_s = time.perf_counter() - began
    solution = data / "test_solution_public.csv"
    scores = json.loads(lmr(folder, "score", "submission.csv", solution, "--ignore-unknown", "--json"))["Public"]
    report = ["--store", "solution.h5", "--images", data / "images", "--json", "--report", "report.html", "--overwrite"]
    measured = json.loads(lmr(folder, "evaluate", solution, *report))
    at_precision = calibration["threshold_precision"]
    return {
        "gap": round(scores["gap"], 4),
        "gap_interval": [round(edge, 4) for edge in measured["gap_interval"]],
        "top1": round(scores["top1"], 4),
        "top1_without_threshold": round(measured["top1"], 4),
        "baselines": {name: round(row["gap"], 4) for name, row in measured["baselines"].items()},
        "val": {
            "cross_validated_gap": round(calibration["cross_validated"]["gap"], 4),
            "rule": calibration["rule"],
            "recall_at_precision": round(at_precision["recall"], 4),
            "precision": round(at_precision["precision"], 4),
            "turned_away": {
                kind["kind"]: round(1 - kind["false_answer_rate"], 4)
                for kind in at_precision["kinds"]
                if kind["false_answer_rate"] is not None
            },
        },
        "answering_s": round(answering_s, 1),
        "n_answered": sum(bool(row["landmarks"]) for row in csv.DictReader((folder / "submission.csv").open())),
    }


def lmr(folder: Path, *words: object) -> str:
    """Runs one command in a folder and returns what it printed; stops with its message when it fails."""
    command = [str(word) for word in words]
    print("lmr", *command, file=sys.stderr)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lmr")), *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"lmr {command[0]} failed")
    return done.stdout


if __name__ == "__main__":
    main()
