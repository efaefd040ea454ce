"""How many flipped labels `lmr clean` finds, beside a leave-one-out vote and cleanlab on the same descriptors.

A share of the train labels is flipped at random to another landmark, for each seed; some labels are wrong before that
and count as false alarms. Descriptors are of the given untrained weights. cleanlab is installed into an environment of
its own below --work, and judges probabilities of a logistic regression, out of fold. Its licence (AGPL) rules it out as
a dependency. Prints JSON.

    python scripts/bench/clean.py --photos ../shared/photos --weights ../shared/weights/tf_efficientnet_lite0.pt
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from index.metrics import gap
from index.search.base import Neighbours
from index.search.flat import FlatIndex
from index.vote import background_similarity, best, vote
from index.vote_rule import VoteRule
from index.whitening import fit_whitening
from retrieval.store.store import Descriptors, read_store

PRECISION = 0.9
EMBEDDING = [
    *("--backbone", "timm:tf_efficientnet_lite0", "--dimensions", "0", "--size", "288", "--fit", "pad", "--flip"),
    *("--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"),
]
CLEANLAB = """
import json, sys
import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
given = np.load(sys.argv[1])
labels, p = given["labels"], given["probabilities"]
print(json.dumps({
    "issues": find_label_issues(labels, p).tolist(),
    "score": (1 - get_label_quality_scores(labels, p, method="normalized_margin")).tolist(),
}))
"""


def main() -> None:
    """Measures each seed and prints the figures and their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights/tf_efficientnet_lite0.pt"))
    parser.add_argument("--work", type=Path, default=Path("clean-bench"), help="Folder for stores and environments.")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--share", type=float, default=0.1, help="Of the labels that are flipped.")
    parser.add_argument("--train", action="store_true", help="Also train on the dirty and on the kept labels.")
    parser.add_argument("--epochs", default="8", help="Of that training.")
    args = parser.parse_args()
    if not (args.photos / "train.csv").exists():
        sys.exit(f"{args.photos}: the photographs are not there; give --photos")
    args.work.mkdir(parents=True, exist_ok=True)
    photos, weights = args.photos.resolve(), args.weights.resolve()
    for part in ("train", "background", "val"):
        lmr(args.work, "embed", photos / f"{part}.csv", *EMBEDDING, "--weights", weights)
    python = cleanlab_environment(args.work)
    stores = {part: read_store(args.work / f"{part}.h5") for part in ("train", "background", "val")}
    seeds = [int(seed) for seed in args.seeds.split(",")]
    results = [measure(stores, (args.work, photos, python), seed, args) for seed in seeds]
    names = ("lmr", "vote", "cleanlab")
    mean = {name: {key: mean_of(results, name, key) for key in results[0][name]} for name in names}
    mean["gap_val"] = {key: mean_of(results, "gap_val", key) for key in results[0]["gap_val"]}
    key = "recall_at_90_precision"
    ratio = {f"to_{name}": round(mean["lmr"][key] / mean[name][key], 3) for name in names[1:]}
    print(json.dumps({"share": args.share, "seeds": results, "mean": mean, f"{key}_ratio": ratio}, indent=1))


def measure(stores: dict[str, Descriptors], where: tuple[Path, Path, Path], seed: int, args: Any) -> dict[str, Any]:
    """One seed: recall at 90 % precision, and recall and precision of what each leaves out by itself."""
    work, photos, python = where
    train = stores["train"]
    true = train.landmark.astype(np.int64)
    given, flipped = flip(true, len(train.landmarks), seed, args.share)
    folder = work / f"seed-{seed}"
    folder.mkdir(exist_ok=True)
    write_manifest(folder / "dirty.csv", train, given)
    began = time.perf_counter()
    store = ["--store", (work / "train.h5").resolve(), "--background", (work / "background.h5").resolve()]
    options = ["--checks", "labels", "--gallery", "0", "--overwrite", "--images", photos / "images"]
    lmr(folder, "clean", "dirty.csv", *store, *options)
    lmr_s = time.perf_counter() - began
    rows = list(csv.DictReader((folder / "cleaned" / "decisions.csv").open()))
    odds = np.array([float(row["log_odds"] or -np.inf) for row in rows])
    left_out = np.array([row["decision"] == "drop" for row in rows])
    white, background, val = whitened(stores)
    votes, suspicion = leave_one_out(white, given.astype(np.int32))
    began = time.perf_counter()
    issues, score = ask_cleanlab(python, folder, white, given)
    kept = np.flatnonzero(~left_out)
    result: dict[str, Any] = {
        "seed": seed,
        "n_flipped": int(flipped.sum()),
        "lmr": {**judge(flipped, odds, left_out), "seconds": round(lmr_s, 1)},
        "vote": judge(flipped, suspicion, votes != given),
        "cleanlab": {**judge(flipped, score, issues), "seconds": round(time.perf_counter() - began, 1)},
        "gap_val": {
            "true_labels": val_gap(white, true, (val, background), stores),
            "dirty_labels": val_gap(white, given, (val, background), stores),
            "kept": val_gap(white[kept], given[kept], (val, background), stores),
        },
    }
    if args.train:
        result["trained_gap_val"] = {
            name: trained_gap(folder / name, manifest, where, args)
            for name, manifest in (("dirty", folder / "dirty.csv"), ("kept", folder / "cleaned" / "kept.csv"))
        }
    return result


def flip(true: Any, n_landmarks: int, seed: int, share: float) -> tuple[Any, Any]:
    """Labels of which a share is another landmark, uniformly, and which those are."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(true), round(share * len(true)), replace=False)
    given = true.copy()
    given[rows] = (true[rows] + rng.integers(1, n_landmarks, len(rows))) % n_landmarks
    return given, np.isin(np.arange(len(true)), rows)


def judge(flipped: Any, suspicion: Any, left_out: Any) -> dict[str, float]:
    """Recall where the ranked list is cut at 90 % precision; recall and precision of what was left out."""
    hits = np.cumsum(flipped[np.argsort(-suspicion, kind="stable")])
    precise = np.flatnonzero(hits / np.arange(1, len(hits) + 1) >= PRECISION)
    n_found = int((left_out & flipped).sum())
    return {
        "recall_at_90_precision": round(float(hits[precise[-1]] / flipped.sum()) if len(precise) else 0.0, 4),
        "recall": round(n_found / int(flipped.sum()), 4),
        "precision": round(n_found / max(1, int(left_out.sum())), 4),
    }


def whitened(stores: dict[str, Descriptors]) -> tuple[Any, Any, Any]:
    """Half whitening over train and background, which uses no labels: train, background, val."""
    parts = [stores[name].vectors.astype(np.float32) for name in ("train", "background", "val")]
    whitening = fit_whitening(np.concatenate(parts[:2]))
    train, background, val = (whitening.apply(part) for part in parts)
    return train, background, val


def leave_one_out(white: Any, given: Any) -> tuple[Any, Any]:
    """The landmark that lmr's vote gives each image without itself, and how far it is above the label."""
    rule = VoteRule()
    found = FlatIndex.build(white, device="cpu").search(white, rule.k + 1)
    own = found.rows == np.arange(len(white))[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(white), rule.k)
    votes = vote(Neighbours(found.rows[~own].reshape(shape), found.scores[~own].reshape(shape)), given, rule)
    label, score = best(votes, len(white))
    of_label = np.full(len(white), -1.0)
    mine = votes.landmark == given[votes.query]
    of_label[votes.query[mine]] = votes.score[mine]
    return label, np.where(label == given, -1.0, score - of_label)


def ask_cleanlab(python: Path, folder: Path, white: Any, given: Any) -> tuple[Any, Any]:
    """Which rows cleanlab names, and its normalised margin, from probabilities out of fold."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=30.0, max_iter=300)
    probabilities = cross_val_predict(model, white, given, cv=folds, method="predict_proba")
    np.savez(folder / "cleanlab.npz", labels=given, probabilities=probabilities)
    command = [str(python), "-c", CLEANLAB, str(folder / "cleanlab.npz")]
    answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return np.array(answer["issues"]), np.array(answer["score"])


def val_gap(white: Any, landmark: Any, asked: tuple[Any, Any], stores: dict[str, Descriptors]) -> float:
    """GAP on val of an index of these rows, uncalibrated: ranked by S(q, c) - 0.75 c(q)."""
    queries, background = asked
    store, names = stores["val"], np.array((*stores["train"].landmarks, ""), dtype=object)
    found = FlatIndex.build(white, device="cpu").search(queries, VoteRule().k)
    label, score = best(vote(found, landmark.astype(np.int32), VoteRule()), len(queries))
    score = score - 0.75 * background_similarity(queries, background, VoteRule().m)
    truth = np.array((*store.landmarks, ""), dtype=object)[store.landmark]
    right = (names[label] == truth) & (truth != "")
    return round(gap(score, right, int((truth != "").sum()), store.image_id), 4)


def trained_gap(folder: Path, manifest: Path, where: tuple[Path, Path, Path], args: Any) -> float:
    """GAP on val of a network trained on these labels, whose index has these labels too."""
    photos = where[1]
    folder.mkdir(exist_ok=True)
    images = ["--images", photos / "images"]
    network = [*EMBEDDING[:2], "--weights", args.weights.resolve(), *EMBEDDING[-4:], "--size", "224"]
    training = ["--negatives", photos / "background.csv", "--epochs", args.epochs]
    lmr(folder, "train", manifest.resolve(), *images, *network, *training)
    lmr(folder, "embed", manifest.resolve(), *images, "--output", "train.h5", "--descriptor", "both")
    lmr(folder, "embed", photos / "background.csv", "--descriptor", "both")
    lmr(folder, "build-index", "train.h5", "--background", "background.h5")
    measured = lmr(folder, "evaluate", photos / "val.csv", *images, "--json")
    return round(float(json.loads(measured)["gap"]), 4)


def cleanlab_environment(work: Path) -> Path:
    """The Python of an environment that has cleanlab, made where it is not there yet."""
    python = work.resolve() / "cleanlab" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(work / "cleanlab")], check=True)
    if subprocess.run([str(python), "-c", "import cleanlab"], stderr=subprocess.DEVNULL, check=False).returncode:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "cleanlab"], check=True)
    return python


def write_manifest(path: Path, store: Descriptors, landmark: Any) -> None:
    """id, landmark_id of each row."""
    lines = [f"{i},{store.landmarks[code]}" for i, code in zip(store.image_id, landmark, strict=True)]
    path.write_text("\n".join(["id,landmark_id", *lines]) + "\n")


def mean_of(results: list[dict[str, Any]], name: str, key: str) -> float:
    """Over the seeds."""
    return round(float(np.mean([result[name][key] for result in results])), 4)


def lmr(folder: Path, *words: object) -> str:
    """Runs one command in a folder and returns what it printed; stops when it fails."""
    command = [str(word) for word in words]
    print("lmr", *command, file=sys.stderr)
    program = str(Path(sys.executable).with_name("lmr"))
    done = subprocess.run([program, *command], cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"lmr {command[0]} failed")
    return done.stdout


if __name__ == "__main__":
    main()
