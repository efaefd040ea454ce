import ctypes
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from retrieval.errors import LmrError
from retrieval.models.device import (
    fast_dtype,
    keep_freed_memory,
    limit_threads,
    memory_format,
    place,
    resolve_device,
    seeded,
    training_dtype,
)

CPU = torch.device("cpu")


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number format is that of the device, not of this run of the tests."""
    monkeypatch.delenv("LMR_PRECISION", raising=False)


@pytest.mark.usefixtures("no_accelerator")
def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    assert resolve_device("auto") == CPU
    assert resolve_device("cpu") == CPU


def test_auto_prefers_cuda_then_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == "mps"


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "`device` cuda: this machine has 0 CUDA devices; use `device` cpu"),
        ("cuda:1", "`device` cuda:1: this machine has 0 CUDA devices; use `device` cpu"),
        ("mps", "`device` mps: not available here; use `device` cpu"),
        ("gpu", "`device` gpu: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps"),
        ("cuda:x", "`device` cuda:x: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps"),
        ("", "`device` : not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps"),
        ("meta", "`device` meta: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(name: str, message: str) -> None:
    with pytest.raises(LmrError) as caught:
        resolve_device(name)
    assert str(caught.value) == message


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
@pytest.mark.parametrize("release", ["2.14", "older"])
def test_bfloat16_is_used_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, release: str, has: bool, dtype: torch.dtype
) -> None:
    newer = SimpleNamespace(get_capabilities=lambda: {"avx512_bf16": has})
    older = SimpleNamespace(_is_avx512_bf16_supported=lambda: has)
    monkeypatch.setattr(torch, "cpu", newer if release == "2.14" else older)
    assert fast_dtype(CPU) == dtype


def test_float32_is_used_where_torch_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cpu", SimpleNamespace())
    assert fast_dtype(CPU) == torch.float32


def test_this_torch_can_be_asked() -> None:
    assert fast_dtype(CPU) in (torch.bfloat16, torch.float32)
    assert isinstance(torch.cpu._is_avx512_bf16_supported(), bool)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_without_bfloat16_uses_float16(monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert fast_dtype(torch.device("cuda")) == dtype


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_the_environment_says_the_number_format_for_every_device(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    for asked, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        monkeypatch.setenv("LMR_PRECISION", asked)
        assert fast_dtype(torch.device(device)) == dtype


@pytest.mark.parametrize(("asked", "dtype"), [(None, torch.float32), ("auto", torch.float32), ("bf16", torch.bfloat16)])
def test_training_on_a_processor_is_in_float32_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch, "cpu", SimpleNamespace(get_capabilities=lambda: {"avx512_bf16": True}))
    monkeypatch.delenv("LMR_PRECISION", raising=False)
    if asked is not None:
        monkeypatch.setenv("LMR_PRECISION", asked)
    assert training_dtype(CPU) == dtype


def test_training_on_a_gpu_is_in_what_is_fast_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMR_PRECISION", raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert training_dtype(torch.device("cuda")) == torch.bfloat16


def test_a_number_format_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMR_PRECISION", "auto")
    assert fast_dtype(CPU) in (torch.bfloat16, torch.float32)
    monkeypatch.setenv("LMR_PRECISION", "half")
    with pytest.raises(LmrError) as caught:
        fast_dtype(CPU)
    assert str(caught.value) == "LMR_PRECISION=half: not a number format; use auto, fp32, bf16, fp16"


def test_a_network_is_placed_channels_last() -> None:
    layer = nn.Conv2d(2, 3, 3)
    place(layer, CPU)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert memory_format(torch.device("mps")) == torch.contiguous_format


def test_freed_memory_is_kept_where_the_allocator_can(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    libc = SimpleNamespace(mallopt=lambda name, value: asked.append((name, value)) or 1)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: libc)
    assert keep_freed_memory.__wrapped__() is True
    assert asked == [(-3, 2**30), (-1, 2**31 - 1)]
    libc.mallopt = lambda name, value: asked.append((name, value)) or name != -3
    assert keep_freed_memory.__wrapped__() is True  # an older glibc refuses the threshold
    assert asked[2:] == [(-3, 2**30), (-4, 0), (-1, 2**31 - 1)]


@pytest.mark.parametrize("error", [TypeError, OSError, AttributeError])
def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert keep_freed_memory.__wrapped__() is False


def test_random_numbers_of_the_caller_go_on_after_a_seed_of_ours() -> None:
    before = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(2)
    with seeded(3):
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_are_bounded() -> None:
    with limit_threads(None):
        assert torch.get_num_threads() == 1
    with limit_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
    with pytest.raises(LmrError) as caught, limit_threads(0):
        pass
    assert str(caught.value) == "`threads` must be at least 1, got 0"
    with pytest.raises(LmrError) as caught, limit_threads(100_000):
        pass
    assert str(caught.value) == "`threads` must be at most 1,024, got 100000; more than the cores gain nothing"
