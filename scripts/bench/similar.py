"""Reverse image search page by page, and neighbours kept by their confidence: prints JSON.

    python scripts/bench/similar.py --index landmarks
    python scripts/bench/similar.py --index landmarks --val val.h5 --test test.h5 --solution test_solution_public.csv

Pages of 20 at several offsets, of queries that are rows of the index: milliseconds of a page that nothing is kept of,
and of the pages after it. Beside it the usual way, in the same run: the index's own search for all rows up to the end
of the page, cut. An inverted file finds other rows then when it is asked for more, so the usual pages repeat and skip
images; of both the repeated and skipped ones of pages 1 to 60 are counted against one long page.

With stores of held-out queries (--val chooses, --test measures, by the labels of --solution), 250 of each: of the
neighbours that `sure` keeps the share that shows the landmark of the query, and the share of all such images among the
100 most similar ones that it keeps; beside a flat cutoff of the similarity that has the same precision on val, and one
that keeps as many on test.
"""

import argparse
import csv
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from index.folder.folder import open_folder
from index.landmarks import Landmarks
from index.serving.browse import landmark, landmarks_of
from index.serving.similar import search
from retrieval.store.store import read_store

N = 20
OFFSETS = (0, 100, 1_000, 4_000)
N_PAGES = 60
N_QUERIES = 5
N_HELD_OUT = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--val", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--solution", type=Path, help="Labels of the queries of --test: id,landmarks.")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    folder = open_folder(args.index, device="cpu", threads=args.threads)
    landmarks = Landmarks(folder, None)  # type: ignore[arg-type]  # nothing is embedded
    rows = np.random.default_rng(0).permutation(len(folder.rows))
    result: dict[str, Any] = {
        "n_rows": len(folder.rows),
        "d": folder.index.d,
        "kind": folder.info.search.name if folder.info.search else "flat",
        "n_landmarks": len(folder.rows.landmarks),
        "pages": [timed(landmarks, rows[i * N_QUERIES :][:N_QUERIES], offset) for i, offset in enumerate(OFFSETS)],
        "walk": walk(landmarks, rows[-2:]),
        "landmarks_ms": browsing(landmarks),
    }
    if args.val and args.test and args.solution:
        result["kept"] = kept(landmarks, args.val, args.test, args.solution)
    print(json.dumps(result, indent=1))


def timed(landmarks: Landmarks, rows: "np.ndarray[Any, Any]", offset: int) -> dict[str, Any]:
    """Milliseconds of a first page at an offset and of the one after it, and of the index's own search for as many."""
    if offset + 2 * N >= len(landmarks.folder.rows):
        return {"offset": offset, "first_ms": None}
    first, then, usual = [], [], []
    for row in rows:
        image_id = str(landmarks.folder.rows.image_id[int(row)])
        first.append(milliseconds(lambda i=image_id: search(landmarks, i, first=offset, n=N)))
        then.append(milliseconds(lambda i=image_id: search(landmarks, i, first=offset + N, n=N)))
        usual.append(milliseconds(lambda r=int(row): plain_page(landmarks, r, offset)))
    return {
        "offset": offset,
        "first_ms": round(statistics.median(first), 1),
        "then_ms": round(statistics.median(then), 2),
        "usual_ms": round(statistics.median(usual), 1),
        "usual / first": round(statistics.median(usual) / statistics.median(first), 2),
        "usual / then": round(statistics.median(usual) / statistics.median(then), 2),
    }


def walk(landmarks: Landmarks, rows: "np.ndarray[Any, Any]") -> dict[str, Any]:
    """Images that pages repeat and skip, ours and the usual ones, by one long page of the same list."""
    n = min(N_PAGES * N, (len(landmarks.folder.rows) - 1) // N * N)
    ours, usual = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for row in rows.tolist():
        image_id = str(landmarks.folder.rows.image_id[row])
        whole = search(landmarks, image_id, n=min(n, 1_000), fold=False)
        if n > 1_000:
            more = search(landmarks, image_id, first=1_000, n=n - 1_000, fold=False)
        long_list = [item.neighbour.image_id for item in (*whole.items, *(more.items if n > 1_000 else ()))]
        pages = [search(landmarks, image_id, first=i, n=N, fold=False).items for i in range(0, n, N)]
        ours += faults([item.neighbour.image_id for page in pages for item in page], long_list)
        found = [i for start in range(0, n, N) for i in plain_page(landmarks, row, start)]
        exact = landmarks.folder.index.search(landmarks.folder.index.vectors(np.array([row])), n + 1).rows[0]
        usual += faults(found, exact[exact != row][:n].tolist())
    keys = ("repeated", "skipped")
    return {
        "n_images": n,
        "n_queries": len(rows),
        "ours": dict(zip(keys, ours.tolist(), strict=True)),
        "usual": dict(zip(keys, usual.tolist(), strict=True)),
    }


def faults(found: list[Any], expected: list[Any]) -> "np.ndarray[Any, Any]":
    return np.array([len(found) - len(set(found)), len(set(expected) - set(found))])


def plain_page(landmarks: Landmarks, row: int, offset: int) -> list[int]:
    """The usual page: as many neighbours as lie up to its end, without the row itself, cut."""
    folder = landmarks.folder
    found = folder.nearest(folder.index.vectors(np.array([row])), offset + N + 1).rows[0]
    page: list[int] = found[found != row][offset : offset + N].tolist()
    return page


def browsing(landmarks: Landmarks) -> dict[str, float]:
    """Milliseconds of the list of landmarks, the first time and then, and of the accounts of some."""
    known = landmarks.folder.rows.landmarks
    n = landmarks.folder.rows.counts
    some = [known[code] for code in (int(n.argmax()), *np.linspace(0, len(known) - 1, 5).astype(int).tolist())]
    return {
        "list_first": round(milliseconds(lambda: landmarks_of(landmarks)), 1),
        "list_then": round(milliseconds(lambda: landmarks_of(landmarks, first=50)), 1),
        "search": round(milliseconds(lambda: landmarks_of(landmarks, "12")), 1),
        "account_of_the_largest": round(milliseconds(lambda: landmark(landmarks, some[0])), 1),
        "account": round(
            statistics.median([milliseconds(lambda s=label: landmark(landmarks, s)) for label in some[1:]]), 1
        ),
    }


def kept(landmarks: Landmarks, val: Path, test: Path, solution: Path) -> dict[str, Any]:
    """Precision and recall of the neighbours that are kept by confidence, and by a flat cutoff chosen on val."""
    store = read_store(val)
    known = zip(store.image_id, store.landmark.tolist(), strict=True)
    of_code = {code: {label} for code, label in enumerate(store.landmarks)}
    ours, of_val = sure_neighbours(landmarks, val, {str(i): of_code.get(code, set()) for i, code in known})
    with solution.open(newline="") as file:
        labels = {line["id"]: set(line["landmarks"].split()) for line in csv.DictReader(file)}
    measured, of_test = sure_neighbours(landmarks, test, labels)
    similarity, is_right = of_val
    order = np.argsort(-similarity)
    precision = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero(precision >= ours["precision"])
    flat = float(similarity[order[reached[-1]]]) if len(reached) else 1.0
    chosen = of_test[0] >= flat
    cutoff = {"similarity": round(flat, 4), **figures(chosen, of_test[1])}
    as_many = np.zeros(len(of_test[0]), np.bool_)
    as_many[np.argsort(-of_test[0])[: measured["n_kept"]]] = True
    return {"on_val": ours, "ours": measured, "flat": cutoff, "flat_as_many": figures(as_many, of_test[1])}


def sure_neighbours(landmarks: Landmarks, path: Path, labels: dict[str, set[str]]) -> tuple[dict[str, Any], Any]:
    """Figures of the neighbours that are kept, and of all 100 of each query the similarity and if it is right.

    labels: of the queries; of none where it shows no landmark. Those that it does not have are not asked.
    """
    assert landmarks.folder.calibration is not None
    enough = landmarks.folder.calibration.threshold_precision.confidence
    store = read_store(path)
    found: list[tuple[float, float, bool]] = []
    known = [i for i in np.flatnonzero(store.done).tolist() if str(store.image_id[i]) in labels]
    for i in np.random.default_rng(0).permutation(known)[:N_HELD_OUT].tolist():
        own = labels[str(store.image_id[i])]
        items = search(landmarks, np.asarray(store.vectors[i], np.float32), n=100, fold=False).items
        found += [(one.neighbour.score, one.confidence or 0.0, one.neighbour.landmark_id in own) for one in items]
    similarity, confidence, is_right = (np.array(column) for column in zip(*found, strict=True))
    return figures(confidence >= enough, is_right), (similarity, is_right)


def figures(chosen: Any, is_right: Any) -> dict[str, Any]:
    return {
        "n_kept": int(chosen.sum()),
        "precision": round(float(is_right[chosen].mean()), 4),
        "recall": round(float(chosen[is_right].mean()), 4),
    }


def milliseconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
