"""Hosts that images are fetched from: whose turn it is, and what they exclude by the header X-Robots-Tag.

Fetching is fair between hosts: few at a time from each, none from a host that asked for rest. By the header a server
says that its images are not for machines to learn from or to index.
"""

import heapq
import itertools
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from yarl import URL

from retrieval.download.wikimedia import AT_ONCE, BYTES_A_SECOND, is_wikimedia
from retrieval.images.http import Headers
from retrieval.images.http_body import FetchError

SILENT_ROUNDS = 5  # of as many tries as a host gets at once, without any answer, after which it is left
LONG_ROUNDS = 3  # of such tries, each answered by a longer rest than is waited for and none by an image
ROBOTS_TAG = "X-Robots-Tag"  # the header, and the cause why there is no image

# Those that img2dataset heeds, and `none`, which means noindex and nofollow.
_EXCLUDING = frozenset(("noai", "noimageai", "noindex", "noimageindex", "none"))
_WITH_VALUE = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))
_OUR_NAME = "lmr"
_PRODUCT = re.compile(r"[^\s/;(]*")  # landmarks of landmarks/1 (me@example.org)


@dataclass(frozen=True, slots=True)
class Job:
    """An image to fetch. n_tries: that were made before. address: where it is asked for."""

    image_id: str
    url: str
    host: str
    n_tries: int = 0
    address: URL = field(default_factory=URL)


@dataclass(slots=True)
class _Host:
    ready: deque[Job] = field(default_factory=deque)
    n_running: int = 0
    n_silent: int = 0
    n_long: int = 0
    resting_until_s: float = 0.0
    is_listed: bool = False  # among the hosts whose turn it is


class HostQueue:
    """Jobs by host. All times are seconds on one clock that the caller reads.

    A job is put in with `add`, comes out of `take`, and is followed by `release` of its host. `closed` holds the hosts
    that are left for a later run, with the reason.
    """

    def __init__(self, n_per_host: int) -> None:
        self._n_per_host = n_per_host
        self._hosts: dict[str, _Host] = {}
        self._turns: deque[str] = deque()
        self._later: list[tuple[float, int, str, Job | None]] = []  # None: the end of the host's rest
        self._number = itertools.count()
        self._n = 0
        self.closed: dict[str, str] = {}

    def __len__(self) -> int:
        """Jobs that wait."""
        return self._n

    def add(self, job: Job, not_before_s: float = 0.0) -> None:
        """Puts a job in, to come out at that time at the earliest."""
        self._n += 1
        if not_before_s > 0:
            heapq.heappush(self._later, (not_before_s, next(self._number), job.host, job))
        else:
            self._put(job)

    def take(self, now_s: float) -> Job | None:
        """The next job, its host the one that waited longest; None when there is none that may run now."""
        while self._later and self._later[0][0] <= now_s:
            _, _, name, job = heapq.heappop(self._later)
            if job is None:
                self._list(name)
            else:
                self._put(job)
        while self._turns:
            name = self._turns.popleft()
            host = self._hosts[name]
            host.is_listed = False
            if not host.ready or host.n_running >= self._n_at_once(name) or host.resting_until_s > now_s:
                continue  # listed again by what changes that
            host.n_running += 1
            self._n -= 1
            job = host.ready.popleft()
            self._list(name)
            return job
        return None

    def release(self, name: str) -> None:
        """A job of this host is no longer running."""
        host = self._hosts[name]
        host.n_running -= 1
        self._list(name)
        if not host.ready and not host.n_running and not (host.resting_until_s or host.n_silent or host.n_long):
            del self._hosts[name]

    def rest(self, name: str, until_s: float) -> None:
        """Lets nothing of this host come out before that time."""
        host = self._hosts[name]
        if until_s > host.resting_until_s:
            host.resting_until_s = until_s
            heapq.heappush(self._later, (until_s, next(self._number), name, None))

    def heard(self, name: str, *, is_silent: bool) -> int:
        """Notes whether the host answered a job that it still runs; returns the number of silent rounds in a row.

        Too many of them close the host. Between them it should rest, so that a server may come back.
        """
        host = self._hosts[name]
        host.n_silent = host.n_silent + 1 if is_silent else 0
        n_rounds = host.n_silent // self._n_at_once(name)
        if n_rounds >= SILENT_ROUNDS:
            self.closed[name] = f"no answer {host.n_silent} times in a row"
        return n_rounds

    def served(self, name: str, *, n_bytes: int, began_s: float) -> None:
        """The host answered with what was asked for at that time; Wikimedia then rests as long as that may take."""
        host = self._hosts[name]
        host.n_long = 0
        if is_wikimedia(name):
            self.rest(name, max(host.resting_until_s, began_s) + n_bytes / BYTES_A_SECOND)

    def asked_for_long(self, name: str, asked_s: float) -> None:
        """The host asks for a longer rest than is waited for; too many times in a row close it."""
        host = self._hosts[name]
        host.n_long += 1
        if host.n_long >= LONG_ROUNDS * self._n_at_once(name):
            self.closed[name] = f"it asked {host.n_long} times in a row to wait, the last time {asked_s:,.0f} s"

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until `take` may have something that it does not have now; None when no time is set for that."""
        return max(0.0, self._later[0][0] - now_s) if self._later else None

    def _n_at_once(self, name: str) -> int:
        return min(self._n_per_host, AT_ONCE) if is_wikimedia(name) else self._n_per_host

    def _put(self, job: Job) -> None:
        self._hosts.setdefault(job.host, _Host()).ready.append(job)
        self._list(job.host)

    def _list(self, name: str) -> None:
        host = self._hosts.get(name)
        if host is not None and host.ready and not host.is_listed:
            host.is_listed = True
            self._turns.append(name)


def heed_robots_tag(headers: Headers, user_agent: str) -> None:
    """Raises FetchError when the server excludes what it sends, for everybody or for this program."""
    names = {"*", _OUR_NAME, _PRODUCT.match(user_agent.strip())[0].lower()}  # type: ignore[index]
    if directive := excluding(headers.getall(ROBOTS_TAG, []), names):
        raise FetchError(ROBOTS_TAG, directive, http_code=200)


def excluding(values: Iterable[str], names: set[str]) -> str:
    """The first directive in the values of the header that excludes; '' when there is none.

    A value is a list with commas, of directives for everybody until a name with a colon begins those for that one
    program. names: of this program, in lower case.
    """
    for value in values:
        concerns_us = True
        for part in value.lower().split(","):
            name, colon, rest = (text.strip() for text in part.partition(":"))
            if colon and name not in _WITH_VALUE:
                concerns_us, name = name in names, rest
            if concerns_us and name in _EXCLUDING:
                return name
    return ""
