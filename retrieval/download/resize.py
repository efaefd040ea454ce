"""Bodies decoded, resized and kept under private names, by worker processes; an image that kills one is found out."""

import asyncio
import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

from PIL import Image

from retrieval.download.config import Form, Resize
from retrieval.errors import LmrError, UnreadableError
from retrieval.images import noise
from retrieval.images.decode import decode, image_size
from retrieval.images.limits import Limits, scaled_size
from retrieval.parallel import KilledError, Worker, Workers, start_worker, start_workers
from retrieval.progress import SILENT, Progress

_WHITE = (255, 255, 255)
T = TypeVar("T")
_Task = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Stored:
    """Facts of a file that was stored, and the size of the image that it was made from, upright.

    perceptual_hash: 64 bits. n_original_bytes and the original's width and height are 0 where they are not known.
    """

    n_bytes: int
    sha256: str
    width: int
    height: int
    perceptual_hash: int
    n_original_bytes: int = 0
    original_width: int = 0
    original_height: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """Instructions to a worker, besides the body. partial: the private name that the file gets."""

    partial: str
    form: Form
    limits: Limits


def store_image(content: bytes | Path, order: Order) -> Stored:
    """Stores a body and tells of it. Raises UnreadableError for what is no image, OSError from the disk."""
    noise.reading(os.path.basename(order.partial))
    data = content.read_bytes() if isinstance(content, Path) else content
    size = image_size(data, order.limits)
    kept = data if order.form.resize is None else resized(data, size, order.form, order.limits)
    stored = measure(kept, order.limits)
    with open(order.partial, "wb") as file:
        file.write(kept)
        file.flush()
        os.fsync(file.fileno())
    return Stored(
        **{name: getattr(stored, name) for name in ("n_bytes", "sha256", "width", "height", "perceptual_hash")},
        n_original_bytes=len(data),
        original_width=size[0],
        original_height=size[1],
    )


def verify_image(path: str, limits: Limits) -> Stored:
    """Tells of a file that is there already. Raises UnreadableError when it is not a whole image."""
    return measure(Path(path).read_bytes(), limits)


def measure(data: bytes, limits: Limits) -> Stored:
    """The facts of a file. Raises UnreadableError."""
    from retrieval.images.quality import hash_image  # it needs scipy, of which only workers should hold a copy

    digest = hash_image(data, limits)
    width, height = image_size(data, limits)
    return Stored(len(data), hashlib.sha256(data).hexdigest(), width, height, digest)


def resized(data: bytes, size: tuple[int, int], form: Form, limits: Limits) -> bytes:
    """A JPEG of the image, whose width and height are given, in this form. Raises UnreadableError."""
    assert form.resize is not None
    small = resize(decode(data, _needed_side(size, form), limits), form.resize, form.size)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=form.quality)
    return file.getvalue()


def resize(image: Image.Image, how: Resize, size: int) -> Image.Image:
    """The RGB image at a size, as `Form` says."""
    width, height = image.size
    if how == "center-crop":
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))
    scale = size / (min(width, height) if how == "shorter" else max(width, height))
    if how != "square-pad":
        scale = min(scale, 1.0)
    inner = image
    if scale != 1:
        inner = image.resize(scaled_size(image.size, scale), Image.Resampling.BICUBIC)
    if how != "square-pad":
        return inner
    ground = Image.new("RGB", (size, size), _WHITE)
    ground.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return ground


def cause_of(error: UnreadableError) -> str:
    """The reason in a few words that can be counted."""
    text = str(error)
    if "over the limit" in text:
        return "too many pixels" if "pixels" in text else "too many bytes"
    if text.startswith("a web page"):
        return "a web page"
    return "broken picture" if text.startswith("broken") else "not a picture"


def _needed_side(size: tuple[int, int], form: Form) -> int:
    """The shorter side that has to be decoded."""
    if form.resize in ("shorter", "center-crop"):
        return form.size
    return -(-form.size * min(size) // max(size))


class Decoders:
    """Processes that do one task at a time; with 0 workers, or where none can be started, a thread of this one.

    At its end what is not done is dropped. progress: is warned when fewer processes can be started.
    """

    def __init__(self, n_workers: int, progress: Progress = SILENT) -> None:
        self._how = Workers(n_workers, progress=progress)
        self._workers = start_workers(_call, None, self._how)
        self._threads = ThreadPoolExecutor(max(1, len(self._workers)))
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        for worker in self._workers:
            self._idle.put_nowait(worker)
        self._alone = asyncio.Lock()

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.kill()  # which ends the wait of the thread that hears it
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.end()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """function(*arguments) in a worker. Raises what it raises; UnreadableError when it kills the worker.

        The system kills processes for want of memory too: what was in a killed one is tried again, one after the other,
        so that only what kills two is given up.
        """
        if not self._workers:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        try:
            return cast(T, await self._do((function, arguments)))
        except KilledError:
            async with self._alone:
                try:
                    return cast(T, await self._do((function, arguments)))
                except KilledError as error:
                    raise UnreadableError("broken picture: it kills the process that decodes it") from error

    async def _do(self, task: _Task) -> Any:
        """Result of the task, by one worker. Raises KilledError when it dies of it."""
        worker = await self._idle.get()
        failed, outcome = await asyncio.get_running_loop().run_in_executor(self._threads, worker.do, task)
        self._idle.put_nowait(self._replace(worker) if isinstance(outcome, KilledError) else worker)
        if failed:
            raise outcome
        return outcome

    def _replace(self, dead: Worker) -> Worker:
        dead.end()
        self._workers.remove(dead)
        try:
            worker = start_worker(_call, None, self._how)
        except OSError as error:
            raise LmrError(
                f"a process that decodes pictures cannot be started: {error.strerror}; "
                "run the same command again with fewer `workers`"
            ) from error
        self._workers.append(worker)
        return worker


def _call(task: _Task, _: None) -> Any:
    function, arguments = task
    return function(*arguments)
