"""Systems that are ready to answer: an index folder with descriptors, or a network's classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.compare.folders import store_path
from cli.compare.indexing import build, describe_parts, describe_rows, network_of
from cli.compare.plan import parse_step
from cli.compare.timing import describing, measure_rate
from cli.compare.workshop import Workshop, run_step, write_config
from cli.workers import default_workers
from retrieval.arrays import LongArray
from retrieval.train.recipe import Recipe

if TYPE_CHECKING:
    from index.compare.systems import System

N_CLASSES_KEPT = 100  # most probable classes of each query, of which a mean of members is made


@dataclass(frozen=True, slots=True)
class Ready:
    """A system that can answer. descriptor_bytes: of a picture in the index, None where there is no index."""

    system: "System"
    pictures_per_s: float
    descriptor_bytes: float | None


def index_system(
    shop: Workshop, parts: Sequence[Recipe], models: Sequence[Path | None], place: tuple[Path, Path]
) -> Ready:
    """An index folder. parts, models: one, or several that describe as one; place: of stores, of all else."""
    from index.compare.systems import CalibratedIndex, PlainNeighbours

    recipe, (described, folder) = parts[0], place
    network = network_of(parts, models, described)
    rows = describe_rows(shop, parts, network, described)
    index = build(shop, recipe, (network, rows), folder)
    stores = describe_parts(shop, index, described)
    rate = measure_rate(shop, describing(shop, index.path))
    n_bytes = index.info.d * (2 if index.info.options["storage"] == "float16" else 4)
    settings, answering = calibration_settings(recipe, folder), recipe.answering
    if answering.by == "index":
        val = shop.data.parts["val"]
        words = ["--index", index.path, "--store", store_path(shop, described, val), *shop.arguments("calibrate")]
        run_step("calibrate", [val, "--config", folder / "calibrate.toml", "--overwrite", *words])
        return Ready(CalibratedIndex(index, stores, settings), rate, n_bytes)
    k = answering.neighbours if answering.by == "majority" else None
    return Ready(PlainNeighbours(index, stores, k, settings.precision), rate, n_bytes)


def classifier(shop: Workshop, recipe: Recipe, model: Path | None, folder: Path) -> Ready:
    """The probabilities of a network's classes for every part. model: None is a caller's bug."""
    from index.compare.measure import Probabilities
    from index.compare.systems import Classes
    from retrieval.images.source import PictureSource
    from retrieval.models.device import limit_threads, resolve_device
    from retrieval.train.classifier import open_classifier

    if model is None:
        raise ValueError("a classifier has a trained model")
    limit_threads(shop.values["threads"])
    device, n_workers = resolve_device(shop.values["device"]), max(1, default_workers(shop.values["workers"]))
    opened = open_classifier(model / "model", device=device, n_workers=n_workers)
    code = {name: i for i, name in enumerate(shop.data.landmarks)}
    k = min(len(code), N_CLASSES_KEPT)
    tables = {}
    for name, (manifest, _, _) in shop.queries.items():
        source = PictureSource(manifest, shop.data.images)
        found = opened.classify(source, np.arange(len(manifest)), k)
        codes = np.array([code.get(label, -1) for label in found.labels], dtype=np.int64)[found.label]
        order = np.argsort(codes < 0, axis=1, kind="stable")  # those that only a stage's own data has are no answers
        shape = len(manifest), found.label.shape[1]
        table = Probabilities(np.full(shape, -1, dtype=np.int64), np.zeros(shape), np.ones(shape))
        for whole, values in (
            (table.landmark, codes),
            (table.probability, found.probability),
            (table.doubt, found.doubt),
        ):
            whole[found.row] = np.take_along_axis(values, order, axis=1)
        tables[name] = table

    def describe(rows: LongArray) -> object:
        return opened.classify(PictureSource(shop.queries["val"][0], shop.data.images), rows, k)

    return Ready(Classes(tables, calibration_settings(recipe, folder).precision), measure_rate(shop, describe), None)


def calibration_settings(recipe: Recipe, folder: Path) -> Any:
    """What [calibrate] says, as the command reads it."""
    from index.calibration import CalibrationSettings

    config = write_config(folder / "calibrate.toml", recipe.tables.get("calibrate", {}))
    given = parse_step("calibrate", config)
    return CalibrationSettings(given["precision"], given["non_landmark_share"], given["seed"])
