"""Processes that decode images within limits on memory and time, kept for the next image."""

import contextlib
import json
import os
import signal
import subprocess
from collections import defaultdict
from dataclasses import asdict
from typing import Any

from PIL import Image

from retrieval.errors import LmrError, UnreadableError
from retrieval.images import noise
from retrieval.images.codecs.how import How
from retrieval.own_process import start_environment, start_words

READY = b"ready\n"  # what a process says when it can do jobs
_STRIP_BYTES = 1 << 24  # of an answer that is read at once
_idle: defaultdict[int, list["_Worker"]] = defaultdict(list)  # by process: a forked one has its own


def decode_in_worker(data: bytes, how: How) -> Image.Image:
    """The image in RGB. Raises UnreadableError with the reason, LmrError when no process can be started."""
    image = _do(data, how, only_size=False)
    assert isinstance(image, Image.Image)
    return image


def measure_in_worker(data: bytes, how: How) -> tuple[int, int]:
    """Width and height, upright. Raises as `decode_in_worker` does."""
    size = _do(data, how, only_size=True)
    assert isinstance(size, tuple)
    return size


class _Worker:
    def __init__(self) -> None:
        try:
            self.process = subprocess.Popen(
                start_words("retrieval.images.codecs.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=start_environment(OPENCV_IO_MAX_IMAGE_PIXELS=str(1 << 30)),
            )
        except OSError as error:
            raise LmrError(f"a process that decodes pictures cannot be started: {error.strerror}") from error
        assert self.process.stdout is not None
        if self.process.stdout.readline() != READY:
            raise LmrError(f"a process that decodes pictures ended at its start with exit code {self.process.wait()}")

    def do(self, data: bytes, job: dict[str, Any]) -> Image.Image | tuple[int, int]:
        """Answer of the process. Raises UnreadableError with the reason; the process has ended when it crashed."""
        assert self.process.stdout is not None
        try:
            self.send(data, job)
            said = json.loads(self.process.stdout.readline() or b"null")
        except BrokenPipeError:
            said = None
        if said is None:
            raise UnreadableError(self._why_ended(job["limits"]["max_seconds"]))
        if "reason" in said:
            raise UnreadableError(said["reason"])
        for text in said["warnings"]:
            noise.note(text)
        width, height = said["size"]
        return (width, height) if job["only_size"] else self._read_image(width, height, job["limits"]["max_seconds"])

    def send(self, data: bytes, job: dict[str, Any]) -> None:
        """Hands a file to the process. Raises BrokenPipeError when that has ended."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**job, "n_bytes": len(data)}).encode() + b"\n")
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def _read_image(self, width: int, height: int, max_seconds: int) -> Image.Image:
        assert self.process.stdout is not None
        image = Image.new("RGB", (width, height))
        n_rows = max(1, _STRIP_BYTES // (3 * width))
        for top in range(0, height, n_rows):
            size = width, min(n_rows, height - top)
            strip = self.process.stdout.read(3 * size[0] * size[1])
            if len(strip) < 3 * size[0] * size[1]:
                raise UnreadableError(self._why_ended(max_seconds))
            image.paste(Image.frombuffer("RGB", size, strip, "raw", "RGB", 0, 1), (0, top))
        return image

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # of what could not be sent
                if pipe is not None:
                    pipe.close()

    def _why_ended(self, max_seconds: int) -> str:
        """Why the process ended by itself."""
        code = self.process.wait()
        if code == -getattr(signal, "SIGALRM", 0):
            return f"takes more than {max_seconds} s to decode"
        return "broken picture: it kills the process that decodes it"


def _take(idle: list[_Worker]) -> _Worker:
    """One of those that are idle and alive, or a new one."""
    try:
        worker = idle.pop()
    except IndexError:  # asked for before it is known, as other threads take from the same list
        return _Worker()
    if worker.process.poll() is None:
        return worker
    worker.end()
    return _Worker()


def _do(data: bytes, how: How, *, only_size: bool) -> Image.Image | tuple[int, int]:
    idle = _idle[os.getpid()]
    worker = _take(idle)
    job = {
        "side": how.side,
        "measured": how.measured,
        "colors": how.colors,
        "limits": asdict(how.limits),
        "only_size": only_size,
    }
    done = False
    try:
        answer = worker.do(data, job)
        done = True
        return answer
    except UnreadableError:
        done = worker.process.poll() is None
        raise
    finally:
        if done:
            idle.append(worker)
        else:
            worker.end()
