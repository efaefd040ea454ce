"""Reads a manifest of 4.1 million rows, and the same file the obvious way: pandas.read_csv, then a dict by row.

Both run in a process of their own, one after the other. Prints one JSON document:
wall and processor seconds, peak memory of the process (MB, the interpreter and all imports included), ratio.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_ROWS = 4_132_914  # of Google Landmarks v2's train.csv
N_LANDMARKS = 203_094
LIMIT_S, LIMIT_MB = 15, 2000

READERS = {
    "lmr": """
from retrieval.data.manifest import read_manifest
n = len(read_manifest(path))
""",
    "pandas_and_dict": """
import pandas
table = pandas.read_csv(path, dtype=str, keep_default_na=False)
rows = {row.id: (row.url, row.landmark_id) for row in table.itertuples(index=False)}
n = len(rows)
""",
}
MEASURE = """
import json, resource, sys, time
path, started = sys.argv[1], time.perf_counter()
{reader}
used = resource.getrusage(resource.RUSAGE_SELF)
seconds = {{"wall_s": time.perf_counter() - started, "cpu_s": used.ru_utime + used.ru_stime}}
print(json.dumps({{"n_rows": n, **seconds, "peak_mb": used.ru_maxrss / 1024}}))
"""


def main() -> None:
    """Writes the file to a temporary folder, reads it both ways, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=N_ROWS, help="rows of the file (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; the fastest counts (default 1)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        write_manifest(path, given.rows)
        results = {name: measure(reader, path, given.repeats) for name, reader in READERS.items()}
        size_mb = path.stat().st_size / 1e6
    ours, theirs = results["lmr"], results["pandas_and_dict"]
    summary = {
        "file_mb": round(size_mb),
        "load_average": os.getloadavg()[0],
        **results,
        "ratio_wall": round(theirs["wall_s"] / ours["wall_s"], 2),
        "ratio_peak": round(theirs["peak_mb"] / ours["peak_mb"], 2),
        "limits": {"wall_s": LIMIT_S, "peak_mb": LIMIT_MB},
        "within_limits": ours["wall_s"] < LIMIT_S and ours["peak_mb"] < LIMIT_MB,
    }
    print(json.dumps(summary, indent=2))


def write_manifest(path: Path, n_rows: int) -> None:
    """Ids, urls and landmarks as long as those of Google Landmarks v2; every hundredth url is quoted."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,url,landmark_id\n")
        for row in range(n_rows):
            name = f"{row & 15:x}/{row & 255:02x}/Some_building_of_interest_{row:09d}_{rng.getrandbits(28):07x}.jpg"
            url = f"https://upload.wikimedia.org/wikipedia/commons/{name}"
            url = f'"{url},_left"' if row % 100 == 0 else url
            file.write(f"{rng.getrandbits(64):016x},{url},{rng.randrange(N_LANDMARKS)}\n")


def measure(reader: str, path: Path, repeats: int) -> dict[str, float]:
    """Figures of the fastest of the runs."""
    root = Path(__file__).resolve().parents[2]
    runs = []
    for _ in range(repeats):
        command = [sys.executable, "-c", MEASURE.format(reader=reader), str(path)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout
        runs.append({name: round(value, 2) for name, value in json.loads(printed).items()})
        time.sleep(1)
    return min(runs, key=lambda run: run["wall_s"])


if __name__ == "__main__":
    main()
