"""`torchrun … lmr train`: two processes, on one machine or two, train as one does, and go on after a kill."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

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


def start(*words: object, **more: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def torchrun(program: Path, output: str, n_machines: int = 1, **more: str) -> list[tuple[int, str]]:
    """Exit code and text of each torchrun: one with two processes, or two with one each, as two machines have."""
    port = free_port()
    words = ("--master-addr", "127.0.0.1", "--master-port", port, "--nnodes", n_machines)
    started = [
        start(
            *("-m", "torch.distributed.run", *words, "--node-rank", rank, "--nproc-per-node", 2 // n_machines),
            *(program, *TRAIN, "--output", output),
            **more,
        )
        for rank in range(n_machines)
    ]
    texts = [one.communicate(timeout=300)[0] for one in started]
    return [(one.returncode, text) for one, text in zip(started, texts, strict=True)]


def losses(output: str) -> list[float]:
    with (Path(output) / "training.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def weights(output: str) -> str:
    return read_card(Path(output)).weights_sha256


def test_two_processes_lose_what_one_does_on_one_machine_or_two_and_after_a_kill(images: Path, program: Path) -> None:
    alone = start(program, *TRAIN, "--output", "one")
    text = alone.communicate(timeout=300)[0]
    assert alone.returncode == 0, text
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
