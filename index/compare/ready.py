"""Systems that are ready to answer: an index folder with descriptors, or a network's classes."""

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from index.calibrate.config import CalibrationSettings
from index.calibrate.job import CalibrateJob
from index.compare.folders import Workshop, backgrounds, store_path
from index.compare.steps import run_step, step_job, tell_step
from index.queries import QueriesJob, embed_queries
from retrieval.arrays import LongArray
from retrieval.data.image_source import ImageSource
from retrieval.embed.job import EmbedJob
from retrieval.errors import LmrError, UnreadableError
from retrieval.models.card import EmbedSettings
from retrieval.parallel import count_workers
from retrieval.train.recipes.recipe import Recipe

if TYPE_CHECKING:
    from index.compare.measure import Probabilities
    from index.compare.systems import System
    from index.folder.folder import IndexFolder
    from retrieval.store.store import Descriptors

N_CLASSES_KEPT = 100  # most probable classes of each query, of which a mean of members is made
N_TIMED = 256  # images of val


@dataclass(frozen=True, slots=True)
class Ready:
    """A system that can answer. descriptor_bytes: of an image in the index, None where there is no index."""

    system: "System"
    pictures_per_s: float
    descriptor_bytes: float | None


def index_system(
    shop: Workshop, parts: Sequence[Recipe], models: Sequence[Path | None], *, stores: Path, folder: Path
) -> Ready:
    """An index folder. parts, models: one, or several that embed as one. stores, folder: of stores, of all else."""
    from index.compare.systems import CalibratedIndex, PlainNeighbours

    recipe = parts[0]
    network = _network_of(shop, parts, models, stores)
    rows = _embed_rows(shop, parts, network, stores)
    index = _build(shop, recipe, network, rows, folder)
    asked = _embed_parts(shop, index, stores)
    rate = _measure_rate(shop, _embedding(shop, index))
    n_bytes = index.info.d * (2 if index.info.options["storage"] == "float16" else 4)
    settings, answering = calibration_settings(recipe), recipe.answering
    if answering.by == "index":
        val = shop.data.parts["val"]
        run_step(
            shop,
            "calibrate",
            val,
            folder / "calibrate.toml",
            recipe.tables.get("calibrate", {}),
            overwrite=True,
            index=index.path,
            store=store_path(shop, stores, val),
        )
        return Ready(CalibratedIndex(index, asked, settings), rate, n_bytes)
    k = answering.neighbours if answering.by == "majority" else None
    return Ready(PlainNeighbours(index, asked, k, settings.precision), rate, n_bytes)


def calibration_settings(recipe: Recipe) -> CalibrationSettings:
    """Settings that [calibrate] gives."""
    job = step_job("calibrate", Path(), recipe.tables.get("calibrate", {}))
    assert isinstance(job, CalibrateJob)
    return job.settings


def _embed_rows(shop: Workshop, parts: Sequence[Recipe], network: Path, folder: Path) -> list[Path]:
    """Stores of the training images and of the backgrounds that the data has, in this order."""
    recipe = parts[0]
    prepared = {item.name for item in fields(EmbedSettings)} if len(parts) > 1 else set()
    table = {key: value for key, value in recipe.tables.get("embed", {}).items() if key not in prepared}
    manifests = [shop.data.train, *(shop.data.folder / name for name in backgrounds(shop, recipe))]
    stores = [store_path(shop, folder, manifest) for manifest in manifests]
    for manifest, store in zip(manifests, stores, strict=True):
        run_step(shop, "embed", manifest, folder / "embed.toml", table, model=network, output=store)
    return stores


def _network_of(shop: Workshop, parts: Sequence[Recipe], models: Sequence[Path | None], folder: Path) -> Path:
    """The model folder that embeds: a trained one, several joined, or one that is made untrained.

    LmrError when an untrained one is to be joined.
    """
    from retrieval.models.ensemble import save_ensemble

    folder.mkdir(parents=True, exist_ok=True)
    joined = folder / "model"
    if len(models) == 1:
        return models[0] / "model" if models[0] is not None else joined
    trained = [model for model in models if model is not None]
    if len(trained) < len(models):
        raise LmrError("members are joined by their mean only where all are trained; use combine = majority")
    prepared = [folder / f"member-{i}" for i in range(len(models))]
    for recipe, model, copy in zip(parts, trained, prepared, strict=True):
        _prepare(recipe, model / "model", copy)
    tell_step(shop, "ensemble", prepared, {"output": joined})
    save_ensemble(joined, prepared, (1.0,) * len(prepared))
    return joined


def _prepare(recipe: Recipe, model: Path, copy: Path) -> None:
    """A copy of a model folder that embeds images as the recipe's [embed] says, without being told."""
    from retrieval.embed.load import adjusted_card, open_card
    from retrieval.files.atomic import write_text
    from retrieval.models.folder import write_card
    from retrieval.train.recipes.values import to_toml

    card, table = open_card(model), recipe.tables.get("embed", {})
    copy.mkdir(exist_ok=True)
    write_text(copy / "embed.toml", [to_toml(table)])
    job = step_job("embed", Path(), table)
    assert isinstance(job, EmbedJob)
    for member in card.members:
        shutil.copyfile(model / member.card.weights_name, copy / member.card.weights_name)
    write_card(copy, adjusted_card(model, card, job.embedding.settings()))


def _build(shop: Workshop, recipe: Recipe, network: Path, stores: Sequence[Path], folder: Path) -> "IndexFolder":
    """The index folder over the stores that the network made: of the rows, and of backgrounds."""
    from index.folder.folder import open_folder

    rows, *others = stores
    table = {key: value for key, value in recipe.tables.get("build-index", {}).items() if key != "background"}
    config, output = folder / "build-index.toml", folder / "landmarks"
    own: dict[str, Any] = {"model": network, "background": tuple(others)}
    own |= {} if "thumbnails" in table else {"thumbnails": 0}  # nobody looks at them
    run_step(shop, "build-index", rows, config, table, **own, output=output)
    return open_folder(output, device=shop.job.device, threads=shop.job.threads, progress=shop.job.progress)


def _embed_parts(shop: Workshop, index: "IndexFolder", stores: Path) -> "dict[str, Descriptors]":
    """The queries of every part as the index folder embeds them."""
    job, found = shop.job, {}
    for name, path in shop.data.parts.items():
        asked = QueriesJob(
            images=shop.data.images,
            store=store_path(shop, stores, path),
            allow_disjoint=True,
            engine="torch",
            device=job.device,
            threads=job.threads,
            workers=job.workers,
            overwrite=True,
            wait=job.wait,
            progress=job.progress,
        )
        found[name], _ = embed_queries(path, index, asked)
    return found


def _embedding(shop: Workshop, index: "IndexFolder") -> Callable[[LongArray], object]:
    """A function that embeds these images of val as the index folder does."""
    from retrieval.embed.load import open_card, plan_embedder

    job, model = shop.job, index.model_path
    n_workers = max(1, count_workers(job.workers, job.progress))
    load = plan_embedder(model, open_card(model), device=job.device, threads=job.threads, n_workers=n_workers)
    source, embedder = _source(shop, "val"), load()
    return lambda rows: embedder.embed_all(source, rows)


def _measure_rate(shop: Workshop, embed: Callable[[LongArray], object]) -> float:
    """Images/s from encoded image to descriptor or class, over some readable images of val, after a warm-up.

    LmrError when none can be read.
    """
    source = _source(shop, "val")
    readable = []
    for row in range(len(shop.queries["val"][0])):
        with contextlib.suppress(UnreadableError):
            source.read(row)
            readable.append(row)
        if len(readable) == N_TIMED:
            break
    if not readable:
        raise LmrError(f"{shop.data.parts['val']}: none of its pictures can be read")
    rows = np.array(readable, dtype=np.int64)
    embed(rows)
    began = time.monotonic()
    embed(rows)
    return len(rows) / (time.monotonic() - began)


def _source(shop: Workshop, part: str) -> ImageSource:
    return ImageSource(shop.queries[part][0], shop.data.images)


def classifier(shop: Workshop, recipe: Recipe, model: Path | None) -> Ready:
    """The probabilities of a network's classes for every part. model: None is a caller's bug."""
    from retrieval.models.device import limit_threads

    if model is None:
        raise ValueError("a classifier has a trained model")
    with limit_threads(shop.job.threads):
        return _classify(shop, recipe, model)


def _classify(shop: Workshop, recipe: Recipe, model: Path) -> Ready:
    from index.compare.measure import Probabilities
    from index.compare.systems import Classes
    from retrieval.models.device import resolve_device
    from retrieval.train.classifier import open_classifier

    n_workers = max(1, count_workers(shop.job.workers, shop.job.progress))
    opened = open_classifier(model / "model", device=resolve_device(shop.job.device), n_workers=n_workers)
    code = {name: i for i, name in enumerate(shop.data.landmarks)}
    k = min(len(code), N_CLASSES_KEPT)
    tables = {}
    for name, (manifest, _, _) in shop.queries.items():
        found = opened.classify(_source(shop, name), np.arange(len(manifest)), k)
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
        tables[name] = _confirmed(shop, name, table, recipe) if recipe.answering.comparisons else table
    rate = _measure_rate(shop, lambda rows: opened.classify(_source(shop, "val"), rows, k))
    return Ready(Classes(tables, calibration_settings(recipe).precision), rate, None)


def _confirmed(shop: Workshop, part: str, table: "Probabilities", recipe: Recipe) -> "Probabilities":
    """The answers that a training image of their landmark confirms by its local features; the others are withheld.

    Those compared are spread evenly over the landmark's images. LmrError where no answer is left.
    """
    from retrieval.data.overview import load_manifest
    from retrieval.local.verifier import compare_images
    from retrieval.progress import SILENT

    train = load_manifest(shop.data.train, SILENT, shop.data.names)
    progress, answering = shop.job.progress, recipe.answering
    inliers = compare_images(_source(shop, part), ImageSource(train, shop.data.images))
    code = {name: i for i, name in enumerate(train.landmarks)}
    confirmed = np.zeros(len(table.landmark), dtype=np.bool_)
    progress.begin("confirming", len(confirmed))
    for query, landmark in enumerate(table.landmark[:, 0].tolist()):
        if landmark >= 0:
            rows = np.flatnonzero(train.landmark == code[shop.data.landmarks[landmark]])
            places = np.linspace(0, len(rows) - 1, min(answering.comparisons, len(rows))).astype(np.int64)
            confirmed[query] = any(inliers(query, row) >= answering.inliers for row in rows[places].tolist())
        progress.add(1)
    progress.end()
    if not confirmed.any():
        raise LmrError(
            f"{recipe.source}: [answer] no answer to {shop.data.parts[part]} has an image of its landmark with "
            f"{answering.inliers} inliers; lower inliers, or set comparisons = 0"
        )
    return replace(table, landmark=np.where(confirmed[:, None], table.landmark, -1))
