"""Files at URLs of file systems that fsspec knows: s3://, hdfs://, gs://, hf://, memory:// …"""

import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import install_hint
from retrieval.files.atomic import replacing
from retrieval.files.digest import sha256_file
from retrieval.files.json_file import read_signed_json, write_signed_json
from retrieval.progress import SILENT, Progress

T = TypeVar("T")

WAITS_S = (1.0, 4.0)  # before a file is read again that could not be read
_URL = re.compile(r"([a-z][a-z0-9+.-]+):(/{1,3})(?=[^/])", re.IGNORECASE)
_WEB = ("http", "https")  # which lmr download fetches, with manners
# Of an address: a user with a password (a port is none), and parameters that let whoever has them in.
_PASSWORD = re.compile(r"[^/@:]+:(?!\d+/)[^@]+@")
_SECRET = re.compile(r"[?&][^=&]*(sig|token|secret|password|credential|key)[^=&]*=", re.IGNORECASE)
_SECRETS_IN_TEXT = ((re.compile(r"(\w://)[^/\s@]+@"), r"\1"), (re.compile(r"(\w://[^\s?]+)\?\S+"), r"\1"))
_REASON_CHARACTERS = 160
_READ_AHEAD_BYTES = 1 << 22
_COPIED_BYTES = 1 << 20
_LARGEST_COPY_BYTES = 1 << 33  # the train.csv of four million images is 0.6 GB
_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class FileStatus:
    """Size in bytes and time of change (ns, 0 where the file system tells none), by the names that the system has."""

    st_size: int
    st_mtime_ns: int


def remote_url(text: str) -> str | None:
    """The URL that a text is, also where a path made one slash of two; None for anything else, and for the web."""
    found = _URL.match(text)
    if found is None or found[1].lower() in _WEB:
        return None
    slashes = "///" if found[1].lower() in ("file", "local") else "//"
    return f"{found[1].lower()}:{slashes}{text[found.end() :]}"


def text_of(path: str | Path) -> str:
    """A path, or the URL that it is, as it is told to people."""
    return remote_url(str(path)) or str(path)


def opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. LmrError where it cannot be had, or a secret is in the URL."""
    scheme, _, rest = url.partition("://")
    if _PASSWORD.match(rest) or _SECRET.search(rest):
        shown = scheme + "://…" + rest.rpartition("@")[2].partition("?")[0]
        raise LmrError(
            f"{shown}: this address holds a password or key, which stores and messages would show; give it by the "
            "environment or the configuration of fsspec, and the address without it"
        )
    system = _file_system(scheme, rest.partition("/")[0])
    return system, str(system._strip_protocol(url))


def url_of(url: str, path: str) -> str:
    """The URL of a path in the file system of another one."""
    inside, bare = opened(url)[1].strip("/"), url.rstrip("/")
    root = bare.removesuffix(inside) if inside else f"{bare}/"
    return (url.partition("://")[0] + "://" if root == bare else root) + path.lstrip("/")


def joined(folder: str | Path, name: str) -> str:
    """Path or URL of a file in a folder."""
    url = remote_url(str(folder))
    return str(Path(folder) / name) if url is None else f"{url.rstrip('/')}/{name}"


def status_of(path: str | Path) -> "os.stat_result | FileStatus":
    """Status of a file here or at a URL. OSError, LmrError where a file system cannot be asked."""
    url = remote_url(str(path))
    if url is None:
        return os.stat(path)
    system, inside = opened(url)
    with explained(url):
        about = system.info(inside)
    return told_status(about)


def told_status(about: Mapping[str, Any]) -> FileStatus:
    """Status by what a file system tells of a file."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        when = about.get(name)
        if isinstance(when, datetime):
            return FileStatus(int(about.get("size") or 0), int(when.timestamp() * 1e9))
        if isinstance(when, int | float):
            return FileStatus(int(about.get("size") or 0), int(when * 1e9))
    return FileStatus(int(about.get("size") or 0), 0)


def is_folder_url(url: str) -> bool:
    """True for a folder. FileNotFoundError where there is nothing, LmrError where it cannot be asked."""
    system, path = opened(url)
    with explained(url):
        system.invalidate_cache()
        return str(system.info(path)["type"]) == "directory"


def names_in(url: str) -> list[str]:
    """Names of the files and folders directly in a folder, sorted, none in a file. LmrError as `explained`."""
    system, path = opened(url)
    with explained(url):
        system.invalidate_cache()
        names = [found["name"].rstrip("/") for found in system.ls(path, detail=True)]
    return sorted(name.rpartition("/")[2] for name in names if name.strip("/") != path.strip("/"))


def open_url(url: str) -> BinaryIO:
    """A file that can be read from any place; what is asked for is read, and some megabytes after it."""
    return io.BufferedReader(_Ranges(url), _READ_AHEAD_BYTES)


def read_range(url: str, start: int, end: int) -> bytes:
    """These bytes of a file, or fewer where it ends before. FileNotFoundError, LmrError as `explained`."""
    system, path = opened(url)
    with explained(url):
        return tried(lambda: bytes(system.cat_file(path, start=start, end=end)))


def tried(read: Callable[[], T]) -> T:
    """What a reading gives, which is tried three times where nothing tells that it would not help."""
    for wait_s in WAITS_S:
        try:
            return read()
        except (FileNotFoundError, PermissionError, IsADirectoryError, UnreadableError):
            raise
        except Exception:  # of the libraries of many file systems, which have no common base
            time.sleep(wait_s)
    return read()


def fetched(url: str, progress: Progress = SILENT) -> str:
    """Path of a copy of a file, kept in the user's cache folder with its digest and fetched again once it changed.

    FileNotFoundError where there is none; LmrError where it cannot be had, or has more than 8 GiB.
    """
    system, path = opened(url)
    with explained(url):
        system.invalidate_cache()
        about = system.info(path)
    status = told_status(about)
    if status.st_size > _LARGEST_COPY_BYTES:
        raise LmrError(
            f"{url} has more than {_LARGEST_COPY_BYTES >> 30} GiB; give a Parquet file, which is read in place"
        )
    mark = [url, status.st_size, status.st_mtime_ns, str(about.get("ETag") or "")]
    copy = cache_folder("fetched") / sha256(url.encode()).hexdigest()[:32]
    record = copy.with_suffix(".json")
    if (status.st_mtime_ns or mark[-1]) and _is_of(copy, record, mark):
        return str(copy)
    progress.begin(f"fetching {path.rpartition('/')[2]}", status.st_size, "B")
    content = sha256()
    with explained(url), system.open(path, "rb") as given, replacing(copy) as file:
        while chunk := given.read(_COPIED_BYTES):
            file.write(chunk)
            content.update(chunk)
            progress.add(len(chunk))
    progress.end()
    write_signed_json(record, {"format_version": _FORMAT_VERSION, "of": mark, "content": content.hexdigest()})
    return str(copy)


def cache_folder(name: str) -> Path:
    """A folder of this program among those of the user that can be made again. LmrError where it cannot be made."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(cache_home) / "lmr" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LmrError(f"{folder} cannot be made: {error.strerror}; set XDG_CACHE_HOME to another folder") from error
    return folder


def reason_of(error: Exception) -> str:
    """First line of what an error says, without what lets somebody in."""
    text = (str(error).split("\n")[0] or type(error).__name__)[:_REASON_CHARACTERS]
    for secret, without in _SECRETS_IN_TEXT:
        text = secret.sub(without, text)
    return text


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Makes an LmrError of what a file system raises; not of a file that is not there."""
    try:
        yield
    except (LmrError, FileNotFoundError):
        raise
    except Exception as error:
        raise LmrError(f"{url} cannot be read: {reason_of(error)}; check the address and your access") from error


class _Ranges(io.RawIOBase):
    """A file at a URL, each reading a request of its own."""

    def __init__(self, url: str) -> None:
        self._url, self._at = url, 0
        self._n_bytes = status_of(url).st_size

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Goes to a place."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._n_bytes}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Reads into the buffer. LmrError where that is not possible."""
        end = min(self._at + len(buffer), self._n_bytes)
        if end <= self._at:
            return 0
        data = read_range(self._url, self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _is_of(copy: Path, record: Path, mark: list[Any]) -> bool:
    with suppress(LmrError):
        content = read_signed_json(record, _FORMAT_VERSION, "")
        return content["of"] == mark and copy.is_file() and sha256_file(copy) == content["content"]
    return False


@cache
def _file_system(scheme: str, authority: str) -> Any:
    """authority: what stands before the first slash of a URL: the bucket, or the host that is asked."""
    try:
        import fsspec
    except ImportError as error:
        raise LmrError(f"{scheme}:// needs fsspec; {install_hint('remote')}") from error
    try:
        known = fsspec.get_filesystem_class(scheme)._get_kwargs_from_urls(f"{scheme}://{authority}/")
        return fsspec.filesystem(scheme, **{name: value for name, value in known.items() if name != "path"})
    except ImportError as error:
        raise LmrError(
            f"{scheme}:// needs a library beside fsspec: {reason_of(error)}; install it, then run this again"
        ) from error
    except Exception as error:  # of the libraries of many file systems
        why = "is no file system that fsspec knows"
        if scheme in fsspec.available_protocols():
            why = f"cannot be opened by an address alone ({reason_of(error)})"
        raise LmrError(f"{scheme}:// {why}; give a folder or a URL such as s3://, gs://, hf:// or az://") from error
