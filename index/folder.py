"""An index folder: everything needed to answer a query, checked when it is opened.

    index.faiss     the descriptors of the rows          rows.h5        image_id, landmark, path, b(i) of each row
    background.h5   descriptors of non-landmarks         whiten.h5      mean and matrix
    model/          what makes a descriptor              names.json     names of landmarks for people
    augmented.faiss the rows with what they borrow       calibration.json
    index.json      what the folder is, sha256 of each file

index.json carries its own sha256. calibration.json is the one file that is replaced later. It carries its own
sha256 too, and the inputs_digest of the index it was made for, and is not listed in index.json: so replacing it is
one rename, and a kill leaves a whole folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from index.calibration import FORMAT_VERSION as CALIBRATION_VERSION
from index.calibration import Calibration
from index.refinement import Refinement
from index.refining import refined_search
from index.rows import Background, Rows, read_background, read_rows
from index.search import FlatIndex, Neighbours
from index.voting import VoteRule
from index.whitening import Whitening, load_whitening
from retrieval.arrays import FloatArray
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_file
from retrieval.files.folders import current_folder
from retrieval.files.json_file import convert, read_json, read_signed_json, write_signed_json
from retrieval.names import Name

FORMAT_VERSION = 1
REBUILD = "run lmr build-index again"  # what to do with a damaged folder
INDEX, ROWS, BACKGROUND, WHITENING = "index.faiss", "rows.h5", "background.h5", "whiten.h5"
AUGMENTED = "augmented.faiss"
MODEL, NAMES, CALIBRATION, INFO = "model", "names.json", "calibration.json", "index.json"
MODEL_CARD, MODEL_FILES = "model.json", ("weights-*.safetensors", "model.onnx")  # of retrieval
N_TRIES = 5  # readings of a folder that is replaced meanwhile, before that is an error


@dataclass(frozen=True, slots=True)
class FolderInfo:
    """What an index folder is: the content of index.json.

    inputs_digest: sha256 (hex) over everything the folder was built from, and how. files: path in the folder ->
    sha256 and size in bytes. recall: share of the exact float32 neighbours that the stored index finds.
    """

    fingerprint: str
    inputs_digest: str
    options: Mapping[str, Any]
    n_rows: int
    n_landmarks: int
    n_background: int
    d: int
    recall: float
    program_version: str
    built_at: str
    files: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `read_info` gives it back."""
        return {"format_version": FORMAT_VERSION} | {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class IndexFolder:
    """An opened index folder. background, whitening, calibration and augmented are None where the folder has none.

    index: the pictures' own descriptors, which tell copies. augmented: the rows that are searched in its place.
    """

    path: Path
    index: FlatIndex
    rows: Rows
    background: Background | None
    whitening: Whitening | None
    calibration: Calibration | None
    names: Mapping[str, Name]
    info: FolderInfo
    refinement: Refinement = field(default_factory=Refinement)
    augmented: FlatIndex | None = None

    def __post_init__(self) -> None:
        if len(self.index) != len(self.rows):
            raise ValueError(f"{len(self.index)} descriptors do not fit {len(self.rows)} rows")

    @property
    def fingerprint(self) -> str:
        """Of the model that made the descriptors; those of queries must have the same."""
        return self.info.fingerprint

    @property
    def rule(self) -> VoteRule:
        """The calibrated vote, or the default one."""
        return self.calibration.rule if self.calibration else VoteRule()

    @property
    def model_path(self) -> Path:
        """The model folder in the index folder."""
        return self.path / MODEL

    def search(self, vectors: FloatArray, k: int) -> tuple[Neighbours, FloatArray]:
        """As `refined_search` over the rows of this folder; vectors: (q, d) in the index's space."""
        return refined_search(self.index if self.augmented is None else self.augmented, vectors, k, self.refinement)


def open_folder(
    path: str | Path,
    *,
    verify: Literal["full", "size"] = "full",
    device: str = "auto",
    threads: int | None = None,
    calibrated: bool = True,
) -> IndexFolder:
    """Opens an index folder; one that is replaced meanwhile is the old one or the new one.

    verify: `full` compares sizes and sha256 of all files (about a second per GB with SHA instructions, and the
    file is then in the page cache for loading); `size` compares sizes only. device, threads: of the search.
    calibrated: False leaves the calibration out, also a damaged one.
    Raises LmrError that names the file: missing, damaged, of another format version or of another model.
    """
    path = Path(path)
    for last_try in range(N_TRIES):
        folder, info = current_folder(path), None
        try:
            info = read_info(folder)
            check_files(folder, info, verify)
            calibration = read_calibration(folder, info) if calibrated else None
            return _load(folder, info, calibration, (device, threads))
        except (LmrError, OSError):
            # The folder may have been replaced while it was read; then the new one is read.
            is_the_same = current_folder(path) == folder and _info_or_none(folder) == info
            if last_try == N_TRIES - 1 or is_the_same:
                raise
    raise AssertionError("the last try returns or raises")


def is_current(folder: IndexFolder) -> bool:
    """Whether the files are still those that were opened, and no other index has taken their place."""
    return _info_or_none(folder.path) == folder.info


def replace_calibration(path: str | Path, calibration: Calibration) -> None:
    """Writes calibration.json; a kill at any moment leaves the folder with the old one or the new one.

    Raises LmrError when the folder is not an index folder or cannot be written, ValueError when the calibration is
    of another index.
    """
    folder = current_folder(Path(path))
    if calibration.origin.index_digest != read_info(folder).inputs_digest:
        raise ValueError(f"the calibration was not made for {folder}")
    write_signed_json(folder / CALIBRATION, calibration.to_json())


def read_calibration(folder: Path, info: FolderInfo) -> Calibration | None:
    """The folder's calibration, None without one. Raises LmrError when it is damaged or of another index."""
    path = folder / CALIBRATION
    if not path.exists():
        return None
    content = read_signed_json(path, CALIBRATION_VERSION, "run lmr calibrate again")
    calibration = Calibration.from_json(content, str(path))
    if calibration.origin.index_digest != info.inputs_digest:
        raise LmrError(f"{path} was made for another index; run lmr calibrate again")
    return calibration


def write_info(folder: Path, info: FolderInfo) -> None:
    """Writes index.json. Raises LmrError when the folder cannot be written."""
    write_signed_json(folder / INFO, info.to_json())


def read_info(folder: Path) -> FolderInfo:
    """Reads index.json. Raises LmrError: not an index folder, damaged, of another format version."""
    path = folder / INFO
    if not path.is_file():
        what = "there is no such index folder" if not folder.exists() else f"not an index folder (no {INFO})"
        raise LmrError(f"{folder}: {what}; lmr build-index makes one")
    content = read_signed_json(path, FORMAT_VERSION, REBUILD)
    return convert(content, FolderInfo, str(path), REBUILD)


def check_files(folder: Path, info: FolderInfo, verify: Literal["full", "size"]) -> None:
    """Compares the files with index.json. Raises LmrError that names the first one that differs."""
    for name, listed in info.files.items():
        path = folder / name
        if not path.is_file():
            raise LmrError(f"{path} is missing; copy the whole folder or run lmr build-index again")
        size = path.stat().st_size
        if size != listed["size"]:
            raise LmrError(
                f"{path} has {size} bytes, {INFO} says {listed['size']}; "
                "copy the folder again or run lmr build-index again"
            )
        if verify == "full" and sha256_file(path) != listed["sha256"]:
            raise LmrError(
                f"{path} was changed or damaged: its sha256 is not that of {INFO}; "
                "copy the folder again or run lmr build-index again"
            )


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size of every file of a folder that is being built."""
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_file(path), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def is_index_folder(path: Path) -> bool:
    """Whether this is an index folder, perhaps a damaged one; another program's index.json does not make one."""
    folder = current_folder(path)
    return (folder / INFO).is_file() and ((folder / INDEX).is_file() or (folder / ROWS).is_file())


def _load(
    folder: Path, info: FolderInfo, calibration: Calibration | None, where: tuple[str, int | None]
) -> IndexFolder:
    """where: device and threads of the search."""
    made_by = model_fingerprint(folder / MODEL)
    if made_by != info.fingerprint:
        raise LmrError(
            f"{folder / MODEL} is model {made_by[:8]}, {folder / INDEX} was made by {info.fingerprint[:8]}; "
            "run lmr build-index again"
        )
    background, whitening = folder / BACKGROUND, folder / WHITENING
    opened = IndexFolder(
        path=folder,
        index=FlatIndex.load(folder / INDEX, *where),
        rows=read_rows(folder / ROWS),
        background=read_background(background) if background.name in info.files else None,
        whitening=load_whitening(whitening) if whitening.name in info.files else None,
        calibration=calibration,
        names=_read_names(folder / NAMES) if NAMES in info.files else {},
        info=info,
        refinement=_read_refinement(folder, info),
        augmented=FlatIndex.load(folder / AUGMENTED, *where) if AUGMENTED in info.files else None,
    )
    if read_info(folder) != info:
        raise LmrError(f"{folder} was replaced while it was read; run the command again")
    return opened


def model_fingerprint(model_path: Path) -> str:
    """The fingerprint that a model folder states, without loading the model. Raises LmrError without one."""
    path = model_path / MODEL_CARD
    if not path.is_file():
        raise LmrError(f"{model_path}: there is no model (no {MODEL_CARD}); lmr train makes one")
    stated = read_json(path, "run lmr train again").get("fingerprint")
    if not isinstance(stated, str):
        raise LmrError(f"{path} is damaged (no fingerprint); run lmr train again")
    return stated


def _read_refinement(folder: Path, info: FolderInfo) -> Refinement:
    """How neighbours are refined; not at all in a folder from before there was a choice."""
    try:
        return Refinement(**info.options.get("refinement", {}))
    except TypeError as error:
        raise LmrError(f"{folder / INFO} is of another version of lmr ({error}); run lmr build-index again") from error


def _read_names(path: Path) -> dict[str, Name]:
    return {label: Name(**name) for label, name in read_json(path, REBUILD).items()}


def _info_or_none(folder: Path) -> FolderInfo | None:
    try:
        return read_info(folder)
    except LmrError:
        return None
