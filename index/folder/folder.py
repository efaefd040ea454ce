"""An index folder: everything needed to answer a query, checked when it is opened.

    index.faiss     the descriptors of the rows          rows.h5        image_id, landmark, path, b(i) of each row
    background.h5   descriptors of non-landmarks         whiten.h5      mean and matrix
    model/          what makes a descriptor              names.json     names of landmarks for people
    augmented.faiss the rows with what they borrow       thumbnails.h5  thumbnails of the rows
    added.rows      those that came later, of a large index
    search.faiss    which rows may be the nearest        sample.h5      rows that it is asked after a change
    search-1-of-4.faiss                                  the same of a shard of the rows, where there are several
    local.json, local-rows.h5, local-SHA256.h5, local/                  local features of the rows
    calibration.json                                     index.json     what the folder is, sha256 of each file

index.json carries its own sha256. calibration.json is the one file that is replaced later. It carries its own
sha256 too, and the inputs_digest of the index it was made for, and is not listed in index.json: so replacing it is
one rename, and a kill leaves a whole folder.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from index.calibration import FORMAT_VERSION as CALIBRATION_VERSION
from index.calibration import Calibration
from index.folder.info import (
    AUGMENTED,
    BACKGROUND,
    CALIBRATION,
    INDEX,
    INFO,
    LOCAL,
    MODEL,
    MODEL_CARD,
    NAMES,
    REBUILD,
    ROWS,
    THUMBNAILS,
    WHITENING,
    FolderInfo,
    check_files,
    read_info,
)
from index.folder.local_rows import LocalRows
from index.folder.rows import Background, Rows, read_background, read_rows
from index.folder.searching import Searching, identity, load_searched
from index.folder.thumbnails import Kept, Thumbnails
from index.rerank.config import Refinement
from index.rerank.expansion import refined_search
from index.search.address import Address, address_of, require_folder
from index.search.base import Neighbours, SearchIndex
from index.search.flat import FlatIndex
from index.search.ivf import IvfShards
from index.vote_rule import VoteRule
from index.whitening import Whitening, load_whitening
from retrieval.arrays import FloatArray
from retrieval.data.names import Name
from retrieval.errors import DamageError, LmrError
from retrieval.files.digest import sha256_json
from retrieval.files.folders import current_folder
from retrieval.files.json_file import convert, read_json, read_signed_json, write_signed_json
from retrieval.models.folder import no_model
from retrieval.progress import PYTHON_WARNINGS, Progress
from retrieval.store.info import StoreInfo, model_difference
from retrieval.words import counted

if TYPE_CHECKING:
    from index.folder.served import Served

N_OF_AUGMENTED = 20  # augmented rows among which the one nearest by its own descriptor is
N_TRIES = 100  # readings of a folder that is replaced meanwhile, before that is an error


@dataclass(frozen=True, slots=True)
class IndexFolder:
    """An opened index folder. background, whitening, calibration, augmented, thumbnails and local are None where the
    folder has none.

    index: the images' own descriptors, which tell copies. augmented: the rows that are searched in its place.
    ivf: the inverted file over the rows that are searched, None where all are compared. local: local features.
    served: where the rows are on a server, and `path` a folder of the cache; None for a folder that has them itself.
    """

    path: Path
    index: SearchIndex
    rows: Rows
    background: Background | None
    whitening: Whitening | None
    calibration: Calibration | None
    names: Mapping[str, Name]
    info: FolderInfo
    refinement: Refinement = field(default_factory=Refinement)
    augmented: SearchIndex | None = None
    thumbnails: Thumbnails | None = None
    ivf: IvfShards | None = None
    local: LocalRows | None = None
    served: "Served | None" = None

    def __post_init__(self) -> None:
        if len(self.index) != len(self.rows):
            raise ValueError(f"{len(self.index)} descriptors do not fit {len(self.rows)} rows")

    def __str__(self) -> str:
        return str(self.path if self.served is None else self.served.address)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that made the descriptors; those of queries must have the same."""
        return self.info.fingerprint

    @property
    def rule(self) -> VoteRule:
        """The calibrated vote, or the default one."""
        return self.calibration.rule if self.calibration else VoteRule()

    @property
    def own_flat(self) -> FlatIndex:
        """The images' own descriptors where they lie in the folder. Raises LmrError where a server holds them."""
        return _here(self, self.index)

    @property
    def searched_flat(self) -> FlatIndex:
        """As `own_flat`, the rows that answers are found among: the augmented ones where there are any."""
        return _here(self, self.index if self.augmented is None else self.augmented)

    @property
    def n_columns(self) -> int:
        """Length of the descriptors that the folder takes, before its own whitening."""
        return self.index.d if self.whitening is None else len(self.whitening.mean)

    def kept(self, row: int) -> Kept | None:
        """A function that reads the thumbnail of a row; None where the folder keeps none."""
        return None if self.thumbnails is None else partial(self.thumbnails.read, row)

    @property
    def made_of(self) -> dict[str, str | None]:
        """Digests of what its answers depend on, for the records of files that are made of them."""
        calibration = None if self.calibration is None else sha256_json(self.calibration.plain.to_json())
        return {"index": self.info.inputs_digest, "calibration": calibration}

    @property
    def model_path(self) -> Path:
        """The model folder in the index folder."""
        return self.path / MODEL

    def search(self, vectors: FloatArray, k: int) -> tuple[Neighbours, FloatArray]:
        """As `refined_search` over the rows of this folder; vectors: (q, d) in the index's space."""
        return refined_search(self.searched, vectors, k, self.refinement)

    @property
    def searched(self) -> SearchIndex:
        """What answers are found in: of augmented rows where there are any, by the inverted file where there is one."""
        return next(one for one in (self.ivf, self.augmented, self.index) if one is not None)

    def nearest(self, vectors: FloatArray, k: int) -> Neighbours:
        """The k rows nearest by the images' own descriptors, whatever else answers are found by; vectors: (q, d)."""
        if self.ivf is None:
            return self.index.search(vectors, k)
        if self.ivf.rows is self.index:
            return self.ivf.search(vectors, k)
        return self.index.choose(vectors, self.ivf.search(vectors, k * N_OF_AUGMENTED).rows, k)


def open_folder(
    path: str | Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    calibrated: bool = True,
    with_local: bool = False,
    searched: bool = True,
    on_server: bool = False,
    verify: Literal["full", "small"] = "small",
    progress: Progress = PYTHON_WARNINGS,
) -> IndexFolder:
    """Opens an index folder; one that is replaced meanwhile is the old one or the new one.

    Rows stay in their files, which processes share. The sizes of all files are compared with index.json, and the sha256
    of small ones; verify: `full` compares it of all, which takes about a second per GB. device, threads: of the search;
    progress: is told of GPUs that take rows, and of those that cannot.
    calibrated: False leaves the calibration out, also a damaged one. with_local: opens local features at once, not when
    they are asked for, when another index may have taken the place. searched: False leaves an inverted file closed, for
    who knows what it finds. on_server: the address of an index on a server will do, as milvus://host/collection.
    Raises LmrError that names the file: missing, damaged, of another format version or of another model.
    """
    how = Searching(device, threads, progress)
    if (address := address_of(path)) is not None:
        if not on_server:
            require_folder(Path(path))
        return _open_served(address, how, calibrated=calibrated, with_local=with_local)
    path = Path(path)
    for last_try in range(N_TRIES):
        folder = current_folder(path)
        before = identity(folder)
        try:
            info = read_info(folder)
            check_files(folder, info, verify)
            calibration = read_calibration(folder, info) if calibrated else None
            opened = _load(folder, info, calibration, how, searched=searched)
            if with_local and opened.local is not None:
                opened.local.open()
            # An equal index.json is no proof: another one may have come and gone, and left its files in this one.
            if identity(folder) != before or read_info(folder) != info:
                raise LmrError(f"{folder} was replaced while it was read; run the command again")
            return opened
        except (LmrError, OSError):
            # The folder may have been replaced while it was read; then the new one is read.
            is_the_same = current_folder(path) == folder and identity(folder) == before
            if last_try == N_TRIES - 1 or is_the_same:
                raise
    raise AssertionError("the last try returns or raises")


def _open_served(address: Address, how: Searching, *, calibrated: bool, with_local: bool) -> IndexFolder:
    """Opens an index on a server; one that is exported again meanwhile is the old one or the new one."""
    from index.folder.served import open_served

    served = open_served(address, how.progress)
    info = read_info(served.folder)
    check_files(served.folder, info, "small", but=served.absent(info))
    calibration = read_calibration(served.folder, info) if calibrated else None
    opened = _load(served.folder, info, calibration, how, searched=False, served=served)
    if with_local and opened.local is not None:
        opened.local.open()
    return opened


def is_current(folder: IndexFolder) -> bool:
    """True while the files are those that were opened, and no other index has taken their place."""
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
    path = current_folder(folder) / CALIBRATION
    if not path.exists():
        return None
    content = read_signed_json(path, CALIBRATION_VERSION, "run lmr calibrate again")
    try:
        calibration = Calibration.from_json(content, str(path))
    except LmrError as error:
        raise DamageError(*error.lines) from error
    if calibration.origin.index_digest != info.inputs_digest:
        raise DamageError(f"{path} was made for another index; run lmr calibrate again")
    if calibration.confidence.h:
        raise DamageError(f"{path} weighs verified neighbours in plain answers; run lmr calibrate again")
    verified = calibration.verified
    if (calibration.confidence.g or (verified and verified.confidence.g)) and not info.n_background:
        raise DamageError(f"{path} weighs a background, which this index has none of; run lmr calibrate again")
    return calibration


def _here(folder: IndexFolder, rows: SearchIndex) -> FlatIndex:
    if not isinstance(rows, FlatIndex):
        raise LmrError(
            f"{folder}: its rows are on a server, and this needs them in the folder; give the index folder that "
            "was exported"
        )
    return rows


def _load(
    folder: Path,
    info: FolderInfo,
    calibration: Calibration | None,
    how: Searching,
    *,
    searched: bool,
    served: "Served | None" = None,
) -> IndexFolder:
    made_by = model_fingerprint(folder / MODEL)
    if made_by != info.fingerprint:
        raise LmrError(
            f"{folder / MODEL} is model {made_by[:8]}, {folder / INDEX} was made by {info.fingerprint[:8]}; "
            "run lmr build-index again"
        )
    background, whitening = folder / BACKGROUND, folder / WHITENING
    index, augmented, ivf = load_searched(folder, info, how, searched=searched) if served is None else served.searched
    rows = read_rows(folder / ROWS)
    if len(index) != len(rows):
        raise LmrError(f"{folder / ROWS} has {counted(len(rows), 'row')}, {folder / INDEX} has {len(index)}; {REBUILD}")
    fetch = None if served is None else partial(served.fetch_later, info, how.progress)
    there: Container[str] = info.files if served is None else served.export.files
    opened = IndexFolder(
        path=folder,
        index=index,
        rows=rows,
        background=read_background(background) if background.name in info.files else None,
        whitening=load_whitening(whitening) if whitening.name in info.files else None,
        calibration=calibration,
        names=_read_names(folder / NAMES) if NAMES in info.files else {},
        info=info,
        refinement=_read_refinement(folder, info),
        augmented=augmented,
        ivf=ivf,
        thumbnails=Thumbnails(folder / THUMBNAILS, info.inputs_digest, fetch and partial(fetch, local=False))
        if THUMBNAILS in there
        else None,
        local=LocalRows(folder, info, fetch and partial(fetch, local=True))
        if info.local is not None and LOCAL in there
        else None,
        served=served,
    )
    _require_fit(opened)
    return opened


def model_fingerprint(model_path: Path) -> str:
    """The fingerprint that a model folder states, without loading the model. Raises LmrError without one."""
    stated = read_model_json(model_path).get("fingerprint")
    if not isinstance(stated, str):
        raise LmrError(f"{model_path / MODEL_CARD} is damaged (no fingerprint); run lmr train again")
    return stated


def read_model_json(model_path: Path) -> dict[str, Any]:
    """The card of a model folder, unchecked. Raises LmrError without a model."""
    path = model_path / MODEL_CARD
    if not path.is_file():
        raise LmrError(no_model(model_path))
    return read_json(path, "run lmr train again")


def tell_difference(info: StoreInfo, model_path: Path) -> str:
    """Why a store does not fit a model (`size 168 is not 128`). Raises LmrError without a model."""
    return model_difference(info.made_by, {"fingerprint": "", **read_model_json(model_path)})


def _require_fit(opened: IndexFolder) -> None:
    """Raises LmrError where files that are whole do not belong together."""
    d, n = opened.index.d, len(opened.rows)
    rule = opened.rule
    wrong = {
        INFO: (opened.info.d, opened.info.n_rows, opened.info.n_landmarks) != (d, n, len(opened.rows.landmarks)),
        WHITENING: opened.whitening is not None and opened.whitening.matrix.shape[1] != d,
        BACKGROUND: opened.background is not None and opened.background.vectors.shape[1] != d,
        AUGMENTED: opened.augmented is not None and (opened.augmented.d, len(opened.augmented)) != (d, n),
        CALIBRATION: bool(rule.beta) and opened.rows.background is None,
    }
    if opened.calibration is not None and opened.calibration.confidence.g:
        wrong[CALIBRATION] |= opened.background is None
    for name, is_wrong in wrong.items():
        if is_wrong:
            remedy = "run lmr calibrate again" if name == CALIBRATION else REBUILD
            raise LmrError(f"{opened.path / name} does not fit {opened.path / INDEX} ({n} x {d}); {remedy}")


def _read_refinement(folder: Path, info: FolderInfo) -> Refinement:
    """Query expansion and reranking of a folder; none in one from before there was a choice."""
    given, source = info.options.get("refinement", {}), f"{folder / INFO}: options.refinement"
    names = {field.name for field in fields(Refinement)}
    if isinstance(given, Mapping) and (unknown := sorted(set(given) - names)):
        raise LmrError(f"{source} is of another version of lmr (unknown {unknown[0]!r:.60}); {REBUILD}")
    try:
        return convert(given, Refinement, source, REBUILD)
    except LmrError as error:
        raise LmrError(str(error) if str(error).startswith(source) else f"{source}: {error}; {REBUILD}") from error


def _read_names(path: Path) -> dict[str, Name]:
    return convert(read_json(path, REBUILD), dict[str, Name], str(path), REBUILD)


def _info_or_none(folder: Path) -> FolderInfo | None:
    try:
        return read_info(folder)
    except LmrError:
        return None
