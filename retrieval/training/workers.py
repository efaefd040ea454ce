"""Batches, decoded by worker processes while the network computes."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Protocol

import torch
from torch import Tensor

from retrieval.device import lacks_memory
from retrieval.pool import Workers, start_workers, work_with
from retrieval.training.augmentation import Batch, Collate

Keys = list[tuple[int, int]]  # rows and seeds of the pictures of a batch


class Pictures(Protocol):
    """Gives a row's picture, which may vary with a seed, or the reason why it cannot be read."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor | str]:
        """The row, and its picture or the reason."""


def load_batches(
    pictures: Pictures,
    collate: Collate,
    keys: Iterable[Keys],
    n_workers: int,
    *,
    pin: bool = False,
    on_warning: Callable[[str], None] = lambda _: None,
) -> Generator[Batch, None, None]:
    """A batch for each list of keys, in their order, which does not depend on the number of workers.

    n_workers: processes, 0 = this one. pin: copied in the background to memory that a GPU reads while it computes.
    LmrError: a process was killed, memory runs out.
    """
    fixed = (pictures, collate)
    workers = Workers(n_workers, start=None, begin=_use_one_thread, on_warning=on_warning)
    started = start_workers(_load, fixed, workers)
    batches = work_with(started, _load, keys, fixed)
    if not pin:
        yield from batches
    elif started:
        yield from _pinned(batches)
    else:  # not in a thread beside the network, as pictures vary by torch's one generator, which the network draws from
        yield from (batch.pin_memory() for batch in batches)


def _load(keys: Keys, fixed: tuple[Pictures, Collate]) -> Batch:
    pictures, collate = fixed
    try:
        return collate([pictures[key] for key in keys])
    except RuntimeError as error:
        if lacks_memory(error):
            raise MemoryError from error
        raise


def _use_one_thread() -> None:
    """The workers share the cores; and OpenMP's threads are not there any more in a process that was forked."""
    torch.set_num_threads(1)


def _pinned(batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
    """The same batches in pinned memory, the next one received and copied while one is used."""
    with closing(batches), ThreadPoolExecutor(1) as pool:

        def next_one() -> Batch | None:
            batch = next(batches, None)
            return None if batch is None else batch.pin_memory()

        waiting: Future[Batch | None] = pool.submit(next_one)
        while (batch := waiting.result()) is not None:
            waiting = pool.submit(next_one)
            yield batch
