"""lmr bench: kinds of index on a person's own rows, as table, JSON and curve."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import say_result, warn
from index.bench import BenchJob
from index.search.config import gigabytes
from retrieval.errors import LmrError
from retrieval.extras import require_extra
from retrieval.words import counted

if TYPE_CHECKING:
    from index.bench import Benchmark


@click.command(name="bench")
@job_options(BenchJob)
@click.option("--plot", type=click.Path(path_type=Path), help="PNG to draw recall against queries a second into.")
@json_option
def command(as_json: bool, plot: Path | None, **words: Any) -> None:
    """Measure kinds of index on the rows of INDEX: recall, speed, memory and building time.

    Each kind that fits is built in memory over the rows of the index folder and tuned to several recalls of the exact
    10 nearest, so that a person can choose --kind and --recall for build-index. Nothing is written but --plot.

    \b
    Example:
      lmr bench
      lmr bench landmarks --rows 200000 --plot kinds.png
      lmr bench landmarks --memory 2 --json
    """
    import lmr

    if plot is not None:
        _require_png(plot)
    with TerminalProgress() as progress:
        found = lmr.bench(**words, progress=progress)
    say_result(found.to_json(), _table(found), as_json=as_json)
    if plot is not None:
        from cli.report.plots import plot_kinds, to_png
        from retrieval.files.atomic import write_bytes

        write_bytes(plot, to_png(plot_kinds(found.rows)))
        warn(f"{plot}: recall against queries a second")


def _require_png(plot: Path) -> None:
    """Refuses, before the work, a curve that could not be drawn or kept."""
    if plot.suffix.lower() != ".png":
        raise LmrError(f"--plot {plot}: it is drawn as a PNG; give a name that ends in .png")
    if not plot.absolute().parent.is_dir():
        raise LmrError(f"--plot {plot}: there is no folder {plot.parent}; make it or choose another place")
    require_extra(f"--plot {plot}", "report", "matplotlib")


def _table(found: "Benchmark") -> str:
    """A line for each kind at each recall, and which kind is quickest."""
    cores = "all cores" if found.threads is None else counted(found.threads, "thread")
    asked = f"{counted(found.n_queries, 'row')} asked on {cores}, each without itself"
    head = f"{found.source}: {found.n:,} x {found.d}, {asked}"
    columns = ("kind", "recall@10", "top-1", "queries/s", "x exact", "memory", "built in", "lists", "candidates")
    lines = [columns]
    lines += [
        (
            row.kind,
            f"{row.recall:.4f}",
            f"{row.top1:.4f}",
            f"{row.queries_per_s:,.0f}",
            f"{row.speedup:.1f}",
            gigabytes(row.memory_bytes),
            f"{row.build_s:.0f} s" if row.build_s else "",
            f"{row.n_probe:,}" if row.n_probe else "all",
            f"{row.n_candidates} k" if row.n_candidates else "",
        )
        for row in found.rows
    ]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    told = []
    for first, *others in lines:
        cells = (f"  {cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        told.append(f"{first:{widths[0]}}{''.join(cells)}".rstrip())
    return "\n".join([head, *told, _quickest(found)])


def _quickest(found: "Benchmark") -> str:
    """`quickest: ivf-pq for recall 0.9 0.95, flat for recall 0.98 0.99 0.999`: kinds with the recalls they win."""
    won: dict[str, list[str]] = {}
    for target, row in found.quickest.items():
        won.setdefault(row.kind, []).append(f"{target:g}")
    told = ", ".join(f"{kind} for recall {' '.join(targets)}" for kind, targets in won.items())
    return f"quickest: {told or 'none fits into the memory'}"
