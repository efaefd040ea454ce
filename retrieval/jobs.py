"""Jobs: what a command, a function of lmr or a recipe asks for, as typed values, each with its default and its help.

A job is a frozen dataclass. Its fields are made by `option`; a field that is a dataclass itself gives its own
fields, so that a job is built from flat words however it is put together.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache, cached_property
from importlib import import_module
from inspect import Parameter, get_annotations
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from retrieval.device_name import FORM, parse_device
from retrieval.errors import LmrError
from retrieval.progress import PYTHON_WARNINGS, Progress
from retrieval.threads import require_threads

F = TypeVar("F", bound=Callable[..., Any])
J = TypeVar("J")
_KEY = "option"  # in the metadata of a field
_hints: Callable[[Any], Mapping[str, Any]] = cache(get_type_hints)  # of a job's fields, a millisecond each time


class InvalidValueError(LmrError):
    """A word of a job has a value that it cannot have."""


@dataclass(frozen=True, slots=True)
class Option:
    """Text that a person is told of a field, and values that it may have.

    name: the word for it where that is not the field's name without `n_`. metavar: what stands for its value.
    is_argument: it is given without its name. low, high: bounds of a number; open ones are not reached themselves.
    default_text: what it is when it is not given, where that is not one value.
    """

    help: str = ""
    name: str = ""
    metavar: str | None = None
    is_argument: bool = False
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    default_text: str | None = None


def told(**of_option: Any) -> dict[str, Option]:
    """The metadata of a field that must be given. of_option: the fields of its Option."""
    return {_KEY: Option(**of_option)}


def option(default: Any = MISSING, *, default_factory: Any = MISSING, **of_option: Any) -> Any:
    """A field of a job that has a default. of_option: the fields of its Option."""
    metadata = told(**of_option)
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def option_of(item: "Field[Any]") -> Option | None:
    """The Option of a dataclass's field; None where it is none."""
    found: Option | None = item.metadata.get(_KEY)
    return found


def word_of(item: "Field[Any]") -> str:
    """The word for a field: `n_epochs` is `epochs`."""
    found = option_of(item)
    return found.name if found is not None and found.name else item.name.removeprefix("n_")


@dataclass(frozen=True, kw_only=True)
class Job:
    """Base of all jobs. progress: who is told how far it is."""

    progress: Progress = field(default=PYTHON_WARNINGS, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Takes text where a path is meant."""
        hints = _hints(type(self))
        for item in fields(self):
            object.__setattr__(self, item.name, _with_paths(getattr(self, item.name), hints[item.name]))


def _with_paths(value: Any, hint: Any) -> Any:
    """The same value, as a path where text was given for one, and as the only one where there may be several."""
    if isinstance(value, str | Path) and get_origin(hint) is tuple:
        value = (value,)
    if isinstance(value, str) and Path in (hint, *get_args(hint)):
        return Path(value)
    if isinstance(value, list | tuple) and hint == tuple[Path, ...]:
        return tuple(map(Path, value))
    return value


@dataclass(frozen=True, kw_only=True)
class DecodingJob(Job):
    """A job that decodes images. workers: None = one for each core."""

    workers: int | None = option(None, low=0, default_text="the cores", help="Images decoded at once.")


@dataclass(frozen=True, kw_only=True)
class ComputingJob(DecodingJob):
    """A job that decodes and computes. threads: None = all cores."""

    device: str = option(
        "auto", metavar=FORM, help="Device to compute on; of several GPUs each searches a part, and the first embeds."
    )
    threads: int | None = option(None, default_text="all cores", help="CPU threads.")

    def __post_init__(self) -> None:
        """Raises LmrError for what cannot be a device; whether it is there is asked when it is needed."""
        super().__post_init__()
        parse_device(self.device)
        if self.threads is not None:
            require_threads(self.threads)


@dataclass(frozen=True, kw_only=True)
class WritingJob(Job):
    """A job with an output."""

    overwrite: bool = option(False, help="Replace what is there.")
    wait: bool = option(False, help="Wait for another run that writes the same output, instead of stopping.")


def part_of(hint: Any) -> type | None:
    """The dataclass that a field is, also where it may be None; None for a field that is a value."""
    return next((kind for kind in _kinds(hint) if isinstance(kind, type) and is_dataclass(kind)), None)


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def words_of(kind: type) -> Iterator[tuple[str, Any, "Field[Any]"]]:
    """The words that make a job: each with its type and its field, the job's own before those of all jobs."""
    hints = _hints(kind)
    own = [name for base in kind.__mro__ if base is not object for name in get_annotations(base)]
    by_name = {item.name: item for item in fields(cast(Any, kind))}
    for name in dict.fromkeys(own):
        if (item := by_name.get(name)) is None or not item.init:
            continue
        if option_of(item) is not None:
            yield word_of(item), hints[name], item
        elif (part := part_of(hints[name])) is not None:
            yield from words_of(part)


def settings_of(job: Any) -> "Iterator[tuple[Field[Any], Any]]":
    """The fields of a job and of its parts that a word gives, each with its value."""
    for item in fields(job):
        value = getattr(job, item.name)
        if option_of(item) is not None:
            yield item, value
        elif is_dataclass(value):
            yield from settings_of(value)


class _LateSignature(inspect.Signature):
    """The signature of a function of **words with the words of its job, whose module is imported when it is read."""

    def __init__(self, function: Callable[..., Any], module: str, job: str) -> None:
        self._own, self._module, self._job = inspect.signature(function), module, job

    @cached_property
    def _whole(self) -> inspect.Signature:
        return _with_words(self._own, getattr(import_module(self._module), self._job))

    @property
    def parameters(self) -> MappingProxyType[str, Parameter]:
        """The function's own parameters, and the words as keywords."""
        return self._whole.parameters

    @property
    def return_annotation(self) -> Any:
        """The type of what the function returns."""
        return self._whole.return_annotation

    def replace(self, **changes: Any) -> Any:
        """A copy with other parameters or another return_annotation."""
        return self._whole.replace(**changes)


def _with_words(signature: inspect.Signature, kind: type) -> inspect.Signature:
    shown = [item for item in signature.parameters.values() if item.kind is not Parameter.VAR_KEYWORD]
    own = {item.name for item in shown}
    for word, hint, item in words_of(kind):
        if word not in own:
            default = Parameter.empty if item.default is MISSING else item.default
            shown.append(Parameter(word, Parameter.KEYWORD_ONLY, default=default, annotation=hint))
    return signature.replace(parameters=shown)


def shows_words_of(module: str, job: str) -> Callable[[F], F]:
    """Decorator of a function of **words: its signature shows the words of a job of a module with their defaults.

    The module is imported when the signature is read, so that a function costs nothing before it is called.
    """

    def decorate(function: F) -> F:
        function.__signature__ = _LateSignature(function, module, job)  # type: ignore[attr-defined]
        return function

    return decorate


def words_from_text(kind: type, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The words of a job by values from TOML or as text, each converted as the command line does.

    where: for messages, the place of the values. Raises TypeError for a word that the job does not have,
    InvalidValueError for a value that cannot be one of it.
    """
    known = {word: (hint, item) for word, hint, item in words_of(kind)}
    found = {}
    for key, value in values.items():
        word = key.replace("-", "_")
        if word not in known:
            raise TypeError(_unknown(word, known, kind))
        try:
            found[word] = _converted(f"{where}{key}", value, *known[word])
        except ValueError as error:
            raise InvalidValueError(f"Invalid value for '`{word}`': {error}") from error
    return found


def _converted(key: str, value: Any, hint: Any, item: "Field[Any]") -> Any:
    if isinstance(value, dict):
        raise InvalidValueError(f"{key} is a table; give options as name = value")
    kind = next(kind for kind in _kinds(hint) if kind is not type(None))
    if kind is bool:
        if not isinstance(value, bool):
            raise InvalidValueError(f"{key} is true or false, got {value!r}")
        return value
    takes_many = get_origin(kind) is tuple
    if isinstance(value, list) and not takes_many:
        raise InvalidValueError(f"{key} takes one value, got {value!r}")
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, bool | list | dict) for part in parts):
        raise InvalidValueError(f"{key} takes text or a number, got {value!r}")
    if takes_many:
        return tuple(from_text(str(part), get_args(kind)[0], item) for part in parts)
    return from_text(str(value), kind, item)


def from_text(text: str, kind: Any, item: "Field[Any]") -> Any:
    """A value of a field from its text. Raises ValueError that says as the command line does why it cannot be."""
    told = option_of(item) or Option()
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            names = ", ".join(map(repr, get_args(kind)))
            raise ValueError(f"{text!r} is not one of {names}.")
        return text
    if kind not in (int, float):
        return kind(text)
    is_bounded = told.low is not None or told.high is not None
    name = {(int, False): "integer", (int, True): "integer range", (float, False): "float", (float, True): "number"}
    try:
        number = kind(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a valid {name[kind, is_bounded]}.") from error
    if is_bounded:
        _require_within(number, told)
    return number


def _require_within(number: float, told: Option) -> None:
    below = told.low is not None and (number < told.low or (told.low_open and number == told.low))
    above = told.high is not None and (number > told.high or (told.high_open and number == told.high))
    if below or above:
        least = "" if told.low is None else f"{told.low}{'<' if told.low_open else '<='}"
        most = "" if told.high is None else f"{'<' if told.high_open else '<='}{told.high}"
        if not most:
            least, most = "", f"{'>' if told.low_open else '>='}{told.low}"
        raise ValueError(f"{number} is not in the range {least}x{most}.")
    if math.isnan(number):
        raise ValueError(f"{number} is not a number")


def build(kind: Callable[..., J], words: Mapping[str, Any]) -> J:
    """The job of these words, of its own fields and those of its parts; what none of them says has its default.

    Raises TypeError for a word that the job does not have, InvalidValueError for a value that cannot be, by its word.
    """
    assert isinstance(kind, type)
    parts = {item.name for item in fields(cast(Any, kind)) if option_of(item) is None}
    known = {word for word, _, _ in words_of(kind)}
    for word in words:
        if word not in known | parts:
            raise TypeError(_unknown(word, known, kind))
    given = {name: value for name, value in words.items() if name in parts}
    built: J = _build(kind, {word: value for word, value in words.items() if word not in parts}, given)
    return built


def _unknown(word: str, known: Iterable[str], kind: type) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"{word} is no word of {kind.__name__}{f'; did you mean {close[0]}?' if close else ''}"


def _build(kind: type, words: Mapping[str, Any], parts: Mapping[str, Any]) -> Any:
    hints, values = _hints(kind), dict(parts)
    for item in fields(cast(Any, kind)):
        if item.name in values:
            continue
        if option_of(item) is not None:
            if word_of(item) in words:
                _require(words[word_of(item)], hints[item.name], item)
                values[item.name] = _with_paths(words[word_of(item)], hints[item.name])
        elif (part := part_of(hints[item.name])) is not None:
            own = {word: words[word] for word, _, _ in words_of(part) if word in words}
            if own:
                values[item.name] = _build(part, own, {})
    try:
        return kind(**values)
    except ValueError as error:  # which begins with the field's name
        name, _, problem = str(error).partition(" ")
        by_name = {item.name: word_of(item) for item in fields(cast(Any, kind))}
        raise InvalidValueError(f"`{by_name[name]}` {problem}" if name in by_name else str(error)) from error


def _require(value: Any, hint: Any, item: "Field[Any]") -> None:
    """Raises InvalidValueError for a value that is not of a field's type, not one of its choices, or out of bounds."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    told, word = option_of(item), word_of(item)
    assert told is not None
    if not any(_is_of(value, kind) for kind in kinds):
        choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
        names = [getattr(kind, "__name__", str(kind)) for kind in kinds if get_origin(kind) is not Literal]
        raise InvalidValueError(f"`{word}` must be {' or '.join(map(str, choices + names))}, got {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = told.low, told.high
        is_above = low is None or (value > low if told.low_open else value >= low)
        is_below = high is None or (value < high if told.high_open else value <= high)
        if not (is_above and is_below):
            bounds = [f"{'above' if told.low_open else 'at least'} {low:g}"] if low is not None else []
            bounds += [f"{'below' if told.high_open else 'at most'} {high:g}"] if high is not None else []
            raise InvalidValueError(f"`{word}` must be {' and '.join(bounds)}, got {value!r}")


def _is_of(value: Any, kind: Any) -> bool:
    """True for a value of a type of a field; types that are no choices, numbers, text or paths are left alone."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, str | Path)
    return isinstance(value, kind) if kind in (bool, str, type(None)) else True
