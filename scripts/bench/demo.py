"""Runs `lmr demo` with several seeds as a user would, and prints time, memory and GAP, trained and untrained, as JSON.

python scripts/bench/demo.py [--seeds 0 1 2]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """One whole demo a seed, each a process of its own in an empty folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    print(json.dumps({f"seed {seed}": measure(seed) for seed in args.seeds}, indent=1))


def measure(seed: int) -> dict[str, float]:
    """Seconds, the peak of the memory of all its processes together in MB, and the figures it prints."""
    lmr = Path(sys.executable).with_name("lmr")
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        began = time.perf_counter()
        command = [str(lmr), "demo", str(Path(folder) / "demo"), "--seed", str(seed), "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        peak_kb = 0
        while process.poll() is None:
            peak_kb = max(peak_kb, memory_kb(process.pid))
            time.sleep(0.2)
        seconds = time.perf_counter() - began
        assert process.stdout is not None
        if process.returncode:
            log.seek(0)
            sys.exit(f"lmr demo --seed {seed} failed:\n{log.read()[-2000:]}")
        found = json.loads(process.stdout.read())
    figures = {name: round(found[name], 3) for name in ("gap", "top1", "untrained_gap")}
    return {"seconds": round(seconds, 1), "peak_mb": round(peak_kb / 1024), **figures}


def memory_kb(pid: int) -> int:
    """Proportional memory of a process and all below it (Linux; pages they share are counted once)."""
    total, waiting = 0, [pid]
    while waiting:
        here = waiting.pop()
        try:
            for line in Path(f"/proc/{here}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
            for task in os.listdir(f"/proc/{here}/task"):
                waiting += map(int, Path(f"/proc/{here}/task/{task}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return total


if __name__ == "__main__":
    main()
