"""Scheduling of a download: rows in, fetched, resized in other processes, and written down in the ledger."""

import asyncio
import errno
import itertools
import os
import random
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import aiohttp

from retrieval.download.hosts import ROBOTS_TAG, HostQueue, Job, heed_robots_tag
from retrieval.download.ledger import Entry, Ledger, Saver, as_columns
from retrieval.download.resize import Decoders, Order, Stored, cause_of, store_image, verify_image
from retrieval.download.survey import BAD_ID, EXCLUDED, TO_VERIFY, Task
from retrieval.download.wikimedia import address_of, instead, is_wikimedia, larger, names_contact, queue_of
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.addresses import RefusedUrlError, checked_url
from retrieval.images.http import Headers, fetch, open_session
from retrieval.images.http_body import Body, FetchError
from retrieval.progress import Progress

_WINDOW = 4096  # rows that are known at a time: enough to find work for other hosts while one rests
_BODIES_A_WORKER = 8  # that wait to be decoded, before fewer are fetched
_LONGEST_BACK_OFF_S = 60.0
_OF_THE_NAME = frozenset((errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ))


@dataclass(frozen=True, slots=True)
class Fetched:
    """Outcome of a run. n_new: images that are stored. hosts_left: for a later run, each with the reason."""

    n_new: int
    hosts_left: dict[str, str]


def run_download(task: Task, ledger: Ledger, progress: Progress) -> Fetched:
    """Fetches everything that is to be fetched.

    What is finished is in the ledger at the end, also when this is interrupted. Raises LmrError when nothing can be
    written any more.
    """
    places = task.places
    try:
        places.make_work_folder()
        with Decoders(task.n_workers, progress) as decoders:
            fetched = asyncio.run(_Run(task, ledger, decoders, progress).work())
        places.remove_work_folder()
    except OSError as error:
        raise LmrError(
            f"{places.images} cannot be written: {error.strerror or error}; make room or choose another folder, "
            "and run the same command again"
        ) from error
    return fetched


class _Run:
    def __init__(self, task: Task, ledger: Ledger, decoders: Decoders, progress: Progress) -> None:
        self._task, self._decoders, self._progress = task, decoders, progress
        self._rules = task.rules
        self._queue = HostQueue(task.rules.per_host)
        self._unverified: deque[tuple[str, str]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._n_fetching = self._n_decoding = 0
        self._wake = asyncio.Event()
        self._capped: set[str] = set()  # hosts that asked for a longer rest than is waited for
        self._is_welcome = names_contact(task.rules.user_agent)  # at Wikimedia, or is told that it is not
        self._error: BaseException | None = None
        self._saver = Saver(ledger, self._count)
        self._n_stored = self._n_failed = 0
        self._number = itertools.count()  # of a file in the work folder
        self._jitter = random.Random(0)

    async def work(self) -> Fetched:
        """Runs until nothing is left to do."""
        rows = self._task.rows()
        self._progress.begin("downloading", int((self._task.states > EXCLUDED).sum()))
        try:
            async with open_session(self._rules) as session:
                while True:
                    is_all = self._fill(rows)
                    self._start_all(session)
                    if is_all and not self._tasks and not len(self._queue) and not self._unverified:
                        break
                    await self._wait()
                    self._saver.save_when_due()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._saver.save()
            self._progress.end()
        return Fetched(self._n_stored, self._queue.closed)

    def _count(self, n: int, is_stored: bool) -> None:
        """n more images are stored, or could not be had."""
        self._progress.add(n)
        if is_stored:
            self._n_stored += n
        else:
            self._n_failed += n
            self._progress.note(f"{self._n_failed:,} failed")

    def _fill(self, rows: Iterator[tuple[str, str, int]]) -> bool:
        """Takes rows in while there is room; whether they were the last."""
        while len(self._queue) + len(self._unverified) < _WINDOW:
            row = next(rows, None)
            if row is None:
                return True
            image_id, url, state = row
            if state == BAD_ID:
                self._fail(Job(image_id, url, ""), "bad id", "it leads out of the images folder")
            elif state == TO_VERIFY:
                self._unverified.append((image_id, url))
            else:
                self._add(image_id, url)
        return False

    def _add(self, image_id: str, url: str) -> None:
        try:
            if not url:
                raise RefusedUrlError("no url", "")
            checked = checked_url(url, allow_private=self._rules.allow_private)
            host = queue_of(checked)
            if is_wikimedia(host) and not self._is_welcome:
                self._is_welcome = True
                self._rules.tell_no_contact(host, self._progress)
            self._queue.add(Job(image_id, url, host, address=address_of(checked, self._task.form)))
        except RefusedUrlError as error:
            self._fail(Job(image_id, url, ""), error.cause, str(error))

    def _start_all(self, session: aiohttp.ClientSession) -> None:
        """Starts as much as the limits allow."""
        room = _BODIES_A_WORKER * max(1, self._task.n_workers)
        while self._unverified and self._n_decoding < room:
            self._n_decoding += 1
            self._start(self._verify(*self._unverified.popleft()))
        while self._n_fetching < self._rules.connections and self._n_decoding < room:
            job = self._queue.take(time.monotonic())
            if job is None:
                return
            if job.host in self._queue.closed:
                self._queue.release(job.host)
                self._count(1, False)
            else:
                self._n_fetching += 1
                self._start(self._get(session, job))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()

    async def _wait(self) -> None:
        """Waits until something ended, may begin or is to be saved. Raises what a task raised."""
        has_room = self._n_fetching < self._rules.connections
        waits_s = (self._queue.wait_s(time.monotonic()) if has_room else None, self._saver.wait_s())
        with suppress(TimeoutError):
            async with asyncio.timeout(min((wait_s for wait_s in waits_s if wait_s is not None), default=None)):
                await self._wake.wait()
        self._wake.clear()
        if self._error is not None:
            raise self._error

    async def _get(self, session: aiohttp.ClientSession, job: Job) -> None:
        """One try of one image."""
        began_s = time.monotonic()
        try:
            spill = self._task.places.work / f"body-{next(self._number)}"
            body = await fetch(session, job.address, self._rules, spill, on_headers=self._check_headers)
            self._queue.heard(job.host, is_silent=False)
            self._queue.served(job.host, n_bytes=body.n_bytes, began_s=began_s)
            self._n_decoding += 1
        except FetchError as error:
            n_rounds = self._queue.heard(job.host, is_silent=error.is_silent)
            if error.is_silent:
                self._queue.rest(job.host, time.monotonic() + self._back_off_s(n_rounds))
            self._after(job, error)
            return
        finally:
            self._n_fetching -= 1
            self._queue.release(job.host)
            self._wake.set()
        try:
            await self._store(job, body)
        finally:
            body.discard()
            self._n_decoding -= 1

    def _check_headers(self, headers: Headers) -> None:
        if not self._rules.ignore_robots_tag:
            heed_robots_tag(headers, self._rules.user_agent)

    async def _store(self, job: Job, body: Body) -> None:
        places, form = self._task.places, self._task.form
        partial = str(places.work / f"picture-{next(self._number)}")
        try:
            order = Order(partial, form, self._rules.limits)
            stored = await self._decoders.run(store_image, body.content, order)
            if address := larger(job.address, (stored.original_width, stored.original_height), form):
                os.unlink(partial)
                self._queue.add(replace(job, n_tries=job.n_tries + 1, address=address))
                return
            self._saver.keep(_done(job, stored, body.http_code), partial, places.path(job.image_id))
        except UnreadableError as error:
            self._fail(job, cause_of(error), str(error), body.http_code)
        except OSError as error:
            if error.errno not in _OF_THE_NAME:
                raise
            self._fail(job, "bad id", f"no file can have this name: {error.strerror}", body.http_code)

    async def _verify(self, image_id: str, url: str) -> None:
        """A file that the ledger does not know counts when it is a whole image."""
        try:
            path = self._task.places.path(image_id)
            stored = await self._decoders.run(verify_image, path, self._rules.limits)
            self._saver.keep(_done(Job(image_id, url, ""), stored, None))
        except (UnreadableError, OSError):
            self._add(image_id, url)
        finally:
            self._n_decoding -= 1

    def _after(self, job: Job, error: FetchError) -> None:
        """A try failed: again later, or not."""
        now_s = time.monotonic()
        asked_s = error.wait_s or 0.0
        if asked_s > self._rules.max_wait_s:
            self._queue.asked_for_long(job.host, asked_s)
            if job.host not in self._capped:
                self._capped.add(job.host)
                self._rules.tell_long_wait(job.host, asked_s, self._progress)
        if job.host in self._queue.closed:
            self._count(1, False)
        elif not error.is_transient or job.n_tries >= self._rules.n_retries:
            if address := instead(job.address, error.http_code):
                self._queue.add(replace(job, n_tries=job.n_tries + 1, address=address))
            else:
                self._fail(job, error.cause, error.detail, error.http_code)
        else:
            until_s = now_s + max(min(asked_s, self._rules.max_wait_s), self._back_off_s(job.n_tries))
            if error.http_code == 429 or asked_s:
                self._queue.rest(job.host, until_s)
            self._queue.add(replace(job, n_tries=job.n_tries + 1), until_s)

    def _back_off_s(self, n_before: int) -> float:
        """Twice as long after each time, and never the same for all."""
        back_off_s = self._rules.back_off_s * 2.0**n_before * self._jitter.uniform(0.5, 1.5)
        return min(back_off_s, _LONGEST_BACK_OFF_S)

    def _fail(self, job: Job, cause: str, detail: str, http_code: int | None = None) -> None:
        n_tries = job.n_tries + 1 if job.host else 0
        status: Literal["failed", "excluded"] = "excluded" if cause == ROBOTS_TAG else "failed"
        entry = Entry(job.image_id, job.url, status, _now(), http_code, cause, detail, n_tries)
        self._saver.fail(entry)


def _done(job: Job, stored: Stored, http_code: int | None) -> Entry:
    """http_code: None for a file that was there already."""
    n_tries = 0 if http_code is None else job.n_tries + 1
    return Entry(job.image_id, job.url, "done", _now(), http_code=http_code, n_tries=n_tries, **as_columns(stored))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
