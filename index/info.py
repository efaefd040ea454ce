"""Facts of a store, model, index folder, calibration or manifest, and whether it is as it was written."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from index.search.address import address_of
from index.verify import (
    EXPLAIN_AGAIN,
    EXPLANATIONS,
    NO_DIGESTS,
    OUTCOMES,
    can_verify,
    is_explained,
    is_local_store,
    is_store,
    kind_of,
    verify_whole,
)
from retrieval.data.request import TableJob
from retrieval.errors import LmrError, WordsError
from retrieval.files.folders import current_folder
from retrieval.jobs import option
from retrieval.local.config import LOCAL_STORE

if TYPE_CHECKING:
    from index.calibration import Calibration


@dataclass(frozen=True)
class InfoJob(TableJob):
    """Tell what a path is."""

    path: Path | None = option(None, is_argument=True)
    _: KW_ONLY
    verify: bool = option(False, help="Read everything and compare it with its digests; exit 1 if it differs.")


@dataclass(frozen=True, slots=True)
class Info:
    """what: the kind of thing. facts: what is known of it, as JSON has it. verified: what was compared; None = not."""

    what: str
    facts: Mapping[str, Any]
    verified: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        verified = {} if self.verified is None else {"verified": self.verified}
        return {"what": self.what, **self.facts, **verified}


class _Explanation(TypedDict):
    unreadable: str | None


class _Explanations(TypedDict):
    explanations: list[_Explanation]


def info(job: InfoJob) -> Info:
    """Tells what is known of the thing at a path.

    verify: it is read whole; a folder or file that is no manifest may then hold anything that lmr writes.
    Raises WordsError without a path, LmrError when it is nothing that lmr makes or reads, or is not as it was written.
    """
    if job.path is None:
        raise WordsError("give what to look at, such as lmr info landmarks, model, train.h5 or train.csv")
    if (address := address_of(job.path)) is not None:
        raise LmrError(f"{address} is an index on a server; lmr index info {address} tells what it is")
    facts = _describe(job.path, job)
    verified = verify_whole(job.path, job.progress) if job.verify else None
    return Info(facts.pop("what"), facts, verified)


def _describe(path: Path, job: InfoJob) -> dict[str, Any]:
    path = current_folder(path)
    if not path.exists():
        raise LmrError(f"{path}: there is no such file or folder")
    if is_local_store(path):
        return _describe_local(path)
    if is_store(path):
        return _describe_store(path)
    if path.name in ("index.json", "model.json", EXPLANATIONS):
        path = path.parent
    if is_explained(path):
        return _describe_explanations(path)
    if path.suffix == OUTCOMES:
        return _describe_outcomes(path)
    if path.name == "calibration.json":
        return _describe_calibration_file(path)
    if (path / "index.json").is_file():
        return _describe_index(path)
    if path.suffix == ".onnx" or (path / "model.json").is_file():
        return _describe_model(path)
    if job.verify and can_verify(path):
        return {"what": "folder of what lmr wrote" if path.is_dir() else "file that lmr wrote"}
    kind = kind_of(path)
    if kind is None:
        return _describe_manifest(path, job)
    try:
        return {**_describe_manifest(path, job), "what": kind}
    except LmrError:  # without images
        return {"what": kind}


def _describe_store(path: Path) -> dict[str, Any]:
    from retrieval.store.file import has_digests
    from retrieval.store.store import DONE, TODO, UNREADABLE, open_descriptors, read_own_names, read_store_info

    info, state = read_store_info(path)
    facts = {
        "what": "descriptor store",
        "pictures": len(state),
        "done": int((state == DONE).sum()),
        "to do": int((state == TODO).sum()),
        "unreadable": int((state == UNREADABLE).sum()),
        "d": info.d,
        "dtype": info.dtype,
        "fingerprint": info.fingerprint,
        "model": dict(info.model),
        "image_spec": dict(info.image_spec),
        "program_version": info.program_version,
        "manifest_digest": info.manifest_digest,
        **({} if info.shard is None else {"shard": str(info.shard)}),
        **_columns_told(info.mapped, read_own_names(path)),
        "digests": "of every block" if has_digests(path) else NO_DIGESTS,
    }
    if facts["unreadable"] and not facts["to do"]:
        store = open_descriptors(path, info.shard)
        assert store.reason is not None
        rows = (state == UNREADABLE).nonzero()[0]
        facts["unreadable pictures"] = {store.image_id[row]: store.reason[row] for row in rows}
    return facts


def _columns_told(mapped: Sequence[str], own: Sequence[str]) -> dict[str, list[str]]:
    """Which columns were named for what, and a user's own, as far as there are any."""
    told = {"columns": list(mapped), "own columns": list(own)}
    return {name: listed for name, listed in told.items() if listed}


def _describe_local(path: Path) -> dict[str, Any]:
    from retrieval.local.journal import open_journal
    from retrieval.local.store import open_local
    from retrieval.store.store import DONE, TODO, UNREADABLE

    unreadable: dict[str, str] = {}
    if path.name.endswith(LOCAL_STORE):
        store = open_local(path)
        info, state, n_features = store.info, store.columns.state, int(store.offsets[-1])
        rows = (state == UNREADABLE).nonzero()[0]
        unreadable = dict(zip(store.image_id[rows], store.columns.reason[rows], strict=True))
    else:
        journal = open_journal(path)
        info, state, n_features = journal.head.info, journal.state, int(journal.entries["n_features"].sum())
    card = info.card.to_json()
    return {
        "what": "store of local features",
        "pictures": len(state),
        "done": int((state == DONE).sum()),
        "to do": int((state == TODO).sum()),
        "unreadable": int((state == UNREADABLE).sum()),
        "local features": n_features,
        "fingerprint": info.card.fingerprint,
        **card,
        "projection": f"principal components, {card['d']} of a sample" if card["projection"] else "none",
        "manifest_digest": info.manifest_digest,
        **({} if info.shard is None else {"shard": str(info.shard)}),
        **({"unreadable pictures": unreadable} if unreadable else {}),
    }


def _describe_explanations(path: Path) -> dict[str, Any]:
    from retrieval.files.json_file import read_json, require_type

    listing = path / EXPLANATIONS
    if not listing.is_file():
        return {"what": "explanation of a landmark"}
    content = require_type(read_json(listing, EXPLAIN_AGAIN), _Explanations, str(listing), EXPLAIN_AGAIN)
    listed = content["explanations"]
    n_unreadable = sum(one["unreadable"] is not None for one in listed)
    return {"what": "folder of explanations", "pictures": len(listed) - n_unreadable, "unreadable": n_unreadable}


def _describe_outcomes(path: Path) -> dict[str, Any]:
    from index.evaluate.shares import read_content

    content = read_content(path)
    which = {"shard": content["shard"]} if content["shard"] else {"joined shares": content["shares"]}
    return {"what": "outcomes of queries", "queries": content["n"], **which, **content["made_of"]}


def _describe_model(path: Path) -> dict[str, Any]:
    from retrieval.embed.load import onnx_path, open_card

    what = "model folder" if onnx_path(path) is None else "exported model (ONNX)"
    return {"what": what, **open_card(path).to_json()}


def _describe_index(path: Path) -> dict[str, Any]:
    from index.folder.folder import read_calibration
    from index.folder.info import MODEL, ROWS, check_files, local_facts, read_info
    from index.folder.rows import read_rows
    from retrieval.embed.load import told_engine

    info = read_info(path)
    check_files(path, info, "size")
    own = _columns_told((), [*read_rows(current_folder(path) / ROWS).columns])
    facts = {"what": "index folder", **info.to_json(), **own}
    if info.local is not None:
        facts["local"] = local_facts(info)
    facts["engine"] = told_engine(current_folder(path) / MODEL)
    facts["files"] = {name: f"{listed['size']} bytes" for name, listed in info.files.items()}
    calibration = read_calibration(path, info)
    facts["calibration"] = _describe_calibration(calibration) if calibration else "none; lmr calibrate makes one"
    return facts


def _describe_calibration_file(path: Path) -> dict[str, Any]:
    from index.folder.folder import read_calibration
    from index.folder.info import read_info

    calibration = read_calibration(path.parent, read_info(path.parent))
    assert calibration is not None, f"{path} was there a moment ago"
    return {"what": "calibration", **_describe_calibration(calibration)}


def _describe_calibration(calibration: "Calibration") -> dict[str, Any]:
    facts = {name: asdict(getattr(calibration, name)) for name in ("rule", "confidence", "cross_validated", "origin")}
    facts |= {name: getattr(calibration, name).confidence for name in ("threshold_precision", "threshold_gap")}
    if calibration.verified is not None:
        verified = calibration.verified
        names = ("by", "evidence", "rule", "confidence", "cross_validated", "choice")
        facts["verified"] = {name: asdict(getattr(verified, name)) for name in names}
        facts["verified"]["inliers"] = verified.n_inliers
        thresholds = ("threshold_precision", "threshold_gap")
        facts["verified"] |= {name: getattr(verified, name).confidence for name in thresholds}
    return {**facts, "warnings": list(calibration.told)}


def _describe_manifest(path: Path, job: InfoJob) -> dict[str, Any]:
    import numpy as np

    from retrieval.data.image_source import index_tars
    from retrieval.data.overview import load_manifest

    index_tars(path, job.progress)
    manifest = load_manifest(path, job.progress, job.column_names)
    known = manifest.landmark[manifest.landmark >= 0]
    counts = np.bincount(known)[np.unique(known)] if len(known) else np.zeros(0, np.int64)
    facts = {"what": "manifest", "pictures": len(manifest), "landmarks": len(counts)}
    facts["without a landmark"] = len(manifest) - len(known)
    facts |= _columns_told(manifest.mapped, [*manifest.columns])
    if len(counts):
        facts["pictures of a landmark (fewest, median, most)"] = [
            int(counts.min()),
            float(np.median(counts)),
            int(counts.max()),
        ]
    return facts
