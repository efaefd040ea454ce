"""Values of recipes are converted as the command line converts what is typed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import pytest

from cli.options import job_options
from cli.terminal import with_options
from retrieval.errors import LmrError
from retrieval.jobs import Job, option, words_from_text


@dataclass(frozen=True, kw_only=True)
class Jobs(Job):
    n_steps: int = option(1)
    side: int | None = option(None, low=16, high=64)
    workers: int | None = option(None, low=0)
    rate: float = option(0.5)
    share: float = option(0.5, low=0, high=1, low_open=True)
    part: float = option(0.5, low=0)
    by: Literal["index", "nearest"] = option("index")
    place: Path | None = option(None)
    teacher: tuple[Path, ...] = option(())
    name: str = option("")


def typed(word: str, text: str) -> Any:
    """What the command line makes of an option's text; its message where it refuses it."""

    @click.command()
    @job_options(Jobs)
    def command(**words: Any) -> Any:
        return words[word]

    try:
        return command.main([f"--{word}", text], standalone_mode=False)
    except click.UsageError as error:
        return error.format_message()


@pytest.mark.parametrize(
    ("word", "texts"),
    [
        ("steps", ("7", "-7", "1.5", "x", "")),
        ("side", ("16", "64", "15", "65", "x", "nan")),
        ("workers", ("0", "-1", "many")),
        ("rate", ("1e-3", "nan", "x")),
        ("share", ("1", "0", "0.1", "1.1", "nan", "x")),
        ("part", ("0", "-1", "inf", "nan")),
        ("by", ("index", "Index", "x")),
        ("place", ("a/b", "")),
        ("teacher", ("a.h5",)),
        ("name", ("", "x")),
    ],
)
def test_a_text_becomes_the_value_or_the_message_of_the_command_line(word: str, texts: tuple[str, ...]) -> None:
    for text in texts:
        try:
            found = words_from_text(Jobs, {word: text})[word]
        except LmrError as error:
            found = with_options(str(error))
        assert repr(found) == repr(typed(word, text))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"by": ["index"]}, "by takes one value, got ['index']"),
        ({"steps": True}, "steps takes text or a number, got True"),
        ({"teacher": [["a"]]}, "teacher takes text or a number, got [['a']]"),
        ({"side": {"a": 1}}, "side is a table; give options as name = value"),
    ],
)
def test_what_no_text_is_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LmrError) as caught:
        words_from_text(Jobs, values)
    assert str(caught.value) == message


def test_a_misspelt_word_names_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"^shre is no word of Jobs; did you mean share\?$"):
        words_from_text(Jobs, {"shre": 1})
