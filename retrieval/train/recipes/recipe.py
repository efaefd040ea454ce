"""Recipes: whole procedures as TOML files, whose keys are the options of the commands that carry them out.

A recipe has a table for each command, `[train]`, `[embed]`, `[build-index]`, `[calibrate]`; `[[stage]]` for stages of
training; `[[member]]` for the members of an ensemble; and `[answer]`, which says how images are answered.
"""

import difflib
import math
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from retrieval.errors import LmrError
from retrieval.words import counted

COMMANDS = ("train", "embed", "build-index", "calibrate")
NETWORK_KEYS = ("backbone", "backbone-option", "last-layer", "pretrained", "weights", "mean", "std")
_NETWORK_OF_EMBED = (*NETWORK_KEYS, "pooling", "gem-p", "dimensions", "prelu")  # for a network that nothing trained
AnswerBy = Literal["index", "nearest", "majority", "classifier"]
Combine = Literal["mean", "majority"]

Options = Mapping[str, Mapping[str, bool]]  # table -> option -> whether it takes several values


@dataclass(frozen=True, slots=True)
class Answering:
    """Way in which a system answers an image.

    by: `index`: the calibrated vote of its neighbours; `nearest`: the nearest of them; `majority`: the plain vote of
    the nearest `neighbours`; `classifier`: the most probable class of the network's own head.
    combine: of several members, `mean`: of their probabilities, or of the similarities of their descriptors;
    `majority`: of their answers, equal ones by the mean of their confidences.
    comparisons: images of the answered landmark that the image is compared with by local features; where none of them
    has `inliers` inliers of one geometry, the answer is withheld. 0 = no answer is.
    """

    by: AnswerBy = "index"
    combine: Combine = "mean"
    neighbours: int = 5
    comparisons: int = 0
    inliers: int = 35

    def __post_init__(self) -> None:
        for name, kind in (("by", AnswerBy), ("combine", Combine)):
            if getattr(self, name) not in get_args(kind):
                raise LmrError(f"{name} is one of {', '.join(get_args(kind))}, got {getattr(self, name)}")
        if not isinstance(self.neighbours, int) or self.neighbours < 1:
            raise LmrError(f"neighbours is a whole number from 1, got {self.neighbours}")
        for name, least in (("comparisons", 0), ("inliers", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise LmrError(f"{name} is a whole number from {least}, got {value}")
        if self.comparisons and self.by != "classifier":
            raise LmrError(f"comparisons are of answers by = classifier, not {self.by}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A procedure. source: where it was read from, for messages. about: one paragraph for people.

    tables: by name, `train`, `stage.1` and so on, each option -> value; without `train` nothing is trained.
    members: of each member of an ensemble, key -> value as an override has them; () = one member.
    """

    name: str
    source: str
    about: str
    tables: Mapping[str, Mapping[str, Any]]
    members: tuple[Mapping[str, Any], ...] = ()

    @property
    def answering(self) -> Answering:
        """The table `answer`. LmrError for values that cannot be, and a classifier that nothing trains."""
        try:
            answering = Answering(**self.tables.get("answer", {}))
        except LmrError as error:
            raise LmrError(f"{self.source}: [answer] {error}") from error
        if answering.by == "classifier" and "train" not in self.tables:
            raise LmrError(f"{self.source}: [answer] by = classifier needs training; add [train], or answer by index")
        return answering

    @property
    def stages(self) -> list[Mapping[str, Any]]:
        """The tables of the stages, in order."""
        return [values for name, values in self.tables.items() if name.startswith("stage.")]


def recipe_names() -> list[str]:
    """The recipes that are shipped."""
    return sorted(item.name.removesuffix(".toml") for item in _shipped().iterdir() if item.name.endswith(".toml"))


def read_recipe(name: str, options: Options) -> Recipe:
    """A recipe that is shipped, by name, or one in a TOML file, by path.

    options: what each table may hold, without `answer` and `stage`. LmrError: no such recipe, not TOML, an unknown
    table or key, with the right one.
    """
    path = Path(name)
    if path.suffix == ".toml":
        source, read = str(path), path.read_text
    elif name in recipe_names():
        source, read = f"recipe {name}", _shipped().joinpath(f"{name}.toml").read_text
    else:
        close = difflib.get_close_matches(name, recipe_names(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(recipe_names())}; or give a file.toml"
        raise LmrError(f"there is no recipe {name}; {hint}")
    try:
        given = tomllib.loads(read(encoding="utf-8"))
    except OSError as error:
        raise LmrError(f"{source}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LmrError(f"{source}: not TOML: {error}") from error
    return _check(_parse(path.stem, source, given), options)


def override(recipe: Recipe, values: Mapping[str, Any], options: Options) -> Recipe:
    """The recipe with values that `parse_values` read, for all its members alike.

    LmrError as of `change`, and for several values of an option that takes one.
    """
    for key in sorted(values, key=lambda name: name.rpartition(".")[2] != "by"):  # on it depends what others mean
        places = _places(recipe, key, options)
        if isinstance(values[key], list) and not all(_known(options, table).get(option) for table, option in places):
            raise LmrError(f"{recipe.source}: {key} is given {counted(len(values[key]), 'time')}; it takes one value")
        kept = tuple(_without(recipe, member, places, options) for member in recipe.members)
        recipe = change(replace(recipe, members=kept), {key: values[key]}, options)
    return recipe


def change(recipe: Recipe, values: Mapping[str, Any], options: Options) -> Recipe:
    """The recipe with other values; its members keep their own.

    A key without a table (`size`) changes wherever the recipe sets it, else where its first command that knows it is;
    one with a table (`embed.size`, `stage.1.epochs`) changes there. LmrError for a key that no command of it knows.
    """
    tables = {name: dict(table) for name, table in recipe.tables.items()}
    for key, value in values.items():
        for table, option in _places(recipe, key, options):
            tables.setdefault(table, {})[option] = value
    return _check(replace(recipe, tables=tables), options)


def on_network(recipe: Recipe, network: Mapping[str, Any]) -> Recipe:
    """The recipe on another network, its own and those of its members with all that belongs to them taken away.

    network: options of NETWORK_KEYS -> value. What was pretrained is, but where weights are given.
    """
    gone = set(NETWORK_KEYS) - ({"pretrained"} if "weights" not in network else set())

    def without(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key.rpartition(".")[2] not in gone}

    tables = {name: without(values) for name, values in recipe.tables.items()}
    first = "train" if "train" in tables else "embed"
    tables[first] = {**tables.get(first, {}), **network}
    return replace(recipe, tables=tables, members=tuple(without(values) for values in recipe.members))


def choices(recipe: Recipe, options: Options) -> dict[str, list[Any]]:
    """The keys for which the recipe gives a list to search, `table.key` -> values."""
    return {
        f"{table}.{key}": value
        for table, values in recipe.tables.items()
        for key, value in values.items()
        if isinstance(value, list) and _is_choice(value, _known(options, table).get(key, False))
    }


def settle(recipe: Recipe, options: Options) -> Recipe:
    """The recipe with the first value of each list."""
    return change(recipe, {key: values[0] for key, values in choices(recipe, options).items()}, options)


def draw(recipe: Recipe, options: Options, n: int, seed: int) -> list[dict[str, Any]]:
    """n different combinations of the listed values, key -> value, drawn by a seed; all of them where there are fewer.

    The first is that of the first values, which is what runs without a search.
    """
    lists = choices(recipe, options)
    n_all = math.prod(len(values) for values in lists.values())
    drawn = [0, *random.Random(seed).sample(range(1, n_all), min(n, n_all) - 1)]
    return [_combination(lists, number) for number in drawn]


def members(recipe: Recipe, seed: int, options: Options) -> list[Recipe]:
    """Each member of a recipe as a recipe of its own, with a seed that no other member or run has.

    LmrError when the recipe sets one itself.
    """
    n = max(1, len(recipe.members))
    found = []
    for i, values in enumerate(recipe.members or ({},)):
        member = change(recipe, values, options)
        if any("seed" in table for table in (member.tables.get("train", {}), *member.stages)):
            raise LmrError(f"{recipe.source}: seed: every run and member is trained with its own; give `seeds`")
        if "train" in member.tables:
            member = change(member, {"train.seed": seed * n + i}, options)
        found.append(replace(member, members=()))
    return found


def _shipped() -> Any:
    return files("retrieval.train.recipes")


def _parse(name: str, source: str, given: Mapping[str, Any]) -> Recipe:
    given = dict(given)
    about, stages, parts = given.pop("about", ""), given.pop("stage", []), given.pop("member", [])
    if not isinstance(about, str):
        raise LmrError(f"{source}: about is text for people, got {about!r}")
    for what, rows in (("stage", stages), ("member", parts)):
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise LmrError(f"{source}: {what} is a list of tables; write [[{what}]]")
    tables = {key: value for key, value in given.items() if isinstance(value, dict)}
    for key in given.keys() - tables.keys():
        raise LmrError(f"{source}: {key} stands in no table; put it under [train], [embed] or another command")
    tables |= {f"stage.{i}": stage for i, stage in enumerate(stages, start=1)}
    plain = {table: {key.replace("_", "-"): v for key, v in values.items()} for table, values in tables.items()}
    return Recipe(name, source, about.strip(), plain, tuple(parts))


def _check(recipe: Recipe, options: Options) -> Recipe:
    """The recipe itself. LmrError for a table or key that no command knows, naming the right one."""
    for table, values in recipe.tables.items():
        if table not in (*COMMANDS, "answer") and not table.startswith("stage."):
            close = difflib.get_close_matches(table, [*COMMANDS, "answer", "stage", "member"], n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(COMMANDS)}, answer, stage, member"
            raise LmrError(f"{recipe.source}: [{table}] is no table of a recipe; {hint}")
        known = _known(options, table)
        for key, value in values.items():
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
                what = "a key" if table == "answer" else f"an option of lmr {table.partition('.')[0]}"
                what = what.replace("lmr stage", "lmr train")
                raise LmrError(f"{recipe.source}: [{table}] {key} is not {what}; {hint}")
            if isinstance(value, dict):
                raise LmrError(f"{recipe.source}: [{table}] {key} is a table; give options as name = value")
            if value == []:
                raise LmrError(f"{recipe.source}: [{table}] {key} is an empty list; give values to choose from")
    for key in recipe.tables.get("embed", {}):
        if "train" in recipe.tables and key in _NETWORK_OF_EMBED:
            raise LmrError(f"{recipe.source}: [embed] {key}: the network is the one of [train]; set it there")
    if recipe.stages and "train" not in recipe.tables:
        raise LmrError(f"{recipe.source}: it has stages, but no [train]; add that table, empty or not")
    return recipe


def _known(options: Options, table: str) -> Mapping[str, bool]:
    if table == "answer":
        return {field.name: False for field in fields(Answering)}
    if table.startswith("stage."):
        return {**options["train"], "data": False}  # a stage may have a manifest of its own
    return options[table]


def _places(recipe: Recipe, key: str, options: Options) -> list[tuple[str, str]]:
    """The tables and their option that a key stands for, with a table (`embed.size`) or without (`size`)."""
    table, _, name = key.rpartition(".")
    option = name.replace("_", "-")
    if table and table not in recipe.tables and table not in (*COMMANDS, "answer"):
        raise LmrError(f"{recipe.source}: {key}: it has no [{table}]; its tables are {', '.join(recipe.tables)}")
    if table:
        return [(table, option)]
    there = [(table, option) for table, values in recipe.tables.items() if option in values]
    if there:
        return there
    by_index = recipe.tables.get("answer", {}).get("by", "index") != "classifier"
    tables = [t for t in (*COMMANDS, "answer") if t in recipe.tables or (by_index and t != "train")]
    for table in tables:
        if option in _known(options, table):
            return [(table, option)]
    known = sorted({name for table in tables for name in _known(options, table)})
    close = difflib.get_close_matches(option, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    raise LmrError(f"{recipe.source}: {option} is not an option of {', '.join(tables)}; {hint}")


def _without(
    recipe: Recipe, member: Mapping[str, Any], places: list[tuple[str, str]], options: Options
) -> dict[str, Any]:
    """The values that a member sets elsewhere than in these places."""
    left: dict[str, Any] = {}
    for key, value in member.items():
        own = _places(recipe, key, options)
        others = [place for place in own if place not in places]
        left |= {key: value} if others == own else {f"{table}.{option}": value for table, option in others}
    return left


def _is_choice(value: list[Any], takes_many: bool) -> bool:
    """True for a list to choose from; of an option that takes several values that is a list of lists."""
    return not takes_many or all(isinstance(item, list) for item in value)


def _combination(lists: Mapping[str, list[Any]], number: int) -> dict[str, Any]:
    """Combination `number` in the order of counting, the last key fastest."""
    found = {}
    for key, values in reversed(list(lists.items())):
        number, i = divmod(number, len(values))
        found[key] = values[i]
    return dict(reversed(list(found.items())))
