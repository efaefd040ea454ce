"""How good a recipe is, and how far chance moves that: seeds, number formats, val and the public half. Prints JSON.

Every run is the training of scripts/bench/photos.py with another seed or number format, embedded, indexed and
calibrated on val by commands of lmr, printed as they run. A call that was stopped goes on in --work; what is finished
there is not done again. With --public finished runs answer the public half of test, once. With --join the networks of
several runs answer together, their descriptors put one after the other as `lmr ensemble` puts them. With --part the
descriptor is its neck's or its pooled part alone. With --grown the landmarks of val come into the index once it is
calibrated on them, as anybody would do who has no other use for them.

    python scripts/bench/quality.py --data ../shared/photos --weights ../shared/weights --work /tmp/quality \\
        --recipe lite0 --seeds 0,1,2 --precisions bf16,fp32 --public
    python scripts/bench/quality.py --work /tmp/quality --join lite0-bf16-0,lite0-bf16-1,lite0-bf16-2 --public
"""

import argparse
import csv
import json
import os
import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from answers import interval, read_answers, reliability, rounded, weights_at
from photos import NETWORKS, TRAINING, lmr, network_of, trained_embedding

SHIFTED = 0.9  # share of non-landmarks that a second calibration expects
FIGURES, SUBMISSION, VERIFIED = "figures.json", "all.csv", "verified.json"


@dataclass(frozen=True)
class Place:
    """Folders: the photographs, pretrained weights, and what is made here."""

    data: Path
    weights: Path
    work: Path


@dataclass(frozen=True)
class Run:
    """One training, and the part of its descriptors that answers. options: of lmr train, which `variant` names."""

    recipe: str
    precision: str
    seed: int
    variant: str = ""
    options: tuple[str, ...] = ()
    part: str = "both"

    @property
    def name(self) -> str:
        """Name of its folder."""
        return "-".join(filter(None, (self.recipe, self.variant, self.precision, str(self.seed))))

    @property
    def answers(self) -> str:
        """Name of the folder of its answers."""
        return self.name if self.part == "both" else f"{self.name}-{self.part}"


def main() -> None:
    """Runs what is asked for and prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--work", type=Path, required=True, help="Folder that keeps what is finished.")
    parser.add_argument("--recipe", choices=list(NETWORKS), default="lite0")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--precisions", default="bf16,fp32")
    parser.add_argument("--variant", default="", help="Name of what --train-option changes.")
    parser.add_argument("--train-option", action="append", default=[], help="Further option of lmr train.")
    parser.add_argument("--join", action="append", default=[], help="Names of runs, with commas, that answer together.")
    parser.add_argument("--public", action="store_true", help="Score the public half too.")
    parser.add_argument("--verify", action="store_true", help="With --join: answers verified by RootSIFT too.")
    parser.add_argument("--part", choices=["both", "neck", "pooled"], default="both", help="Of the descriptor.")
    parser.add_argument("--grown", action="store_true", help="With --public: of an index with val's landmarks too.")
    args = parser.parse_args()
    if not (args.data / "train.csv").exists():
        sys.exit(f"{args.data}: the photographs are not there; give --data")
    if bool(args.variant) != bool(args.train_option):
        sys.exit("--variant names what --train-option changes; give both")
    place = Place(args.data.resolve(), args.weights.resolve(), args.work.resolve())
    if args.join:
        how = {"public": args.public, "verify": args.verify, "grown": args.grown}
        joined = {names: join(place, names.split(","), **how) for names in args.join}
        print(json.dumps(joined, indent=1))
        return
    runs = [
        Run(args.recipe, precision, int(seed), args.variant, tuple(args.train_option), args.part)
        for seed in args.seeds.split(",")
        for precision in args.precisions.split(",")
    ]
    measured = {run: measure_run(place, run, public=args.public, grown=args.grown) for run in runs}
    print(json.dumps(summary(place, measured), indent=1))


def measure_run(place: Place, run: Run, *, public: bool, grown: bool = False) -> dict[str, Any]:
    """Trains, embeds and measures a run, or goes on with it; its figures."""
    folder = place.work / run.name
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["LMR_PRECISION"] = run.precision  # of descriptors, as of training
    if not (folder / "cost.json").exists():
        began, is_new = children_s(), not (folder / "model").exists()
        lmr(folder, "train", *training(place, run))
        log = list(csv.DictReader((folder / "model" / "training.csv").open()))
        cost = {"training_s": float(log[-1]["seconds"])}
        cost["training_cpu_s"] = round(children_s() - began) if is_new else None  # of the last part alone
        write_json(folder / "cost.json", cost | {"cores": len(os.sched_getaffinity(0))})
    for part in ("train", "background", "val"):
        embed(place, folder, part, trained_embedding(run.recipe))
    if run.part != "both":
        folder = take_part(place, run, public=public)
    figures = {**asdict(run), **read_json(place.work / run.name / "cost.json")}
    return figures | measure(place, folder, public=public, grown=grown)


def take_part(place: Place, run: Run, *, public: bool) -> Path:
    """The folder of answers by a part of the descriptors; its stores are made of those of the whole."""
    whole, folder = place.work / run.name, place.work / run.answers
    folder.mkdir(exist_ok=True)
    if not (folder / "model").exists():
        (folder / "model").symlink_to(whole / "model")
    if public:
        embed(place, whole, "test_solution_public", trained_embedding(run.recipe), "public")
    if not (whole / "landmarks").exists():  # the model with the preparation of the stores
        measure(place, whole, public=False)
    model = whole / "landmarks" / "model"
    for name in ("train", "background", "val", *(["public"] if public else [])):
        if not (folder / f"{name}.h5").exists():
            how = ["--model", model, "--descriptor", run.part, "--output", f"{name}.h5"]
            lmr(folder, "embed", whole / f"{name}.h5", *how)
    return folder


def training(place: Place, run: Run) -> list[object]:
    """Options of lmr train."""
    data, network = place.data, network_of(run.recipe, place.weights)
    manifests = [data / "train.csv", "--negatives", data / "background.csv"]
    chance = ["--seed", run.seed, "--precision", run.precision]
    return [*manifests, *network, *TRAINING[run.recipe], *chance, *run.options]


def embed(place: Place, folder: Path, part: str, options: Sequence[str], name: str = "") -> None:
    """Descriptors of a manifest, where they are not there yet."""
    store = f"{name or part}.h5"
    if not (folder / store).exists():
        lmr(folder, "embed", place.data / f"{part}.csv", "--output", store, *options)


def measure(place: Place, folder: Path, *, public: bool, grown: bool = False) -> dict[str, Any]:
    """Index, calibration on val and answers to the public half, from stores that are there; figures of both."""
    known = read_json(folder / FIGURES)
    if "val" not in known:
        lmr(folder, "build-index", "train.h5", "--background", "background.h5", "--overwrite")
        words = ["calibrate", place.data / "val.csv", "--store", "val.h5", "--json", "--overwrite"]
        known["val"] = of_val(json.loads(lmr(folder, *words)))
        shutil.rmtree(folder / "shifted", ignore_errors=True)
        shutil.copytree(folder / "landmarks", folder / "shifted")
        lmr(folder, *words, "--index", "shifted", "--non-landmark-share", SHIFTED)
        write_json(folder / FIGURES, known)
    if public and "public" not in known:
        known["public"] = answer_public(place, folder)
        write_json(folder / FIGURES, known)
    if public and grown and "grown" not in known:
        known["grown"] = answer_grown(place, folder, "landmarks")
        write_json(folder / FIGURES, known)
    return known


def of_val(calibration: dict[str, Any]) -> dict[str, Any]:
    """What a calibration says: nested cross-validation, and the threshold where 95 of 100 answers are right."""
    at = calibration["threshold_precision"]
    return {
        "gap": rounded(calibration["cross_validated"]["gap"]),
        "top1": rounded(calibration["cross_validated"]["top1"]),
        "default_vote_gap": rounded(calibration["choice"]["held_out"]["gap_default"]),
        "rule": calibration["rule"],
        "at_precision": {
            "precision": rounded(at["precision"]),
            "recall": rounded(at["recall"]),
            "turned_away": {
                kind["kind"]: rounded(1 - kind["false_answer_rate"])
                for kind in at["kinds"]
                if kind["false_answer_rate"] is not None
            },
        },
    }


def answer_public(place: Place, folder: Path) -> dict[str, Any]:
    """Submissions for the public half, and what they are worth."""
    solution, images = place.data / "test_solution_public.csv", place.data / "images"
    asked = ["--store", "public.h5", "--images", images]
    lmr(folder, "submit", solution, *asked, "--overwrite")
    for index, output in (("landmarks", SUBMISSION), ("shifted", "shifted.csv")):
        words = ["--index", index, "--output", output, "--threshold", 0, "--overwrite"]
        lmr(folder, "submit", solution, *asked, *words)
    scores = json.loads(lmr(folder, "score", "submission.csv", solution, "--json"))["Public"]
    measured = json.loads(lmr(folder, "evaluate", solution, *asked, "--json"))
    answers = read_answers(folder / SUBMISSION, solution)
    shifted = read_answers(folder / "shifted.csv", solution)
    return {
        "gap": rounded(scores["gap"]),
        "top1": rounded(scores["top1"]),
        "gap_interval": [rounded(edge) for edge in measured["gap_interval"]],
        "top1_without_threshold": rounded(measured["top1"]),
        "nearest_gap": rounded(measured["baselines"]["nearest_neighbour"]["gap"]),
        "at_precision": {
            "threshold": rounded(measured["threshold_precision"]),
            "precision": rounded(measured["precision_at_threshold"]),
            "recall": rounded(measured["recall_at_precision"]),
            "turned_away": {kind: rounded(1 - rate) for kind, rate in measured["false_answer_rate"].items()},
        },
        "confidence": {
            "as_calibrated": reliability(answers, np.ones(len(answers.known))),
            f"share_{SHIFTED:g}": reliability(shifted, weights_at(shifted.known, SHIFTED)),
            f"share_{SHIFTED:g}_not_told": reliability(answers, weights_at(answers.known, SHIFTED)),
        },
    }


def answer_grown(place: Place, folder: Path, index: str, *options: str) -> dict[str, Any]:
    """Figures of the public half by a calibrated index that has the landmarks of val too."""
    target = f"{index}-grown"
    shutil.rmtree(folder / target, ignore_errors=True)
    shutil.copytree(folder / index, folder / target)
    lmr(folder, "index", "add", "val.h5", "--index", target)
    return submitted(place, folder, "--index", target, "--output", f"{target}.csv", *options)


def submitted(place: Place, folder: Path, *options: str) -> dict[str, Any]:
    """GAP and top-1 of answers to the public half. options: of lmr submit, `--output` among them."""
    solution, output = place.data / "test_solution_public.csv", options[options.index("--output") + 1]
    asked = [solution, "--store", "public.h5", "--images", place.data / "images", *options, "--overwrite"]
    lmr(folder, "submit", *asked)
    scores = json.loads(lmr(folder, "score", output, solution, "--json"))["Public"]
    return {key: rounded(scores[key]) for key in ("gap", "top1")}


def summary(place: Place, measured: dict[Run, dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over the seeds of each number format and over all runs, and each run."""
    groups = {run.precision: [other for other in measured if other.precision == run.precision] for run in measured}
    if len(groups) > 1:
        groups["all"] = list(measured)
    told: dict[str, Any] = {name: spread(place, {run: measured[run] for run in runs}) for name, runs in groups.items()}
    return told | {"runs": {run.answers: figures for run, figures in measured.items()}}


def spread(place: Place, measured: dict[Run, dict[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation and range of figures over runs; the interval of the mean GAP by drawing queries."""
    found: dict[str, Any] = {"n_runs": len(measured)}
    for name, part, key in (
        ("val_gap", "val", "gap"),
        ("val_top1", "val", "top1"),
        ("gap", "public", "gap"),
        ("top1", "public", "top1"),
        ("nearest_gap", "public", "nearest_gap"),
    ):
        values = [figures[part][key] for figures in measured.values() if part in figures]
        if values:
            found[name] = {
                "mean": rounded(float(np.mean(values))),
                "standard_deviation": rounded(float(np.std(values, ddof=1))) if len(values) > 1 else None,
                "range": [min(values), max(values)],
            }
    if all("public" in figures for figures in measured.values()):
        solution = place.data / "test_solution_public.csv"
        found["gap"]["interval"] = interval(
            [read_answers(place.work / r.answers / SUBMISSION, solution) for r in measured]
        )
    return found


def join(place: Place, names: Sequence[str], *, public: bool, verify: bool, grown: bool) -> dict[str, Any]:
    """The networks of several runs as one, from the descriptors that each run has; figures. One name: that run."""
    folder = place.work / "+".join(names)
    if len(names) > 1:
        prepare_joined(place, folder, names, public=public)
    how = {"public": public, "grown": grown}
    return measure(place, folder, **how) | (measure_verified(place, folder, **how) if verify else {})


def prepare_joined(place: Place, folder: Path, names: Sequence[str], *, public: bool) -> None:
    """The ensemble of several runs, and its stores from those of its members."""
    folder.mkdir(exist_ok=True)
    members = [place.work / name for name in names]
    lmr(folder, "ensemble", *(member / "landmarks" / "model" for member in members), "--output", "model")
    parts = {"train": "train", "background": "background", "val": "val"}
    if public:
        parts["public"] = "test_solution_public"
        for member in members:
            embed(place, member, parts["public"], trained_embedding(recipe_of(member.name)), "public")
    for store, part in parts.items():
        if not (folder / f"{store}.h5").exists():
            join_stores([member / f"{store}.h5" for member in members], folder, place.data / f"{part}.csv")


def measure_verified(place: Place, folder: Path, *, public: bool, grown: bool) -> dict[str, Any]:
    """The figures with verification, from stores that are there and from local features that all systems share."""
    known = read_json(folder / VERIFIED)
    parts = {"train": "train", "val": "val"} | ({"public": "test_solution_public"} if public else {})
    images = ["--images", place.data / "images"]
    for store, part in parts.items():
        kept, local = place.work / f"{store}.local.h5", folder / f"{store}.local.h5"
        if kept.exists() and not local.exists():
            os.link(kept, local)
        lmr(folder, "embed", place.data / f"{part}.csv", "--output", f"{store}.h5", *images, "--local", "rootsift")
        if not kept.exists():
            os.link(local, kept)
    if "val" not in known:
        lmr(folder, "build-index", "train.h5", "--background", "background.h5", "--local", "--output", "verified")
        words = ["calibrate", place.data / "val.csv", "--store", "val.h5", *images, "--index", "verified", "--verify"]
        found = json.loads(lmr(folder, *words, "--json"))["verified"]
        known["val"] = {key: rounded(found["cross_validated"][key]) for key in ("gap", "top1")}
        known["val"]["gained"] = [rounded(found["choice"][key]) for key in ("from_plain", "from_plain_error")]
        write_json(folder / VERIFIED, known)
    if public and "public" not in known:
        known["public"] = submitted(place, folder, "--index", "verified", "--verify", "--output", "verified.csv")
        write_json(folder / VERIFIED, known)
    if public and grown and "grown" not in known:
        known["grown"] = answer_grown(place, folder, "verified", "--verify")
        write_json(folder / VERIFIED, known)
    return {"verified": known}


def recipe_of(name: str) -> str:
    """The recipe that the name of a run begins with."""
    return max((recipe for recipe in NETWORKS if name.startswith(f"{recipe}-")), key=len)


def join_stores(stores: Sequence[Path], folder: Path, manifest_path: Path) -> None:
    """The store that the ensemble in a folder would make of a manifest, from those of its members."""
    from retrieval.data.manifest import read_manifest
    from retrieval.embed.fill import store_info
    from retrieval.models.folder import read_any_card
    from retrieval.store.store import create_store, read_store

    card, read, manifest = read_any_card(folder / "model"), [*map(read_store, stores)], read_manifest(manifest_path)
    parts = [
        store.vectors.astype(np.float32) * member.weight**0.5 for store, member in zip(read, card.members, strict=True)
    ]
    vectors = np.concatenate(parts, axis=1)
    info = store_info(card, manifest, "float16", vectors.shape[1])
    with create_store(folder / stores[0].name, manifest, list(read[0].path), info) as writer:
        writer.write(np.arange(len(vectors)), vectors, read[0].facts)
        writer.finish()


def children_s() -> float:
    """Processor seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """The file whole or not at all."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()
