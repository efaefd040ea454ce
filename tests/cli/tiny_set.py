"""A tiny set of images with its manifests, and runs of `lmr` in this process or in one that can be killed."""

import csv
import hashlib
import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

LABELS = ("arch", "bridge", "castle", "dome")
NETWORK = ("--backbone", "shufflenet_v2_x0_5", "--size", "32")
HERE = ("--workers", "1", "--threads", "1", "--device", "cpu")
SIDE = 48  # pixels
_READ = re.compile(
    rb"(?m)^(.*: [\d,]+ images?( of [\d,]+ landmarks?, [\d,]+ without|, no labels)|computing in .*; decoding with .*)\n"
)
N_TRAIN, N_BACKGROUND, N_HELD, N_OTHERS = 8, 12, 4, 6  # of a landmark; in all; of a landmark in val or test; in all


def run(*arguments: object) -> Result:
    """As `hear`, without what every command says of a manifest and of how it embeds, which other tests look at."""
    result = hear(*arguments)
    result.stderr_bytes = _READ.sub(b"", result.stderr_bytes)
    return result


def hear(*arguments: object) -> Result:
    """`lmr` in this process. A traceback is the test's failure."""
    from cli.main import main

    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*arguments: object) -> Result:
    """`lmr` that must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: object) -> str:
    """The one line after `Error: ` of an `lmr` that must end with exit code 1."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    *_, last = lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    assert errors == [last], result.stderr
    assert "Traceback" not in result.output
    return last.removeprefix("Error: ")


def misused(*arguments: object) -> str:
    """The last line of an `lmr` that must end with exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def image(label: int, seed: int, side: int = SIDE) -> Image.Image:
    """Stripes of the label's own colour and slant, with noise; -1 is noise alone."""
    rng = np.random.default_rng([label + 1, seed])
    y, x = np.mgrid[:side, :side] / side
    pixels = rng.normal(128, 50, (side, side, 3))
    if label >= 0:
        slant = label * np.pi / len(LABELS)
        wave = np.sin(20 * (x * np.cos(slant) + y * np.sin(slant)) + rng.uniform(0, 1))
        colour = np.array([label % 2, label // 2 % 2, 1 - label % 2]) * 160 + 40
        pixels = (0.6 + 0.4 * wave)[..., None] * colour + rng.normal(0, 12, (side, side, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_csv(path: Path, header: str, rows: list[str]) -> Path:
    """A CSV file of these lines."""
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def make_images(folder: Path) -> None:
    """images/, train.csv, val.csv, test.csv, solution.csv and names.csv."""
    images = folder / "images"
    images.mkdir()
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
    for part, (n, n_others) in {
        "train": (N_TRAIN, N_BACKGROUND),
        "val": (N_HELD, N_OTHERS),
        "test": (N_HELD, N_OTHERS),
    }.items():
        first = {"train": 0, "val": 100, "test": 200}[part]
        for label in range(-1, len(LABELS)):
            for i in range(n_others if label < 0 else n):
                image_id = f"{part}-{LABELS[label] if label >= 0 else 'other'}-{i}"
                image(label, first + i).save(images / f"{image_id}.jpg", quality=92)
                rows[part].append((image_id, LABELS[label] if label >= 0 else ""))
    write_csv(folder / "train.csv", "id,landmark_id", [f"{i},{label}" for i, label in rows["train"]])
    kinds = [f"{i},{label},{'landmark' if label else 'noise'}" for i, label in rows["val"]]
    write_csv(folder / "val.csv", "id,landmark_id,kind", kinds)
    write_csv(folder / "test.csv", "id", [i for i, _ in rows["test"]])
    write_csv(folder / "solution.csv", "id,landmarks,Usage", [f"{i},{label},Public" for i, label in rows["test"]])
    write_csv(folder / "names.csv", "landmark_id,name", ["arch,The Great Arch", "dome,Old Dome"])


def make_set(folder: Path) -> None:
    """The images, and everything that the commands make of them with an untrained network."""
    make_images(folder)
    done("embed", *NETWORK, *HERE)
    done("build-index", "--names", "names.csv", "--device", "cpu")
    done("calibrate", "val.csv", *HERE)


def finish_set(folder: Path) -> None:
    """As `make_set`, in a folder that need not be the working one."""
    with chdir(folder):
        make_set(folder)


def listing(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def flip_byte(path: Path, at: float = 0.5) -> None:
    """Changes one byte, at a share of the file."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


def cut_short(path: Path, share: float = 0.6) -> None:
    """Keeps a share of the file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


@contextmanager
def another_process(target: object, *arguments: object) -> Iterator[Any]:
    """A process that has the libraries loaded already; killed at the end if it still runs."""
    context = get_context("forkserver")
    libraries = ["torch", "torchvision", "faiss", "h5py", "PIL.Image", "sklearn.linear_model", "pytest"]
    context.set_forkserver_preload([*libraries, "cli.main", "retrieval.train.loop", "index.calibrate.fit", "tiny_set"])
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    process = context.Process(target=target, args=arguments)  # type: ignore[arg-type]
    try:
        process.start()
        yield process
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads


def run_and_die(folder: Path, arguments: list[object], at: int) -> None:
    """`lmr` in another process that is killed before its file operation number `at`."""
    with another_process(run_there, str(folder), [str(a) for a in arguments], {"at": at}) as process:
        process.join(120)
        assert process.exitcode == -signal.SIGKILL


def run_apart(folder: Path, arguments: list[object], **how: object) -> tuple[int | None, str]:
    """Exit code and output of `lmr` in another process."""
    output = folder.parent / "output.txt"
    with another_process(
        run_there, str(folder), [str(a) for a in arguments], {"output": str(output), **how}
    ) as process:
        process.join(120)
        return process.exitcode, output.read_text() if output.exists() else ""


def n_file_operations(folder: Path, arguments: list[object]) -> int:
    """How many file operations `lmr` does; it must succeed."""
    code, text = run_apart(folder, arguments, count=str(folder.parent / "count.txt"))
    assert code == 0, text
    return int((folder.parent / "count.txt").read_text())


def try_few_rules() -> None:
    """Lets calibrations of this process choose among few rules of the vote, not among 151 or 451."""
    from index.calibrate import fit, selection

    fit.Grid = partial(selection.Grid, k=(5, 50), tau=(0.05, 0.2), r=(0.0, 0.5), beta=(0.0, 1.0))  # type: ignore


def run_there(folder: str, arguments: list[str], how: Mapping[str, object]) -> None:
    """Target of `another_process`: `lmr` in a folder, its output written to `how['output']`.

    how: `at`: number of the file operation at which it sends itself `signal`; `file_bytes`: the largest file it may
    write; `count`: file to write the number of file operations to.
    """
    import resource

    import torch

    from cli.main import main

    os.chdir(folder)
    torch.set_num_threads(1)
    try_few_rules()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    os.fsync = lambda _: None  # as in conftest.py
    if "file_bytes" in how:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(str(how["file_bytes"])), resource.RLIM_INFINITY))
    operations = _watch_files(how.get("at"), int(str(how.get("signal", int(signal.SIGKILL)))))
    text = io.StringIO()
    code: object = 0
    try:
        with redirect_stderr(text), redirect_stdout(text):
            main(arguments, prog_name="lmr")
    except SystemExit as stop:
        code = stop.code
    if "count" in how:
        Path(str(how["count"])).write_text(str(operations[0]))
    if "output" in how:
        Path(str(how["output"])).write_text(text.getvalue())
    sys.exit(code)  # type: ignore[arg-type]


def _watch_files(at: object, number: int) -> list[int]:
    """Counts what is opened for writing, written to a store, made, renamed or removed in the working folder.

    Before the one that is number `at` the process sends itself the signal.
    """
    from retrieval.store.store import StoreWriter

    count = [0]
    root = os.getcwd()
    put = StoreWriter._put

    def step() -> None:
        count[0] += 1
        if count[0] == at:
            os.kill(os.getpid(), number)

    def counted_put(self: StoreWriter, name: str, position: int, data: bytes) -> None:
        step()
        put(self, name, position, data)

    StoreWriter._put = counted_put  # type: ignore[method-assign]

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        if event == "open" and (not isinstance(given[2], int) or not given[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        path = given[0]
        if not isinstance(path, str | bytes | os.PathLike) or not os.path.abspath(os.fsdecode(path)).startswith(root):
            return
        step()

    sys.addaudithook(hook)
    return count


def drop_digests(path: Path) -> None:
    """Makes a store one that carries no digests, so that it may be changed."""
    with h5py.File(path, "r+") as file:
        del file.attrs["digests"]
    path.write_bytes(bytes(512) + path.read_bytes()[512:])
