"""How images are best prepared for a network as it comes: size, fit and mirror image, on val. Prints JSON.

Every preparation is embedded, indexed plain and half whitened, and answered by the nearest neighbour: nothing is chosen
but the preparation. What is finished in --work is not done again.

    python scripts/bench/untrained.py --data ../shared/photos --weights ../shared/weights --work /tmp/untrained \\
        --networks lite2,lite0 --preparations 260-squash,288-pad-flip
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from photos import NETWORKS, lmr, network_of

POWERS = (0.0, 0.5)
PREPARATIONS = "260-squash,260-pad-flip,288-pad,288-squash-flip,288-pad-flip,328-pad-flip"


def main() -> None:
    """Measures every network in every preparation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--work", type=Path, required=True, help="Folder that keeps what is finished.")
    parser.add_argument("--networks", default="lite2,lite0", help=f"Of {', '.join(NETWORKS)}.")
    parser.add_argument("--preparations", default=PREPARATIONS, help="SIZE-FIT or SIZE-FIT-flip, with commas.")
    args = parser.parse_args()
    if not (args.data / "train.csv").exists():
        sys.exit(f"{args.data}: the photographs are not there; give --data")
    found = {
        name: {
            prepared: measure(args.data.resolve(), network_of(name, args.weights), args.work / name / prepared)
            for prepared in args.preparations.split(",")
        }
        for name in args.networks.split(",")
    }
    print(json.dumps(found, indent=1))


def measure(data: Path, network: list[str], folder: Path) -> dict[str, Any]:
    """GAP and top-1 of the nearest neighbour, by whitening power."""
    folder.mkdir(parents=True, exist_ok=True)
    size, fit, *flip = folder.name.split("-")
    prepared = ["--size", size, "--fit", fit, "--flip" if flip else "--no-flip"]
    for part in ("train", "background", "val"):
        if not (folder / f"{part}.h5").exists():
            words = [*network, "--dimensions", "0", *prepared, "--output", f"{part}.h5"]
            lmr(folder, "embed", data / f"{part}.csv", *words)
    figures: dict[str, Any] = {}
    for power in POWERS:
        built = ["train.h5", "--background", "background.h5", "--whitening-power", power, "--thumbnails", 0]
        lmr(folder, "build-index", *built, "--overwrite")
        measured = json.loads(lmr(folder, "evaluate", "val.h5", "--json"))["baselines"]["nearest_neighbour"]
        figures[f"power {power:g}"] = {key: round(measured[key], 4) for key in ("gap", "top1")}
    return figures


if __name__ == "__main__":
    main()
