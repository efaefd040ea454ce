"""Where batches of training images are loaded."""

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval.errors import LmrError
from retrieval.train import loader as workers
from retrieval.train.augment import Collate
from retrieval.train.loader import load_batches


class Watched:
    """Images of one pixel that say which thread asked for them."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor]:
        self.threads.add(threading.get_ident())
        return key[0], torch.full((3, 1, 1), key[0], dtype=torch.uint8)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_without_workers_images_are_varied_where_the_network_runs_and_not_beside_it(
    monkeypatch: pytest.MonkeyPatch, n_workers: int
) -> None:
    """Both draw from torch's one generator. Pinning itself needs a GPU."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    monkeypatch.setattr(workers, "start_workers", lambda *_: [])  # as where no process can be started
    images, keys = Watched(), [[(0, 0), (1, 0)], [(2, 0)]]
    batches = list(load_batches(images, Collate(np.zeros(3, np.int32)), keys, n_workers, pin=True))
    assert [batch.images.flatten().tolist() for batch in batches] == [[1, 1, 1, 2, 2, 2], [3, 3, 3]]
    assert images.threads == {threading.get_ident()}


class Crashing:
    """Images of one pixel, of which some end their process: by a fault, or once and for something else."""

    def __init__(self, faults: set[int], once: Path | None = None) -> None:
        self.faults, self.once = faults, once

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor]:
        row, seed = key
        if row in self.faults:
            signal.raise_signal(signal.SIGSEGV)
        if self.once is not None and row == 4 and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return row, torch.full((3, 1, 1), 10 * seed + row, dtype=torch.uint8)


KEYS = [[(row, epoch) for row in (i, i + 1)] for epoch in range(2) for i in range(0, 8, 2)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals that end a process")
def test_an_image_that_crashes_is_unreadable_and_the_others_are_loaded_in_their_order() -> None:
    batches = list(load_batches(Crashing({3, 6}), Collate(np.zeros(8, np.int32)), KEYS, 2))
    assert [batch.images[:, 0].flatten().tolist() for batch in batches] == [
        [10 * epoch + row for row in rows if row not in (3, 6)]
        for epoch in range(2)
        for rows in ((0, 1), (2, 3), (4, 5), (6, 7))
    ]
    told = {row: reason for batch in batches for row, reason in batch.unreadable.items()}
    assert told == dict.fromkeys((3, 6), "its decoder crashed (signal 11)")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals that end a process")
def test_a_worker_that_was_killed_for_something_else_is_no_fault_of_an_image(tmp_path: Path) -> None:
    with pytest.raises(LmrError, match="was killed, most often for want of memory"):
        list(load_batches(Crashing(set(), tmp_path / "once"), Collate(np.zeros(8, np.int32)), KEYS, 2))
