"""`lmr stats` on 1.2 million rows without images, and the same counts with pandas; and measuring images.

Rows are as long as those of Google Landmarks, landmarks have a long tail. Both run in a process of their own, one
after the other. With --photos, a folder of images, `lmr stats --images` is also timed against the same facts by
Pillow, ImageHash and numpy, one process each (pip install ImageHash). Prints one JSON document: wall and processor
seconds, peak memory of the process (MB, the interpreter and all imports included), images a second, ratios.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

N_ROWS, N_LANDMARKS, N_HOSTS = 1_200_000, 14_951, 40  # rows and landmarks of Kaggle's challenge of 2018
LIMIT_S = 30

LMR = """
from cli.main import main
main(["stats", path, "--json", "--facts", path + ".sqlite", *sys.argv[2:]], standalone_mode=False)
"""
PANDAS = """
import numpy, pandas
from urllib.parse import urlsplit
table = pandas.read_csv(path, dtype=str, keep_default_na=False)
counts = table.landmark_id[table.landmark_id != ""].value_counts()
found = {
    "rows": len(table),
    "landmarks": len(counts),
    "blanks": (table == "").sum().to_dict(),
    "unique": bool(table.id.is_unique),
    "percentiles": counts.quantile(numpy.arange(0.1, 1, 0.1)).tolist(),
    "most": counts.head(10).to_dict(),
    "least": counts.tail(10).to_dict(),
    "share": (counts.cumsum() / counts.sum()).iloc[[0, 9, 99]].tolist(),
    "hosts": table.url.map(lambda url: urlsplit(url).netloc).value_counts().head(20).to_dict(),
}
print(json.dumps(found))
"""
IMAGEHASH = """
import hashlib, io, pathlib
import imagehash, numpy
from PIL import Image, ImageOps
n = 0
for place in sorted(pathlib.Path(path).iterdir()):
    data = place.read_bytes()
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB"))
    grey = picture.convert("L")
    grey.thumbnail((10**9, 256))
    luma = numpy.asarray(grey, dtype=numpy.float32)
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    gradient = numpy.hypot(*numpy.gradient(luma)).mean()
    facts = (picture.size, hashlib.sha256(data).hexdigest(), imagehash.phash(picture), luma.mean(), luma.std(),
             laplacian.var(), gradient, grey.entropy())
    n += 1
print(json.dumps({"measured": {"readable": n}}))
"""
MEASURE = """
import json, resource, sys, time, io, contextlib
path, started, said = sys.argv[1], time.perf_counter(), io.StringIO()
with contextlib.redirect_stdout(said):
{body}
used = resource.getrusage(resource.RUSAGE_SELF)
figures = {{"wall_s": time.perf_counter() - started, "cpu_s": used.ru_utime + used.ru_stime}}
print(json.dumps({{**figures, "peak_mb": used.ru_maxrss / 1024, "found": json.loads(said.getvalue())}}))
"""


def main() -> None:
    """Writes the table to a temporary folder, counts both ways, measures images both ways, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=N_ROWS, help="rows of the table (default %(default)s)")
    parser.add_argument("--photos", type=Path, default=None, help="folder of pictures to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        write_table(path, given.rows)
        ours, theirs = measure(LMR, path), measure(PANDAS, path)
        summary = {
            "rows": given.rows,
            "file_mb": round(path.stat().st_size / 1e6),
            "load_average": os.getloadavg()[0],
            "agree": agree(ours.pop("found"), theirs.pop("found")),
            "lmr": ours,
            "pandas": theirs,
            "ratio_wall": round(theirs["wall_s"] / ours["wall_s"], 2),
            "ratio_peak": round(theirs["peak_mb"] / ours["peak_mb"], 2),
            "within_limit": ours["wall_s"] < LIMIT_S,
        }
        if given.photos is not None:
            summary["pictures"] = compare_images(given.photos, Path(folder))
    print(json.dumps(summary, indent=2))


def compare_images(photos: Path, folder: Path) -> dict[str, object]:
    """Images a second of both, and their ratio in processor time."""
    if find_spec("imagehash") is None:
        raise SystemExit("--photos compares with ImageHash; pip install ImageHash")
    path = folder / "pictures.csv"
    places = sorted(place for place in photos.iterdir() if place.is_file())
    path.write_text("path\n" + "".join(f"{place.name}\n" for place in places), encoding="utf-8")
    ours = measure(LMR, path, "--images", str(photos.absolute()), "--workers", "1")
    theirs = measure(IMAGEHASH, photos)
    n = {name: run.pop("found")["measured"]["readable"] for name, run in (("lmr", ours), ("imagehash", theirs))}
    per_cpu_s = {name: n[name] / run["cpu_s"] for name, run in (("lmr", ours), ("imagehash", theirs))}
    return {
        "n": n,
        "lmr": ours,
        "imagehash": theirs,
        "pictures_per_cpu_s": {name: round(value, 1) for name, value in per_cpu_s.items()},
        "ratio_cpu": round(per_cpu_s["lmr"] / per_cpu_s["imagehash"], 2),
    }


def write_table(path: Path, n_rows: int) -> None:
    """id, url, landmark_id; one row in a hundred without a landmark, the k-th landmark has a share of about 1 / k."""
    rng = np.random.default_rng(0)
    rank = np.exp(rng.uniform(0, np.log(N_LANDMARKS), n_rows)).astype(int)
    host, blank, name = rng.integers(0, N_HOSTS, n_rows), rng.random(n_rows) < 0.01, rng.integers(0, 2**63, n_rows)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,url,landmark_id\n")
        for row in range(n_rows):
            label = "" if blank[row] else rank[row]
            url = f"http://lh{host[row]}.example.org/-{name[row] >> 5:x}/AAAA/{name[row] >> 20:x}/s1600/"
            file.write(f"{name[row]:016x},{url},{label}\n")


def agree(ours: dict[str, object], theirs: dict[str, object]) -> bool:
    """Whether both counted the same."""
    counts = ours["pictures_per_landmark"]
    assert isinstance(counts, dict)
    pairs = [(ours[key], theirs[key]) for key in ("rows", "landmarks", "blanks")]
    pairs.append((list(counts["percentiles"].values()), theirs["percentiles"]))
    return all(one == other for one, other in pairs)


def measure(body: str, path: Path, *arguments: str) -> dict[str, float]:
    """Figures and findings of a process of its own."""
    root = Path(__file__).resolve().parents[2]
    inside = "".join(f"    {line}\n" for line in body.strip().splitlines())
    command = [sys.executable, "-c", MEASURE.format(body=inside), str(path), *arguments]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root).stdout
    return {name: round(value, 2) if name != "found" else value for name, value in json.loads(printed).items()}


if __name__ == "__main__":
    main()
