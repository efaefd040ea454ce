"""Record of what was changed in an index since it was built: counts in index.json, lines in changes.jsonl."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from retrieval.errors import DamageError
from retrieval.files.digest import sha256_json
from retrieval.words import counted

if TYPE_CHECKING:
    from index.calibration import Calibration
    from index.folder.folder import IndexFolder
    from index.folder.info import FolderInfo
    from index.whitening import Whitening

JOURNAL = "changes.jsonl"
MOST_CHANGED = 0.05  # share of the rows from which on an index says that it has changed
FEW_PER_DIMENSION = 2  # images for each dimension of a whitening below which it does not fit further ones

Kind = Literal["add", "remove", "merge", "relabel", "compact", "sync"]


@dataclass(frozen=True, slots=True)
class Changes:
    """Counts of rows that were changed.

    n_trained: rows when the whitening and the inverted file were trained; added, removed, relabelled: since then.
    calibration: digest of the calibration that was there, '' without one; since_calibration: rows changed since it was
    made.
    """

    n_trained: int
    added: int = 0
    removed: int = 0
    relabelled: int = 0
    calibration: str = ""
    since_calibration: int = 0

    def __post_init__(self) -> None:
        if self.n_trained < 1 or min(self.added, self.removed, self.relabelled, self.since_calibration) < 0:
            raise ValueError("changes counts fewer than no rows")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the journal: one change of the folder.

    digest: of what was asked for; index_digest: of the index that it made. n_rows: that this has. moved: rows that got
    another name or place, and nothing else.
    """

    at: str
    kind: Kind
    sources: Sequence[str]
    digest: str
    index_digest: str
    n_rows: int
    added: int = 0
    removed: int = 0
    relabelled: int = 0
    moved: int = 0

    def to_line(self) -> str:
        """As a line of JSON."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, ensure_ascii=True) + "\n"


def read_journal(folder: Path) -> list[Entry]:
    """The changes of an index folder, the first one first. Raises LmrError for a journal that is damaged."""
    from retrieval.files.json_file import convert, parse_json

    path = folder / JOURNAL
    if not path.is_file():
        return []
    remedy = "copy the folder again or run lmr build-index again"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise DamageError(f"{path} is not UTF-8; {remedy}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        place = f"{path}:{number}"
        found.append(convert(parse_json(line, place, remedy), Entry, place, remedy))
    return found


def calibration_digest(calibration: "Calibration | None") -> str:
    """Digest that tells a calibration from another one, whichever index it goes with; '' without one."""
    if calibration is None:
        return ""
    content = calibration.to_json()
    return sha256_json({**content, "origin": {**content["origin"], "index_digest": ""}})


def count_changes(
    before: Changes | None, n_rows: int, calibration: "Calibration | None", counts: Mapping[str, int]
) -> Changes:
    """The counts after a change. n_rows: of the index before it. counts: rows added, removed, relabelled and moved."""
    digest = calibration_digest(calibration)
    old = before or Changes(n_rows)
    since = old.since_calibration if digest and digest == old.calibration else 0
    n = counts["added"] + counts["removed"] + counts["relabelled"]
    return Changes(
        n_trained=old.n_trained,
        added=old.added + counts["added"],
        removed=old.removed + counts["removed"],
        relabelled=old.relabelled + counts["relabelled"],
        calibration=digest,
        since_calibration=since + n if digest else 0,
    )


def tell_changed(folder: "IndexFolder") -> list[str]:
    """Lines that say of an opened index that more than MOST_CHANGED of its rows changed since something was made."""
    changes, info = folder.info.changes, folder.info
    if changes is None:
        return []
    lines = tell_unwhitened(str(folder), info, folder.whitening)
    share = changes.since_calibration / max(1, info.n_rows)
    if share > MOST_CHANGED and changes.calibration == calibration_digest(folder.calibration) != "":
        lines.append(
            f"{folder}: {share:.0%} of its rows changed since it was calibrated; lmr calibrate makes its "
            "confidences right again"
        )
    share = (changes.added + changes.removed) / changes.n_trained
    if share > MOST_CHANGED and info.search is not None:
        lines.append(
            f"{folder}: {share:.0%} of its rows changed since its inverted file was trained; lmr index compact "
            "trains it anew"
        )
    return lines


def tell_unwhitened(path: Path | str, info: "FolderInfo", whitening: "Whitening | None") -> list[str]:
    """A line where the whitening of an index was learnt from too few images for those that came since.

    path: of the index, for the line.
    """
    if info.changes is None or whitening is None:
        return []
    n, d = whitening.n_fitted or info.changes.n_trained + info.n_background, whitening.matrix.shape[1]
    n_since = info.n_rows + info.n_background - n
    if n_since <= 0 or not (n < FEW_PER_DIMENSION * d or n_since > n):
        return []
    return [
        f"{path}: its whitening to {d} dimensions was learnt from {counted(n, 'image')}, and {n_since:,} came since, "
        "which it does not fit, so that answers are worse than they could be; lmr build-index with all stores learns "
        "it anew"
    ]
