"""A process that decodes images for another one, with limits on its memory and time; run as a script.

A job is a line of JSON and the file's bytes; the answer is a line of JSON and, where an image was asked for, its
pixels in RGB, row by row.
"""

import json
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Mapping
from typing import Any, BinaryIO

from PIL import Image

from retrieval.errors import UnreadableError
from retrieval.images.codecs.how import How
from retrieval.images.codecs.limited import READY
from retrieval.images.codecs.opencv import kind_of, load_opencv
from retrieval.images.codecs.pillow import reason_of
from retrieval.images.codecs.thorough import decode_thoroughly, measure_thoroughly
from retrieval.images.limits import DECODE_TIMEOUT_S, Limits
from retrieval.own_process import limit_memory

_STRIP_BYTES = 1 << 24  # of an answer that is made at once


class _Printed:
    """Text that this process writes to stderr: libraries written in C print there what they find wrong."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process lives
        os.dup2(self._file.fileno(), 2)

    def __call__(self) -> str:
        """Text written since the last call."""
        self._file.seek(0)
        text = self._file.read().decode(errors="replace")
        self._file.seek(0)
        self._file.truncate()
        return text


def main() -> None:
    """Says that it is ready, then does jobs until there are no more."""
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    printed = _Printed()
    os.dup2(2, 1)  # nothing else may get between the answers
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to hear
    Image.init()
    answers.write(READY)
    answers.flush()
    while line := jobs.readline():
        job = json.loads(line)
        data = jobs.read(job["n_bytes"])
        _alarm(DECODE_TIMEOUT_S)
        _answer(job, data, answers, printed)
        _alarm(0)


def _answer(job: Mapping[str, Any], data: bytes, answers: BinaryIO, printed: _Printed) -> None:
    how = How(job["side"], job["measured"], Limits(**job["limits"]), job["colors"])
    picture: Image.Image | None = None
    said: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if kind_of(data):
                load_opencv()  # before memory is limited: its code is no part of what an image takes
            limit_memory(how.limits.max_memory)
            if job["only_size"]:
                said = {"size": measure_thoroughly(data, how, printed)}
            else:
                picture = decode_thoroughly(data, how, printed)
                said = {"size": picture.size}
        except UnreadableError as error:
            said = {"reason": str(error)}
        except Exception as error:  # what a library raises of a kind that nobody foresaw
            said = {"reason": f"broken picture: {reason_of(error)}"}
        finally:
            limit_memory(None)
    said["warnings"] = [" ".join(str(warning.message).split()) for warning in caught] + printed().splitlines()[:1]
    answers.write(json.dumps(said).encode() + b"\n")
    if picture is not None:
        n_rows = max(1, _STRIP_BYTES // (3 * picture.width))
        for top in range(0, picture.height, n_rows):
            answers.write(picture.crop((0, top, picture.width, min(picture.height, top + n_rows))).tobytes())
    answers.flush()


def _alarm(seconds: int) -> None:
    """Ends this process when the time is over, whatever it does then."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


if __name__ == "__main__":
    main()
