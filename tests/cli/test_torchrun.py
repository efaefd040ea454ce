"""`torchrun … lmr train`: two processes, on one machine or two, train as one does, and go on after a kill."""

import csv
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from tiny_set import another_process, done

from retrieval.models.checkpoint import read_card
from retrieval.train.state import STATE_NAME

ROOT = Path(__file__).parents[2]
# Losses of 6 digits, in float32. Sums of gradients in another order change last bits, which training enlarges.
TOLERANCE = 1e-4
TRAIN = (
    *("train", "train.csv", "--backbone", "plain-cnn", "--size", "32", "--epochs", "3", "--batch-size", "12"),
    *("--accumulate", "2", "--ema", "0.9", "--background", "class", "--precision", "fp32", "--val", "val.csv"),
    *("--device", "cpu", "--workers", "0", "--threads", "1"),
)
# `lmr`, of which the process of rank 1 is killed in the last epoch, where DYING is set; every epoch is saved.
PROGRAM = """
import os, signal, sys
from retrieval.train import loop
loop.EPOCH_EVERY_S = -1.0
learn, n = loop.learn, 0
def dying(*given):
    global n
    n += 1
    if os.environ.get("DYING") and os.environ.get("RANK") == "1" and n > int(os.environ["DYING"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(*given)
loop.learn = dying
from cli.main import main
main()
"""

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9"),
    pytest.mark.skipif("CI_WITHOUT_LOOPBACK" in os.environ, reason="needs a loopback network"),
]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def launch(here: str, said: str, words: list[str], more: dict[str, str]) -> None:
    """Target of `another_process`: `torchrun` in a folder, which prints to a file."""
    from torch.distributed.run import main

    descriptor = os.open(said, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", **more)
    os.chdir(here)
    main(words)


def torchrun(program: Path, output: str, n_machines: int = 1, **more: str) -> list[tuple[int | None, str]]:
    """Exit code and text of each torchrun: one with two processes, or two with one each, as two machines have."""
    words = ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), "--nnodes", str(n_machines)]
    words += ["--nproc-per-node", str(2 // n_machines)]
    said = [program.with_name(f"said-{rank}") for rank in range(n_machines)]
    with ExitStack() as running:
        processes = []
        for rank, path in enumerate(said):
            of_rank = [*words, "--node-rank", str(rank), str(program), *TRAIN, "--output", output]
            processes.append(running.enter_context(another_process(launch, os.getcwd(), str(path), of_rank, more)))
        for process in processes:
            process.join(300)
        return [(process.exitcode, path.read_text()) for process, path in zip(processes, said, strict=True)]


def losses(output: str) -> list[float]:
    with (Path(output) / "training.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def weights(output: str) -> str:
    return read_card(Path(output)).weights_sha256


def test_two_processes_lose_what_one_does_on_one_machine_or_two_and_after_a_kill(images: Path, program: Path) -> None:
    done(*TRAIN, "--output", "one")
    for code, text in torchrun(program, "two"):
        assert code == 0, text
    assert losses("two") == pytest.approx(losses("one"), rel=TOLERANCE)
    assert len(losses("two")) == 3

    died = torchrun(program, "machines", 2, DYING="2")
    assert all(code != 0 for code, _ in died)
    assert (Path("machines") / STATE_NAME).exists()
    for code, text in torchrun(program, "machines", 2):
        assert code == 0, text
    assert losses("machines") == losses("two")
    assert weights("machines") == weights("two")
