"""Manifests to descriptors, as the commands do it: a store of the manifest's name, made, resumed or found finished."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.options import images_folder, warn, writing
from cli.progress import TerminalProgress, list_unreadable
from cli.reading import load_manifest
from cli.tars import index_tars
from cli.workers import default_workers
from retrieval.data.labels import require_meeting
from retrieval.data.pipes import STDIN, folder_beside
from retrieval.errors import LmrError
from retrieval.words import counted, none_can

if TYPE_CHECKING:
    from index.evaluate.evaluation import Queries
    from index.folder.folder import IndexFolder
    from retrieval.data.manifest import Manifest
    from retrieval.embed.fill import FillReport, FillRun
    from retrieval.models.card import Card
    from retrieval.store.changes import Changes
    from retrieval.store.store import Descriptors

N_NAMED = 5  # changed pictures that a line names
# What follows the name of a manifest. `a.1.csv` and `a.2.csv` are two names, as are folders that hold a point.
_ENDINGS = re.compile(r"(?<=.)(\.(csv|tsv|txt|parquet|pq|tar|tgz|zip|gz))+\Z", re.IGNORECASE)


def store_name(manifest: Path, option: str) -> Path:
    """The store of a manifest, beside it: `data/val.csv` -> `data/val.h5`, `data/photos/` -> `data/photos.h5`.

    Of standard input and other open files `stdin.h5` where the command runs.
    LmrError that names `option` where it is not there and nothing can be written.
    """
    folder, name = folder_beside(manifest), _bare_name(manifest)
    is_open_file = str(manifest) == STDIN or str(manifest).startswith(("/dev/", "/proc/"))
    store = folder / ("stdin.h5" if is_open_file else f"{name}.h5")
    if folder.is_dir() and not os.access(folder, os.W_OK) and not store.exists():
        raise LmrError(f"{folder}: nothing can be written beside {manifest.name}; give {option} STORE.h5")
    return store


def _bare_name(manifest: Path) -> str:
    name = os.path.basename(os.path.abspath(manifest))
    return name if manifest.is_dir() else _ENDINGS.sub("", name)


def find_store(manifest: Path, option: str) -> Path:
    """As `store_name`; says when the store is made anew although one of its name lies where the command runs."""
    store, other = store_name(manifest, option), Path(_bare_name(manifest) + ".h5")
    made = (store, store.with_name(store.name + ".partial"))
    if other.exists() and not any(path.exists() for path in made):
        warn(f"{other} is there, but stores lie beside their manifests: {store} is made; {option} {other} takes it")
    return store


def embed_manifest(
    manifest: "Manifest", images: Path, model: "tuple[Path, Card]", output: Path, values: Mapping[str, Any]
) -> "FillReport":
    """Fills the store `output`; values: device, threads, workers, dtype, overwrite, retry_unreadable, check."""
    from retrieval.embed.fill import fill_store
    from retrieval.embed.load import plan_embedder
    from retrieval.images.source import PictureSource

    workers = max(1, default_workers(values["workers"]))
    load = plan_embedder(*model, device=values["device"], threads=values["threads"], n_workers=workers)
    with writing(output), TerminalProgress() as progress:
        run = replace(fill_run(values), n_workers=workers, progress=progress)
        source = PictureSource(manifest, images)
        report = fill_store(output, manifest, source, (model[1], load), run)
    _tell_changes(report.changes, manifest, output)
    row = {image_id: row for row, image_id in enumerate(manifest.image_id)} if report.unreadable else {}
    told = {manifest.name_unreadable(row[image_id], why): why for image_id, why in report.unreadable.items()}
    list_unreadable(told, report.n_unreadable, report.n_pictures)
    if report.n_unreadable == report.n_pictures:
        raise LmrError(
            f"{manifest.source}: {none_can(report.n_pictures, 'picture', whose='its')} be found and read; "
            "check --images, and give --retry-unreadable once they can be"
        )
    return report


def fill_run(values: Mapping[str, Any]) -> "FillRun":
    """How a store is filled, from the options of a command."""
    from retrieval.embed.fill import FillRun

    return FillRun(
        dtype=values.get("dtype", "float16"),
        overwrite=values.get("overwrite", False),
        retry_unreadable=values.get("retry_unreadable", False),
        check=values.get("check", "size"),
    )


def _tell_changes(changes: "Changes", manifest: "Manifest", output: Path) -> None:
    """Which pictures are not what they were when the store was made, on stderr."""
    if not changes.is_known:
        warn(f"{output} does not say what its pictures were (it is of an earlier lmr): all count as unchanged")
    told = {
        "replaced since they were embedded, embedded again": changes.replaced,
        "there that were not there before, embedded": changes.returned,
        "gone or not readable any more, their descriptors stay": changes.gone,
        "not as they were written (a power cut, or a failing disk), embedded again": changes.damaged,
    }
    for what, rows in told.items():
        if len(rows):
            names = ", ".join(manifest.image_id[rows[:N_NAMED]])
            more = f" and {len(rows) - N_NAMED:,} more" if len(rows) > N_NAMED else ""
            of_what = "descriptor" if rows is changes.damaged else "picture"
            warn(f"{counted(len(rows), of_what, of=len(manifest))} {what}: {names}{more}")


def describe_queries(path: Path, folder: "IndexFolder", values: Mapping[str, Any]) -> "tuple[Descriptors, Queries]":
    """The labelled queries of a manifest or a store (.h5), described by the model of an index folder.

    Rows whose Usage is Ignored are left out. values: images, store, allow_disjoint and those of `embed_manifest`.
    LmrError where the queries and the index have no landmark in common, or would have more if they were spelt alike.
    """
    from index.evaluate.evaluation import Queries, queries_of
    from retrieval.arrays import object_array
    from retrieval.embed.load import open_card
    from retrieval.store.store import read_store

    if path.suffix in (".h5", ".hdf5"):
        store = read_store(path)
        _require_meeting(path, store.landmarks, folder, values)
        return store, queries_of(store)
    index_tars(path)
    manifest = load_manifest(path)
    if not manifest.has_labels:
        raise LmrError(f"{path} has no landmark_id column, so there is nothing to compare answers with")
    if manifest.usage is not None:
        manifest = manifest.select((manifest.usage != "Ignored").nonzero()[0])
    _require_meeting(path, manifest.landmarks, folder, values)
    output = values.get("store") or find_store(path, "--store")
    images = images_folder(values["images"], path)
    store = describe(manifest, images, (folder.model_path, open_card(folder.model_path)), output, values)
    truths = [tuple(manifest.landmarks[code] for code in manifest.truths(i)) for i in range(len(manifest))]
    return store, Queries(store.image_id, object_array(truths), store.path, store.kind)


def _require_meeting(path: Path, landmarks: Sequence[str], folder: "IndexFolder", values: Mapping[str, Any]) -> None:
    if not values.get("allow_disjoint", False):
        require_meeting(landmarks, folder.rows.landmarks, (str(path), str(folder.path)))


def describe(
    manifest: "Manifest", images: Path, model: "tuple[Path, Card]", output: Path, values: Mapping[str, Any]
) -> "Descriptors":
    """The store of queries, made, completed or found. With `overwrite` one that is of something else is replaced."""
    from retrieval.embed.fill import require_same_job
    from retrieval.store.store import read_store

    overwrite = False
    with writing(output):
        try:
            require_same_job(output, manifest, model[1], fill_run({**values, "overwrite": False}))
        except LmrError:
            overwrite = values["overwrite"]
        embed_manifest(manifest, images, model, output, {**values, "overwrite": overwrite})
        return read_store(output)
