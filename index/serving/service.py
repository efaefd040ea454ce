"""An opened index folder that answers many at once, in the threads of one process."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from index.landmarks import Landmarks, open_landmarks
from index.serving.config import ServingSettings
from retrieval.errors import LmrError, UnreadableError
from retrieval.progress import SILENT, Progress

if TYPE_CHECKING:
    from index.answer import Answer
    from retrieval.arrays import FloatArray
    from retrieval.embed.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")


class BusyError(LmrError):
    """More is asked than may wait. retry_s: seconds after which it may be tried again."""

    def __init__(self, retry_s: float) -> None:
        super().__init__(f"too many images are waiting; try again in {retry_s:.0f} s")
        self.retry_s = retry_s


class Service:
    """An index folder that answers many at once.

    Raises LmrError when the folder is missing, damaged or of another version, or the device or engine is not there.
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
        self.path, self.settings = path, settings
        how: dict[str, Any] = {"device": device, "threads": threads, "engine": engine, "progress": progress}
        self._landmarks = open_landmarks(path, n_workers=settings.n_decoding or 2, **how)
        self._pool = ThreadPoolExecutor(1)

    @property
    def landmarks(self) -> Landmarks:
        """The index that answers now. Another one may take its place: take it once for each request."""
        return self._landmarks

    def query(self, image: bytes, name: str = "image", *, threshold: float | None = None) -> "Future[Answer]":
        """The answer to an encoded image, as `Landmarks.query` gives it. Raises BusyError."""
        return self.run(lambda: self._named(self._landmarks.query([image], threshold=threshold)[0], name))

    def embed(self, image: bytes) -> "Future[FloatArray]":
        """The unit descriptor (d,) of an encoded image; UnreadableError as the future's exception. Raises BusyError."""
        return self.run(self._embedded, image)

    def run(self, function: Callable[P, R], *args: P.args, **words: P.kwargs) -> "Future[R]":
        """Calls a function that takes long in a thread, as many at once as there are cores. Raises BusyError."""
        return self._pool.submit(function, *args, **words)

    def close(self, wait_s: float = 30.0) -> None:
        """Answers what is waiting, within this time, and takes nothing more."""
        self._pool.shutdown(wait=True)

    def _embedded(self, image: bytes) -> "FloatArray":
        vectors, unreadable = self._landmarks.embed([image])
        if unreadable:
            raise UnreadableError(unreadable[0])
        vector: FloatArray = vectors[0]
        return vector

    @staticmethod
    def _named(answer: "Answer", name: str) -> "Answer":
        return replace(answer, image=name)
