"""lmr info: what a store, model, index folder, calibration or manifest is."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import PATH, json_option
from cli.reading import load_manifest
from cli.tars import index_tars
from cli.terminal import say_result, shown
from cli.verifying import NO_DIGESTS, can_verify, is_store, kind_of, verify_whole
from retrieval.errors import LmrError
from retrieval.files.folders import current_folder

if TYPE_CHECKING:
    from index.calibration import Calibration


@click.command(name="info")
@click.argument("path", type=PATH, required=False)
@click.option("--verify", is_flag=True, help="Read everything and compare it with its digests; exit 1 if it differs.")
@json_option
def command(path: Path | None, as_json: bool, verify: bool) -> None:
    """Tell what PATH is: a descriptor store, a model folder, an index folder, its calibration.json, or a manifest.

    With --verify everything else that lmr writes is read too: exported models, cleanings, splits, downloads and
    comparisons, and all of them in a folder and below.

    \b
    Example:
      lmr info landmarks
      lmr info --verify train.h5
    """
    if path is None:
        raise click.UsageError("give what to look at, such as lmr info landmarks, model, train.h5 or train.csv")
    facts = describe(path, verify=verify)
    if verify:
        facts["verified"] = verify_whole(path)
    say_result(facts, _lines(facts), as_json=as_json, default=str)


def describe(path: Path, *, verify: bool = False) -> dict[str, Any]:
    """What is known of the thing at this path. LmrError when it is nothing that lmr makes or reads.

    verify: it will be read whole; a folder or file that is no manifest may then hold anything that lmr writes.
    """
    path = current_folder(path)
    if not path.exists():
        raise LmrError(f"{path}: there is no such file or folder")
    if is_store(path):
        return _describe_store(path)
    if path.name in ("index.json", "model.json"):
        path = path.parent
    if path.name == "calibration.json":
        return _describe_calibration_file(path)
    if (path / "index.json").is_file():
        return _describe_index(path)
    if path.suffix == ".onnx" or (path / "model.json").is_file():
        return _describe_model(path)
    if verify and can_verify(path):
        return {"what": "folder of what lmr wrote" if path.is_dir() else "file that lmr wrote"}
    kind = kind_of(path)
    if kind is None:
        return _describe_manifest(path)
    try:
        return {**_describe_manifest(path), "what": kind}
    except LmrError:  # without pictures
        return {"what": kind}


def _describe_store(path: Path) -> dict[str, Any]:
    from retrieval.store.file import has_digests
    from retrieval.store.store import DONE, TODO, UNREADABLE, read_store, read_store_info

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
        "digests": "of every block" if has_digests(path) else NO_DIGESTS,
    }
    if facts["unreadable"] and not facts["to do"]:
        store = read_store(path)
        assert store.reason is not None
        rows = (state == UNREADABLE).nonzero()[0]
        facts["unreadable pictures"] = {store.image_id[row]: store.reason[row] for row in rows}
    return facts


def _describe_model(path: Path) -> dict[str, Any]:
    from retrieval.embed.load import onnx_path, open_card

    what = "model folder" if onnx_path(path) is None else "exported model (ONNX)"
    return {"what": what, **open_card(path).to_json()}


def _describe_index(path: Path) -> dict[str, Any]:
    from index.folder.folder import check_files, read_calibration, read_info

    info = read_info(path)
    check_files(path, info, "size")
    facts = {"what": "index folder", **info.to_json()}
    facts["files"] = {name: f"{listed['size']} bytes" for name, listed in info.files.items()}
    calibration = read_calibration(path, info)
    facts["calibration"] = _describe_calibration(calibration) if calibration else "none; lmr calibrate makes one"
    return facts


def _describe_calibration_file(path: Path) -> dict[str, Any]:
    from index.folder.folder import read_calibration, read_info

    calibration = read_calibration(path.parent, read_info(path.parent))
    assert calibration is not None, f"{path} was there a moment ago"
    return {"what": "calibration", **_describe_calibration(calibration)}


def _describe_calibration(calibration: "Calibration") -> dict[str, Any]:
    facts = {name: asdict(getattr(calibration, name)) for name in ("rule", "confidence", "cross_validated", "origin")}
    facts |= {name: getattr(calibration, name).confidence for name in ("threshold_precision", "threshold_gap")}
    return {**facts, "warnings": list(calibration.warnings)}


def _describe_manifest(path: Path) -> dict[str, Any]:
    import numpy as np

    index_tars(path)
    manifest = load_manifest(path)
    known = manifest.landmark[manifest.landmark >= 0]
    counts = np.bincount(known)[np.unique(known)] if len(known) else np.zeros(0, np.int64)
    facts = {"what": "manifest", "pictures": len(manifest), "landmarks": len(counts)}
    facts["without a landmark"] = len(manifest) - len(known)
    if len(counts):
        facts["pictures of a landmark (fewest, median, most)"] = [
            int(counts.min()),
            float(np.median(counts)),
            int(counts.max()),
        ]
    return facts


def _lines(facts: dict[str, Any], indent: str = "") -> str:
    width = max(map(len, facts), default=0)
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{shown(name)}", _lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{shown(name).ljust(width)}  {shown(value)}")
    return "\n".join(lines)
