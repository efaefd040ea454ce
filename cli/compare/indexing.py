"""Descriptors and index folders of a comparison."""

import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from cli.compare.folders import backgrounds, store_path
from cli.compare.plan import given_words
from cli.compare.workshop import Workshop, run_step, write_config
from cli.progress import TerminalProgress
from retrieval import jobs
from retrieval.errors import LmrError
from retrieval.models.card import Description
from retrieval.models.request import DescriptionRequest
from retrieval.train.recipe import Recipe

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from retrieval.store.store import Descriptors


def describe_rows(shop: Workshop, parts: Sequence[Recipe], network: Path, described: Path) -> list[Path]:
    """Stores of the training pictures and of the backgrounds that the data has, in this order."""
    recipe = parts[0]
    prepared = {item.name for item in fields(Description)} if len(parts) > 1 else set()
    table = {key: value for key, value in recipe.tables.get("embed", {}).items() if key not in prepared}
    config = write_config(described / "embed.toml", table)
    manifests = [shop.data.train, *(shop.data.folder / name for name in backgrounds(shop, recipe))]
    stores = [store_path(shop, described, manifest) for manifest in manifests]
    for manifest, store in zip(manifests, stores, strict=True):
        words = ["--config", config, "--model", network, "--output", store, *shop.arguments("embed")]
        run_step("embed", [manifest, *words])
    return stores


def network_of(parts: Sequence[Recipe], models: Sequence[Path | None], described: Path) -> Path:
    """The model folder that describes: a trained one, several joined, or one that is made untrained.

    LmrError when an untrained one is to be joined.
    """
    described.mkdir(parents=True, exist_ok=True)
    if len(models) == 1:
        return models[0] / "model" if models[0] is not None else described / "model"
    trained = [model for model in models if model is not None]
    if len(trained) < len(models):
        raise LmrError("members are joined by their mean only where all are trained; use combine = majority")
    prepared = [described / f"member-{i}" for i in range(len(models))]
    for recipe, model, copy in zip(parts, trained, prepared, strict=True):
        _prepare(recipe, model / "model", copy)
    run_step("ensemble", [*prepared, "--output", described / "model"])
    return described / "model"


def _prepare(recipe: Recipe, model: Path, copy: Path) -> None:
    """A copy of a model folder that describes pictures as the recipe's [embed] says, without being told."""
    from retrieval.embed.load import adjusted_card, open_card
    from retrieval.models.card import write_card

    card = open_card(model)
    copy.mkdir(exist_ok=True)
    config = write_config(copy / "embed.toml", recipe.tables.get("embed", {}))
    how = jobs.build(DescriptionRequest, given_words("embed", config, DescriptionRequest)).description()
    for member in card.members:
        shutil.copyfile(model / member.card.weights_name, copy / member.card.weights_name)
    write_card(copy, adjusted_card(model, card, how))


def build(shop: Workshop, recipe: Recipe, described: tuple[Path, Sequence[Path]], folder: Path) -> "IndexFolder":
    """The index folder over descriptors. described: the network and the stores that `describe_rows` made with it."""
    from index.folder.folder import open_folder

    network, (rows, *others) = described
    table = {key: value for key, value in recipe.tables.get("build-index", {}).items() if key != "background"}
    words = ["--config", write_config(folder / "build-index.toml", table), "--model", network]
    words += [word for path in others for word in ("--background", path)]
    words += [] if "thumbnails" in table else ["--thumbnails", "0"]  # nobody looks at them
    run_step("build-index", [rows, *words, "--output", folder / "landmarks", *shop.arguments("build-index")])
    return open_folder(folder / "landmarks", device=shop.values["device"], threads=shop.values["threads"])


def describe_parts(shop: Workshop, index: "IndexFolder", described: Path) -> "dict[str, Descriptors]":
    """The queries of every part as the index folder describes them."""
    from index.queries import QueriesJob, embed_queries

    stores = {}
    for name, path in shop.data.parts.items():
        with TerminalProgress() as progress:
            job = QueriesJob(
                images=shop.data.images,
                store=store_path(shop, described, path),
                overwrite=True,
                allow_disjoint=True,
                device=shop.values["device"],
                threads=shop.values["threads"],
                workers=shop.values["workers"],
                progress=progress,
            )
            stores[name], _ = embed_queries(path, index, job)
    return stores
