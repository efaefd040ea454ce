"""Devices: which of them a network runs on, and the number format that is fast there."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

from retrieval.device_name import parse_device
from retrieval.errors import LmrError, NoMemoryError
from retrieval.models.config import PRECISION_VARIABLE
from retrieval.threads import require_threads
from retrieval.words import counted

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_NO_MEMORY = (  # CUDA and MPS; CUDA's libraries; CPU on Linux; on Windows
    "out of memory",
    "STATUS_ALLOC_FAILED",
    "can't allocate memory",
    "not enough memory",
)
_TOO_SMALL = ("Output size is too small", "Kernel size can't be greater than actual input size")  # pooling; convolution
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of mallopt(3)


def resolve_device(name: str) -> torch.device:
    """The first device of a name; auto is CUDA, else Apple's MPS, else the CPU. LmrError when one is not there."""
    parsed = parse_device(name)
    if parsed.kind == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if parsed.kind == "cuda" and max(parsed.numbers, default=0) >= torch.cuda.device_count():
        raise LmrError(f"`device` {name}: this machine has {torch.cuda.device_count()} CUDA devices; use `device` cpu")
    if parsed.kind == "mps" and not torch.backends.mps.is_available():
        raise LmrError("`device` mps: not available here; use `device` cpu")
    return torch.device(parsed.first)


def fast_dtype(device: torch.device) -> torch.dtype:
    """The format of LMR_PRECISION, else bfloat16 or float16 where the device computes in it natively, else float32."""
    asked = os.environ.get(PRECISION_VARIABLE, "auto")
    if asked != "auto":
        if asked not in DTYPES:
            raise LmrError(f"{PRECISION_VARIABLE}={asked}: not a number format; use auto, {', '.join(DTYPES)}")
        return DTYPES[asked]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bfloat16() else torch.float32


def training_dtype(device: torch.device) -> torch.dtype:
    """As `fast_dtype`, but float32 on processors where LMR_PRECISION does not ask for another.

    Forward and back through a network in bfloat16 takes longer there: scripts/bench/train.py.
    """
    if device.type == "cpu" and os.environ.get(PRECISION_VARIABLE, "auto") == "auto":
        return torch.float32
    return fast_dtype(device)


def memory_format(device: torch.device) -> torch.memory_format:
    """Channels last where convolutions are faster in it (CPU and CUDA)."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def place(model: nn.Module, device: torch.device) -> None:
    """Moves a network to its device in that device's memory format."""
    model.to(device=device)
    model.to(memory_format=memory_format(device))


@contextmanager
def explained(device: torch.device, n: int, size: int, remedy: str) -> Iterator[None]:
    """NoMemoryError for too little memory, LmrError for images that are too small for the network.

    n: images computed at once. size: of their sides, pixels. remedy: for too little memory.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; on CPU and MPS it has no name of its own
        said = str(error)
        if lacks_memory(error):
            raise NoMemoryError(
                f"not enough memory on {device} for batches of {counted(n, 'picture')} of "
                f"{counted(size, 'pixel')}; {remedy}"
            ) from error
        if any(text in said for text in _TOO_SMALL):
            raise LmrError(
                f"pictures of {counted(size, 'pixel')} are too small for this network; give a larger `size`"
            ) from error
        raise


def lacks_memory(error: RuntimeError) -> bool:
    """True for an error by which torch says that there is too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _NO_MEMORY)


@cache
def keep_freed_memory() -> bool:
    """Makes glibc keep the memory that one step frees for the next, in this whole process; whether it can.

    Left alone it maps every large tensor anew, and the system fills its pages with zeros: scripts/bench/freed.py.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    # Before glibc 2.35 no threshold above 32 MiB is taken, but mapping can be switched off.
    no_mapping = mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_MAX, 0)
    return bool(mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1) and no_mapping)


def _cpu_has_bfloat16() -> bool:
    """True if the processor multiplies bfloat16 (AVX512-BF16). Older releases of torch have no public question."""
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(ask()) if ask is not None else False


@contextmanager
def limit_threads(n_threads: int | None) -> Iterator[None]:
    """Bounds the CPU threads of torch within; None leaves them as they are. Raises LmrError for a wrong number."""
    if n_threads is None:
        yield
        return
    require_threads(n_threads)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch that depend on the seed within; those of the caller, on the CPU, go on after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
