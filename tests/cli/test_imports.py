"""Which libraries a command waits for: those that it uses, and no others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_set import NETWORK, done

from cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
HEAVY = (
    *("torch", "torchvision", "timm", "pytorch_metric_learning", "onnx", "onnxruntime", "safetensors", "cv2"),
    *("faiss", "h5py", "pandas", "sklearn", "scipy", "pyarrow", "matplotlib", "jinja2", "aiohttp", "tqdm"),
)
PROGRAM = """
import sys
from cli.main import main
code = 0
for line in sys.argv[2].split("\\n"):
    try:
        main(line.split())
    except SystemExit as end:
        code = code or end.code
with open(sys.argv[1], "w") as file:
    print(code, *(name for name in sys.argv[3:] if name in sys.modules), file=file)
"""
SMALL = "--workers 0 --threads 1 --device cpu --epochs 1 --epoch-size 8 --output new"
TRAIN = " ".join(("train train.csv", *NETWORK, SMALL))
NOTHING: frozenset[str] = frozenset()
STORE = frozenset({"h5py"})
INDEX = STORE | {"faiss"}
ANSWERS = INDEX | {"scipy"}
NET = STORE | {"torch", "torchvision", "safetensors", "tqdm"}


def imported(folder: Path, *lines: str) -> tuple[int, set[str]]:
    """The exit code of `lmr` with each line of arguments, in one new process, and the heavy libraries in it then."""
    said = folder.parent / "imported.txt"
    words = [sys.executable, "-c", PROGRAM, str(said), "\n".join(lines), *HEAVY]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(words, cwd=folder, env=environment, capture_output=True, check=True)
    code, *names = said.read_text().split()
    return int(code), set(names)


def test_help_waits_for_nothing(tmp_path: Path) -> None:
    assert imported(tmp_path, "--help", "--version", *(f"{name} --help" for name in COMMANDS)) == (0, set())


@pytest.mark.parametrize(
    ("line", "code", "used"),
    [
        ("train nothing.csv", 1, STORE),
        ("train train.csv --epochs 0", 1, NOTHING),
        ("train train.csv --backbone resnet51", 1, NOTHING),
        ("embed nothing.csv", 1, STORE),
        ("build-index nothing.h5", 1, INDEX),
        ("calibrate nothing.csv", 1, INDEX),
        ("query nothing.jpg", 1, INDEX),
        ("compare arcfase", 1, NOTHING),
        ("compare arcface --set backbone=resnet51", 1, NOTHING),
        ("split nothing.csv", 1, STORE),
    ],
)
def test_a_mistake_is_told_without_what_the_work_would_need(
    tiny_set: Path, line: str, code: int, used: frozenset[str]
) -> None:
    found, libraries = imported(tiny_set, line)
    assert found == code
    assert libraries <= used


@pytest.mark.parametrize(
    ("line", "used"),
    [
        ("embed", STORE),
        ("build-index --names names.csv", INDEX),
        ("calibrate val.csv", ANSWERS),
        ("submit test.csv", ANSWERS),
    ],
)
def test_what_is_done_already_needs_no_torch(tiny_set: Path, line: str, used: frozenset[str]) -> None:
    done("submit", "test.csv")
    found, libraries = imported(tiny_set, line)
    assert found == 0
    assert libraries <= used


@pytest.mark.parametrize(
    ("line", "used"),
    [
        (f"embed test.csv --output new.h5 {' '.join(NETWORK)}", NET),
        ("embed test.csv --output new.h5", NET),
        (TRAIN, NET | {"pytorch_metric_learning", "scipy", "matplotlib"}),
        ("build-index --output new", INDEX | {"tqdm"}),
        ("evaluate val.csv", ANSWERS),
        ("info landmarks", INDEX),
        ("info model", NOTHING),
        ("score submission.csv solution.csv", NOTHING),
        ("split train.csv --output parts", STORE | {"scipy", "tqdm"}),
        ("stats train.csv", STORE | {"scipy", "tqdm", "matplotlib", "jinja2"}),
    ],
)
def test_work_waits_for_the_libraries_that_it_uses(tiny_set: Path, line: str, used: frozenset[str]) -> None:
    done("submit", "test.csv")
    found, libraries = imported(tiny_set, line)
    assert found == 0
    assert libraries <= used
