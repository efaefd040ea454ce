"""What geometric verification is worth on real photographs: the same systems with it and without.

For systems that scripts/bench/photos.py left in --systems (stores, model): local features, an index folder with them,
its calibration on val with --verify, and submissions with and without, scored on the public half. Every step is a
command of lmr, which goes on where a stopped run was. Figures of val are cross-validated, its constants chosen on
other folds; the public half is scored once for each system. Prints JSON.

    python scripts/bench/photos.py --data ../shared/photos --weights ../shared/weights --work /tmp/photos
    python scripts/bench/verification.py --data ../shared/photos --weights ../shared/weights --systems /tmp/photos \\
        --work /tmp/verification --case rootsift --case rootsift-64
"""

import argparse
import csv
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photos import lmr, trained_embedding, untrained_embedding

NETWORK = "lite0"
PRECISIONS = (0.95, 0.99)
PARTS = ("train", "background", "val", "test")


@dataclass(frozen=True)
class Case:
    """Local features and what matches them: options of lmr embed, and of the commands that verify."""

    features: tuple[str, ...]
    matching: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the features, which several cases may have in common."""
        return "-".join(word.lstrip("-") for word in self.features)


CASES = {
    "rootsift": Case(("--local", "rootsift")),
    "rootsift-64": Case(("--local", "rootsift", "--local-dimensions", "64")),
    "xfeat": Case(("--local", "xfeat")),
    "aliked": Case(("--local", "aliked")),
    "aliked-lightglue": Case(
        ("--local", "aliked", "--keypoints", "512"), ("--matcher", "lightglue", "--verify-top", "5")
    ),  # 0.17 s a pair of one core; 0.5 s at 1,000 keypoints
}


@dataclass(frozen=True)
class Bench:
    """Folders of a run. data: the photographs; systems: what photos.py left; work: what is made here."""

    data: Path
    weights: Path
    systems: Path
    work: Path
    parts: tuple[str, ...]


def main() -> None:
    """Runs every case on every system and prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--systems", type=Path, required=True, help="The --work of photos.py.")
    parser.add_argument("--work", type=Path, required=True, help="Folder for stores, indices and submissions.")
    parser.add_argument("--case", action="append", choices=list(CASES), help="[default: all of them]")
    parser.add_argument("--system", action="append", choices=["trained", "untrained"], help="[default: both]")
    parser.add_argument("--val-only", action="store_true", help="Without the public half.")
    args = parser.parse_args()
    if not (args.data / "train.csv").exists():
        sys.exit(f"{args.data}: the photographs are not there; give --data")
    data, weights, systems, work = (path.resolve() for path in (args.data, args.weights, args.systems, args.work))
    bench = Bench(data, weights, systems, work, PARTS[:-1] if args.val_only else PARTS)
    result: dict[str, Any] = {"cores": len(os.sched_getaffinity(0))}
    for name in args.case or CASES:
        result[name] = {system: measure(bench, name, system) for system in args.system or ("trained", "untrained")}
    print(json.dumps(result, indent=1))


def measure(bench: Bench, name: str, system: str) -> dict[str, Any]:
    """The figures of one system with and without verification by one kind of local features."""
    case, folder = CASES[name], bench.work / name / system
    folder.mkdir(parents=True, exist_ok=True)
    link(bench.systems / f"{NETWORK}-{system}" / "model", folder / "model")
    for part in bench.parts:
        link(bench.systems / f"{NETWORK}-{system}" / f"{part}.h5", folder / f"{part}.h5")
        link(bench.work / "features" / case.name / f"{part}.local.h5", folder / f"{part}.local.h5")
    embedding = trained_embedding(NETWORK) if system == "trained" else untrained_embedding(NETWORK, bench.weights)
    local = embed(bench, folder, "train", [*embedding, *case.features])
    for part in bench.parts[PARTS.index("val") :]:  # calibrate and submit make local features as those of the index
        embed(bench, folder, part, embedding)
    lmr(folder, "build-index", "train.h5", "--background", "background.h5", "--local")
    verify = ["--verify", *case.matching]
    val = [bench.data / "val.csv", "--store", "val.h5", "--images", bench.data / "images"]
    calibration = json.loads(lmr(folder, "calibrate", *val, *verify, "--json"))
    figures: dict[str, Any] = {"local_bytes_an_image": round(local["bytes"] / local["pictures"])}
    figures["val"] = figures_of(calibration)
    if "test" in bench.parts:
        figures["public"] = {
            key: score(bench, folder, key, more) for key, more in (("plain", []), ("verified", verify))
        }
    for part in bench.parts:
        link(folder / f"{part}.local.h5", bench.work / "features" / case.name / f"{part}.local.h5")
    return figures


def embed(bench: Bench, folder: Path, part: str, options: list[str]) -> dict[str, Any]:
    """Makes or finds the descriptors of a manifest; what lmr embed tells of local features, if it was told of some."""
    words = [bench.data / f"{part}.csv", "--output", f"{part}.h5", "--images", bench.data / "images", *options]
    told: dict[str, Any] = json.loads(lmr(folder, "embed", *words, "--json")).get("local") or {}
    return told


def score(bench: Bench, folder: Path, name: str, verify: list[str]) -> dict[str, Any]:
    """GAP and top-1 of a submission on the public half, and how many lines of it name a landmark."""
    output = f"{name}.csv"
    where = ["--store", "test.h5", "--images", bench.data / "images", "--output", output]
    lmr(folder, "submit", bench.data / "test.csv", *where, *verify)
    solution = bench.data / "test_solution_public.csv"
    public = json.loads(lmr(folder, "score", output, solution, "--ignore-unknown", "--json"))["Public"]
    with (folder / output).open() as lines:
        n_answered = sum(bool(row["landmarks"]) for row in csv.DictReader(lines))
    return {"gap": round(public["gap"], 4), "top1": round(public["top1"], 4), "n_answered": n_answered}


def figures_of(calibration: dict[str, Any]) -> dict[str, Any]:
    """What the calibration says of val: cross-validated, with verification and without. Kinds: at 200 thresholds."""
    verified = calibration["verified"]
    choice, told = verified["choice"], {}
    for name, part in (("plain", calibration), ("verified", verified)):
        told[name] = {key: round(part["cross_validated"][key], 4) for key in ("gap", "top1")}
    for precision in PRECISIONS:
        places = [last_at(part["curves"], precision) for part in (calibration, verified)]
        for (name, part), place in zip((("plain", calibration), ("verified", verified)), places, strict=True):
            told[name][f"at_{precision}"] = None if place is None else at(part["curves"], place)
        if places[0] is not None:
            recall, recalls = calibration["curves"]["recall"][places[0]], verified["curves"]["recall"]
            same = next((i for i, value in enumerate(recalls) if value >= recall), len(recalls) - 1)
            told["verified"][f"at_the_plain_recall_of_{precision}"] = at(verified["curves"], same)
    return {
        "gap_gain": [round(choice["from_plain"], 4), round(choice["from_plain_error"], 4)],
        "at_precision": verified["gain"],
        **{key: verified[key] for key in ("rule", "evidence", "confidence", "n_inliers")},
        **told,
    }


def last_at(curves: dict[str, Any], precision: float) -> int | None:
    """The place of the lowest threshold at which this share of the answers is still right; None where there is none."""
    return max(
        (i for i, share in enumerate(curves["precision"]) if share is not None and share >= precision), default=None
    )


def at(curves: dict[str, Any], place: int) -> dict[str, Any]:
    """Recall of landmarks, and the shares of non-landmarks turned away, at a threshold."""
    away = {"all": curves["false_answer_rate"]}
    away |= {kind["kind"]: kind["false_answer_rate"] for kind in curves["kinds"] if kind["false_answer_rate"]}
    shares = {kind: round(1 - rates[place], 3) for kind, rates in away.items()}
    return {"recall": round(curves["recall"][place], 4), "turned_away": shares}


def link(source: Path, target: Path) -> None:
    """A second name of what is there already; nothing where it is not there yet, or has that name."""
    if not source.exists() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.symlink_to(source)
    else:
        os.link(source, target)


if __name__ == "__main__":
    main()
