"""The figures of each epoch for TensorBoard, where its package is there."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from retrieval.errors import LmrError


@contextmanager
def epoch_writer(folder: Path | None, n_done: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A function that takes the row of an epoch, and does nothing where folder is None.

    n_done: epochs that are finished; what was written of later ones by a run that was killed is replaced. LmrError
    without the package.
    """
    if folder is None:
        yield lambda _: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise LmrError(f"--tensorboard needs tensorboard ({error}); pip install 'lmr[tensorboard]'") from error
    writer = SummaryWriter(str(folder), purge_step=n_done + 1)

    def write(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, int(row["epoch"]))
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
