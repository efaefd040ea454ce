"""Which libraries a command waits for: those that it uses, and no others."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_set import NETWORK, done

from cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
HEAVY = (
    *("torch", "torchvision", "timm", "pytorch_metric_learning", "onnx", "onnxruntime", "safetensors", "cv2"),
    *("faiss", "h5py", "pandas", "sklearn", "scipy", "pyarrow", "matplotlib", "jinja2", "aiohttp", "tqdm"),
)
# Packages and modules that work needs, and its help does not.
OF_WORK = (*HEAVY, "numpy", "PIL", "lmr")
PROGRAM = """
import sys
from cli.main import main
said = []
for line in sys.argv[2].split("\\n"):
    code = 0
    try:
        main(line.split())
    except SystemExit as end:
        code = end.code
    said.append(" ".join([str(code or 0), *(name for name in sys.argv[3:] if name in sys.modules)]))
with open(sys.argv[1], "w") as file:
    print(*said, sep="\\n", file=file)
"""
SMALL = "--workers 0 --threads 1 --device cpu --epochs 1 --epoch-size 8 --output new"
TRAIN = " ".join(("train train.csv", *NETWORK, SMALL))
NOTHING: frozenset[str] = frozenset()
STORE = frozenset({"h5py"})
INDEX = STORE | {"faiss"}
ANSWERS = INDEX | {"scipy"}
NET = STORE | {"torch", "torchvision", "safetensors", "tqdm"}


def imported(folder: Path, libraries: Sequence[str], *lines: str) -> list[tuple[int, set[str]]]:
    """The exit code of `lmr` with each line of arguments, one after the other in one new process, and which of the
    libraries are in it then."""
    said = folder.parent / "imported.txt"
    words = [sys.executable, "-c", PROGRAM, str(said), "\n".join(lines), *libraries]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(words, cwd=folder, env=environment, capture_output=True, check=True)
    found = [line.split() for line in said.read_text().splitlines()]
    return [(int(code), set(names)) for code, *names in found]


def modules_after(line: str) -> str:
    """The names of the modules of a new process after a line of Python."""
    words = [sys.executable, "-c", f"{line}; import sys; print(sorted(sys.modules))"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, check=True, text=True).stdout


def require_no_more(
    folder: Path, code: int, used: frozenset[str], *lines: str, libraries: Sequence[str] = HEAVY
) -> None:
    """Each of the lines ends with this exit code, and imports none of the libraries that are not in `used`."""
    for line, (found, imports) in zip(lines, imported(folder, libraries, *lines), strict=True):
        assert (line, found, imports - used) == (line, code, set())


def test_help_waits_for_nothing(tmp_path: Path) -> None:
    lines = ("--help", "--version", *(f"{name} --help" for name in COMMANDS))
    require_no_more(tmp_path, 0, NOTHING, *lines, libraries=OF_WORK)


def test_the_functions_of_the_package_wait_for_no_library() -> None:
    found = [name for name in OF_WORK[:-1] if f"'{name}'" in modules_after("import lmr")]
    assert found == []


def test_a_function_is_imported_without_the_jobs_of_the_others() -> None:
    after = modules_after("import lmr")
    assert "'index.landmarks'" in after
    assert [name for name in ("index.stats.job", "retrieval.embed.job", "index.compare.job") if name in after] == []


def test_a_mistake_in_an_option_is_told_without_any_library(tiny_set: Path) -> None:
    require_no_more(
        tiny_set,
        2,
        NOTHING,
        "trian",
        "info",
        "query picture.jpg --threshold 7",
        "build-index --storage float64",
        "calibrate val.csv --precision 1",
        "evaluate val.csv --leave-one-out",
        "clean train.csv",
        "ensemble model",
    )


def test_a_mistake_that_needs_no_store_is_told_without_any_library(tiny_set: Path) -> None:
    require_no_more(
        tiny_set,
        1,
        NOTHING,
        "train train.csv --epochs 0",
        "train train.csv --backbone resnet51",
        "compare arcfase",
        "compare arcface --set backbone=resnet51",
        "demo --images nothing",
        "info nothing",
        "score nothing.csv solution.csv",
        "clean nothing.csv --store nothing.h5",
        "ensemble nothing nowhere --output both",
        "export nothing",
    )


def test_a_file_that_is_not_there_is_told_without_what_the_work_would_need(tiny_set: Path) -> None:
    require_no_more(
        tiny_set,
        1,
        STORE,
        "train nothing.csv",
        "embed nothing.csv",
        "embed train.csv --backbone resnet51",
        "build-index nothing.h5",
        "build-index --names nothing.csv",
        "calibrate nothing.csv",
        "evaluate nothing.csv",
        "submit nothing.csv",
        "query nothing.jpg",
        "split nothing.csv",
        "stats nothing.csv",
        "info nothing.h5",
    )


def test_what_is_done_already_needs_no_torch(tiny_set: Path) -> None:
    done(*TRAIN.split())
    imported(tiny_set, (), "calibrate val.csv --overwrite", "submit test.csv")  # with all rules, as what follows
    require_no_more(tiny_set, 0, STORE, "embed", f"embed {' '.join(NETWORK)}", TRAIN)
    names, calibrate, submit = "build-index --names names.csv", "calibrate val.csv", "submit test.csv"
    require_no_more(tiny_set, 0, INDEX, names)
    require_no_more(tiny_set, 0, ANSWERS, calibrate, submit)


@pytest.mark.parametrize(
    ("line", "used"),
    [
        (f"embed test.csv --output new.h5 {' '.join(NETWORK)}", NET),
        ("embed test.csv --output new.h5", NET),
        (TRAIN, NET | {"pytorch_metric_learning", "scipy", "matplotlib"}),
        ("build-index --output new", INDEX | {"tqdm"}),
        ("evaluate val.csv", ANSWERS | {"tqdm"}),
        ("info landmarks", INDEX),
        ("info model", NOTHING),
        ("score submission.csv solution.csv", NOTHING),
        ("split train.csv --output parts", STORE | {"scipy", "tqdm"}),
        ("stats train.csv", STORE | {"scipy", "tqdm", "matplotlib", "jinja2"}),
    ],
)
def test_work_waits_for_the_libraries_that_it_uses(tiny_set: Path, line: str, used: frozenset[str]) -> None:
    done("submit", "test.csv")
    require_no_more(tiny_set, 0, used, line)
