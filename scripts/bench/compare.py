"""The earlier systems, rebuilt, beside ours on the photographs; and what each part of ours brings. Prints JSON.

Every table is one call of `lmr compare`, printed as it runs; a call that was stopped goes on from --work.

    python scripts/bench/compare.py --table same --data ../shared/photos --weights ../shared/weights --work /tmp/compare
    python scripts/bench/compare.py --table original ...
    python scripts/bench/compare.py --table ablation ...

same: every procedure on EfficientNet-Lite0 with the given weights, scored on the public half of test. original: the
networks that the earlier systems had, from scratch, on the same half. ablation: arcface-best without one part or with
another one in its place, on val.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

OURS = ("arcface-best", "arcface-subcenter-dynamic", "arcface-ensemble", "arcface")
BEST = "arcface-best"
# Few epochs, so that three seeds take hours and not days; more where an epoch is cheap.
SAME = [
    "knn-imagenet",
    "kapoor:epochs=12",
    "kapoor:epochs=12,backbone-rate=1e-4,head-rate=1e-3",  # its own rates are slow on so few images
    "widholm-vgg16-delf:stage.1.epochs=12,stage.2.epochs=12",
    "slides:epochs=6",
    "data603-mobilenet:epochs=6",
    "cs231n-erus-resnet50:epochs=6",
    "arcface:epochs=6",
    "arcface-subcenter-dynamic:epochs=6",
    "arcface-best:epochs=8,ema=0.99,embed.size=165",
]
ORIGINAL = [  # nothing frozen and rates for random weights; fewer pixels where 128 would take long
    "slides:backbone=plain-mlp,epochs=20",
    "slides:backbone=plain-cnn,epochs=20",
    "slides:backbone=plain-cnn,backbone-option=pool=avg,epochs=20",
    "slides:epochs=6",
    "slides:backbone=resnet101,size=64,epochs=3",
    "slides:backbone=inception_v3,size=80,epochs=6",
    "kapoor:size=64,epochs=6,backbone-rate=1e-4,head-rate=1e-4",
    "kapoor:backbone=timm:legacy_xception,size=64,epochs=6",
    "kapoor:backbone=resnet50,size=64,epochs=6",
    "widholm-vgg16-delf:size=64,stage.1.epochs=6,stage.1.freeze=all,stage.2.epochs=6,stage.2.backbone-rate=1e-2,"
    "stage.2.head-rate=1e-2",
    "cs231n-erus-resnet50:size=64,epochs=3",
    "data603-mobilenet:backbone=mobilenet_v2,epochs=6",
]
SCRATCH = ("pretrained=false", "size=128", "freeze=none", "backbone-rate=1e-3", "head-rate=1e-3")
ABLATION = {
    "whitening": "whitening-power=0",
    "background correction": "background=none.csv",
    "flip": "embed.flip=false",
    "picture size at 9/7 of training": "embed.size=128",
    "votes, against the one nearest": "by=nearest",
    "GeM, against the mean": "pooling=avg",
    "margins by count, against none": "loss=softmax",
    "margins by count, against dynamic": "margin=dynamic",
    "balance": "balance=0",
    "non-landmark negatives": "negative-weight=0",
    "running average of the weights": "ema=0",
    "first blocks frozen, against all trained": "freeze=none",
    "training at 128 px, against 96": "train.size=96,embed.size=123",
}
ABLATED = "epochs=8,ema=0.99,train.size=128,embed.size=165"


def main() -> None:
    """Makes one table and prints it with what it says about ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=["same", "original", "ablation"], required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--work", type=Path, required=True, help="Folder that keeps what is finished.")
    parser.add_argument("--seeds", default=None, help="[default: 0,1,2 for same, else 0]")
    parser.add_argument("--only", action="append", default=[], help="A system, or all of a recipe; may be repeated.")
    parser.add_argument(
        "--option", action="append", default=[], help="Further option of lmr compare, such as --threads=1."
    )
    args = parser.parse_args()
    if not (args.data / "train.csv").exists():
        sys.exit(f"{args.data}: the photographs are not there; give --data")
    solution = ["--part", "test", "--solution", args.data / "test_solution_public.csv"]
    lite0 = ["--backbone", "timm:tf_efficientnet_lite0", "--weights", args.weights / "tf_efficientnet_lite0.pt"]
    lite0 += ["--set", "mean=0.5,0.5,0.5", "--set", "std=0.5,0.5,0.5"]
    systems, options, seeds = {
        "same": (SAME, [*lite0, *solution, "--set", "size=128"], "0,1,2"),
        "original": (ORIGINAL, [*solution, *(word for value in SCRATCH for word in ("--set", value))], "0"),
        "ablation": ([f"{BEST}:{ABLATED}", *map(_ablated, ABLATION.values())], lite0, "0"),
    }[args.table]
    asked = [system for system in systems if not args.only or {system, system.partition(":")[0]} & {*args.only}]
    if not asked:
        sys.exit(f"--only {' '.join(args.only)}: not in this table, which has {' '.join(systems)}")
    seeds = ["--seeds", args.seeds or seeds]
    table = compare([*asked, "--data", args.data, "--output", args.work, *seeds, *options, *args.option])
    print(json.dumps({"systems": table, "found": found(args.table, table)}, indent=1))


def compare(words: list[Any]) -> dict[str, dict[str, Any]]:
    """Means and standard deviations of every figure by system."""
    command = ["compare", *map(str, words), "--json"]
    print("lmr", *command, file=sys.stderr)
    lmr = Path(sys.executable).with_name("lmr")
    done = subprocess.run([str(lmr), *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("lmr compare failed")
    return {
        system["system"]: {
            "n_seeds": len(system["runs"]),
            "mean": _rounded(system["mean"]),
            "standard_deviation": _rounded(system["standard_deviation"]),
        }
        for system in json.loads(done.stdout)["systems"]
    }


def found(table: str, systems: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How far the best of ours is above the best of the others, or what each part brings in GAP."""
    gap = {name: system["mean"]["gap"] for name, system in systems.items()}
    if table == "ablation":
        whole = gap.get(f"{BEST}:{ABLATED}")
        parts = {part: _ablated(change) for part, change in ABLATION.items()}
        return {
            part: {"with": whole, "without": gap[name], "gain": round(whole - gap[name], 4)}
            for part, name in parts.items()
            if name in gap and whole is not None
        }
    top1 = {name: system["mean"]["top1"] for name, system in systems.items()}
    ours = [name for name in gap if name.partition(":")[0] == BEST]
    others = [name for name in gap if name.partition(":")[0] not in OURS]
    if not ours or not others:
        return {}
    return {
        name: {
            "ours": figures[ours[0]],
            "best_other": (other := max(others, key=lambda n: figures[n])),
            "its": figures[other],
        }
        for name, figures in (("gap", gap), ("top1", top1))
    }


def _ablated(change: str) -> str:
    """The system of the ablation with this change; a key that both set is the change's."""
    values = dict(part.split("=", 1) for part in f"{ABLATED},{change}".split(","))
    return f"{BEST}:" + ",".join(f"{key}={value}" for key, value in values.items())


def _rounded(figures: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 4) for name, value in figures.items()}


if __name__ == "__main__":
    main()
