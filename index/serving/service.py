"""An opened index folder that answers many at once, in the threads of one process."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import numpy as np

from index.folder.searching import state_of
from index.landmarks import N_LANDMARKS, Landmarks, open_landmarks
from index.search.faiss_io import limited_blas
from index.serving.batches import Batches, BusyError, Pool, Room, apart, ending
from index.serving.config import ServingSettings
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.parallel import count_cores
from retrieval.progress import SILENT, Progress

if TYPE_CHECKING:
    from index.answer import Answer
    from retrieval.arrays import FloatArray
    from retrieval.embed.embedder import Prepared
    from retrieval.embed.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["BusyError", "Observer", "Service"]

FOLLOW_S = 0.5  # between two looks at the folder
AGAIN_S = 5.0  # between two tries to open a damaged one


class Observer(Protocol):
    """Is told what a service does; in its threads, so it takes no time."""

    def stage(self, name: str, seconds: float) -> None:
        """An image's decode or queue took so long, a batch's forward or search, an answer's verify."""

    def batch(self, n_images: int) -> None:
        """So many images were computed at once."""


class Unobserved:
    """Is told, and does nothing."""

    def stage(self, name: str, seconds: float) -> None:
        """Does nothing."""

    def batch(self, n_images: int) -> None:
        """Does nothing."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """An opened index. n_batch: images that its network computes at once. state: of the folder when it was opened."""

    landmarks: Landmarks
    n_batch: int
    state: object


@dataclass(frozen=True, slots=True)
class _Words:
    """What an image is asked; images of the same words are answered at once."""

    threshold: float | None
    n_landmarks: int
    verify: bool


@dataclass(slots=True, eq=False)
class _Asked:
    """An image on its way. words: None where only its descriptor is asked for. entered, since: times."""

    data: bytes
    name: str
    words: _Words | None
    opened: _Opened
    entered: float
    future: "Future[Any]" = field(default_factory=Future)
    prepared: "Prepared" = ()
    since: float = 0.0


class Service:
    """An index folder that answers many at once; another one that takes its place is opened beside it.

    limits: of what is decoded. observe: what is told of stages and batches; it may be set later, as limits may.
    Raises LmrError when the folder is missing, damaged or of another version, has no local features where answers are
    to be verified, or the device or engine is not there.
    """

    def __init__(
        self,
        path: Path,
        settings: ServingSettings,
        *,
        device: str = "auto",
        threads: int | None = None,
        engine: "Engine" = "auto",
        progress: Progress = SILENT,
    ) -> None:
        self.path, self.settings, self.progress = path, settings, progress
        self.limits: Limits = DEFAULT_LIMITS
        self.observe: Observer = Unobserved()
        n_threads = settings.n_decoding or count_cores()
        self._how: dict[str, Any] = {"device": device, "threads": threads, "engine": engine, "n_workers": n_threads}
        self._opened = self._open()
        if settings.verify and not self.verifies:
            raise LmrError(
                f"{path} has no local features to `verify` by; make some with lmr embed `local`, then run "
                "lmr build-index `local`, or serve it without `verify`"
            )
        self._switches = ExitStack()
        self._switches.enter_context(limited_blas(1))  # of a few rows: more would wait longer than compute
        self._room = Room(settings.n_waiting + settings.n_batch)
        self._decoding, self._pool = ThreadPoolExecutor(n_threads), Pool(n_threads, settings.n_waiting)
        self._batches: Batches[_Asked] = Batches(
            self._compute, lambda asked: asked.opened.n_batch, lambda one, other: one.opened is other.opened
        )
        self._ended = threading.Event()
        threading.Thread(target=self._follow, name="lmr-follow", daemon=True).start()

    @property
    def landmarks(self) -> Landmarks:
        """The index that answers now. Another one may take its place: take it once for each request."""
        return self._opened.landmarks

    @property
    def is_ready(self) -> bool:
        """True while images are answered."""
        return self._room.is_open

    @property
    def verifies(self) -> bool:
        """True where answers are verified unless it is said otherwise: as the settings say, by what the index has."""
        return self.settings.verify and self.landmarks.folder.local is not None

    @property
    def n_waiting(self) -> int:
        """Images that were asked and are not answered yet."""
        return len(self._room)

    def query(
        self,
        image: bytes,
        name: str = "image",
        *,
        threshold: float | None = None,
        n_landmarks: int = N_LANDMARKS,
        verify: bool | None = None,
    ) -> "Future[Answer]":
        """The answer to an encoded image, as `Landmarks.query` gives it, which raises what its future raises.

        It is decoded in one of several threads, and computed with what waits at that time; alone it waits for nothing.
        verify: None = as the settings say, where the index has local features. Raises BusyError, as the future may for
        what is verified.
        """
        opened = self._opened
        if verify is None:
            verify = self.settings.verify and opened.landmarks.folder.local is not None
        return self._ask(image, name, _Words(threshold, n_landmarks, verify), opened)

    def embed(self, image: bytes) -> "Future[FloatArray]":
        """The unit descriptor (d,) of an encoded image; UnreadableError as the future's exception. Raises BusyError."""
        return self._ask(image, "", None, self._opened)

    def run(self, function: Callable[P, R], *args: P.args, **words: P.kwargs) -> "Future[R]":
        """Calls a function that takes long in a thread, as many at once as there are cores. Raises BusyError."""
        if not self.is_ready:
            raise ending()
        return self._pool.submit(function, *args, **words)

    def close(self, wait_s: float = 30.0) -> None:
        """Answers what is waiting, within this time, and takes nothing more; BusyError for what is left then."""
        until = time.monotonic() + wait_s
        self._ended.set()
        self._room.close(until)
        self._pool.close(until)
        self._decoding.shutdown(wait=False, cancel_futures=True)
        for asked in self._batches.end():
            self._fail(asked, ending())
        self._switches.close()

    def _ask(self, image: bytes, name: str, words: _Words | None, opened: _Opened) -> "Future[Any]":
        asked = _Asked(image, name, words, opened, self._room.enter())
        self._submit(self._decoding.submit, asked, partial(self._decode, asked))
        return asked.future

    def _submit(
        self, submit: "Callable[[Callable[[], None]], Future[None]]", asked: _Asked, work: Callable[[], None]
    ) -> None:
        """Has a thread work on an image, which has an error where it never does."""

        def end(done: "Future[None]") -> None:
            if done.cancelled():
                self._fail(asked, ending())

        try:
            submit(work).add_done_callback(end)
        except BusyError as error:
            self._fail(asked, error)
        except RuntimeError:  # the threads have ended meanwhile
            self._fail(asked, ending())

    def _decode(self, asked: _Asked) -> None:
        if asked.future.cancelled():
            self._leave(asked)
            return
        began = time.perf_counter()
        try:
            asked.prepared = asked.opened.landmarks.embedder.prepare(asked.data, self.limits)
        except Exception as error:
            self._fail(asked, error)
            return
        if asked.words is None or not asked.words.verify:
            asked.data = b""
        asked.since = time.perf_counter()
        self.observe.stage("decode", asked.since - began)
        if not self._batches.put(asked):
            self._fail(asked, ending())

    def _compute(self, batch: list[_Asked]) -> None:
        """Answers a batch of one index; nobody who has gone takes part in it."""
        now = time.perf_counter()
        there = []
        for asked in batch:
            self.observe.stage("queue", now - asked.since)
            if asked.future.set_running_or_notify_cancel():
                there.append(asked)
            else:
                self._leave(asked)
        if there:
            apart(self._describe, there, self._fail)

    def _describe(self, batch: Sequence[_Asked]) -> None:
        """Computes the descriptors of images and what is asked of them. Raises what the network does."""
        embedder, began = batch[0].opened.landmarks.embedder, time.perf_counter()
        vectors = embedder.describe(
            *(embedder.stacked(of_spec) for of_spec in zip(*(asked.prepared for asked in batch), strict=True))
        )
        self.observe.stage("forward", time.perf_counter() - began)
        self.observe.batch(len(batch))
        groups: dict[_Words, list[tuple[_Asked, FloatArray]]] = {}
        for asked, vector in zip(batch, vectors, strict=True):
            if asked.words is None:
                self._succeed(asked, vector)
            elif asked.words.verify:
                self._verify(asked, vector)
            else:
                groups.setdefault(asked.words, []).append((asked, vector))
        for group in groups.values():
            apart(self._answer, group, lambda one, error: self._fail(one[0], error))

    def _answer(self, group: "Sequence[tuple[_Asked, FloatArray]]") -> None:
        """Answers images of the same words by their descriptors. Raises what the index does."""
        began = time.perf_counter()
        vectors = np.stack([vector for _, vector in group])
        answers = _answers([asked for asked, _ in group], vectors)
        self.observe.stage("search", time.perf_counter() - began)
        for (asked, _), answer in zip(group, answers, strict=True):
            self._succeed(asked, answer)

    def _verify(self, asked: _Asked, vector: "FloatArray") -> None:
        """Has an image answered by local features, in one of the threads for what takes long."""

        def answer() -> None:
            began = time.perf_counter()
            try:
                (found,) = _answers([asked], vector[None])
            except Exception as error:
                self._fail(asked, error)
                return
            self.observe.stage("verify", time.perf_counter() - began)
            self._succeed(asked, found)

        self._submit(self._pool.submit, asked, answer)

    def _succeed(self, asked: _Asked, value: object) -> None:
        self._leave(asked)
        asked.future.set_result(value)

    def _fail(self, asked: _Asked, error: Exception) -> None:
        """Ends an image with an error; one that cannot be read has an answer that says so."""
        self._leave(asked)
        if not asked.future.running() and not asked.future.set_running_or_notify_cancel():
            return
        if isinstance(error, UnreadableError) and asked.words is not None:
            from index.asking.answers import unreadable_answer

            asked.future.set_result(unreadable_answer(asked.name, str(error)))
        else:
            asked.future.set_exception(error)

    def _leave(self, asked: _Asked) -> None:
        self._room.leave(asked.entered)

    def _open(self) -> _Opened:
        """The index in the folder now, warm. Raises LmrError."""
        state = state_of(self.path)
        landmarks = open_landmarks(self.path, progress=self.progress, **self._how)
        n_batch = landmarks.embedder.warm(self.settings.n_batch)
        landmarks.answer_descriptors(np.eye(1, landmarks.embedder.d, dtype=np.float32), ["made"], progress=SILENT)
        return _Opened(landmarks, n_batch, state)

    def _state(self) -> object:
        """As `state_of`; a server that cannot be asked has no other index."""
        try:
            return state_of(self.path)
        except LmrError:
            return self._opened.state

    def _follow(self) -> None:
        """Looks whether another index has taken the place of the one that answers, and opens it."""
        seen = failed = None
        again = 0.0
        while not self._ended.wait(FOLLOW_S):
            before, seen = seen, self._state()
            is_known = seen == self._opened.state or (seen == failed and time.monotonic() < again)
            if is_known or seen != before:  # one that is being copied is left alone until it stays as it is
                continue
            try:
                self._opened = self._open()
            except Exception as error:
                if seen != failed:
                    self.progress.warn(f"{error}; the index that was opened before answers on")
                failed, again = seen, time.monotonic() + AGAIN_S
            else:
                failed = None
                self.progress.tell(f"another index answers now: {self.landmarks!r}")
                if self.settings.verify and not self.verifies:
                    self.progress.warn("it has no local features: answers are not verified by now")


def _answers(asked: "Sequence[_Asked]", vectors: "FloatArray") -> "list[Answer]":
    """The answers to images of the same words and the same index."""
    words, landmarks = asked[0].words, asked[0].opened.landmarks
    assert words is not None
    return landmarks.answer_descriptors(
        vectors,
        [one.name for one in asked],
        [one.data for one in asked] if words.verify else (),
        threshold=words.threshold,
        n_landmarks=words.n_landmarks,
        verify=words.verify,
        progress=SILENT,
    )
