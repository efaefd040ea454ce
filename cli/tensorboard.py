"""The figures of each epoch for TensorBoard, where its package is there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import LmrError
from retrieval.extras import install_hint


def summary_writer() -> Any:
    """The class that writes for TensorBoard. LmrError without its package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise LmrError(f"--tensorboard needs tensorboard ({error}); {install_hint('tensorboard')}") from error
    return SummaryWriter


def write_epoch(folder: Path, row: Mapping[str, float]) -> None:
    """Writes the row of an epoch; what a run that was killed wrote of this epoch and later ones no longer counts."""
    epoch = int(row["epoch"])
    writer = summary_writer()(str(folder), purge_step=epoch)
    for name, value in row.items():
        if name != "epoch":
            writer.add_scalar(name, value, epoch)
    writer.close()
