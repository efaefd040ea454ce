"""Warnings of libraries, caught in every thread and process of a command and told once, in a line, at its end."""

import contextlib
import json
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from retrieval.words import agreeing, counted

_CHARACTERS = 200  # of a name or a text that are told
_MAX_LINES = 100_000  # that one process writes down
_PLACE = "LMR_WARNINGS"  # in the environment: the file to which a command and its workers write what they are warned of

_thread = threading.local()  # .name: of the image that was read last; .decoding: whether it is being decoded
_for_ever = contextlib.ExitStack()  # of a worker, which has nothing to put back
_caught_by = 0  # process id
_said: set[str] = set()  # remarks that this process made since warnings were caught


class ImageWarning(UserWarning):
    """Remark of a library about an image that it decodes all the same."""


class Remark(UserWarning):
    """Remark of lmr itself, on many images alike."""


def reading(name: str) -> None:
    """Says which image is read, and then decoded, by this thread."""
    _thread.name = name


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Takes what is warned of meanwhile as about the image that was read last."""
    catch_in_worker()
    _thread.decoding = True
    try:
        yield
    finally:
        _thread.decoding = False


def note(text: str) -> None:
    """Warns of what another process was told about the image that is being decoded."""
    warnings.warn(text, ImageWarning, stacklevel=2)


def say(text: str) -> None:
    """Has the command say a line at its end, once, from whatever process."""
    if text not in _said:
        _said.add(text)
        warnings.warn(text, Remark, stacklevel=2)


@contextlib.contextmanager
def told_once(tell: Callable[[str], None]) -> Iterator[None]:
    """Catches the warnings of libraries, here and in workers, and tells of them in a line or two at the end."""
    before = os.environ.get(_PLACE)
    with tempfile.TemporaryDirectory(prefix="lmr-") as folder:
        os.environ[_PLACE] = os.path.join(folder, "warnings")
        try:
            with _caught(os.environ[_PLACE]):
                yield
        finally:
            lines = list(_summary(os.environ.pop(_PLACE)))
            if before is not None:
                os.environ[_PLACE] = before
            for line in lines:
                tell(line)


def catch_in_worker() -> None:
    """Makes the warnings of a process that a command has started the command's."""
    if not _caught_by and (path := os.environ.get(_PLACE)):
        _for_ever.enter_context(_caught(path))


@contextlib.contextmanager
def _caught(path: str) -> Iterator[None]:
    """Writes the warnings of libraries to a file instead of stderr."""
    global _caught_by
    book, root, before = _Book(path), logging.getLogger(), _caught_by
    with warnings.catch_warnings():
        warnings.simplefilter("always", ImageWarning)
        warnings.simplefilter("always", Remark)
        _said.clear()
        warnings.filterwarnings("always", module=r"PIL\b")  # one image's warning is no other's
        warnings.showwarning = book.show  # put back by catch_warnings
        root.addHandler(book)
        _caught_by = os.getpid()
        try:
            yield
        finally:
            _caught_by = before
            root.removeHandler(book)


class _Book(logging.Handler):
    def __init__(self, path: str) -> None:
        super().__init__(logging.WARNING)
        self._path = path
        self._n_lines = 0

    def show(self, message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        """Takes the place of warnings.showwarning."""
        of_image = getattr(_thread, "decoding", False) or issubclass(category, Remark)
        text = str(message) if of_image else f"{category.__name__}: {message}"
        self._write(text, is_remark=issubclass(category, Remark))

    def emit(self, record: logging.LogRecord) -> None:
        """Takes the place of logging's last resort, which prints."""
        self._write(record.getMessage())

    def _write(self, text: str, *, is_remark: bool = False) -> None:
        self._n_lines += 1
        if self._n_lines > _MAX_LINES:
            return
        of_image = getattr(_thread, "decoding", False)
        name = getattr(_thread, "name", "a picture") if of_image else None
        line = json.dumps(["", text] if is_remark else [name and _shown(name), _shown(text)]) + "\n"
        # One write to the end of the file, so that lines of several processes stay whole.
        with contextlib.suppress(OSError), open(self._path, "ab", buffering=0) as file:
            file.write(line.encode())


def _shown(text: str) -> str:
    """One short line."""
    return " ".join(text.split())[:_CHARACTERS]


def _summary(path: str) -> Iterator[str]:
    images: dict[str, str] = {}
    others: dict[str, None] = {}
    remarks: dict[str, None] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if not line.endswith("]\n"):
                    continue  # of which a full disk took a part
                name, text = json.loads(line)
                if name == "":
                    remarks.setdefault(text)
                elif name is None:
                    others.setdefault(text)
                else:
                    images.setdefault(name, text)
    except FileNotFoundError:
        return
    yield from remarks
    for name, text in list(images.items())[:1]:
        n = len(images)
        many = f"{counted(n, 'picture')} gave warnings while {agreeing(n, 'it was', 'they were')}"
        yield f"{many} decoded, the first: {name}: {text}"
    for text in list(others)[:1]:
        n = len(others)
        yield f"{counted(n, 'warning')} of libraries, the first: {text}"
