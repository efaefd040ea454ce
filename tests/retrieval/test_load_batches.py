"""Where batches of training images are loaded."""

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

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
