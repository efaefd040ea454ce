"""Which systems a comparison makes: recipes with their overrides, checked against the options of the commands."""

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cli.compare.data import ComparisonData
from cli.main import COMMANDS
from cli.options import given_options, long_name, read_stages
from retrieval.errors import LmrError
from retrieval.jobs import build, words_of
from retrieval.models.request import DescriptionRequest, NetworkRequest
from retrieval.train.recipe import COMMANDS as STEPS
from retrieval.train.recipe import (
    NETWORK_KEYS,
    Options,
    Recipe,
    change,
    choices,
    members,
    on_network,
    override,
    parse_spec,
    read_recipe,
    settle,
    texts,
    to_toml,
)

# What a comparison gives the commands itself.
_OWN = {"manifest", "stores", "queries", "output", "model", "images", "index", "store", "config", "device"}
_OWN |= {
    "threads",
    "workers",
    "overwrite",
    "wait",
    "json",
    "retry-unreadable",
    "check",
    "summary",
    "show-batch",
    "find-rate",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One system of a comparison. label: as it was asked for. recipe: with all overrides."""

    label: str
    recipe: Recipe


def step_command(step: str) -> click.Command:
    """The command that a table of a recipe is for."""
    command: click.Command = importlib.import_module(COMMANDS[step][0]).command
    return command


def step_options() -> Options:
    """The options that each table of a recipe may set, and whether they take several values."""
    return {
        step: {
            long_name(option): bool(getattr(option, "multiple", False))
            for option in step_command(step).params
            if long_name(option) not in _OWN
        }
        for step in STEPS
    }


def read_entries(specs: Sequence[str], changes: Mapping[str, Any], options: Options) -> list[Entry]:
    """The systems that are asked for, as RECIPE or RECIPE:KEY=VALUE,… each.

    changes: key -> value for all of them that know the key. LmrError: no such recipe, a key that none of them knows, a
    value that cannot be, the same system twice.
    """
    network = {key: value for key, value in changes.items() if key in NETWORK_KEYS} if "backbone" in changes else {}
    others = {key: value for key, value in changes.items() if key not in network}
    refusals: dict[str, list[LmrError]] = {key: [] for key in others}
    entries: list[Entry] = []
    for spec, recipe, values in _read_recipes(specs, options):
        recipe = override(recipe, values, options)
        for key, value in others.items():
            try:
                recipe = override(recipe, {key: value}, options)
            except LmrError as error:
                refusals[key].append(error)
        recipe = override(recipe, values, options)  # again, since what one recipe is told outweighs what all are told
        if network:
            recipe = on_network(recipe, network)
        for values in ({}, *_further_values(recipe, options)):
            parts = members(settle(change(recipe, values, options), options), 0, options)
            for member in parts:
                require_values(member)
            _require_alike(parts)
        entries.append(Entry(spec, recipe))
    for errors in refusals.values():
        if len(errors) == len(entries):
            raise errors[0]
    return entries


def _read_recipes(specs: Sequence[str], options: Options) -> list[tuple[str, Recipe, dict[str, Any]]]:
    """Each as it is shipped or lies there, with what it is told; all are read before one is looked at closely."""
    found: list[tuple[str, Recipe, dict[str, Any]]] = []
    for spec in specs:
        if spec in [other for other, *_ in found]:
            raise LmrError(f"{spec} is asked for twice")
        name, values = parse_spec(spec)
        found.append((spec, read_recipe(name, options), values))
    return found


def left_out(data: ComparisonData, recipe: Recipe) -> list[str]:
    """The manifests of non-landmarks that a recipe names and the data does not have; it goes on without them."""
    named: set[str] = set()
    for table in recipe.tables.values():
        for value in (table.get("negatives", []), table.get("background", [])):
            named |= set(texts(value))
    return sorted(name for name in named if data.find(name) is None)


def require_values(recipe: Recipe) -> None:
    """LmrError where a command would not take the values that a recipe without lists has for it."""
    _ = recipe.answering
    with tempfile.TemporaryDirectory() as scratch:
        for step in STEPS:
            if step not in recipe.tables:
                continue
            path = Path(scratch) / f"{step}.toml"
            path.write_text(to_toml(recipe.tables[step], recipe.stages if step == "train" else ()), encoding="utf-8")
            try:
                _require_values(step, path)
            except LmrError as error:
                text = str(error).replace(f"--config {path}: ", f"[{step}] ")
                raise LmrError(f"{recipe.source}: {text}") from error
            except click.UsageError as error:
                raise LmrError(f"{recipe.source}: [{step}] {error.format_message()}") from error


def _require_alike(parts: Sequence[Recipe]) -> None:
    """LmrError where members whose mean is taken answer in different ways, or through different indexes."""
    first = parts[0]
    if first.answering.combine == "majority":
        return
    if any(member.answering != first.answering for member in parts):
        raise LmrError(f"{first.source}: [answer] is of all members, as their mean is taken; set it for all")
    if first.answering.by == "classifier":
        return
    for table in ("build-index", "calibrate", "answer"):
        if any(member.tables.get(table) != first.tables.get(table) for member in parts):
            raise LmrError(f"{first.source}: [{table}] is of all members, as their mean is one index; set it for all")


def parse_step(step: str, config: Path) -> dict[str, Any]:
    """What a command makes of a configuration: its parameters by name."""
    return _context(step, config).params


def given_words(step: str, config: Path, kind: type) -> dict[str, Any]:
    """The words of a job, or of a part of one, that a configuration of a command gives."""
    return _given(_context(step, config), kind)


def _further_values(recipe: Recipe, options: Options) -> list[dict[str, Any]]:
    """Each value of each list but its first, which is what runs without a search."""
    return [{key: value} for key, values in choices(recipe, options).items() for value in values[1:]]


def _require_values(step: str, config: Path) -> None:
    """LmrError for values that have the right form, but that the command could not use."""
    from index.folder.config import BuildOptions
    from retrieval.train.job import TrainJob, training_job

    context = _context(step, config)
    if step == "embed":
        asked = _given(context, NetworkRequest)
        if asked.get("backbone"):
            build(NetworkRequest, asked).require()
        build(DescriptionRequest, _given(context, DescriptionRequest)).description()
    if step == "build-index":
        known = {word for word, _, _ in words_of(BuildOptions)}
        build(BuildOptions, {word: value for word, value in context.params.items() if word in known})
    if step == "train":
        with context:
            stages = read_stages()
        job = training_job(_given(context, TrainJob), stages)
        job.network.require()
        for training in (stage.training for stage in job.stages):
            if training.patience and job.val is None:
                raise LmrError(f"`patience` {training.patience} needs `val`, the pictures that tell a better epoch")


def _given(context: click.Context, kind: type) -> dict[str, Any]:
    """The words of a job that a command was given."""
    with context:
        given = given_options()
    return {word: context.params[word] for word, _, _ in words_of(kind) if word in given}


def _context(step: str, config: Path) -> click.Context:
    command = step_command(step)
    required = ["-" for parameter in command.params if isinstance(parameter, click.Argument) and parameter.required]
    return command.make_context(step, [*required, "--config", str(config)])
