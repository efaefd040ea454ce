"""Makes the systems of a comparison: networks, descriptors, index folders, answers; what is finished is kept.

Each step is a command of lmr with a configuration file, so that it can be run again by hand. A folder is named by what
goes into it; `models/` holds trained networks, `systems/` what answers with them.
"""

import contextlib
import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cli.compare.data import ComparisonData, file_digest
from cli.compare.keeping import read_answers, write_answers
from cli.compare.plan import parse_step, step_command
from cli.options import warn
from cli.training import default_workers
from retrieval.arrays import LongArray
from retrieval.errors import LmrError
from retrieval.recipe import Recipe, to_toml

if TYPE_CHECKING:
    from index.compared import System
    from index.comparing import Answered, Asked
    from index.evaluation import Queries
    from retrieval.manifest import Manifest

FORMAT_VERSION = 1  # of what is kept; raise it when answers to the same recipe change
N_TIMED = 256  # pictures that the speed is measured on
N_CLASSES_KEPT = 100  # most probable classes of each query, of which a mean of members is made
MANIFEST_KEYS = ("negatives", "val", "data")  # options whose value is a manifest of the data folder


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where systems are made, and how. queries: of each part, manifest and labels. values: options of the command.

    fresh: folders that were made anew in this call, where `overwrite` asks for that.
    """

    data: ComparisonData
    queries: "Mapping[str, tuple[Manifest, Queries, Asked]]"
    output: Path
    values: Mapping[str, Any]
    fresh: set[Path] = field(default_factory=set)

    def clear(self, folder: Path) -> None:
        """Removes a folder that is to be made anew and was not yet."""
        if self.values["overwrite"] and folder not in self.fresh:
            shutil.rmtree(folder, ignore_errors=True)
            self.fresh.add(folder)

    def arguments(self, step: str) -> list[str]:
        """Options that every command gets, as far as it has them."""
        known = {parameter.name for parameter in step_command(step).params}
        given = {name: self.values.get(name) for name in ("device", "threads", "workers")}
        given["images"] = str(self.data.images)
        return [
            word
            for name, value in given.items()
            if name in known and value is not None
            for word in (f"--{name}", str(value))
        ]


@dataclass(frozen=True, slots=True)
class Made:
    """A system's answers to a part.

    logs: training.csv of each member and stage, by name. facts: training_s, pictures_per_s and descriptor_bytes, None
    where nothing was trained, or the system keeps no descriptors.
    """

    answered: "Answered"
    logs: dict[str, Path]
    facts: dict[str, float | None]


def make_system(shop: Workshop, label: str, parts: Sequence[Recipe], part: str) -> Made:
    """Trains and builds a system of these members, or finds it finished, and answers a part.

    LmrError names the system by its label.
    """
    try:
        models = [_model_folder(shop, label, member) for member in parts]
        folder = shop.output / "systems" / _folder_name(label, _system_identity(shop, parts, models))
        for place in (folder, *(model for model in models if model is not None)):
            shop.clear(place)
        folder.mkdir(parents=True, exist_ok=True)
        for member, model in zip(parts, models, strict=True):
            if model is not None:
                _train(shop, member, model)
            answered, facts = _answers(shop, folder, parts, models, part)
    except LmrError as error:
        raise LmrError(f"{label}: {error}") from error
    seconds = [json.loads((model / "finished.json").read_text())["training_s"] for model in models if model is not None]
    return Made(answered, _logs(models), {"training_s": sum(seconds) if seconds else None, **facts})


def _logs(models: Sequence[Path | None]) -> dict[str, Path]:
    """The logs of all trainings, by member where there are several and by stage."""
    found = {}
    for i, model in enumerate(models, start=1):
        for path in sorted(model.rglob("training.csv")) if model is not None else ():
            parts = [f"member {i}"] if len(models) > 1 else []
            parts += [path.parent.name] if path.parent.name.startswith("stage-") else []
            found[", ".join(parts)] = path
    return found


def _model_folder(shop: Workshop, label: str, recipe: Recipe) -> Path | None:
    """Where a member's network is trained; None where nothing is."""
    if "train" not in recipe.tables:
        return None
    named = {shop.data.train.name: shop.data.digest(shop.data.train.name)}
    for table in (recipe.tables["train"], *recipe.stages):
        named |= {str(table[key]): shop.data.digest(table[key]) for key in MANIFEST_KEYS if _is_there(shop, table, key)}
    identity = {
        "train": recipe.tables["train"],
        "stages": recipe.stages,
        "manifests": named,
        "weights": _weights_digest(recipe.tables["train"]),
    }
    # By the recipe alone, so that systems that differ in their answers share a network.
    return shop.output / "models" / _folder_name(label.partition(":")[0], identity)


def _system_identity(shop: Workshop, parts: Sequence[Recipe], models: Sequence[Path | None]) -> dict[str, Any]:
    names = sorted({shop.data.train.name, *(path.name for path in shop.data.folder.glob("background*.csv"))})
    return {
        "members": [
            {"model": model.name if model else None, "tables": _answering_tables(member)}
            for member, model in zip(parts, models, strict=True)
        ],
        "manifests": {name: shop.data.digest(name) for name in names},
        "parts": {"val": file_digest(shop.data.parts["val"])},
    }


def _answering_tables(member: Recipe) -> dict[str, Any]:
    named = ("embed", "build-index", "calibrate", "answer")
    return {name: dict(member.tables[name]) for name in named if member.tables.get(name)} | {
        "weights": _weights_digest(member.tables.get("embed", {}))
    }


def _weights_digest(table: Mapping[str, Any]) -> str | None:
    return file_digest(Path(table["weights"])) if table.get("weights") else None


def _folder_name(label: str, identity: Mapping[str, Any]) -> str:
    """A name for people with a digest that no other identity has."""
    text = json.dumps([FORMAT_VERSION, identity], sort_keys=True, default=str)
    name, _, values = label.partition(":")
    words = re.sub(r"[^\w=.-]+", "-", f"{Path(name).stem}-{values}")[:60].strip("-")
    return f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _is_there(shop: Workshop, table: Mapping[str, Any], key: str) -> bool:
    """Whether a manifest that a table names is in the data; negatives may be missing, others may not."""
    if key not in table:
        return False
    there = shop.data.find(table[key]) is not None
    if not there and key != "negatives":
        raise LmrError(f"{key} = {table[key]}: {shop.data.folder} has no such file")
    return there


def _in_data(shop: Workshop, table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the paths of the manifests that it names."""
    found = {key: value for key, value in table.items() if key not in MANIFEST_KEYS}
    there = [key for key in MANIFEST_KEYS if _is_there(shop, table, key)]
    return found | {key: str((shop.data.folder / table[key]).resolve()) for key in there}


def _train(shop: Workshop, recipe: Recipe, folder: Path) -> None:
    """Trains a network, or goes on, unless that is finished."""
    if (folder / "finished.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    config = _write_config(
        folder / "train.toml",
        _in_data(shop, recipe.tables["train"]),
        [_in_data(shop, stage) for stage in recipe.stages],
    )
    output = folder / "model"
    run_step("train", [shop.data.train, "--config", config, "--output", output, *shop.arguments("train")])
    from cli.report.curves import read_log
    from index.writing import write_whole

    seconds = sum(read_log(path)[-1]["seconds"] for path in output.rglob("training.csv"))  # of every stage
    write_whole(folder / "finished.json", [json.dumps({"training_s": seconds}), "\n"])


def _answers(
    shop: Workshop, folder: Path, parts: Sequence[Recipe], models: Sequence[Path | None], part: str
) -> "tuple[Answered, dict[str, float | None]]":
    """The answers to a part, kept in the system's folder."""
    from index.compared import answers_of
    from index.writing import write_whole

    asked = {name: asked for name, (_, _, asked) in shop.queries.items()}
    kept = folder / f"answers-{part}-{file_digest(shop.data.parts[part])[:12]}.npz"
    facts_path = folder / "facts.json"
    if kept.exists() and facts_path.exists():
        return read_answers(kept), json.loads(facts_path.read_text())
    system, facts = _make(shop, folder, parts, models)
    answered = answers_of(system, asked["val"], asked.get("test") if part == "test" else None)
    write_whole(facts_path, [json.dumps(facts), "\n"])
    write_answers(kept, answered)
    return answered, facts


def _make(
    shop: Workshop, folder: Path, parts: Sequence[Recipe], models: Sequence[Path | None]
) -> "tuple[System, dict[str, float | None]]":
    """The system itself, from its members."""
    from index.compared import Classes, Majority
    from index.comparing import mean_probabilities

    answering = parts[0].answering
    by_class = answering.by == "classifier"
    if len(parts) > 1 and answering.combine == "mean" and not by_class:
        run_step("ensemble", [*(model / "model" for model in models if model), "--output", folder / "model"])
        parts, models = parts[:1], [folder]
    places = [folder / f"member-{i}" if len(parts) > 1 else folder for i in range(len(parts))]
    systems: list[Any] = []
    rates: list[float] = []
    n_bytes: float | None = None
    for member, model, place in zip(parts, models, places, strict=True):
        place.mkdir(exist_ok=True)
        make = _classifier if by_class else _index_system
        system, rate, size = make(shop, member, model, place)
        systems.append(system)
        rates.append(rate)
        if size is not None:
            n_bytes = (n_bytes or 0) + size
    facts = {"pictures_per_s": 1 / sum(1 / rate for rate in rates), "descriptor_bytes": n_bytes}
    if len(systems) == 1:
        return systems[0], facts
    precision = _settings(parts[0], folder).precision
    if answering.combine == "majority":
        return Majority(systems, precision), facts
    tables = {
        name: mean_probabilities([system.tables[name] for system in systems], len(shop.data.landmarks))
        for name in shop.queries
    }
    return Classes(tables, precision), facts


def _index_system(
    shop: Workshop, recipe: Recipe, model: Path | None, folder: Path
) -> "tuple[System, float, float | None]":
    """Descriptors and an index folder, calibrated on val; pictures/s of describing, bytes of a descriptor."""
    from cli.describing import describe_queries
    from index.compared import CalibratedIndex, PlainNeighbours
    from index.folder import open_folder

    network = model / "model" if model else folder / "model"
    embed = _write_config(folder / "embed.toml", recipe.tables.get("embed", {}))
    build = dict(recipe.tables.get("build-index", {}))
    others = [name for name in build.pop("background", []) if shop.data.find(name) is not None]
    for name in (shop.data.train.name, *others):
        store = folder / Path(name).with_suffix(".h5").name
        manifest = shop.data.folder / name
        arguments = [manifest, "--config", embed, "--model", network, "--output", store, *shop.arguments("embed")]
        run_step("embed", arguments)
    backgrounds = [word for name in others for word in ("--background", folder / Path(name).with_suffix(".h5").name)]
    config = _write_config(folder / "build-index.toml", build)
    words = ["--config", config, "--model", network, "--output", folder / "landmarks", *backgrounds]
    run_step("build-index", [folder / "train.h5", *words, *shop.arguments("build-index")])
    index = open_folder(folder / "landmarks", device=shop.values["device"], threads=shop.values["threads"])
    stores = {}
    for name, path in shop.data.parts.items():
        values = {**shop.values, "images": shop.data.images, "store": folder / f"{name}.h5", "overwrite": True}
        stores[name], _ = describe_queries(path, index.model_path, values)
    settings, answering = _settings(recipe, folder), recipe.answering
    rate = _rate(shop, _describing(shop, index.path))
    n_bytes = index.info.d * (2 if index.info.options["storage"] == "float16" else 4)
    if answering.by == "index":
        calibrate = ["--config", folder / "calibrate.toml", "--index", index.path, "--store", folder / "val.h5"]
        run_step("calibrate", [shop.data.parts["val"], *calibrate, "--overwrite", *shop.arguments("calibrate")])
        return CalibratedIndex(index, stores, settings), rate, n_bytes
    k = answering.neighbours if answering.by == "majority" else None
    return PlainNeighbours(index, stores, k, settings.precision), rate, n_bytes


def _classifier(
    shop: Workshop, recipe: Recipe, model: Path | None, folder: Path
) -> "tuple[System, float, float | None]":
    """The probabilities of a network's classes for every part; pictures/s of the network; no descriptors."""
    from index.compared import Classes
    from retrieval.classifying import classify
    from retrieval.device import limit_threads, resolve_device
    from retrieval.pictures import PictureSource

    if model is None:
        raise ValueError("a classifier has a trained model")
    limit_threads(shop.values["threads"])
    device, n_workers = resolve_device(shop.values["device"]), max(1, default_workers(shop.values["workers"]))
    code = {name: i for i, name in enumerate(shop.data.landmarks)}
    k = min(len(code), N_CLASSES_KEPT)
    tables = {}
    for name, (manifest, _, _) in shop.queries.items():
        source = PictureSource(manifest, shop.data.images)
        found = classify(model / "model", source, np.arange(len(manifest)), device=device, n_workers=n_workers, k=k)
        codes = np.array([code[label] for label in found.labels], dtype=np.int64)
        landmark = np.full((len(manifest), found.label.shape[1]), -1, dtype=np.int64)
        probability = np.zeros(landmark.shape)
        landmark[found.row], probability[found.row] = codes[found.label], found.probability
        tables[name] = (landmark, probability)

    def describe(rows: LongArray) -> object:
        source = PictureSource(shop.queries["val"][0], shop.data.images)
        return classify(model / "model", source, rows, device=device, n_workers=n_workers, k=k)

    return Classes(tables, _settings(recipe, folder).precision), _rate(shop, describe), None


def _settings(recipe: Recipe, folder: Path) -> Any:
    """What [calibrate] says, as the command reads it."""
    from index.calibration import CalibrationSettings

    config = _write_config(folder / "calibrate.toml", recipe.tables.get("calibrate", {}))
    given = parse_step("calibrate", config)
    return CalibrationSettings(given["precision"], given["non_landmark_share"], given["seed"])


def _describing(shop: Workshop, index: Path) -> "Callable[[LongArray], object]":
    """A function that describes these pictures of val as the index folder does."""
    import lmr
    from retrieval.pictures import PictureSource

    n_workers = max(1, default_workers(shop.values["workers"]))
    where = {"device": shop.values["device"], "threads": shop.values["threads"]}
    opened = lmr.open_index(index, **where, workers=n_workers)
    source = PictureSource(shop.queries["val"][0], shop.data.images)
    return lambda rows: opened.embed([source.read(row) for row in rows.tolist()])


def _rate(shop: Workshop, describe: "Callable[[LongArray], object]") -> float:
    """Pictures/s from encoded picture to descriptor or class, over some readable pictures of val, after a warm-up."""
    from retrieval.errors import UnreadableError
    from retrieval.pictures import PictureSource

    source = PictureSource(shop.queries["val"][0], shop.data.images)
    readable = []
    for row in range(len(shop.queries["val"][0])):
        with contextlib.suppress(UnreadableError):
            source.read(row)
            readable.append(row)
        if len(readable) == N_TIMED:
            break
    rows = np.array(readable, dtype=np.int64)
    describe(rows)
    began = time.monotonic()
    describe(rows)
    return len(rows) / max(1e-9, time.monotonic() - began)


def run_step(step: str, arguments: Sequence[object]) -> None:
    """A command of lmr, shown as it would be typed; what it prints goes to stderr. LmrError for what it refuses."""
    words = [str(word) for word in arguments]
    warn(" ".join(["lmr", step, *words]))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            step_command(step).main(words, prog_name=f"lmr {step}", standalone_mode=False)
    except click.UsageError as error:
        raise LmrError(f"lmr {step}: {error.format_message()}") from error


def _write_config(path: Path, table: Mapping[str, Any], stages: Sequence[Mapping[str, Any]] = ()) -> Path:
    from index.writing import write_whole

    write_whole(path, [to_toml(table, stages)])
    return path
