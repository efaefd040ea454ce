"""Images in object stores and other file systems, by URLs that fsspec knows: s3://, gs://, hf://, memory:// …"""

from collections.abc import Mapping
from typing import Any

from retrieval.errors import LmrError, UnreadableError
from retrieval.files.urls import (
    FileStatus,
    is_folder_url,
    joined,
    names_in,
    opened,
    reason_of,
    remote_url,
    told_status,
    tried,
    url_of,
)
from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.images.tars.archive import is_tar_name


class RemoteImages:
    """The files below a URL, or a tar at one, listed once. Can be pickled. LmrError where they cannot be listed.

    tars: URLs of those directly in the folder, sorted.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        system, self.root = opened(self.url)
        try:
            system.invalidate_cache()
            found: Mapping[str, Mapping[str, Any]] = system.find(self.root, detail=True)
        except Exception as error:  # of the libraries of many file systems, which have no common base
            raise LmrError(
                f"`images` {self.url} cannot be listed: {reason_of(error)}; check the address and your access"
            ) from error
        self._status: dict[str, FileStatus] = {
            url_of(self.url, name): told_status(about) for name, about in found.items()
        }
        if not self._status:
            raise LmrError(f"`images` {self.url}: there is no file below it; check the address")
        self.tars = [place for place in tars_at(self.url) if place in self._status]
        if set(found) == {self.root} and not self.tars:
            raise LmrError(f"`images` {self.url}: a file and no tar; give the folder of the images, or a tar of them")

    def find(self, path: str, candidates: list[str]) -> str:
        """The URL of the first that is there: a path that is a URL itself, then paths below `root`; '' = none."""
        urls = (remote_url(path) or "", *(url_of(self.url, candidate) for candidate in candidates))
        return next((url for url in urls if url in self._status), "")

    def status(self, place: str) -> tuple[int, int] | None:
        """Size in bytes and time of change (ns, 0 where it has none) of a file by its URL; None where there is none."""
        found = self._status.get(place)
        return None if found is None else (found.st_size, found.st_mtime_ns)

    def read(self, place: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """As `read_remote`, by the size that the listing gives, so that it is not asked for."""
        return read_remote(place, limits, self._status[place].st_size)


def tars_at(url: str) -> list[str]:
    """URLs of the tars directly in a folder at a URL, sorted, or of the tar that is there; none where nothing is."""
    try:
        names = names_in(url)
    except FileNotFoundError:
        return []
    bare = url.rstrip("/")
    if not names and is_tar_name(bare.rpartition("/")[2]):
        return [] if is_folder_url(bare) else [bare]
    return [joined(bare, name) for name in names if is_tar_name(name)]


def read_remote(url: str, limits: Limits = DEFAULT_LIMITS, n_bytes: int | None = None) -> bytes:
    """The bytes of a file, tried three times. n_bytes: of it, None = asked for.

    Raises UnreadableError with the reason, LmrError where there is no such file system or it cannot be reached any
    more: then the image is not to blame.
    """
    system, path = opened(url)
    try:
        return tried(lambda: _read(system, path, limits, n_bytes))
    except FileNotFoundError as error:
        raise UnreadableError("not found") from error
    except (PermissionError, IsADirectoryError) as error:
        raise UnreadableError(reason_of(error)) from error
    except UnreadableError:
        raise
    except Exception as error:  # of the libraries of many file systems, which have no common base
        _require_reachable(system, path, url)
        raise UnreadableError(reason_of(error)) from error


def _read(system: Any, path: str, limits: Limits, n_bytes: int | None) -> bytes:
    size = system.size(path) if n_bytes is None else n_bytes
    if size is not None and size > limits.max_bytes:
        raise UnreadableError(f"{size:,} bytes, over the limit of {limits.max_bytes:,}")
    data: bytes = system.cat_file(path)
    return data


def _require_reachable(system: Any, path: str, url: str) -> None:
    """LmrError where nothing can be asked of a file system any more."""
    try:
        system.info(path)
    except (FileNotFoundError, PermissionError):
        pass
    except Exception as error:
        raise LmrError(f"{url} cannot be read: {reason_of(error)}; once it can be, the same command goes on") from error
