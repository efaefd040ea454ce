"""lmr tune: the settings of an index, chosen on held-out queries."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.config_file import PATH
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import command_line, say_result, shown
from index.tune.job import TuneJob
from retrieval.extras import require_report
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.tune.job import TuneResult

N_SHOWN = 12  # lines of the table of what was tried; the report and the JSON have all
HEADINGS = ("GAP", "gain", "error", "top-1", "descriptor", "whitening", "dimensions", "background", "vote")


@click.command(name="tune")
@job_options(TuneJob)
@click.option("--report", type=PATH, default=None, help="HTML file to write: the tables of what was tried.")
@json_option
def command(as_json: bool, report: Path | None, **words: Any) -> None:
    """Choose the settings of an index of STORES (train.h5 when none is given) on QUERIES, held-out labelled pictures.

    QUERIES is a manifest with labels, or its store (.h5); never the test that you are going to be scored by, whose
    score would mean nothing then. Tried are the whitening, its power and dimensions, with and without a background,
    neck and pooled features of a store of both (lmr embed --descriptor both), and the constants of the vote. What the
    choice is worth is measured by nested cross-validation: each fifth of the queries is answered with what did best on
    the others. The defaults of lmr build-index stay where nothing gains more than its standard error.

    The output ends with the commands that build the chosen index; --apply runs them. It stops trying after --minutes;
    --tries N tries the same on every machine, and on one gives the same result to the bit. Of more than 20,000 rows, or
    2,000 queries of a kind, a part is drawn by --seed.

    \b
    Example:
      lmr tune val.csv
      lmr tune val.h5 train.h5 --background background.h5 --minutes 5 --report tuning.html
      lmr tune val.csv --apply --overwrite
    """
    import lmr

    if report is not None:
        require_report(f"--report {report}")
    with TerminalProgress() as progress:
        result = lmr.tune(**words, progress=progress)
        for text in result.warnings:
            progress.warn(f"warning: {text}")
        content = {**result.to_json(), "commands": list(commands(result))}
        say_result(content, to_text(content), as_json=as_json)
        if report is not None:
            _write_report(report, content)
            progress.warn(f"{report}: report written")


def commands(result: "TuneResult") -> Iterator[str]:
    """The commands that make the chosen index."""
    for step in result.steps:
        places: list[object] = []
        options: list[object] = []
        for word, value in step.words.items():
            many = list(value) if isinstance(value, tuple) else [value]
            if word in ("manifest", "queries", "stores"):
                places += many
            elif value is True:
                options.append(f"--{word.replace('_', '-')}")
            else:
                options += [part for one in many for part in (f"--{word.replace('_', '-')}", one)]
        yield command_line("lmr", step.command, *places, *options)


def to_text(content: Mapping[str, Any]) -> str:
    """What tuning came to, in lines for people."""
    default, nested, chosen = content["default"], content["nested"], content["chosen"]
    gain = f"{nested['gain']:+.4f}, standard error {nested['gain_error']:.4f}"
    what = "the defaults stay: nothing gains more than its error" if chosen["is_default"] else "chosen"
    choices = {name: rows for name, rows in content["by_choice"].items() if len(rows) > 1}
    heading = "what each choice comes to with the best of the others, on the queries it was chosen on:"
    lines = [
        _about(content),
        f"  the defaults: GAP {default['gap']:.4f}, top-1 {default['top1']:.3f}",
        f"  settings chosen on other queries: GAP {nested['gap']:.4f} ({gain}), top-1 {nested['top1']:.3f}",
        f"  {what}: {_spelt(chosen)}",
        *([heading] if choices else []),
        *(f"  {name}: {_values(rows)}" for name, rows in choices.items()),
        f"what was tried{_of_all(content['trials'])}; gain and its standard error against the defaults:",
        *_lines([HEADINGS, *map(cells, content["trials"][:N_SHOWN])]),
    ]
    if content["applied"] is not None:
        lines.append(f"built and calibrated: GAP {content['applied']['gap']:.4f}, cross-validated; made by:")
    return "\n".join([*lines, *(f"  {command}" for command in content["commands"])])


def cells(trial: Mapping[str, Any]) -> list[str]:
    """A line of the table of what was tried, in the order of HEADINGS."""
    figures = [f"{trial['gap']:.4f}", f"{trial['gain']:+.4f}", f"{trial['gain_error']:.4f}", f"{trial['top1']:.3f}"]
    return [*figures, trial["descriptor"], *_space(trial), _vote(trial["vote"])]


def _about(content: Mapping[str, Any]) -> str:
    """What was compared, in one line."""
    n, known, rows = content["n_queries"], content["n_landmark_queries"], content["n_rows"]
    others = agreeing(n - known, "a non-landmark", "non-landmarks")
    asked = counted(n, "query") + (
        "" if n == content["n_all_queries"] else f", drawn from {content['n_all_queries']:,}"
    )
    of = "" if rows == content["n_all_rows"] else f", drawn from {content['n_all_rows']:,}"
    tried = counted(content["n_tries"], "setting")
    if content["n_tries"] < content["n_planned"]:
        tried += f" tried of {content['n_planned']:,}: more --minutes try more, --tries {content['n_tries']} the same"
    else:
        tried += " tried, all there are"
    what = f"{asked}, {n - known:,} of them {others}, against {counted(rows, 'row')}{of}"
    return f"{shown(content['queries'])}: {what}; {tried}"


def _space(setting: Mapping[str, Any]) -> list[str]:
    """Whitening, dimensions and background of a setting."""
    background = "yes" if setting["background"] else "no"
    if setting["whitening"] == "none":
        return ["none", "", background]
    return [f"{setting['whitening']} {setting['whitening_power']:g}", f"{setting['dimensions']}", background]


def _vote(rule: Mapping[str, Any]) -> str:
    return f"k {rule['k']}, tau {rule['tau']:g}, r {rule['r']:g}, beta {rule['beta']:g}"


def _spelt(setting: Mapping[str, Any]) -> str:
    """A setting in words."""
    whitening, dimensions, background = _space(setting)
    kept = f" to {dimensions} dimensions" if dimensions else ""
    there = "with" if background == "yes" else "without"
    return f"{setting['descriptor']}, whitening {whitening}{kept}, {there} background; vote: {_vote(setting['vote'])}"


def _values(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{_value(row['value'])} {row['gap']:.4f}" for row in rows)


def _value(value: Any) -> str:
    """A value of a choice; a power of 1.0 is equal to True, and no yes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _of_all(trials: Sequence[Any]) -> str:
    return f", the best {N_SHOWN} of {len(trials)}" if len(trials) > N_SHOWN else ""


def _lines(table: Sequence[Sequence[str]]) -> list[str]:
    """A table in columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in table]


def _write_report(path: Path, content: Mapping[str, Any]) -> None:
    from cli.report.html import fill_template
    from retrieval.files.atomic import write_text

    facts = to_text(content).split("\n")[:4]
    rows = [cells(trial) for trial in content["trials"]]
    values = {name: _values(given) for name, given in content["by_choice"].items()}
    write_text(
        path,
        [
            fill_template(
                "tuning.html",
                {},
                title=f"Tuning on {content['queries']}",
                facts=facts,
                headings=HEADINGS,
                rows=rows,
                values=values,
                commands=content["commands"],
            )
        ],
    )
