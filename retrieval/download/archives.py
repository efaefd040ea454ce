"""The tar files of Google Landmarks from a mirror: checked against their md5 files, taken up where they stopped."""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from retrieval.download.google import Archives
from retrieval.download.ledger import Archive, Ledger
from retrieval.errors import LmrError
from retrieval.files.atomic import flush_folder
from retrieval.images.fetch_rules import FetchRules
from retrieval.images.http import answered, open_session
from retrieval.images.http_body import FetchError
from retrieval.progress import Progress

MAX_BYTES = 8 << 30  # of an archive; the largest have about one gigabyte
AT_ONCE = 4

_CHUNK_BYTES = 1 << 18
_MD5 = re.compile(r"\b[0-9a-fA-F]{32}\b")
_MD5_FILE_BYTES = 4096
_RANGE = re.compile(r"bytes (\d+)-")


def require_part(ledger: Ledger, archives: Archives) -> None:
    """Raises LmrError when the folder holds the archives of another part: they have the same names."""
    kept = ledger.note("part")
    if kept is None:
        ledger.set_note("part", archives.part)
    elif kept != archives.part:
        raise LmrError(
            f"{archives.folder} holds the {kept} archives, whose names are those of {archives.part} too; "
            "give another folder"
        )


def archives_there(archives: Archives, ledger: Ledger) -> list[str]:
    """Names of those that were checked and have the size that they had then."""
    known = ledger.archives()
    there = []
    for name in archives.names():
        entry, path = known.get(name), archives.folder / name
        if entry is not None and entry.status == "done" and path.is_file() and path.stat().st_size == entry.bytes:
            there.append(name)
    return there


def run_archives(archives: Archives, ledger: Ledger, rules: FetchRules, progress: Progress) -> dict[str, str]:
    """Fetches those that are not there; returns the names of those that could not be, with the cause.

    Raises LmrError when the folder cannot be written.
    """
    there = set(archives_there(archives, ledger))
    names = [name for name in archives.names() if name not in there]
    try:
        return asyncio.run(_Run(archives, ledger, rules, progress).work(names))
    except OSError as error:
        raise LmrError(
            f"{archives.folder} cannot be written: {error.strerror or error}; make room or choose another folder, "
            "and run the same command again"
        ) from error


class _Run:
    def __init__(self, archives: Archives, ledger: Ledger, rules: FetchRules, progress: Progress) -> None:
        self._archives, self._ledger, self._rules, self._progress = archives, ledger, rules, progress
        self._is_capped = False
        self._failed: dict[str, str] = {}

    async def work(self, names: Sequence[str]) -> dict[str, str]:
        """Fetches the archives; from name to cause, of those that failed, sorted."""
        at_once = asyncio.Semaphore(AT_ONCE)
        if names:
            self._progress.begin("downloading", 0, "B")

        async def one(session: aiohttp.ClientSession, name: str) -> None:
            async with at_once:
                self._note(name, await self._try(session, name))

        async with open_session(self._rules) as session:
            tasks = [asyncio.create_task(one(session, name)) for name in names]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                self._progress.end()
        return dict(sorted(self._failed.items()))

    def _note(self, name: str, result: str | FetchError) -> None:
        """result: the md5 of the archive, or why there is none."""
        url, now = self._archives.url(name), datetime.now(UTC).isoformat(timespec="seconds")
        if isinstance(result, FetchError):
            self._failed[name] = str(result)
            self._ledger.put_archive(Archive(name, url, "failed", now, cause=str(result)))
        else:
            size = (self._archives.folder / name).stat().st_size
            self._ledger.put_archive(Archive(name, url, "done", now, bytes=size, md5=result))

    async def _try(self, session: aiohttp.ClientSession, name: str) -> str | FetchError:
        """Tries as often as the rules allow; a try that brought bytes does not count."""
        n_tries, n_bytes = 0, -1
        while True:
            try:
                return await self._fetch(session, name)
            except FetchError as error:
                partial = self._partial(name)
                size = partial.stat().st_size if partial.exists() else 0
                n_tries = 0 if size > n_bytes >= 0 else n_tries + 1
                n_bytes = size
                if not error.is_transient or n_tries > self._rules.n_retries:
                    return error
                asked_s = error.wait_s or 0.0
                if asked_s > self._rules.max_wait_s and not self._is_capped:
                    self._is_capped = True
                    host = urlsplit(self._archives.url(name)).netloc
                    self._rules.tell_long_wait(host, asked_s, self._progress)
                rest_s = min(asked_s, self._rules.max_wait_s)
                await asyncio.sleep(max(rest_s, self._rules.back_off_s * 2 ** max(0, n_tries - 1)))

    async def _fetch(self, session: aiohttp.ClientSession, name: str) -> str:
        expected = await self._md5(session, name)
        path, partial = self._archives.folder / name, self._partial(name)
        if path.exists() and await asyncio.to_thread(_md5_of, path) == expected:
            return expected
        digest = await self._body(session, name, partial)
        if digest != expected:
            partial.unlink()
            raise FetchError("md5", f"is {digest}, the mirror's md5 file says {expected}", is_transient=True)
        os.replace(partial, path)
        await asyncio.to_thread(flush_folder, path.parent)
        return expected

    async def _md5(self, session: aiohttp.ClientSession, name: str) -> str:
        """The md5 that the mirror's file says, wherever that is."""
        error = None
        for url in self._archives.md5_urls(name):
            try:
                async with self._deadline(), answered(session, url, self._rules) as response:
                    text = (await response.content.read(_MD5_FILE_BYTES)).decode("ascii", "replace")
            except FetchError as failure:
                error = failure
                if failure.http_code not in (403, 404):  # S3 answers 403 for what is not there
                    raise
                continue
            found = _MD5.search(text)
            if found is None:
                raise FetchError("md5", f"{url} holds no md5")
            return found[0].lower()
        assert error is not None
        raise error

    async def _body(self, session: aiohttp.ClientSession, name: str, partial: Path) -> str:
        """Goes on with the partial file, as far as the server can do that; returns the md5 of the whole."""
        start = partial.stat().st_size if partial.exists() else 0
        digest = await asyncio.to_thread(_hash, partial) if start else hashlib.md5(usedforsecurity=False)
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            async with answered(session, self._archives.url(name), self._rules, headers) as response:
                said = _RANGE.match(response.headers.get("Content-Range", ""))
                if response.status == 206 and (said is None or int(said[1]) != start):
                    raise FetchError("not http", "another range than the one asked for", is_transient=True)
                if response.status == 200 and start:
                    start, digest = 0, hashlib.md5(usedforsecurity=False)
                self._progress.expect(response.content_length or 0)
                with partial.open("ab" if start else "wb") as file:
                    async for chunk in self._in_time(response.content):
                        start += len(chunk)
                        if start > MAX_BYTES:
                            raise FetchError("too many bytes", f"over the limit of {MAX_BYTES:,}")
                        file.write(chunk)
                        digest.update(chunk)
                        self._progress.add(len(chunk))
                    file.flush()
                    os.fsync(file.fileno())
        except FetchError as error:
            if error.http_code != 416:  # nothing after what is there: whole, or too long
                raise
        return digest.hexdigest()

    async def _in_time(self, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        """The bytes of a body of any length, of which each _CHUNK_BYTES have the time that an image has."""
        n_bytes = _CHUNK_BYTES
        while True:
            if n_bytes >= _CHUNK_BYTES:
                until_s, n_bytes = asyncio.get_running_loop().time() + self._rules.timeout_s, 0
            async with self._deadline(until_s):
                part = await content.read(_CHUNK_BYTES)
            if not part:
                return
            n_bytes += len(part)
            yield part

    @asynccontextmanager
    async def _deadline(self, until_s: float | None = None) -> AsyncIterator[None]:
        """until_s: on the clock of the loop; None = the time that an image has."""
        try:
            async with asyncio.timeout(self._rules.timeout_s) as clock:
                if until_s is not None:
                    clock.reschedule(until_s)
                yield
        except TimeoutError as error:
            raise FetchError("timeout", f"too little in {self._rules.timeout_s:g} s", is_transient=True) from error

    def _partial(self, name: str) -> Path:
        return self._archives.folder / f"{name}.partial"


def _md5_of(path: Path) -> str:
    return _hash(path).hexdigest()


def _hash(path: Path) -> "hashlib._Hash":
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
