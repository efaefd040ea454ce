"""Table of a comparison for people: a line for each system, figures with their spread over seeds."""

from collections.abc import Sequence

from cli.terminal import shown
from index.compare.results import Row

# Figure, its heading, and its format.
COLUMNS = (
    ("gap", "GAP", "{:.3f}"),
    ("top1", "top-1", "{:.3f}"),
    ("top5", "top-5", "{:.3f}"),
    ("top10", "top-10", "{:.3f}"),
    ("mean_landmark_accuracy", "per landmark", "{:.3f}"),
    ("turned_away", "turned away", "{:.1%}"),
    ("training_s", "training, s", "{:.0f}"),
    ("pictures_per_s", "pictures/s", "{:.1f}"),
    ("descriptor_bytes", "bytes", "{:.0f}"),
)
INTERVAL = "95 % of it"  # heading of the interval of the GAP, which stands behind it


def headings() -> list[str]:
    """The headings of `cells`."""
    first, *others = [heading for _, heading, _ in COLUMNS]
    return [first, INTERVAL, *others]


def cells(row: Row) -> list[str]:
    """The figures of a system: the first of COLUMNS, its interval, the others."""
    first, *others = [_cell(row, key, form) for key, _, form in COLUMNS]
    return [first, "{:.3f}-{:.3f}".format(*row.gap_interval), *others]


def to_text(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    table = [["", *headings()], *([shown(row.label), *cells(row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in table
    )


def _cell(row: Row, key: str, form: str) -> str:
    """Mean and spread; a dash where there is none."""
    mean, deviation = row.figure(key)
    if mean is None:
        return "–"
    return form.format(mean) + (f" ± {form.format(deviation)}" if deviation is not None else "")
