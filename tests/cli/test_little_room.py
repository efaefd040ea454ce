"""Training where the system gives next to nothing: /dev/shm as in a container, few files, a worker without a slot."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_set import done, misused, refused

from retrieval.models.checkpoint import read_card

LMR = (sys.executable, "-c", "from cli.main import main; main()")
ROOT = Path(__file__).parents[2]
TRAIN = (
    "train",
    "train.csv",
    "--backbone",
    "plain-cnn",
    "--size",
    "64",
    "--epochs",
    "1",
    "--batch-size",
    "16",
    "--threads",
    "1",
)
FROZEN = ("--freeze", "all", "--plain-pictures")


def digest() -> str:
    return read_card(Path("model")).weights_sha256


@pytest.fixture
def shared_memory() -> list[str]:
    """What runs a program, its last arguments, with 64 kB of /dev/shm; a batch of these tests takes 196 kB."""
    command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"', "sh"]
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare of util-linux")
    if tried.returncode:
        pytest.skip("only root mounts another /dev/shm")
    return command


def test_training_needs_no_shared_memory(images: Path, shared_memory: list[str]) -> None:
    trainings = {"all": TRAIN, "frozen": (*TRAIN, *FROZEN)}
    code = "from cli.main import main\n"
    for name, words in trainings.items():
        done(*words, "--workers", "0", "--output", f"whole-{name}")
        code += f"main({[*words, '--workers', '2', '--output', name]}, standalone_mode=False)\n"
    said = subprocess.run(
        [*shared_memory, sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert "processes for the pictures" not in said.stderr
    for name in trainings:
        assert read_card(Path(name)).weights_sha256 == read_card(Path(f"whole-{name}")).weights_sha256


def test_training_passes_no_tensor_through_shared_memory(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, where nothing can be mounted."""

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm)")

    for name in ("_new_shared", "_share_filename_cpu_", "_share_fd_cpu_", "share_memory_"):
        monkeypatch.setattr(f"torch.UntypedStorage.{name}", full, raising=False)
    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    done(*TRAIN, "--workers", "0", "--output", "whole")
    done(*TRAIN, "--workers", "2")
    assert digest() == read_card(Path("whole")).weights_sha256


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_few_open_files_mean_fewer_workers(images: Path) -> None:
    words = shlex.join([*LMR, *TRAIN, "--workers", "2"])
    said = subprocess.run(
        ["sh", "-c", f"ulimit -n 16; exec {words}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert (
        "0 of 2 processes for the pictures can be started here (Too many open files); "
        "the work is slower with them, not different"
    ) in said.stderr.splitlines()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory here; use fewer --workers, smaller pictures or smaller batches"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:131] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            "not enough memory here; use fewer --workers, smaller pictures or smaller batches",
        ),
        (
            RuntimeError("can't start new thread"),
            "no more threads can be started here; use fewer --workers, or raise the limit on processes (ulimit -u)",
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "not enough memory here to load libtorch_cpu.so; raise the limit (ulimit -v), or use a larger machine",
        ),
    ],
    ids=["memory", "torch", "threads", "library"],
)
def test_want_of_memory_and_threads_is_one_line(
    images: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("retrieval.embed.embedder.decode_for", fail)
    assert refused("embed", "train.csv", "--backbone", "plain-cnn", "--size", "32", "--workers", "0") == message


@pytest.mark.parametrize("command", ["train", "embed", "demo"])
def test_a_size_over_the_limit_is_refused(images: Path, command: str) -> None:
    arguments = () if command == "demo" else ("train.csv",)
    assert "100000 is not in the range 16<=x<=8192" in misused(command, *arguments, "--size", "100000")
