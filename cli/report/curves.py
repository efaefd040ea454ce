"""The picture of a training run, from its CSV log."""

from pathlib import Path

from cli.report.plots import plot_training, to_png
from retrieval.files.atomic import write_bytes
from retrieval.train.log import read_log


def save_training_curves(log_path: Path, picture_path: Path) -> None:
    """Draws a training log (a row an epoch, with `epoch` and `loss`) into a PNG file.

    Raises LmrError without matplotlib, for a log that is missing or has no such rows, or a folder that cannot be
    written.
    """
    write_bytes(picture_path, to_png(plot_training(read_log(log_path))))
