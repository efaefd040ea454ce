"""lmr compare: recipes, trained and scored on the same data, in one table."""

from typing import TYPE_CHECKING, Any

import click

from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import say, say_result, warn
from index.compare.job import CompareJob
from retrieval.errors import LmrError
from retrieval.extras import install_hint, missing

if TYPE_CHECKING:
    from index.compare.results import Comparison


@click.command(name="compare")
@click.argument("recipes", nargs=-1, required=False)
@job_options(CompareJob, but=("recipes",))
@click.option("--list", "list_only", is_flag=True, help="Tell the recipes that are shipped, and end.")
@json_option
def command(recipes: tuple[str, ...], list_only: bool, as_json: bool, **words: Any) -> None:
    """Train and score RECIPES on the same data, and put them into one table.

    A recipe is a shipped one by name, or a TOML file; overrides follow a colon. Settings are compared on val; --part
    test scores test, with all that is fitted afterwards fitted on val. What is finished is kept in --output, and the
    same command goes on where it was.

    \b
    Example:
      lmr compare knn-imagenet arcface --data parts
      lmr compare slides:backbone=resnet101,optimizer=rmsprop kapoor --data parts --seeds 0,1,2
    """
    import lmr
    from cli.report.comparison_table import to_text

    if list_only:
        for name, about in lmr.recipes().items():
            say(f"{name:26}{about.splitlines()[0]}")
        return
    if not recipes:
        raise click.UsageError("give RECIPES, or --list to see which there are")
    if missing("jinja2", "matplotlib"):
        warn(f"the tables alone are written: the HTML report needs {install_hint('report')}")
    with TerminalProgress() as progress:
        comparison = lmr.compare(recipes, **words, progress=progress)
    _report(comparison)
    say_result(comparison.to_json(), to_text(comparison.rows), as_json=as_json, default=str)


def _report(comparison: "Comparison") -> None:
    """Writes the HTML report; without the extra that draws it, says so."""
    from cli.report.comparison import write_comparison

    path = comparison.place(".html")
    try:
        write_comparison(path, comparison.rows, comparison.facts)
    except LmrError as error:
        warn(f"no report: {error}")
    else:
        warn(f"{path}: report written")
