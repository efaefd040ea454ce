"""File system that a folder is on, as the system tells it."""

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")  # of Linux

_ESCAPED = re.compile(r"\\([0-7]{3})")  # a space in a name
_LOCAL_OPTIONS = frozenset(("nolock", "local_lock=all", "local_lock=posix"))  # of NFS
_LOCAL_TYPES = frozenset(("fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.mount-s3", "fuse.davfs"))


def weak_locks(folder: Path, mounts: Path = MOUNTS) -> str:
    """Why a lock in this folder would hold on this machine alone, '' where nothing says so.

    mounts: the table of what is mounted, a line each: device, place, type, options.
    """
    found = _mount_of(folder, mounts)
    if found is None:
        return ""
    kind, options = found
    local = sorted(_LOCAL_OPTIONS.intersection(options)) if kind.startswith("nfs") else []
    if kind in _LOCAL_TYPES or local:
        how = f"{kind} with {local[0]}" if local else kind
        return f"locks of its file system ({how}) hold on this machine alone"
    return ""


def _mount_of(folder: Path, mounts: Path) -> tuple[str, list[str]] | None:
    """Type and options of the mount that the folder is in, None where that is not known."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real, best, found = os.path.realpath(folder), -1, None
    for line in lines:
        cells = line.split(" ")
        if len(cells) < 4:
            continue
        place = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), cells[1])
        if (real == place or real.startswith(place.rstrip("/") + "/")) and len(place) >= best:
            best, found = len(place), (cells[2], cells[3].split(","))
    return found
