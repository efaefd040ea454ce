"""Builds an index folder from descriptor stores: beside the old one, whose place it then takes."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from index.calibration import Calibration
from index.folder.config import BuildOptions, ThumbnailPlan
from index.folder.folder import IndexFolder, open_folder, read_calibration, replace_calibration
from index.folder.info import (
    BACKGROUND,
    FORMAT_VERSION,
    MODEL,
    MODEL_CARD,
    MODEL_FILES,
    NAMES,
    ROWS,
    SAMPLE,
    THUMBNAILS,
    FolderInfo,
    check_files,
    is_index_folder,
    list_files,
    read_info,
    search_names,
    write_info,
)
from index.folder.inputs import BuildInputs, Gathered, gather
from index.folder.local import LocalPlaces, digest_of_local
from index.folder.local_rows import write_local_rows
from index.folder.rows import Background, Rows, write_background, write_rows
from index.folder.thumbnails import write_thumbnails
from index.folder.vectors import measure_recall, store_vectors
from index.search.choose import build_search, plan_search
from index.search.config import SearchInfo
from index.search.flat import FlatIndex
from index.search.kept_sample import write_sample
from index.search.plan import IndexPlan
from index.search.shards import shard_sizes
from index.whitening import MAX_DIMENSIONS
from retrieval.data.names import Name
from retrieval.errors import DamageError, LmrError
from retrieval.files.atomic import write_text
from retrieval.files.digest import update_json
from retrieval.files.folders import current_folder, replacing_folder
from retrieval.files.lock import lock_path, output_lock
from retrieval.progress import SILENT, Progress
from retrieval.version import program_version

if TYPE_CHECKING:
    from index.spark.search_tasks import Made

LEAST_AGREEMENT = 0.99  # share of answers that must be alike for a calibration to be kept by another kind of index


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The result of a build: `built`, or `unchanged` where the same index was there already.

    kept, lost: the calibration of the index that was replaced, where the new one answers alike, and where it does not.
    not_read: why that index or its calibration could not be read, '' where it could or none was there.
    recalibrated: what took the place of the lost calibration, where that was asked for. lost_local: the index that was
    replaced had local features, and the new one has none.
    """

    state: Literal["built", "unchanged"]
    info: FolderInfo
    n_unreadable: int
    kept: Calibration | None = None
    lost: Calibration | None = None
    not_read: str = ""
    recalibrated: Calibration | None = None
    lost_local: bool = False


@dataclass(frozen=True, slots=True)
class Digests:
    """sha256 (hex) over everything that shows in a folder; over what changes answers; over that but the kind."""

    inputs: str
    answers: str
    rows: str


def build_folder(
    path: str | Path,
    inputs: BuildInputs,
    options: BuildOptions | None = None,
    *,
    overwrite: bool = False,
    device: str = "auto",
    thumbnails: ThumbnailPlan | None = None,
    agreement: Callable[[IndexFolder, IndexFolder], float] | None = None,
    digests: Digests | None = None,
    made: "Made | None" = None,
    progress: Progress = SILENT,
) -> BuildReport:
    """Builds an index folder, or does nothing where the same inputs and options made the one that is there.

    agreement: measures which share of answers two kinds of index over the same rows have in common; without it a
    calibration is not kept for another kind.
    thumbnails: of the rows, kept in the folder, None = none; they are no part of what makes answers.
    digests: of the folder, where they are known. made: what was made elsewhere of the same inputs and options, None =
    all is made here.
    A kill at any moment leaves the old folder or the new one; leftovers are removed by the next build.
    Raises LmrError: stores of different models, an image twice, no labelled row, a folder that exists and was
    made from something else (replaced with `overwrite`), a path that cannot be written.
    """
    path, options, thumbnails = Path(path), options or BuildOptions(), thumbnails or ThumbnailPlan()
    gathered = gather(inputs)
    plan = plan_folder(gathered, options)
    digests = digests or digests_of(gathered, inputs, options, plan, progress)
    n_unreadable = inputs.n_unreadable
    with output_lock(path):
        found = None if overwrite else find_same(path, digests, thumbnails.side_px, gathered.local)
        if found:
            return BuildReport("unchanged", found, n_unreadable)
        _require_no_other(path)
        before, calibration, not_read = _calibrated_before(path)
        with replacing_folder(path) as folder:
            info = _write_folder(
                folder,
                gathered,
                inputs,
                options,
                plan,
                digests=digests,
                device=device,
                thumbnails=thumbnails,
                made=made,
                progress=progress,
            )
            keeps = (
                calibration is not None
                and before is not None
                and (_answers_alike(before, info) or _kinds_agree(path, before, folder, info, agreement))
            )
            if calibration is not None and keeps:
                origin = replace(calibration.origin, index_digest=digests.inputs)
                replace_calibration(folder, replace(calibration, origin=origin))
            check_files(folder, info, "size")
    kept, lost = (calibration, None) if keeps else (None, calibration)
    lost_local = before is not None and before.local is not None and info.local is None
    return BuildReport("built", info, n_unreadable, kept, lost, not_read, lost_local=lost_local)


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


def digests_of(
    gathered: Gathered, inputs: BuildInputs, options: BuildOptions, plan: IndexPlan, progress: Progress
) -> Digests:
    """The digests of the folder that is built of these inputs; all vectors are read."""
    hashed, stated = _hash_vectors(gathered, progress), stated_options(options, plan)
    of_answers = {name: value for name, value in stated.items() if name != "n_shards"}
    of_rows = {name: value for name, value in of_answers.items() if name not in ("storage", "search")}
    return Digests(
        _inputs_digest(gathered, hashed, inputs, stated),
        _answers_digest(gathered, hashed, of_answers),
        _answers_digest(gathered, hashed, of_rows),
    )


def _hash_vectors(gathered: Gathered, progress: Progress) -> "hashlib._Hash":
    """The bytes of all vectors, hashed block by block."""
    total = hashlib.sha256()
    progress.begin("reading", len(gathered.both), "descriptors")
    for block in gathered.both.blocks():
        total.update(block.reshape(-1).data)
        progress.add(len(block))
    progress.end()
    return total


def stated_options(options: BuildOptions, plan: IndexPlan) -> dict[str, Any]:
    """The options as index.json and digests have them: those of the search where it is not exact.

    Shards change answers, as kinds do, where each proposes its own rows; of exact search they change none.
    """
    stated = {**asdict(options), "storage": plan.storage}
    del stated["search"]
    shards = {"n_shards": plan.n_shards} if plan.n_shards > 1 else {}
    if plan.kind == "flat":
        return stated | shards
    how = {"kind": plan.kind, "n_lists": plan.n_lists, "recall": options.search.recall}
    return stated | {"search": how | shards}


def plan_folder(gathered: Gathered, options: BuildOptions) -> IndexPlan:
    """The kind of the index of these rows. Raises LmrError as `plan_search`."""
    return plan_search(options.search, options.storage, len(gathered.vectors), _n_dimensions(gathered, options))


def _n_dimensions(gathered: Gathered, options: BuildOptions) -> int:
    """Length of the vectors of the index, at most."""
    d = gathered.vectors.shape[1]
    return d if options.whitening_power is None else min(d, options.n_dimensions or MAX_DIMENSIONS)


def _answers_digest(gathered: Gathered, hashed: "hashlib._Hash", options: Mapping[str, Any]) -> str:
    """sha256 (hex) over everything that changes an answer. hashed: the vectors. options: as they are stated."""
    total = hashed.copy()
    rows = [gathered.landmark, gathered.landmarks]
    update_json(total, {"fingerprint": gathered.fingerprint, "rows": rows, "options": options})
    return total.hexdigest()


def _require_no_other(path: Path) -> None:
    """Raises LmrError for a folder or file of something else."""
    if path.exists() and not is_index_folder(path) and not _is_empty(path):
        raise LmrError(f"{path} exists and is not an index folder; choose another `output`")


def _is_empty(path: Path) -> bool:
    """True for a folder that holds nothing, or its own lock alone."""
    return path.is_dir() and all(place == lock_path(path) for place in path.iterdir())


def _inputs_digest(gathered: Gathered, hashed: "hashlib._Hash", inputs: BuildInputs, options: Mapping[str, Any]) -> str:
    """sha256 (hex) over everything that shows in the folder. hashed: the vectors. options: as they are stated."""
    total = hashed.copy()
    content = {
        "format_version": FORMAT_VERSION,
        "fingerprint": gathered.fingerprint,
        "rows": [gathered.image_id, gathered.landmark, gathered.landmarks, gathered.path],
        "background": gathered.background_id,
        "names": [dict(gathered.names), {label: asdict(name) for label, name in inputs.names.items()}],
        "options": options,
        **({"columns": gathered.columns} if gathered.columns else {}),
        **({"mapped": gathered.mapped} if gathered.mapped else {}),
        **({} if gathered.local is None else {"local": digest_of_local(gathered.local)}),
    }
    update_json(total, content)
    return total.hexdigest()


def find_same(path: Path, digests: Digests, thumbnail_px: int, local: LocalPlaces | None) -> FolderInfo | None:
    """The finished folder of these inputs, None without a folder. Raises LmrError for any other folder."""
    digest = digests.inputs
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
    if info.local is None and local is not None:
        raise LmrError(
            f"{path} exists and has no local features; lmr index add with `local` gives it those of its rows, "
            "`overwrite` replaces it"
        )
    if info.local is not None and (local is None or local.used().names != info.local.files):
        raise LmrError(f"{path} exists and was built with other local features; `overwrite` replaces it")
    raise LmrError(f"{path} exists and was built from other descriptors or options; `overwrite` replaces it")


def _write_folder(
    folder: Path,
    gathered: Gathered,
    inputs: BuildInputs,
    options: BuildOptions,
    plan: IndexPlan,
    *,
    digests: Digests,
    device: str,
    thumbnails: ThumbnailPlan,
    made: "Made | None",
    progress: Progress,
) -> FolderInfo:
    """Writes every file into an empty folder, index.json last."""
    _copy_model(inputs.model_path, folder / MODEL)
    if made is None:
        stored = store_vectors(folder, gathered, options, plan.storage, device, progress)
        searched_by = _write_search(folder, stored.searched, replace(plan, d=stored.index.d), options, progress)
    else:
        stored, searched_by = made.put(folder, device, progress), made.search
    if searched_by is not None:
        paths = [folder / name for name in search_names(plan.n_shards)]
        searched_by = replace(searched_by, memory_bytes=sum(path.stat().st_size for path in paths))
    rows = Rows(
        gathered.image_id,
        gathered.landmark,
        gathered.landmarks,
        gathered.path,
        stored.similarity,
        gathered.columns,
    )
    write_rows(folder / ROWS, rows)
    if len(stored.background):
        write_background(folder / BACKGROUND, Background(stored.background, gathered.background_id))
    _write_names(folder / NAMES, gathered, inputs.names)
    n_small = 0
    if thumbnails.side_px:
        n_small = write_thumbnails(folder / THUMBNAILS, gathered.path, thumbnails, digests.inputs, progress)
    local, stores = (None, {}) if gathered.local is None else write_local_rows(folder, gathered.local)
    info = FolderInfo(
        fingerprint=gathered.fingerprint,
        inputs_digest=digests.inputs,
        options=stated_options(options, plan),
        n_rows=len(rows),
        n_landmarks=len(rows.landmarks),
        n_background=len(stored.background),
        d=stored.index.d,
        recall=searched_by.recall if searched_by else measure_recall(gathered, stored),
        program_version=program_version(),
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=list_files(folder, stores if made is None else {**stores, **made.listed}),
        thumbnails={"side_px": thumbnails.side_px, "n": n_small},
        answers_digest=digests.answers,
        rows_digest=digests.rows,
        search=searched_by,
        largest_norm=stored.index.largest_norm,
        largest_augmented_norm=0.0 if stored.augmented is None else stored.augmented.largest_norm,
        local=local,
        mapped=gathered.mapped,
        shards=shard_sizes(len(rows), plan.n_shards) if plan.n_shards > 1 else (),
    )
    write_info(folder, info)
    return info


def _write_search(
    folder: Path, rows: FlatIndex, plan: IndexPlan, options: BuildOptions, progress: Progress
) -> SearchInfo | None:
    """Builds what rows are searched by and writes it into a folder; None where that is exact search."""
    found = build_search(rows, plan, options.search, progress)
    if found is None:
        return None
    index, info, sample = found
    index.save([folder / name for name in search_names(plan.n_shards)])
    write_sample(folder / SAMPLE, sample)
    return info


def _copy_model(source: Path, target: Path) -> None:
    """Copies what makes a descriptor; the state and logs of training stay behind."""
    target.mkdir()
    for path in sorted(path for pattern in (MODEL_CARD, *MODEL_FILES) for path in source.glob(pattern)):
        shutil.copyfile(path, target / path.name)


def _write_names(path: Path, gathered: Gathered, names: Mapping[str, Name]) -> None:
    """names.json: the names given, else those of the stores, of the landmarks that the index holds."""
    known = {label: Name(name, "") for label, name in gathered.names.items()} | dict(names)
    kept = {label: asdict(known[label]) for label in gathered.landmarks if label in known}
    if kept:
        write_text(path, [json.dumps(kept, indent=1, ensure_ascii=False), "\n"])
