"""FAISS, with matrix products for this processor.

The OpenBLAS of FAISS's wheel takes a processor newer than itself for one of 2007: its products are then a quarter as
quick as those of numpy, whose OpenBLAS is newer. So while FAISS is imported it is told what numpy's has found, unless
the environment says otherwise.
"""

import os
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import threadpoolctl

_VARIABLE = "OPENBLAS_CORETYPE"
# Kernels that numpy's OpenBLAS may choose, and those of 2021 for them: a name that is not known has the slowest.
_KERNELS = {
    "Haswell": "Haswell",
    "Zen": "Haswell",
    "SkylakeX": "SkylakeX",
    "Cooperlake": "SkylakeX",
    "SapphireRapids": "SkylakeX",
}


def kernels_for(found: list[dict[str, object]]) -> str | None:
    """What FAISS's OpenBLAS is told, by what threadpoolctl has found; None = nothing."""
    of_numpy = os.path.dirname(np.__file__)
    chosen = (one.get("architecture") for one in found if str(one.get("filepath", "")).startswith(of_numpy))
    return next((_KERNELS[str(name)] for name in chosen if name in _KERNELS), None)


def _load() -> ModuleType:
    kernels = None if _VARIABLE in os.environ else kernels_for(threadpoolctl.threadpool_info())
    if kernels is not None:
        os.environ[_VARIABLE] = kernels
    try:
        import faiss
    finally:
        if kernels is not None:
            del os.environ[_VARIABLE]
    return faiss


if TYPE_CHECKING:
    import faiss as faiss
else:
    faiss = _load()
