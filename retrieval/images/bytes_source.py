"""Sources of encoded images: the protocol, and several of them as one."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Source(Protocol):
    """Gives the encoded bytes of image i, or raises UnreadableError."""

    def read(self, i: int) -> bytes:
        """Encoded image i."""


class JoinedSource:
    """The images of several sources, one after the other. lengths: images in each."""

    def __init__(self, sources: Sequence[Source], lengths: Sequence[int]) -> None:
        self._sources = list(sources)
        self._starts = np.concatenate([[0], np.cumsum(lengths)])

    def read(self, i: int) -> bytes:
        """Encoded image i of the whole row of sources."""
        which = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self._sources[which].read(i - int(self._starts[which]))
