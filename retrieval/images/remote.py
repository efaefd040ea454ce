"""Images in object stores and other file systems, by URLs that fsspec knows: s3://, gs://, hf://, memory:// …"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any

from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import install_hint
from retrieval.images.limits import DEFAULT_LIMITS, Limits

_URL = re.compile(r"([a-z][a-z0-9+.-]+):(/{1,3})(?=[^/])", re.IGNORECASE)
_WEB = ("http", "https")  # which lmr download fetches, with manners
_REASON_CHARACTERS = 160
_WAITS_S = (1.0, 4.0)  # before a file is read again that could not be read


def remote_url(text: str) -> str | None:
    """The URL that a text is, also where a path made one slash of two; None for anything else, and for the web."""
    found = _URL.match(text)
    if found is None or found[1].lower() in _WEB:
        return None
    slashes = "///" if found[1].lower() in ("file", "local") else "//"
    return f"{found[1].lower()}:{slashes}{text[found.end() :]}"


class RemoteImages:
    """The files below a URL, listed once. Can be pickled. Raises LmrError where they cannot be listed."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        system, self.root = _opened(self.url)
        with _explained(self.url):
            system.invalidate_cache()
            found: Mapping[str, Mapping[str, Any]] = system.find(self.root, detail=True)
        if set(found) == {self.root}:
            raise LmrError(
                f"`images` {self.url}: a file, not a folder; give the folder of the images (tars are read from disk "
                "alone)"
            )
        self._status = {
            self._url_of(name): (int(about.get("size") or 0), _changed_ns(about)) for name, about in found.items()
        }
        if not self._status:
            raise LmrError(f"`images` {self.url}: there is no file below it; check the address")

    def find(self, path: str, candidates: list[str]) -> str:
        """The URL of the first that is there: a path that is a URL itself, then paths below `root`; '' = none."""
        urls = (remote_url(path) or "", *map(self._url_of, candidates))
        return next((url for url in urls if url in self._status), "")

    def status(self, place: str) -> tuple[int, int] | None:
        """Size in bytes and time of change (ns, 0 where it has none) of a file by its URL; None where there is none."""
        return self._status.get(place)

    def read(self, place: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """As `read_remote`, by the size that the listing gives, so that it is not asked for."""
        return read_remote(place, limits, self._status[place][0])

    def _url_of(self, path: str) -> str:
        """The URL of a path in the file system."""
        return remote_url(f"{self.url.partition('://')[0]}://{path.lstrip('/')}") or ""


def read_remote(url: str, limits: Limits = DEFAULT_LIMITS, n_bytes: int | None = None) -> bytes:
    """The bytes of a file, tried three times. n_bytes: of it, None = asked for.

    Raises UnreadableError with the reason, LmrError where there is no such file system or it cannot be reached any
    more: then the image is not to blame.
    """
    system, path = _opened(url)
    for wait_s in (*_WAITS_S, None):
        try:
            size = system.size(path) if n_bytes is None else n_bytes
            if size is not None and size > limits.max_bytes:
                raise UnreadableError(f"{size:,} bytes, over the limit of {limits.max_bytes:,}")
            data: bytes = system.cat_file(path)
            return data
        except FileNotFoundError as error:
            raise UnreadableError("not found") from error
        except (PermissionError, IsADirectoryError) as error:
            raise UnreadableError(_reason(error)) from error
        except UnreadableError:
            raise
        except Exception as error:  # of the libraries of many file systems, which have no common base
            if wait_s is None:
                _require_reachable(system, path, url)
                raise UnreadableError(_reason(error)) from error
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _require_reachable(system: Any, path: str, url: str) -> None:
    """LmrError where nothing can be asked of a file system any more."""
    try:
        system.info(path)
    except (FileNotFoundError, PermissionError):
        pass
    except Exception as error:
        raise LmrError(f"{url} cannot be read: {_reason(error)}; once it can be, the same command goes on") from error


@cache
def _file_system(scheme: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise LmrError(f"{scheme}:// needs fsspec; {install_hint('remote')}") from error
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise LmrError(
            f"{scheme}:// needs a library beside fsspec: {_reason(error)}; install it, then run this again"
        ) from error
    except Exception as error:  # of the libraries of many file systems
        why = "is no file system that fsspec knows"
        if scheme in fsspec.available_protocols():
            why = f"cannot be opened by an address alone ({_reason(error)})"
        raise LmrError(f"{scheme}:// {why}; give a folder or a URL such as s3://, gs://, hf:// or az://") from error


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    system = _file_system(url.partition("://")[0])
    return system, str(system._strip_protocol(url))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except LmrError:
        raise
    except Exception as error:
        raise LmrError(
            f"`images` {url} cannot be listed: {_reason(error)}; check the address and your access"
        ) from error


def _reason(error: Exception) -> str:
    return (str(error).split("\n")[0] or type(error).__name__)[:_REASON_CHARACTERS]


def _changed_ns(about: Mapping[str, Any]) -> int:
    """Time of change, by whichever name the file system gives it; 0 where it gives none."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        when = about.get(name)
        if isinstance(when, datetime):
            return int(when.timestamp() * 1e9)
        if isinstance(when, int | float):
            return int(when * 1e9)
    return 0
