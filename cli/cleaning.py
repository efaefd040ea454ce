"""A cleaning as the command makes it: manifest and stores together, pictures measured, checks made, folder written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.options import warn
from cli.progress import TerminalProgress
from cli.terminal import command_line, shown
from cli.workers import default_workers
from index.clean.config import CleaningRule
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.locate import LocatedImages, locate_images
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.clean.neighbours import Block
    from index.clean.plan import CleaningInputs, Verify
    from retrieval.arrays import FloatArray, LongArray
    from retrieval.data.manifest import Manifest
    from retrieval.data.quality_cache import FactsTable
    from retrieval.local.sift import LocalFeatures
    from retrieval.store.store import Descriptors

_REMEMBERED_PICTURES = 512  # whose local features, about 0.5 MB each, are kept in memory


def clean_manifest(path: Path, output: Path, rule: CleaningRule, values: Mapping[str, Any]) -> dict[str, Any]:
    """Cleans and writes, unless it is a dry run or done already; returns what it came to.

    values: store, background, images, facts, gallery, workers, device, threads, dry_run, overwrite.
    """
    from index.clean.folder import DECISIONS, begin, finish, has_edits, read_state, remove_unfinished, require_place
    from retrieval.models.device import limit_threads
    from retrieval.store.store import read_store

    limit_threads(values["threads"])
    _require_extras(rule, values)
    pictures = locate_images(_read_labelled(path), values["images"], TerminalProgress())
    stores = [read_store(values["store"]), *(read_store(place) for place in values["background"])]
    identity = _identity(pictures, stores, rule)
    dry = values["dry_run"]
    place = "new" if dry else require_place(output, identity, overwrite=values["overwrite"])
    if place == "finished":
        remove_unfinished(output)
        state = read_state(output) or {}
        if has_edits(output, state):
            table = output / DECISIONS
            again = command_line("--review", table)
            warn(f"{shown(table)} was changed since it was written and is not applied; apply it with {again}")
        return {"output": str(output), "state": "unchanged", **state["counts"]}
    inputs = _inputs(pictures, stores, rule, values)
    work = None if dry else begin(output, identity, place)
    decisions = _decide(inputs, rule, work, (pictures, values))
    if not dry:
        finish(output, identity, pictures.manifest, decisions, _gallery(pictures, decisions, values["gallery"], output))
    return {"output": str(output), "state": "dry run" if dry else "written", **decisions.counts()}


def apply_review(path: Path, output: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Writes what a person decided. values: review, images, dry_run."""
    from index.clean.decisions import read_decisions
    from index.clean.folder import finish_review

    manifest = locate_images(_read_labelled(path), values["images"], TerminalProgress()).manifest
    decisions = read_decisions(values["review"], manifest)
    if values["dry_run"]:
        state = "dry run"
    else:
        done = finish_review(output, manifest, decisions, values["review"]) == "finished"
        state = "unchanged" if done else "reviewed"
    return {"output": str(output), "state": state, **decisions.counts()}


def _read_labelled(path: Path) -> "Manifest":
    from cli.reading import load_manifest

    manifest = load_manifest(path)
    if not manifest.has_labels or not (manifest.landmark >= 0).any():
        raise LmrError(f"{path} names no landmark; cleaning needs a manifest with landmark_id")
    return manifest


def _require_extras(rule: CleaningRule, values: Mapping[str, Any]) -> None:
    """Before anything that takes long."""
    if rule.verify:
        from retrieval.local.sift import require_opencv

        require_opencv()
    if values["gallery"] and not values["dry_run"]:
        from cli.report.gallery import require_jinja

        require_jinja()


def _identity(pictures: LocatedImages, stores: "Sequence[Descriptors]", rule: CleaningRule) -> dict[str, Any]:
    """What the outcome depends on."""
    return {
        "manifest": pictures.manifest.digest,
        "images": None if pictures.folder is None else str(pictures.folder.resolve()),
        "store": stores[0].digest,
        "background": [store.digest for store in stores[1:]],
        **{name: list(value) if isinstance(value, tuple) else value for name, value in asdict(rule).items()},
    }


def _inputs(
    pictures: LocatedImages, stores: "Sequence[Descriptors]", rule: CleaningRule, values: Mapping[str, Any]
) -> "CleaningInputs":
    from index.clean.plan import CleaningInputs

    manifest = pictures.manifest
    store, rows = stores[0], _rows_in_store(manifest, stores[0])
    for other in stores[1:]:
        _require_same_model(store, other)
    has_one = store.done[rows]
    vectors = np.zeros((len(rows), store.info.d), dtype=np.float32)
    vectors[has_one] = _unit(store, rows[has_one])
    reasons = store.reason
    unreadable = {
        int(i): "no descriptor" if reasons is None or not reasons[rows[i]] else str(reasons[rows[i]])
        for i in np.flatnonzero(~has_one)
    }
    others = [vectors[(manifest.landmark < 0) & vectors.any(axis=1)]]
    others += [
        _unit(other, np.flatnonzero(other.done & ~np.isin(other.image_id, manifest.image_id))) for other in stores[1:]
    ]
    background = np.concatenate(others)
    if "background" in rule.checks and not len(background):
        warn("non-landmarks were not looked for: there is no background; give --background, or rows without a label")
    return CleaningInputs(manifest, vectors, unreadable, background, _measure(pictures, rule, values))


def _rows_in_store(manifest: "Manifest", store: "Descriptors") -> "LongArray":
    """(n,) the store's row of each picture. LmrError where one is not in it."""
    row_of = {image_id: row for row, image_id in enumerate(store.image_id.tolist())}
    missing = [image_id for image_id in manifest.image_id.tolist() if image_id not in row_of]
    if missing:
        raise LmrError(
            f"{store.source}: {counted(len(missing), 'picture', of=len(manifest))} of {manifest.source} "
            f"{agreeing(len(missing), 'is', 'are')} not in it, the first one {missing[0]}; give the store that "
            f"lmr embed made of this manifest"
        )
    return np.array([row_of[image_id] for image_id in manifest.image_id.tolist()], dtype=np.int64)


def _require_same_model(store: "Descriptors", other: "Descriptors") -> None:
    if store.info.fingerprint != other.info.fingerprint:
        raise LmrError(
            f"{other.source} was made by model {other.info.fingerprint[:8]}, {store.source} by "
            f"{store.info.fingerprint[:8]}; embed with the same model"
        )


def _unit(store: "Descriptors", rows: "LongArray") -> "FloatArray":
    from retrieval.store.store import to_unit

    return to_unit(store.vectors[rows], store.image_id[rows], store.source)


def _measure(pictures: LocatedImages, rule: CleaningRule, values: Mapping[str, Any]) -> "FactsTable | None":
    """The facts of all pictures, None where they are not asked for or there are no pictures, which is then said."""
    if not {"quality", "duplicates"} & set(rule.checks):
        return None
    if pictures.folder is None:
        warn("quality and copies were not looked at in the pictures, which were not found; give --images")
        return None
    from retrieval.data.quality_cache import measure_manifest
    from retrieval.images.source import PictureSource

    source = PictureSource(pictures.manifest, pictures.folder)
    cache = None if values["dry_run"] and not values["facts"].exists() else values["facts"]
    with TerminalProgress() as progress:
        workers = max(1, default_workers(values["workers"]))
        return measure_manifest(source, cache, n_workers=workers, progress=progress)


def _decide(
    inputs: "CleaningInputs", rule: CleaningRule, work: Path | None, where: tuple[LocatedImages, Mapping[str, Any]]
) -> Any:
    from index.clean.plan import decide

    pictures, values = where
    verify = _verifier(inputs, rule, work, pictures) if rule.verify else None
    return decide(inputs, rule, _look_around(inputs, rule, work, values["device"]), verify)


def _look_around(inputs: "CleaningInputs", rule: CleaningRule, work: Path | None, device: str) -> "Block | None":
    from index.clean.blocks import look_around_all
    from index.clean.neighbours import centre

    judged = inputs.judged
    if len(judged) < 2:
        return None
    with TerminalProgress() as progress:
        space = centre(inputs.vectors[judged], inputs.background)
        return look_around_all(space, inputs.codes, rule, work, device=device, progress=progress)


def _verifier(inputs: "CleaningInputs", rule: CleaningRule, work: Path | None, pictures: LocatedImages) -> "Verify":
    from index.clean.geometric import count_verified

    if pictures.folder is None:
        raise LmrError("--verify needs the pictures, which were not found; give --images")
    inliers = _inliers(pictures)

    def verify(rows: "LongArray") -> "LongArray":
        with TerminalProgress() as progress:
            saved = None if work is None else work / "verified.jsonl"
            landmark = inputs.manifest.landmark
            return count_verified(rows, landmark, inputs.vectors, rule, inliers, saved=saved, progress=progress)

    return verify


def _inliers(pictures: LocatedImages) -> Callable[[int, int], int]:
    """Of two rows; a picture that cannot be read matches nothing."""
    from retrieval.images.source import PictureSource
    from retrieval.local.sift import local_features, n_inliers

    source = PictureSource(pictures.manifest, pictures.folder)

    @lru_cache(maxsize=_REMEMBERED_PICTURES)
    def features(row: int) -> "LocalFeatures | None":
        try:
            return local_features(source.read(row))
        except UnreadableError:
            return None

    def inliers(one: int, other: int) -> int:
        here, there = features(one), features(other)
        return 0 if here is None or there is None else n_inliers(here, there)

    return inliers


def _gallery(pictures: LocatedImages, decisions: Any, n_shown: int, output: Path) -> str | None:
    if not n_shown:
        return None
    from cli.report.gallery import render_gallery

    return render_gallery(pictures.manifest, decisions, n_shown, output)
