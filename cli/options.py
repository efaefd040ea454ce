"""Options: those that a command's job is made of, and those that several commands share."""

import functools
import math
from collections.abc import Callable, Container
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import click
from click.core import ParameterSource

from cli.config_file import PATH, STAGE_NAMES, config_option
from cli.terminal import with_options
from retrieval.errors import WordsError
from retrieval.jobs import Option, option_of, words_of

F = TypeVar("F", bound=Callable[..., Any])


class Share(click.FloatRange):
    """A number between two bounds; not-a-number is none."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Does as click, which lets NaN pass."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


def allow_disjoint_option(command: F) -> F:
    """--allow-disjoint, where the labels of two files are compared."""
    return click.option(
        "--allow-disjoint",
        is_flag=True,
        help="Go on where the labels of the two sides have nothing in common, or would if they were spelt alike.",
    )(command)


def json_option(command: F) -> F:
    """--json, one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def given_options() -> frozenset[str]:
    """The parameters that the command line or --config gave to the command that runs."""
    context = click.get_current_context()
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source not in (None, ParameterSource.DEFAULT))


def _note_overwrite(ctx: click.Context, _: click.Parameter, overwrite: bool) -> bool:
    """For the message after Ctrl-C: a command that overwrites does not go on, it begins anew."""
    ctx.meta["overwrite"] = overwrite
    return overwrite


def job_options(
    *kinds: type, but: Container[str] = (), stage_words: AbstractSet[str] = frozenset()
) -> Callable[[F], F]:
    """The arguments and options that a job is made of, and --config; the command gets the words that were given.

    kinds: the job, or those of which the command runs one; a word of several is the first one's. but: words that this
    command has no option for. stage_words: those that each [[stage]] of --config may give anew; `read_stages` gives
    them.
    """
    first = {word: (word, hint, item) for kind in reversed(kinds) for word, hint, item in words_of(kind)}
    order = dict.fromkeys(word for kind in kinds for word, _, _ in words_of(kind))
    words = [first[word] for word in order if word not in but]
    stage_keys = {STAGE_NAMES.get(word, word).replace("_", "-") for word in stage_words}

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_words(**values: Any) -> Any:
            given = given_options()
            own = {word for word, _, _ in words}
            try:
                return command(**{name: value for name, value in values.items() if name not in own or name in given})
            except WordsError as error:
                raise click.UsageError(with_options(str(error))) from error

        wrapped: Any = config_option(stage_keys)(with_words)
        for word, hint, item in reversed(words):
            wrapped = _job_parameter(word, hint, item)(wrapped)
        return cast(F, wrapped)

    return decorate


def _job_parameter(word: str, hint: Any, item: "Field[Any]") -> Callable[[F], F]:
    """One option or argument of a job."""
    told = option_of(item)
    assert told is not None
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kind = next(kind for kind in kinds if kind is not type(None))
    is_many = get_origin(kind) is tuple
    kind = get_args(kind)[0] if is_many else kind
    if told.is_argument:
        is_needed = default is MISSING
        given: dict[str, Any] = {} if is_needed or is_many else {"default": default}
        return click.argument(
            word,
            type=_click_type(kind, told),
            nargs=-1 if is_many else 1,
            required=is_needed,
            metavar=told.metavar,
            **given,
        )
    name, text = _option_name(word), told.help
    if told.default_text is not None:
        text += f" [default: {told.default_text}]"
    text = with_options(text)
    if default is MISSING:
        return click.option(name, word, type=_click_type(kind, told), required=True, metavar=told.metavar, help=text)
    if kind is bool:
        noted = _note_overwrite if word == "overwrite" else None
        name = f"{name}/--no-{name.removeprefix('--')}" if default is None else name  # where None is a third answer
        return click.option(name, word, is_flag=True, default=default, help=text, callback=noted)
    return click.option(
        name,
        word,
        type=_click_type(kind, told),
        default=default,
        show_default=told.default_text is None and default is not None and not is_many,
        multiple=is_many,
        metavar=told.metavar,
        help=text,
    )


def _click_type(kind: Any, told: Option) -> Any:
    """Type that turns the text of an option into a value of this type, within the bounds of the option."""
    bounds: dict[str, Any] = {"min": told.low, "max": told.high, "min_open": told.low_open, "max_open": told.high_open}
    is_bounded = told.low is not None or told.high is not None
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is int and is_bounded:
        return click.IntRange(**bounds)
    if kind is float and is_bounded:
        return Share(**bounds)
    return PATH if kind is Path else kind


def _option_name(field: str) -> str:
    return "--" + field.removeprefix("n_").replace("_", "-")
