"""Lines of CSV files that people open in a spreadsheet: no cell is run as a formula, and all read back equal."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a cell begins that a spreadsheet runs, perhaps guarded already
_GUARDED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan)")
_ROWS_AT_ONCE = 1 << 16


def csv_line(cells: Iterable[object]) -> str:
    """A line with its end. Texts are guarded, numbers stay as they are, None is blank."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(_guard_text, cells))
    return text.getvalue()


def table_lines(columns: "Mapping[str, NDArray[Any]]", float_format: str | None = None) -> Iterator[str]:
    """A CSV table with these columns (n,), its header first, in pieces.

    Texts are guarded as by `csv_line`, missing numbers are blank. float_format: as `%.4f`, None for all digits.
    """
    import pandas as pd  # slow to import

    def series(values: "NDArray[Any]") -> "pd.Series[Any]":
        # Texts stay objects: those of pandas hold UTF-8 alone, and names of files may be other bytes.
        return pd.Series([*map(_guard_text, values)], dtype=object) if values.dtype == object else pd.Series(values)

    for start in range(0, max(1, len(next(iter(columns.values())))), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        frame = pd.DataFrame({guard(name): series(values[part]) for name, values in columns.items()})
        yield frame.to_csv(index=False, header=start == 0, float_format=float_format, lineterminator="\n")


def _guard_text(cell: object) -> object:
    return guard(cell) if isinstance(cell, str) else cell


def guard(text: str) -> str:
    """A cell that a spreadsheet shows and does not run: with ' before one that begins as a formula does."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguard(cell: str) -> str:
    """Undoes `guard`."""
    return cell[1:] if _GUARDED.match(cell) else cell
