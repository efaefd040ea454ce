"""lmr compare: recipes, trained and scored on the same data, in one table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import PATH, device_option, images_option, json_option, overwrite_option, warn, workers_option, writes
from cli.terminal import say, say_result
from retrieval.errors import LmrError
from retrieval.extras import install_hint, missing

if TYPE_CHECKING:
    from cli.compare.plan import Entry
    from cli.compare.results import Row
    from cli.compare.workshop import Workshop
    from retrieval.train.recipe import Options, Recipe

BASELINES = {
    "random": "Landmarks at random, with random certainty.",
    "most frequent": "The landmark with the most training pictures, whatever the picture shows.",
}
PRECISION = 0.95  # of the answers of baselines, as the default of lmr calibrate


@click.command(name="compare")
@click.argument("recipes", nargs=-1, required=False)
@click.option("--data", type=PATH, default=Path(), help="Folder with train.csv, val.csv and more. [default: this one]")
@click.option("--output", type=PATH, default=Path("compare"), show_default=True, help="Folder to work and report in.")
@click.option("--part", type=click.Choice(["val", "test"]), default="val", show_default=True, help="What is scored.")
@click.option("--solution", type=PATH, default=None, help="Answers to test. [default: test_solution.csv]")
@click.option("--seeds", default="0", show_default=True, metavar="N,N,...", help="Of training; each is a run.")
@click.option("--search", type=click.IntRange(0), default=0, help="Combinations of listed values to try on val.")
@click.option("--backbone", default=None, help="Network for all recipes, in place of their own.")
@click.option("--weights", type=PATH, default=None, help="State dict for --backbone.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Override in all recipes; may be repeated.")
@click.option("--list", "list_only", is_flag=True, help="Tell the recipes that are shipped, and end.")
@images_option
@json_option
@workers_option
@device_option
@overwrite_option
@writes(lambda given: [] if given["list_only"] or not given["recipes"] else [given["output"]])
def command(recipes: tuple[str, ...], list_only: bool, **values: Any) -> None:
    """Train and score RECIPES on the same data, and put them into one table.

    A recipe is a shipped one by name, or a TOML file; overrides follow a colon. Settings are compared on val; --part
    test scores test, with all that is fitted afterwards fitted on val. What is finished is kept in --output, and the
    same command goes on where it was.

    \b
    Example:
      lmr compare knn-imagenet arcface --data parts
      lmr compare slides:backbone=resnet101,optimizer=rmsprop kapoor --data parts --seeds 0,1,2
    """
    from cli.compare.plan import step_options
    from retrieval.train.recipe import read_recipe, recipe_names

    options = step_options()
    if list_only:
        for name in recipe_names():
            say(f"{name:26}{read_recipe(name, options).about.splitlines()[0]}")
        return
    if not recipes:
        raise click.UsageError("give RECIPES, or --list to see which there are")
    compare(recipes, options, values)


def compare(recipes: Sequence[str], options: "Options", values: dict[str, Any]) -> None:
    """Makes and scores the systems and writes comparison-PART.csv, -landmarks.csv, .json and .html."""
    from cli.compare.data import read_data, read_queries
    from cli.compare.plan import left_out, read_entries
    from cli.compare.results import landmarks_to_csv, to_csv, to_json, to_text
    from cli.compare.running import require_files
    from cli.compare.workshop import Workshop
    from retrieval.files.atomic import write_text

    seeds = _parse_seeds(values["seeds"])
    changes = _changes(values)
    values = values | _own_changes(changes)
    entries = read_entries(recipes, changes, options)
    part, output = values["part"], values["output"]
    data = read_data(values["data"], values["images"], test=part == "test", solution=values["solution"])
    queries = {name: read_queries(data, name) for name in data.parts}
    for entry in entries:
        for name in left_out(data, entry.recipe):
            warn(f"{entry.label}: {data.folder} has no {name}; made without it")
    if output.exists() and not output.is_dir():
        raise LmrError(f"--output {output} is a file; give a folder")
    if missing("jinja2", "matplotlib"):
        warn(f"the tables alone are written: the HTML report needs {install_hint('report')}")
    output.mkdir(parents=True, exist_ok=True)
    shop = Workshop(data, queries, output, values)
    for entry in entries:
        require_files(shop, entry, options)
    rows = [_row(shop, entry, options, seeds, values) for entry in entries] + _baselines(shop, part)
    facts = {
        "part": part,
        "manifest": str(data.parts[part]),
        "seeds": seeds,
        "n_queries": len(queries[part][2]),
        "n_landmark_queries": int(queries[part][2].truths.known.sum()),
        "n_train": int(data.counts.sum()),
        "n_landmarks": len(data.landmarks),
    }
    content = to_json(rows, facts)
    write_text(output / f"comparison-{part}.csv", [to_csv(rows)])
    write_text(output / f"comparison-{part}-landmarks.csv", [landmarks_to_csv(rows)])
    write_text(output / f"comparison-{part}.json", [json.dumps(content, indent=1, default=str), "\n"])
    _report(output / f"comparison-{part}.html", rows, facts)
    say_result(content, to_text(rows), as_json=values["as_json"], default=str)


def _row(shop: "Workshop", entry: "Entry", options: "Options", seeds: list[int], values: dict[str, Any]) -> "Row":
    """One system with all its seeds, after the search where one is asked for."""
    from cli.compare.results import Row, Run
    from cli.compare.running import make_system
    from index.compare.measure import measure
    from retrieval.train.recipe import members, settle

    recipe = entry.recipe
    tried: list[dict[str, Any]] = []
    if values["search"]:
        recipe, tried = _search(shop, entry, options, seeds[0], values["search"])
    settled = settle(recipe, options)
    runs = []
    for seed in seeds:
        warn(f"{entry.label}, seed {seed}")
        parts = members(settled, seed, options)
        made = make_system(shop, entry.label, parts, values["part"])
        asked = shop.queries[values["part"]][2]
        runs.append(Run(seed, measure(made.answered, asked), made.facts, made.logs))
        if all("train" not in member.tables for member in parts):
            break  # without training every seed is the same
    return Row(entry.label, settled.about, runs, settled, tried)


def _search(
    shop: "Workshop", entry: "Entry", options: "Options", seed: int, n: int
) -> "tuple[Recipe, list[dict[str, Any]]]":
    """The recipe with the combination of listed values that has the largest GAP on val, and all that were tried."""
    from cli.compare.running import make_system
    from index.compare.measure import measure
    from retrieval.train.recipe import change, choices, draw, members

    if not choices(entry.recipe, options):
        return entry.recipe, []
    tried: list[dict[str, Any]] = []
    for values in draw(entry.recipe, options, n, seed):
        told = ", ".join(f"{key} = {value}" for key, value in values.items())
        warn(f"{entry.label}: {told}")
        recipe = change(entry.recipe, values, options)
        made = make_system(shop, entry.label, members(recipe, seed, options), "val")
        tried.append({"values": values, "gap": measure(made.answered, shop.queries["val"][2]).accuracy.gap})
    best = max(tried, key=lambda trial: trial["gap"])
    return change(entry.recipe, best["values"], options), tried


def _baselines(shop: "Workshop", part: str) -> "list[Row]":
    """What answers without looking."""
    from cli.compare.results import Row, Run
    from index.compare.measure import measure
    from index.compare.systems import Chance, answers_of

    val, asked = shop.queries["val"][2], shop.queries[part][2]
    rows = []
    for by, about in BASELINES.items():
        system = Chance(shop.data.counts, "random" if by == "random" else "most frequent", PRECISION)
        answered = answers_of(system, val, asked if part == "test" else None)
        rows.append(Row(by, about, [Run(0, measure(answered, asked), {})]))
    return rows


def _report(path: Path, rows: "Sequence[Row]", facts: dict[str, Any]) -> None:
    """The HTML report; without the extra that draws it, a line that says so."""
    from cli.report.comparison import write_comparison

    try:
        write_comparison(path, rows, facts)
    except LmrError as error:
        warn(f"no report: {error}")
    else:
        warn(f"{path}: report written")


def _changes(values: dict[str, Any]) -> dict[str, Any]:
    """Overrides for all recipes."""
    from retrieval.train.recipe import parse_values

    changes = parse_values("--set", values["changes"])
    if values["weights"] is not None:
        if not values["weights"].is_file():
            raise LmrError(f"--weights {values['weights']}: there is no such file")
        changes["weights"] = str(values["weights"].resolve())
    if values["backbone"] is not None:
        changes["backbone"] = values["backbone"]
    return changes


def _own_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """Takes from the overrides what is an option of the comparison itself. LmrError for what that would not take."""
    taken = {}
    for option in command.params:
        if option.name in ("workers", "threads", "device") and option.name in changes:
            value = changes.pop(option.name)
            try:
                taken[option.name] = option.process_value(click.Context(command), value)  # with the option's own check
            except click.UsageError as error:
                raise LmrError(f"--set {option.name}={value}: {error.message}") from error
    return taken


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise LmrError(f"--seeds {text}: expected different numbers from 0 with commas, such as 0,1,2")
    return seeds
