"""Answers of an index whose stores are float16 against one whose stores are float32, of the same descriptors.

    python scripts/bench/dtype.py --stores STORES --model MODEL

STORES holds train.h5, val.h5 and background.h5, made with `lmr embed --dtype float32`. They are rounded to float16, as
`lmr embed` does it; both indexes are asked the same queries. Prints JSON: how many get the same landmark, the same ten
nearest rows in the same order, and GAP and top-1 of both.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import lmr
from index.evaluate.result import EvaluationResult
from index.recognition import answer_store
from retrieval.store.file import lay_out
from retrieval.store.layout import Columns
from retrieval.store.store import StoreWriter, open_descriptors, partial_path, read_store

PARTS = ("train", "val", "background")
TOP = 10


def main() -> None:
    """Builds both indexes, asks both the same queries, and prints how their answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=Path, required=True, help="Folder with train.h5, val.h5 and background.h5.")
    parser.add_argument("--model", type=Path, required=True, help="Model that made them.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in PARTS:
            halve(args.stores / f"{name}.h5", work / f"{name}.h5")
        full = ask(args.stores, args.model, work / "full")
        half = ask(work, args.model, work / "half")
        print(json.dumps(compared(full, half), indent=1))


def halve(path: Path, output: Path) -> None:
    """Writes a store again with its descriptors rounded to float16."""
    store = read_store(path)
    if store.info.dtype != "float32" or not store.done.all():
        raise SystemExit(f"{path} must be float32, and every image readable")
    columns = Columns(store.image_id, store.landmark, store.landmarks, store.path, store.kind, store.names)
    lay_out(partial_path(output), columns, replace(store.info, dtype="float16"))
    with StoreWriter(output, partial_path(output)) as writer:
        writer.write(np.arange(len(store)), np.asarray(store.vectors), store.facts)
        writer.finish()


def ask(stores: Path, model: Path, index: Path) -> EvaluationResult:
    """The answers of an index of these stores, whitened by half as it is by default."""
    lmr.build_index(
        [stores / "train.h5"], background=[stores / "background.h5"], model=model, output=index, thumbnails=0
    )
    return lmr.evaluate(stores / "val.h5", index=index)


def compared(full: EvaluationResult, half: EvaluationResult) -> dict[str, object]:
    """How the answers of the two differ."""
    answers = [answer_store(result.folder, open_descriptors(result.source)) for result in (full, half)]
    rows = [each.neighbours.rows[:, :TOP] for each in answers]
    accuracy = [result.evaluation.accuracy for result in (full, half)]
    return {
        "queries": len(answers[0]),
        "same_landmark": int((answers[0].landmark == answers[1].landmark).sum()),
        "same_nearest": int((rows[0][:, 0] == rows[1][:, 0]).sum()),
        f"same_nearest_{TOP}": int((rows[0] == rows[1]).all(axis=1).sum()),
        "largest_difference_of_a_score": float(np.abs(answers[0].score - answers[1].score).max()),
        "gap": [each.gap for each in accuracy],
        "top1": [each.top1 for each in accuracy],
    }


if __name__ == "__main__":
    main()
