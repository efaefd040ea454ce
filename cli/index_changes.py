"""What a change to an index came to, for people or as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.terminal import command_line, say_result
from index.folder.config import INDEX_FOLDER
from index.search.config import search_line
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.folder.info import FolderInfo
    from index.update.job import IndexChange
    from retrieval.progress import Progress


_COMMANDS = {"stores": ("index", "add"), "folders": ("index", "merge"), "folder": ("sync",)}  # by their argument


def tell_change(words: Mapping[str, Any], change: "IndexChange", progress: "Progress", *, as_json: bool) -> None:
    """Says what a change came to."""
    index: Path = words.get("index", INDEX_FOLDER)
    info = change.info
    counts = {
        "added": change.n_added,
        "removed": change.n_removed,
        "relabelled": change.n_relabelled,
        "moved": change.n_moved,
        "there_already": change.n_there,
        "without_landmark": change.n_unlabelled,
        "without_descriptor": change.n_unreadable,
        "background": change.n_background,
        "local_features": change.n_local,
    }
    has_changed = change.state == "changed"
    what = done_text(counts) if has_changed else "nothing to do"
    text = f"{index}: {what}: {counted(info.n_rows, 'image')} of {counted(info.n_landmarks, 'landmark')} now"
    if has_changed and info.search is not None:
        text += f"\n{index}: {search_line(info.search, info.n_rows, info.d, info.n_shards)}"
    if has_changed and info.local is not None:
        text += f"\n{index}: {local_line(info)}"
    say_result({"state": change.state, **counts, "images": info.n_rows}, text, as_json=as_json)
    n = change.n_unlabelled
    if n:
        progress.warn(
            f"{counted(n, 'image')} without a landmark {agreeing(n, 'was', 'were')} left out; {_again(words)} with "
            "`background` puts them into the background"
        )
    if change.n_unreadable:
        progress.warn(f"{counted(change.n_unreadable, 'row')} without a descriptor left out")
    if n := change.n_without_local:
        later = "lmr index add with `local` gives them theirs"
        if "stores" in words:
            later = "lmr embed `local` makes them, and the same command again takes them"
        progress.warn(
            f"{counted(n, 'image')} without local features, so that nothing verifies {agreeing(n, 'it', 'them')}; "
            f"{later}"
        )
    for line in change.warnings:
        progress.warn(f"warning: {line}")


def local_line(info: "FolderInfo") -> str:
    """What an index has of local features, in one line."""
    local = info.local
    assert local is not None
    n_bytes = sum(info.files[name]["size"] for name in local.files)
    return f"local features of {counted(local.n, 'image', of=info.n_rows)}: {local.kind}, {n_bytes / 1e6:,.1f} MB"


def _again(words: Mapping[str, Any]) -> str:
    """The command that was given these words, to copy into a shell."""
    name = next(name for name in _COMMANDS if name in words)
    given = [words[name]] if isinstance(words[name], Path) else words[name]
    return command_line("lmr", *_COMMANDS[name], *given, *(("--index", words["index"]) if "index" in words else ()))


def done_text(counts: Mapping[str, Any]) -> str:
    """`2 added, 1 removed`."""
    parts = [f"{counts[name]:,} {name}" for name in ("added", "removed", "relabelled", "moved") if counts.get(name)]
    if counts.get("local_features"):
        parts.append(f"local features of {counted(counts['local_features'], 'image')} taken")
    if counts.get("background"):
        parts.append(f"{counts['background']:,} of the background")
    return ", ".join(parts) or str(counts.get("kind", "changed"))
