"""The folder that a cleaning writes: the kept manifest, the decisions, and what they were made from."""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from index.clean.decisions import Decisions, apply_decisions, decision_lines
from retrieval.data.manifest import Manifest
from retrieval.data.manifest_lines import manifest_lines
from retrieval.errors import LmrError
from retrieval.files.atomic import write_error, write_text
from retrieval.files.digest import sha256_file
from retrieval.files.json_file import read_json, require_signed, require_type, require_version, signed, write_json

KEPT, DECISIONS, GALLERY, STATE = "kept.csv", "decisions.csv", "gallery.html", "clean.json"
WORK, KEY = "unfinished", "inputs.json"
FORMAT_VERSION = 1
_REMEDY = "remove it and run lmr clean again"


class _State(TypedDict):
    """Entries of clean.json."""

    inputs: dict[str, Any]
    counts: dict[str, int]
    decisions_sha256: str


Identity = Mapping[str, Any]  # what a cleaning depends on, by name
Place = Literal["new", "unfinished", "finished"]


def require_place(output: Path, identity: Identity, *, overwrite: bool) -> Place:
    """Tells what is in the folder, which has to be of the same inputs.

    Raises LmrError for other inputs, unless overwrite; for decisions that a person has changed and that would be lost.
    """
    if overwrite:
        _refuse_to_lose_edits(output, _read_json(output / STATE))
        return "new"
    state, unfinished = read_state(output), _read_json(output / WORK / KEY)
    for there, place in ((state, "finished"), (unfinished, "unfinished")):
        if there is None:
            continue
        known = there.get("inputs", {})
        other = [name for name in sorted({*identity, *known}) if known.get(name) != identity.get(name)]
        if other:
            kind = "a cleaning" if place == "finished" else "an unfinished cleaning"
            raise LmrError(
                f"{output} holds {kind} of other inputs ({_difference(known, identity, other[0])}); "
                "give `overwrite` or another `output`"
            )
        if place == "unfinished" or all((output / name).exists() for name in (KEPT, DECISIONS)):
            _require_kept(output, there if place == "finished" else {})
            return "finished" if place == "finished" else "unfinished"
    taken = [name for name in (KEPT, DECISIONS, GALLERY) if (output / name).exists()]
    if taken and state is None:
        raise LmrError(
            f"{output / taken[0]} exists and is of no finished cleaning; give `overwrite` or another `output`"
        )
    _refuse_to_lose_edits(output, state)
    return "new"


def begin(output: Path, identity: Identity, place: Place) -> Path:
    """Makes the folder for what is unfinished, emptied where the place is new."""
    work = output / WORK
    try:
        if place == "new":
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(work, error) from error
    write_json(work / KEY, {"inputs": dict(identity)})
    with contextlib.suppress(FileNotFoundError):
        (output / STATE).unlink()
    return work


def finish(output: Path, identity: Identity, manifest: Manifest, decisions: Decisions, gallery: str | None) -> None:
    """Writes everything, the state last, and removes what was unfinished."""
    write_text(output / DECISIONS, decision_lines(decisions))
    write_text(output / KEPT, manifest_lines(apply_decisions(manifest, decisions)))
    if gallery is None:
        (output / GALLERY).unlink(missing_ok=True)
    else:
        write_text(output / GALLERY, [gallery])
    _write_state(output, identity, decisions)
    remove_unfinished(output)


def remove_unfinished(output: Path) -> None:
    """Removes what a finished cleaning leaves behind when it is killed at its very end."""
    shutil.rmtree(output / WORK, ignore_errors=True)


def finish_review(output: Path, manifest: Manifest, decisions: Decisions, review: Path) -> Place:
    """Writes what a person decided into the folder of the cleaning, or into a new one; "finished": it is there already.

    Raises LmrError when the folder is of another manifest, unfinished, or has other changes by a person.
    """
    digest = manifest.digest
    state = read_state(output)
    known = {} if state is None else state["inputs"]
    own = (output / DECISIONS).exists() and review.resolve() == (output / DECISIONS).resolve()
    if known.get("manifest", digest) != digest:
        raise LmrError(f"{output} was made from another manifest than {manifest.source}; give another `output`")
    if state is None and ((output / WORK).exists() or (output / KEPT).exists()):
        raise LmrError(f"{output} holds no finished cleaning; finish it, or give another `output`")
    if not own:
        _refuse_to_lose_edits(output, state)
    given = sha256_file(review)
    if state is not None and state.get("review") == given and (output / KEPT).exists():
        _require_kept(output, state)
        return "finished"
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(output, error) from error
    if not own:
        write_text(output / DECISIONS, decision_lines(decisions))
    write_text(output / KEPT, manifest_lines(apply_decisions(manifest, decisions)))
    _write_state(output, {**known, "manifest": digest}, decisions, review=given)
    return "new"


def read_state(output: Path) -> dict[str, Any] | None:
    """Reads what clean.json says, None where there is none. Raises LmrError for a damaged one or another version."""
    path = output / STATE
    state = _read_json(path)
    if state is None:
        return None
    require_version(state, FORMAT_VERSION, str(path), _REMEDY)
    return require_type(require_signed(state, str(path), _REMEDY, may_lack=True), _State, str(path), _REMEDY)


def require_written(output: Path) -> None:
    """Raises LmrError where the tables of a finished cleaning are not as they were written."""
    state = read_state(output)
    if state is None:
        raise LmrError(f"{output} holds no finished cleaning; run the same lmr clean again")
    for name, key in ((KEPT, "kept_sha256"), (DECISIONS, "decisions_sha256")):
        path = output / name
        if not path.is_file():
            raise LmrError(f"{path} is missing; run the same lmr clean again")
        if state.get(key) not in (None, sha256_file(path)):
            raise LmrError(f"{path} was changed since it was written")


def has_edits(output: Path, state: Mapping[str, Any] | None) -> bool:
    """Tells whether a person has changed the decisions of this cleaning since they were written."""
    path = output / DECISIONS
    return state is not None and path.exists() and sha256_file(path) != state.get("decisions_sha256")


def _require_kept(output: Path, state: Mapping[str, Any]) -> None:
    """Raises LmrError where the kept manifest is not the one that was written."""
    written = state.get("kept_sha256")
    if written is not None and sha256_file(output / KEPT) != written:
        raise LmrError(f"{output / KEPT} was changed since it was written; move it away, or give `overwrite`")


def _refuse_to_lose_edits(output: Path, state: Mapping[str, Any] | None) -> None:
    path = output / DECISIONS
    if has_edits(output, state):
        raise LmrError(
            f"{path} was changed since it was written; apply it with `review` {path}, or move it away to clean anew"
        )


def _write_state(output: Path, identity: Identity, decisions: Decisions, review: str | None = None) -> None:
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "inputs": dict(identity),
        "counts": decisions.counts(),
        "decisions_sha256": sha256_file(output / DECISIONS),
        "kept_sha256": sha256_file(output / KEPT),
    }
    if review is not None:
        content["review"] = review
    write_json(output / STATE, signed(content))


def _read_json(path: Path) -> dict[str, Any] | None:
    return read_json(path, _REMEDY) if path.exists() else None


def _difference(known: Identity, now: Identity, name: str) -> str:
    def shown(value: Any) -> str:
        text = str(value)
        return text[:8] if len(text) == 64 else text

    return f"{name} was {shown(known.get(name))}, is {shown(now.get(name))}"
