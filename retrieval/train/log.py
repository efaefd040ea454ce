"""Log of a training: a CSV file with a row of figures for each epoch."""

import csv
from pathlib import Path

from retrieval.errors import LmrError


def read_log(path: Path) -> list[dict[str, float]]:
    """The epochs of a training log; a cell that is empty is no key. Raises LmrError with the line."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror or error}; lmr train writes it") from error
    log = []
    for line, row in enumerate(rows, start=2):
        try:
            log.append({name: float(value) for name, value in row.items() if value})
        except (TypeError, ValueError):
            raise LmrError(f"{path}:{line}: not a row of numbers; the log of lmr train has nothing else") from None
    if not log or not all({"epoch", "loss"} <= row.keys() for row in log):
        raise LmrError(f"{path}: no rows with epoch and loss; is it the log of lmr train?")
    return log
