"""Keyword arguments of lmr's functions: for type checkers the words of the jobs, all of them and of the same types."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Union, get_args, get_type_hints

import pytest

import lmr
from index import keywords
from index.asking.job import AskJob, ExplainAskJob
from index.serving.config import SearchJob
from retrieval.jobs import build, option_of, words_of
from retrieval.models.request import SummaryJob
from retrieval.train.job import STAGE_WORDS, TrainJob

ROOT = Path(__file__).parents[1]
FUNCTIONS = {name: getattr(lmr, name) for name in lmr.__all__ if inspect.isfunction(getattr(lmr, name))}
KEYWORDS = {
    name: found[1]
    for name, function in FUNCTIONS.items()
    if (found := re.fullmatch(r"Unpack\[keywords\.(\w+)\]", str(function.__annotations__.get("words"))))
}
SNIPPET = """
import lmr

lmr.embed("t.csv", model="m", output="t.h5", flip=True, batch_size=8, backbone_option=("a=1",))
lmr.train("t.csv", epochs=2, loss="cosface", stages=[{"size": 112, "epochs": 1}])
lmr.build_index(["t.h5"], dimensions=4)
lmr.summarise(backbone="plain-cnn")
lmr.first_batch("t.csv", batch_size=8)
lmr.train("t.csv", epochs="x")
lmr.train("t.csv", stages=[{"workers": 1}])
lmr.find_rate("t.csv", loss="arcfase")
lmr.embed("t.csv", epochs=8)
lmr.build_index(dimensions="4")
lmr.ensemble(["a", "b"])
lmr.summarise(size="64")
"""
WRONG = {  # line of the snippet: kind of error
    "9": "arg-type",
    "10": "typeddict-unknown-key",
    "11": "arg-type",
    "12": "call-arg",
    "13": "arg-type",
    "14": "call-arg",
    "15": "arg-type",
}


JOBS = {
    node.args[1].value: node.args[0].value
    for node in ast.walk(ast.parse(inspect.getsource(lmr)))
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "shows_words_of"
}


def job_of(name: str) -> type:
    """The job of a function, by the name of its keywords."""
    job = name.replace("Words", "Job")
    return TrainJob if job == "TrainJob" else getattr(import_module(JOBS[job]), job)


def expected(hint: Any) -> Any:
    """The type of a keyword by that of its field: text does for a path, any sequence for paths."""
    if hint == tuple[Path, ...]:
        return Sequence[keywords.Place]
    kinds = get_args(hint) if type(None) in get_args(hint) else (hint,)
    return Union[tuple(keywords.Place if kind is Path else kind for kind in kinds)]  # noqa: UP007


def as_text(value: Any) -> str:
    """A default as it is shown: paths are texts."""
    return str(tuple(map(str, value))) if isinstance(value, tuple) else str(value)


def words_with_types(kind: type) -> dict[str, Any]:
    """The words of a job, and the parts that may be given whole, each with its type as a keyword."""
    found = {word: expected(hint) for word, hint, _ in words_of(kind)}
    hints = get_type_hints(kind)
    parts = {item.name: hints[item.name] for item in fields(kind) if item.init and option_of(item) is None}
    return found | {name: hint for name, hint in parts.items() if name != "later"}


@pytest.mark.parametrize("name", KEYWORDS)
def test_keywords_of_a_function_are_the_words_of_its_job_with_their_types(name: str) -> None:
    kind, typed = job_of(KEYWORDS[name]), getattr(keywords, KEYWORDS[name])
    positional = [
        item.name
        for item in inspect.signature(FUNCTIONS[name]).parameters.values()
        if item.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    wanted = {word: hint for word, hint in words_with_types(kind).items() if word not in positional}
    assert get_type_hints(typed) == wanted
    needed = {item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING}
    assert typed.__required_keys__ == needed - set(positional)


@pytest.mark.parametrize("name", KEYWORDS)
def test_arguments_of_a_function_have_the_types_and_defaults_of_its_job(name: str) -> None:
    kind = job_of(KEYWORDS[name])
    hints = words_with_types(kind)
    defaults = {item.name: item.default for item in fields(kind)}
    for item in inspect.signature(FUNCTIONS[name]).parameters.values():
        if item.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            if item.default is inspect.Parameter.empty:
                assert defaults[item.name] is MISSING
            else:
                assert str(item.default) == as_text(defaults[item.name])
            annotation = item.annotation
            if isinstance(annotation, str):
                annotation = eval(annotation, {**vars(keywords), **vars(lmr), "Part": hints.get("tars")})
            assert annotation == (Sequence[str] if item.name in ("recipes", "ids") else hints[item.name])


def test_words_of_a_stage_are_typed_too() -> None:
    hints = words_with_types(TrainJob)
    assert get_type_hints(keywords.StageWords) == {word: hints[word] for word in STAGE_WORDS}


@pytest.mark.parametrize("kind", [AskJob, ExplainAskJob, SearchJob])
def test_keywords_of_an_opened_index_are_the_words_of_its_jobs_with_their_types(kind: type) -> None:
    assert get_type_hints(getattr(keywords, kind.__name__.replace("Job", "Words"))) == words_with_types(kind)


def test_no_function_takes_words_without_types() -> None:
    untyped = [
        name
        for name, function in FUNCTIONS.items()
        if any(kind is Any or kind == "Any" for kind in function.__annotations__.values())
        or ("words" in function.__annotations__ and name not in KEYWORDS)
    ]
    assert untyped == []


@pytest.mark.parametrize("name", sorted(KEYWORDS.keys() - {"train", "find_rate", "first_batch"}))
def test_help_shows_the_words_of_a_function_with_their_defaults(name: str) -> None:
    shown = inspect.signature(FUNCTIONS[name]).parameters
    for word, _, item in words_of(job_of(KEYWORDS[name])):
        default = shown[word].default
        assert (
            default is inspect.Parameter.empty if item.default is MISSING else as_text(default) == as_text(item.default)
        )


def test_values_are_neither_too_many_nor_given_twice() -> None:
    stats: Callable[..., Any] = lmr.stats
    with pytest.raises(TypeError, match=r"takes 1 positional argument but 2 were given"):
        stats("a.csv", "b.csv")
    with pytest.raises(TypeError, match=r"multiple values for argument 'manifest'"):
        stats("a.csv", manifest="b.csv")


def test_mypy_knows_each_keyword_and_its_type(tmp_path: Path) -> None:
    place = tmp_path / "snippet.py"
    place.write_text(SNIPPET)
    read = (place, "lmr.py", "index/keywords.py", "retrieval/jobs.py", "retrieval/train/loss_config.py")  # others: Any
    mypy = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file=",
        "--follow-imports=skip",
        f"--cache-dir={tmp_path / 'cache'}",
    ]
    shown = subprocess.run([*mypy, *read], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    found = dict(re.findall(r"snippet\.py:(\d+): error: .*\[([\w-]+)\]", shown))
    assert found == WRONG, shown


def test_text_does_for_a_path_in_a_part_too() -> None:
    assert build(SummaryJob, {"weights": "w.pth"}).network.weights == Path("w.pth")
