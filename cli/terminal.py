"""Lines that a person reads in a terminal: what comes from data is escaped and cut, whatever the encoding."""

import json
import re
import shlex
import sys
from typing import Any

import click

from retrieval.errors import LmrError
from retrieval.words import shortened, visible

# A parameter within a message of the library; not a field or type, which the reader of JSON quotes in the same way.
_TYPES = "object|array|str|int|float|bool|null"
_WORD = re.compile(rf"(?<![^\s('])(?<!field )`(?!(?:{_TYPES})`)([a-z][a-z0-9_]*)`(?!\w)")
_LINE_CHARACTERS = 4000
_TAIL_CHARACTERS = 1000  # of a line that is cut: what to do is said at the end
_UNMAPPED = ("failed to map segment", "cannot allocate memory", "Cannot allocate memory")  # as loaders of libraries say


def shown(value: object) -> str:
    """One value from data within a line: nothing in it moves the cursor, hides, or ends the line."""
    return shortened(value)


def with_options(text: str) -> str:
    """A message of the library as the command line says it: `retry_unreadable` is --retry-unreadable there."""
    return _WORD.sub(lambda found: f"--{found[1].removeprefix('n_').replace('_', '-')}", text)


def shown_line(text: str) -> str:
    """A line of our own that holds values from data, and stays one line. Its tabs stay; it is cut in its middle."""
    return "\t".join(map(visible, _cut(text).split("\t")))


def shown_lines(text: str) -> str:
    """Several such lines, in which values that may end a line are `shown` already."""
    return "\n".join(map(shown_line, text.split("\n")))


def escaped(text: str) -> str:
    """A text whose line ends and tabs stay; whatever else is not to be seen is escaped."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def command_line(*words: object) -> str:
    """A command to copy into a shell: words that need quotes have them."""
    return shlex.join(map(str, words))


def say(line: str) -> None:
    """A line of the result for people, on stdout."""
    _print(shown_line(line))


def say_lines(text: str) -> None:
    """A result for people of several lines, in which values from data are `shown`."""
    _print(shown_lines(text))


def warn(line: str) -> None:
    """Prints what is not the result, on stderr."""
    _print(shown_line(line), err=True)


def warn_lines(text: str) -> None:
    """Prints what is not the result, on stderr in several lines, in which values from data are `shown`."""
    _print(shown_lines(text), err=True)


def say_json(document: object, *, indent: int | None = 1, default: Any = None) -> None:
    """A result for programs, with exact values: one JSON document in ASCII."""
    _echo(json.dumps(document, indent=indent, default=default))


def say_result(document: object, text: str, *, as_json: bool, indent: int = 1, default: Any = None) -> None:
    """A result as JSON or as lines for people, in which values from data are `shown`."""
    if as_json:
        say_json(document, indent=indent, default=default)
    else:
        say_lines(text)


def say_csv(text: str) -> None:
    """CSV lines for programs, in UTF-8 wherever they go; names of files that are not UTF-8 keep their bytes."""
    _echo(text.encode(errors="surrogateescape"), nl=False)


def _print(text: str, *, err: bool = False) -> None:
    """Prints what the stream's encoding has, and escapes of the rest."""
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    if err:
        click.echo(text, err=True)
    else:
        _echo(text)


def _echo(text: str | bytes, *, nl: bool = True) -> None:
    """Prints to stdout. LmrError where that leads to a full disk; who reads no further is no error."""
    try:
        click.echo(text, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise LmrError(f"the result cannot be printed: {error.strerror}; send stdout to another place") from error


def _cut(line: str) -> str:
    if len(line) <= _LINE_CHARACTERS:
        return line
    start, end = line[: _LINE_CHARACTERS - _TAIL_CHARACTERS], line[-_TAIL_CHARACTERS:]
    return f"{start}… ({len(line):,} characters) …{end}"


def lacking(error: Exception) -> str:
    """A line on what this machine has too little of for the command; blank where the error says nothing of it."""
    if isinstance(error, MemoryError) or _is_of_torch(error):
        return "not enough memory here; use fewer --workers, smaller pictures or smaller batches"
    if isinstance(error, ImportError) and any(text in str(error) for text in _UNMAPPED):
        library = str(error).partition(":")[0]
        return f"not enough memory here to load {library}; raise the limit (ulimit -v), or use a larger machine"
    if "can't start new thread" in str(error):
        return "no more threads can be started here; use fewer --workers, or raise the limit on processes (ulimit -u)"
    return ""


def _is_of_torch(error: Exception) -> bool:
    """True where torch says with it that there is too little memory."""
    if not isinstance(error, RuntimeError) or "torch" not in sys.modules:
        return False
    from retrieval.models.device import lacks_memory

    return lacks_memory(error)
