"""Lines of CSV files that people open in a spreadsheet: no cell is run as a formula, and all read back equal."""

import csv
import io
import re
from collections.abc import Iterable

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a cell begins that a spreadsheet runs, perhaps guarded already
_GUARDED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan)")


def csv_line(cells: Iterable[object]) -> str:
    """A line with its end. Texts are guarded, numbers stay as they are, None is blank."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([guard(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()


def guard(text: str) -> str:
    """A cell that a spreadsheet shows and does not run: with ' before one that begins as a formula does."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguard(cell: str) -> str:
    """Undoes `guard`."""
    return cell[1:] if _GUARDED.match(cell) else cell
