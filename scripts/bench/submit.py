"""A submission of a challenge's size: stored descriptors to submission.csv, beside exact search and FAISS.

    python scripts/bench/submit.py [--rows 1225030] [--queries 117703] [--whitening-power 0.5] [--work DIR]

Descriptors are made as vectors.py makes them; half of the queries show known landmarks, half of them others. Building
the index folder, answering all queries from their store to the submission, exact search of lmr and FAISS's IndexFlatIP
over float32 are processes of their own. The last two answer --exact-queries of each half, and what they take for all is
extrapolated. Of these queries is told how often the nearest row, the neighbours that vote and the landmark are those of
exact search, and how often the landmark is right. own_mb: memory that is not mapped from files, at the end. FAISS is
asked as its wheel comes, whose BLAS may not know the processor, and as index/search/library.py imports it (faiss_told);
gflops_a_core is what its search reaches. Prints JSON.
--work keeps the stores and the index in a folder, and a further run does not make them again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from memory import FINGERPRINT, status, write_store
from vectors import BLOCK, World, make_world

VOTING = 20  # neighbours that vote in an index without calibration
KINDS = ("known", "background")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_225_030, help="(default %(default)s)")
    parser.add_argument("--landmarks", type=int, default=14_951, help="(default %(default)s)")
    parser.add_argument("--dimensions", type=int, default=512, help="(default %(default)s)")
    parser.add_argument("--queries", type=int, default=117_703, help="(default %(default)s)")
    parser.add_argument("--exact-queries", type=int, default=500, help="of each half (default %(default)s)")
    parser.add_argument("--whitening-power", type=float, default=0.5, help="0 = none (default %(default)s)")
    parser.add_argument("--recall", type=float, default=0.99, help="that is asked of the index (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default %(default)s)")
    parser.add_argument("--work", type=Path, help="folder that is kept")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        args.work = args.work or Path(scratch)
        args.work.mkdir(parents=True, exist_ok=True)
        make(args)
        built, found = args.work / "built.json", {}
        if not built.exists():
            built.write_text(json.dumps(run("build", args)))
        for part in ("submit", "exact", "faiss", "faiss_told"):
            found[part] = run(part, args)
        print(json.dumps(report(args, json.loads(built.read_text()), found), indent=1))


def report(args: argparse.Namespace, built: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """All figures, with ratios."""
    for part in ("exact", "faiss", "faiss_told"):
        for name in ("wall_s", "cpu_s"):
            found[part][f"{name}_of_all"] = round(found[part][name] * args.queries / (2 * args.exact_queries), 1)
    ours = found["submit"]
    settings = {name: value for name, value in vars(args).items() if name not in ("work", "part")}
    told = {"settings": settings, "build": built, **found, "agreement": agreement(args)}
    for part in ("exact", "faiss", "faiss_told"):
        told[f"x_{part}_cpu"] = round(found[part]["cpu_s_of_all"] / ours["cpu_s"], 1)
    told["exact_x_faiss_cpu"] = round(found["faiss"]["cpu_s"] / found["exact"]["cpu_s"], 2)
    return told


def agreement(args: argparse.Namespace) -> dict[str, Any]:
    """Of each half of the queries: shares that are as exact search has them, and of landmarks that are right."""
    ours, exact = (np.load(args.work / f"{part}.npz") for part in ("submit", "exact"))
    told: dict[str, Any] = {}
    for i, kind in enumerate(KINDS):
        part = slice(i * args.exact_queries, (i + 1) * args.exact_queries)
        near, sought = ours["rows"][part], exact["rows"][part]
        voting = np.mean([np.isin(e, f).mean() for e, f in zip(sought, near, strict=True)])
        told[kind] = {
            "nearest_row": round(float(np.mean(near[:, 0] == sought[:, 0])), 4),
            "neighbours": round(float(voting), 4),
            "landmark": round(float(np.mean(ours["landmark"][part] == exact["landmark"][part])), 4),
        }
        if kind == "known":
            for name, answers in (("right", ours), ("right_by_exact_search", exact)):
                told[kind][name] = round(float(np.mean(answers["landmark"][part] == answers["truth"][part])), 4)
    return told


def make(args: argparse.Namespace) -> None:
    """The stores and the card of a model, where they are not there."""
    world = make_world(args.landmarks, args.dimensions)
    model = args.work / "model"
    model.mkdir(exist_ok=True)
    (model / "model.json").write_text(json.dumps({"fingerprint": FINGERPRINT}))
    if not (args.work / "train.h5").exists():
        write_store(args, "train.h5", world.landmarks(args.rows), (vectors for vectors, _ in world.rows(args.rows)))
    if not (args.work / "queries.h5").exists():
        n_known = args.queries // 2
        none = np.full(args.queries - n_known, -1, np.int32)
        landmark = np.concatenate([world.landmarks(n_known, of_queries=True), none])
        write_store(args, "queries.h5", landmark, queries(world, n_known, len(none)), prefix="q")


def queries(world: World, n_known: int, n_none: int) -> Iterator[np.ndarray]:
    """Those of known landmarks, then those of none."""
    for number, start in enumerate(range(0, n_known, BLOCK)):
        yield world.block(number, min(BLOCK, n_known - start), of_queries=True)[0]
    yield world.background(n_none)


def run(part: str, args: argparse.Namespace) -> dict[str, Any]:
    """What a part says of itself, in a process of its own."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in vars(args).items() if name != "part"]
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    command = [sys.executable, __file__, "--part", part, *words]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    said: dict[str, Any] = json.loads(found.stdout)
    return said


def build(args: argparse.Namespace) -> dict[str, Any]:
    from index.folder.build import build_folder
    from index.folder.config import BuildOptions
    from index.folder.inputs import BuildInputs
    from index.search.config import SearchOptions
    from retrieval.store.store import open_descriptors

    begun = started()
    inputs = BuildInputs([open_descriptors(args.work / "train.h5")], args.work / "model")
    options = BuildOptions(whitening_power=args.whitening_power or None, search=SearchOptions(recall=args.recall))
    search = build_folder(args.work / "index", inputs, options, overwrite=True, device="cpu").info.search
    return taken(begun) | {"search": search and asdict(search)}


def submit(args: argparse.Namespace) -> dict[str, Any]:
    from index.folder.folder import open_folder
    from index.kaggle.shares import answered_beside, predict_store
    from index.kaggle.submission import submission_lines
    from index.recognition import answer_rows
    from retrieval.files.made_of import write_with_record
    from retrieval.progress import SILENT
    from retrieval.store.store import open_descriptors

    begun = started()
    folder = open_folder(args.work / "index", device="cpu", threads=args.threads)
    store, output = open_descriptors(args.work / "queries.h5"), args.work / "submission.csv"
    kept = answered_beside(output, {"set of descriptors": store.digest})
    kept.remove()
    write_with_record(output, submission_lines(predict_store(folder, store, -np.inf, kept, SILENT)), {})
    kept.remove()
    told = taken(begun) | {"own_mb": round(status("RssAnon") / 1000)}
    answers = answer_rows(folder, store, asked(args))
    keep(args, "submit", answers.neighbours.rows, answers.landmark, store.landmark[asked(args)])
    return told


def exact(args: argparse.Namespace) -> dict[str, Any]:
    from index.folder.folder import open_folder
    from index.recognition import answer_rows
    from retrieval.store.store import open_descriptors

    folder = replace(open_folder(args.work / "index", device="cpu", threads=args.threads), ivf=None)
    store = open_descriptors(args.work / "queries.h5")
    begun = started()
    answers = answer_rows(folder, store, asked(args))
    told = taken(begun)
    keep(args, "exact", answers.neighbours.rows, answers.landmark, store.landmark[asked(args)])
    return told


def faiss_flat(args: argparse.Namespace) -> dict[str, Any]:
    import faiss

    return flat_of(faiss, args)


def faiss_told(args: argparse.Namespace) -> dict[str, Any]:
    from index.search.library import faiss

    return flat_of(faiss, args)


def flat_of(faiss: Any, args: argparse.Namespace) -> dict[str, Any]:
    """FAISS's exact search of the rows of the index folder, as float32."""
    from index.folder.folder import open_folder
    from index.recognition import to_index_space
    from retrieval.store.store import open_descriptors

    faiss.omp_set_num_threads(args.threads)
    folder, store = open_folder(args.work / "index", device="cpu"), open_descriptors(args.work / "queries.h5")
    flat = faiss.IndexFlatIP(folder.index.d)
    for block in folder.index.blocks():
        flat.add(block)
    vectors = to_index_space(folder, store.vectors[asked(args)])
    begun = started()
    flat.search(vectors, VOTING)
    told = taken(begun)
    return told | {"gflops_a_core": round(2e-9 * len(vectors) * flat.ntotal * flat.d / max(told["cpu_s"], 0.01), 1)}


def asked(args: argparse.Namespace) -> Any:
    """Rows of the first queries of each half."""
    first = np.arange(args.exact_queries)
    return np.concatenate([first, args.queries // 2 + first])


def keep(args: argparse.Namespace, part: str, rows: Any, landmark: Any, truth: Any) -> None:
    np.savez(args.work / f"{part}.npz", rows=rows[:, :VOTING], landmark=landmark, truth=truth)


def started() -> tuple[float, float]:
    """Wall and processor time."""
    return time.perf_counter(), time.process_time()


def taken(begun: tuple[float, float]) -> dict[str, float]:
    """What has passed since, and the largest resident set so far, pages of mapped files among it."""
    wall, cpu = (now - then for now, then in zip(started(), begun, strict=True))
    return {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_mb": round(status("VmHWM") / 1000)}


PARTS = {"build": build, "submit": submit, "exact": exact, "faiss": faiss_flat, "faiss_told": faiss_told}

if __name__ == "__main__":
    main()
