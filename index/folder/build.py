"""Builds an index folder from descriptor stores: beside the old one, whose place it then takes."""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from index.calibration import Calibration
from index.folder.config import BuildOptions, ThumbnailPlan
from index.folder.folder import IndexFolder, open_folder, read_calibration, replace_calibration
from index.folder.info import (
    AUGMENTED,
    BACKGROUND,
    FORMAT_VERSION,
    INDEX,
    MODEL,
    MODEL_CARD,
    MODEL_FILES,
    NAMES,
    ROWS,
    SEARCH,
    THUMBNAILS,
    WHITENING,
    FolderInfo,
    check_files,
    is_index_folder,
    list_files,
    read_info,
    write_info,
)
from index.folder.inputs import BuildInputs, Gathered, gather
from index.folder.rows import Background, Rows, write_background, write_rows
from index.folder.thumbnails import write_thumbnails
from index.rerank.expansion import augment
from index.search.choose import build_search, plan_search
from index.search.flat import FlatIndex
from index.search.plan import IndexPlan
from index.vote import background_similarity
from index.whitening import MAX_DIMENSIONS, Whitening, fit_supervised_whitening, fit_whitening
from retrieval.arrays import FloatArray
from retrieval.data.names import Name
from retrieval.errors import DamageError, LmrError
from retrieval.files.atomic import write_text
from retrieval.files.folders import current_folder, replacing_folder
from retrieval.files.lock import lock_path, output_lock
from retrieval.progress import SILENT, Progress

RECALL_K = 20  # neighbours compared; as many as vote by default
LEAST_AGREEMENT = 0.99  # share of answers that must be alike for a calibration to be kept by another kind of index
N_RECALL_QUERIES = 200  # rows; the standard error of the recall is then below 0.01


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The result of a build: `built`, or `unchanged` where the same index was there already.

    kept, lost: the calibration of the index that was replaced, where the new one answers alike, and where it does not.
    not_read: why that index or its calibration could not be read, '' where it could or none was there.
    recalibrated: what took the place of the lost calibration, where that was asked for.
    """

    state: Literal["built", "unchanged"]
    info: FolderInfo
    n_unreadable: int
    kept: Calibration | None = None
    lost: Calibration | None = None
    not_read: str = ""
    recalibrated: Calibration | None = None


def build_folder(
    path: str | Path,
    inputs: BuildInputs,
    options: BuildOptions | None = None,
    *,
    overwrite: bool = False,
    device: str = "auto",
    thumbnails: ThumbnailPlan | None = None,
    agreement: Callable[[IndexFolder, IndexFolder], float] | None = None,
    progress: Progress = SILENT,
) -> BuildReport:
    """Builds an index folder, or does nothing where the same inputs and options made the one that is there.

    agreement: measures which share of answers two kinds of index over the same rows have in common; without it a
    calibration is not kept for another kind.
    thumbnails: of the rows, kept in the folder, None = none; they are no part of what makes answers.
    A kill at any moment leaves the old folder or the new one; leftovers are removed by the next build.
    Raises LmrError: stores of different models, an image twice, no labelled row, a folder that exists and was
    made from something else (replaced with `overwrite`), a path that cannot be written.
    """
    path, options, thumbnails = Path(path), options or BuildOptions(), thumbnails or ThumbnailPlan()
    gathered = gather(inputs)
    plan = plan_search(options.search, options.storage, len(gathered.vectors), _n_dimensions(gathered, options))
    digest = _inputs_digest(gathered, inputs, stated_options(options, plan))
    n_unreadable = sum(int((~store.done).sum()) for store in (*inputs.stores, *inputs.background))
    with output_lock(path):
        found = None if overwrite else _find_same(path, digest, thumbnails.side_px)
        if found:
            return BuildReport("unchanged", found, n_unreadable)
        if path.exists() and not is_index_folder(path) and not _is_empty(path):
            raise LmrError(f"{path} exists and is not an index folder; choose another `output`")
        before, calibration, not_read = _calibrated_before(path)
        with replacing_folder(path) as folder:
            info = _write_folder(
                folder,
                gathered,
                inputs,
                options,
                plan,
                digest=digest,
                device=device,
                thumbnails=thumbnails,
                progress=progress,
            )
            keeps = (
                calibration is not None
                and before is not None
                and (_answers_alike(before, info) or _kinds_agree(path, before, folder, info, agreement))
            )
            if calibration is not None and keeps:
                origin = replace(calibration.origin, index_digest=digest)
                replace_calibration(folder, replace(calibration, origin=origin))
            check_files(folder, info, "size")
    kept, lost = (calibration, None) if keeps else (None, calibration)
    return BuildReport("built", info, n_unreadable, kept, lost, not_read)


def _calibrated_before(path: Path) -> tuple[FolderInfo | None, Calibration | None, str]:
    """The index folder that is there, its calibration, and why one of them could not be read ('' = they could)."""
    if not is_index_folder(path):
        return None, None, ""
    try:
        info = read_info(path)
        return info, read_calibration(path, info), ""
    except LmrError as error:
        return None, None, str(error)


def _answers_alike(one: FolderInfo, other: FolderInfo) -> bool:
    """True where two indexes answer alike: the same descriptors, labels and options, whatever the names and places."""
    return one.inputs_digest == other.inputs_digest or one.answers_digest == other.answers_digest != ""


def _kinds_agree(
    old: Path,
    before: FolderInfo,
    new: Path,
    info: FolderInfo,
    agreement: Callable[[IndexFolder, IndexFolder], float] | None,
) -> bool:
    """Tells whether two kinds of index over the same rows answer nearly all of a sample of questions alike."""
    if agreement is None or not before.rows_digest == info.rows_digest != "":
        return False
    calibrated = open_folder(old, device="cpu")
    other = replace(open_folder(new, device="cpu"), calibration=calibrated.calibration)
    return agreement(calibrated, other) >= LEAST_AGREEMENT


def _hash_vectors(gathered: Gathered) -> "hashlib._Hash":
    """The bytes of all vectors, hashed where they lie: a copy of them may have no room in memory."""
    total = hashlib.sha256()
    for vectors in (gathered.vectors, gathered.background):
        total.update(np.ascontiguousarray(vectors).reshape(-1).data)
    return total


def stated_options(options: BuildOptions, plan: IndexPlan) -> dict[str, Any]:
    """The options as index.json and digests have them: those of the search where it is not exact."""
    stated = {**asdict(options), "storage": plan.storage}
    del stated["search"]
    if plan.kind == "flat":
        return stated
    return stated | {"search": {"kind": plan.kind, "n_lists": plan.n_lists, "recall": options.search.recall}}


def _n_dimensions(gathered: Gathered, options: BuildOptions) -> int:
    """Length of the vectors of the index, at most."""
    d = int(gathered.vectors.shape[1])
    return d if options.whitening_power is None else min(d, options.n_dimensions or MAX_DIMENSIONS)


def _answers_digest(gathered: Gathered, options: Mapping[str, Any]) -> str:
    """sha256 (hex) over everything that changes an answer. options: as they are stated."""
    total = _hash_vectors(gathered)
    rows = [gathered.landmark.tolist(), gathered.landmarks]
    content = {"fingerprint": gathered.fingerprint, "rows": rows, "options": options}
    total.update(json.dumps(content, sort_keys=True).encode())
    return total.hexdigest()


def _is_empty(path: Path) -> bool:
    """True for a folder that holds nothing, or its own lock alone."""
    return path.is_dir() and all(place == lock_path(path) for place in path.iterdir())


def _inputs_digest(gathered: Gathered, inputs: BuildInputs, options: Mapping[str, Any]) -> str:
    """sha256 (hex) over everything that shows in the folder. options: as they are stated."""
    total = _hash_vectors(gathered)
    content = {
        "format_version": FORMAT_VERSION,
        "fingerprint": gathered.fingerprint,
        "rows": [list(gathered.image_id), gathered.landmark.tolist(), gathered.landmarks, list(gathered.path)],
        "background": list(gathered.background_id),
        "names": [dict(gathered.names), {label: asdict(name) for label, name in inputs.names.items()}],
        "options": options,
    }
    total.update(json.dumps(content, sort_keys=True).encode())
    return total.hexdigest()


def _find_same(path: Path, digest: str, thumbnail_px: int) -> FolderInfo | None:
    """The finished folder of these inputs, None without a folder. Raises LmrError for any other folder."""
    if not is_index_folder(path):
        return None
    try:
        folder = current_folder(path)
        info = read_info(folder)
        if info.inputs_digest == digest:
            check_files(folder, info, "full")
            found = info.thumbnails.get("side_px", thumbnail_px)
            if found == thumbnail_px:
                return info
    except DamageError as error:
        raise LmrError(f"{error}; `overwrite` replaces it") from error
    if info.inputs_digest == digest:
        raise LmrError(
            f"{path} exists and was built with thumbnails of {found} pixels, not {thumbnail_px}; "
            "`overwrite` replaces it"
        )
    raise LmrError(f"{path} exists and was built from other descriptors or options; `overwrite` replaces it")


def _write_folder(
    folder: Path,
    gathered: Gathered,
    inputs: BuildInputs,
    options: BuildOptions,
    plan: IndexPlan,
    *,
    digest: str,
    device: str,
    thumbnails: ThumbnailPlan,
    progress: Progress,
) -> FolderInfo:
    """Writes every file into an empty folder, index.json last. digest: of the inputs."""
    stated = stated_options(options, plan)
    _copy_model(inputs.model_path, folder / MODEL)
    whitening = _fit(gathered, options)
    vectors, background = gathered.vectors, gathered.background
    if whitening:
        whitening.save(folder / WHITENING)
        vectors, background = whitening.apply(vectors), whitening.apply(background)
    index = FlatIndex.build(vectors, plan.storage, device)
    index.save(folder / INDEX)
    recall = _measure_recall(index, vectors, device)
    augmented = None
    if options.refinement.n_augment:
        vectors = augment(index, options.refinement.n_augment, options.refinement.augment_alpha)
        augmented = FlatIndex.build(vectors, plan.storage, "cpu")
        augmented.save(folder / AUGMENTED)
    searched = index if augmented is None else augmented
    found = build_search(searched, replace(plan, d=index.d), options.search, progress)
    if found:
        found[0].save(folder / SEARCH)
    similarity = background_similarity(vectors, background, options.m) if len(background) else None
    rows = Rows(gathered.image_id, gathered.landmark, gathered.landmarks, gathered.path, similarity)
    write_rows(folder / ROWS, rows)
    if len(background):
        write_background(folder / BACKGROUND, Background(background, gathered.background_id))
    _write_names(folder / NAMES, gathered, inputs.names)
    n_small = 0
    if thumbnails.side_px:
        n_small = write_thumbnails(folder / THUMBNAILS, gathered.path.tolist(), thumbnails, digest, progress)
    info = FolderInfo(
        fingerprint=gathered.fingerprint,
        inputs_digest=digest,
        options=stated,
        n_rows=len(rows),
        n_landmarks=len(rows.landmarks),
        n_background=len(background),
        d=index.d,
        recall=found[1].recall if found else recall,
        program_version=importlib.metadata.version("lmr"),
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=list_files(folder),
        thumbnails={"side_px": thumbnails.side_px, "n": n_small},
        answers_digest=_answers_digest(gathered, stated),
        rows_digest=_answers_digest(gathered, {k: v for k, v in stated.items() if k not in ("storage", "search")}),
        search=found[1] if found else None,
        largest_norm=index.largest_norm,
        largest_augmented_norm=0.0 if augmented is None else augmented.largest_norm,
    )
    write_info(folder, info)
    return info


def _copy_model(source: Path, target: Path) -> None:
    """Copies what makes a descriptor; the state and logs of training stay behind."""
    target.mkdir()
    for path in sorted(path for pattern in (MODEL_CARD, *MODEL_FILES) for path in source.glob(pattern)):
        shutil.copyfile(path, target / path.name)


def _fit(gathered: Gathered, options: BuildOptions) -> Whitening | None:
    if options.whitening_power is None:
        return None
    both = np.concatenate([gathered.vectors, gathered.background])
    if options.whitening == "pca":
        return fit_whitening(both, options.whitening_power, options.n_dimensions)
    landmark = np.full(len(both), -1, dtype=np.int32)
    landmark[: len(gathered.landmark)] = gathered.landmark
    return fit_supervised_whitening(both, landmark, options.whitening_power, options.n_dimensions)


def _write_names(path: Path, gathered: Gathered, names: Mapping[str, Name]) -> None:
    """names.json: the names given, else those of the stores, of the landmarks that the index holds."""
    known = {label: Name(name, "") for label, name in gathered.names.items()} | dict(names)
    kept = {label: asdict(known[label]) for label in gathered.landmarks if label in known}
    if kept:
        write_text(path, [json.dumps(kept, indent=1, ensure_ascii=False), "\n"])


def _measure_recall(index: FlatIndex, vectors: FloatArray, device: str) -> float:
    """Share of the exact float32 neighbours of a sample of rows that the stored index finds."""
    if index.storage == "float32":
        return 1.0
    sample = np.random.default_rng(0).permutation(len(vectors))[:N_RECALL_QUERIES]
    k = min(RECALL_K, len(vectors))
    exact = FlatIndex.build(vectors, "float32", device).search(vectors[sample], k).rows
    found = index.search(vectors[sample], k).rows
    return float(np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]))
