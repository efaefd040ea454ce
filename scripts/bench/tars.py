"""Images in tars: random reads against plain files and against Python's tarfile, and the making of the index.

    python scripts/bench/tars.py
    python scripts/bench/tars.py --members 4132914 --tars 500

The tars hold random bytes, of the sizes of images for the reads and small ones for the index. Each of the three reads
the same images in the same random order, in a process of its own; so do both ways to go through all headers (scan)
and to index. Prints one JSON
document: images a second, seconds, peak memory of the process (MB, the interpreter and all imports included), ratios.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

READ_BYTES = 60_000  # about an image of Google Landmarks at 500 px
INDEX_BYTES = 700  # only the headers are read

BEGIN = """
import json, os, sys, time
folder, n = sys.argv[1], int(sys.argv[2])
ids = [line.split(" ")[0] for line in open(folder + "/order.txt")][:n]
places = [line.split(" ")[1].strip() for line in open(folder + "/order.txt")][:n]
"""
END = """
seconds = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu_began}
peak_kb = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({**seconds, "peak_mb": peak_kb / 1024, "n": count}))
"""
SOURCE = """
import numpy as np
from pathlib import Path
from retrieval.data.manifest import Manifest
from retrieval.data.image_source import ImageSource
manifest = Manifest("none", np.array(ids, dtype=object), np.full(len(ids), -1, np.int32), ())
source = ImageSource(manifest, Path(folder) / "{images}")
source.read(0)
began, cpu_began = time.perf_counter(), time.process_time()
count = sum(len(source.read(i)) > 0 for i in range(len(ids)))
"""
READERS = {
    "lmr_tars": BEGIN + SOURCE.format(images="tars") + END,
    "lmr_plain_files": BEGIN + SOURCE.format(images="plain") + END,
    "tarfile": BEGIN
    + """
import tarfile
opened = {}
for name in sorted(os.listdir(folder + "/tars")):
    if name.endswith(".tar"):
        tar = tarfile.open(os.path.join(folder, "tars", name))
        opened[name] = tar, {member.name: member for member in tar}
began, cpu_began = time.perf_counter(), time.process_time()
count = 0
for place in places:
    name, path = place.split("/", 1)
    tar, members = opened[name]
    count += len(tar.extractfile(members[path]).read()) > 0
"""
    + END,
}
INDEXERS = {
    "lmr_scan": BEGIN
    + """
from retrieval.images.tars.archive import list_tars
from retrieval.images.tars.headers import TarScan
began, cpu_began = time.perf_counter(), time.process_time()
count = sum(1 for path in list_tars(folder + "/tars") for member in TarScan(path))
"""
    + END,
    "tarfile_scan": BEGIN
    + """
import tarfile
began, cpu_began = time.perf_counter(), time.process_time()
count = 0
for name in sorted(os.listdir(folder + "/tars")):
    if name.endswith(".tar"):
        with tarfile.open(os.path.join(folder, "tars", name)) as tar:
            for member in tar:
                count += 1
                tar.members = []
"""
    + END,
    "lmr_index": BEGIN
    + """
from retrieval.images.tars.archive import TarSet, list_tars
began, cpu_began = time.perf_counter(), time.process_time()
count = TarSet(list_tars(folder + "/tars")).n_pictures
"""
    + END,
    "lmr_open_again": BEGIN
    + """
from retrieval.images.tars.archive import TarSet, list_tars
began, cpu_began = time.perf_counter(), time.process_time()
count = TarSet(list_tars(folder + "/tars")).n_pictures
"""
    + END,
    "tarfile_index": BEGIN
    + """
import tarfile
began, cpu_began = time.perf_counter(), time.process_time()
members = {}
for name in sorted(os.listdir(folder + "/tars")):
    if name.endswith(".tar"):
        with tarfile.open(os.path.join(folder, "tars", name)) as tar:
            for member in tar:
                members[member.name] = name, member.offset_data, member.size
count = len(members)
"""
    + END,
}


def main() -> None:
    """Writes the tars to a temporary folder, measures, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="to read (default %(default)s)")
    parser.add_argument("--members", type=int, default=200_000, help="to index (default %(default)s)")
    parser.add_argument("--tars", type=int, default=25, help="that they are in (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of reading, the median counts (default %(default)s)")
    parser.add_argument("--folder", type=Path, default=None, help="for the temporary files, on the disk to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        make_tars(folder / "read", given.images, given.tars, READ_BYTES, plain=True)
        rounds = [
            {key: run(code, folder / "read", given.images) for key, code in READERS.items()}
            for _ in range(given.rounds)
        ]
        make_tars(folder / "index", given.members, given.tars, INDEX_BYTES, plain=False)
        indexing = {key: run(code, folder / "index", 0) for key, code in INDEXERS.items()}
        index_mb = (folder / "index/tars/.lmr-tars.sqlite").stat().st_size / 1e6
    reading = {key: median([one[key] for one in rounds]) for key in READERS}
    index, theirs = indexing["lmr_index"], indexing["tarfile_index"]
    summary = {
        "load_average": round(os.getloadavg()[0], 1),
        "reading": reading,
        "indexing": {**indexing, "index_mb": round(index_mb, 1)},
    }
    for kind in ("wall_s", "cpu_s"):
        summary[f"ratio_of_{kind}"] = {
            "reading_to_plain_files": round(reading["lmr_plain_files"][kind] / reading["lmr_tars"][kind], 2),
            "reading_to_tarfile": round(reading["tarfile"][kind] / reading["lmr_tars"][kind], 2),
            "indexing_to_tarfile": round(theirs[kind] / index[kind], 2),
            "scanning_to_tarfile": round(indexing["tarfile_scan"][kind] / indexing["lmr_scan"][kind], 2),
        }
    summary["ratio_of_indexing_memory_to_tarfile"] = round(theirs["peak_mb"] / index["peak_mb"], 2)
    print(json.dumps(summary, indent=2))


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure by itself, and the images a second of wall and processor time."""
    middle = {name: sorted(run[name] for run in runs)[len(runs) // 2] for name in runs[0]}
    return middle | {f"pictures_per_{kind}": round(middle["n"] / middle[kind]) for kind in ("wall_s", "cpu_s")}


def make_tars(folder: Path, n: int, n_tars: int, n_bytes: int, *, plain: bool) -> None:
    """n members in Google's folders, shared between the tars; order.txt: id and tar/path of each in random order."""
    rng = random.Random(0)
    (folder / "tars").mkdir(parents=True)
    order = []
    for tar_number in range(n_tars):
        tar_name = f"images_{tar_number:03}.tar"
        with tarfile.open(folder / "tars" / tar_name, "w", format=tarfile.GNU_FORMAT) as tar:
            for _ in range(n // n_tars):
                image_id = f"{rng.getrandbits(64):016x}"
                path = f"{image_id[0]}/{image_id[1]}/{image_id[2]}/{image_id}.jpg"
                content = rng.randbytes(rng.randrange(n_bytes // 2, n_bytes * 3 // 2))
                info = tarfile.TarInfo(path)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                order.append(f"{image_id} {tar_name}/{path}\n")
                if plain:
                    place = folder / "plain" / path
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(content)
    rng.shuffle(order)
    (folder / "order.txt").write_text("".join(order))


def run(code: str, folder: Path, n: int) -> dict[str, float]:
    """What a program prints in a process of its own."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(folder), str(n)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout
    return {name: round(value, 2) for name, value in json.loads(printed).items()}


if __name__ == "__main__":
    main()
