"""Two commands on one output: the second one waits, or says who writes, and neither harms what the other writes."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import pytest
from tiny_set import HERE, NETWORK, another_process, done, listing, refused, run_there

from cli.main import COMMANDS, LmrGroup
from cli.progress import TerminalProgress
from retrieval.errors import LmrError
from retrieval.files.lock import output_lock, output_locks
from retrieval.store.store import TODO, read_store

NETWORK_OF_DEMO = ("--backbone", "plain-cnn", "--size", "32", "--epochs", "1")

WRITERS: list[tuple[str, list[object]]] = [
    ("train.h5", ["embed", *HERE]),
    ("other.h5", ["embed", "--output", "other.h5", *HERE]),
    ("made", ["embed", "--model", "made", "--output", "other.h5", *NETWORK, *HERE]),
    ("made", ["train", "train.csv", "--output", "made", *NETWORK, *HERE]),
    ("batch.png", ["train", "train.csv", "--show-batch", "batch.png", *NETWORK, *HERE]),
    ("rates.png", ["train", "train.csv", "--find-rate", "rates.png", *NETWORK, *HERE]),
    ("rates.csv", ["train", "train.csv", "--find-rate", "rates.png", *NETWORK, *HERE]),
    ("both", ["ensemble", "model", "model", "--output", "both"]),
    ("model.onnx", ["export"]),
    ("landmarks", ["build-index"]),
    ("landmarks", ["index", "add", "train.h5"]),
    ("landmarks", ["index", "remove", "train-arch-0"]),
    ("landmarks", ["index", "merge", "landmarks"]),
    ("landmarks", ["index", "relabel", "labels.csv"]),
    ("landmarks", ["index", "compact"]),
    ("rows.csv", ["index", "export", "rows.csv"]),
    ("landmarks", ["sync", "images"]),
    ("images.h5", ["sync", "images"]),
    ("landmarks", ["calibrate", "val.csv", *HERE]),
    ("val.h5", ["calibrate", "val.csv", *HERE]),
    ("solution.h5", ["evaluate", "solution.csv", *HERE]),
    ("report.html", ["evaluate", "val.csv", "--report", "report.html", *HERE]),
    ("sheet.jpg", ["query", "images/test-arch-0.jpg", "--save", "sheet.jpg", *HERE]),
    ("sorted", ["query", "images/test-arch-0.jpg", "--sort-into", "sorted", *HERE]),
    ("submission.csv", ["submit", *HERE]),
    ("test.h5", ["submit", *HERE]),
    ("split", ["split", "train.csv"]),
    ("tree", ["split", "train.csv", "--class-folders", "tree"]),
    ("cleaned", ["clean", "train.csv", "--store", "train.h5"]),
    ("images", ["download", "train.csv"]),
    ("google", ["download", "--tars", "index", "google"]),
    ("stats.html", ["stats", "train.csv"]),
    ("p.csv", ["stats", "train.csv", "--images", "images", "--pictures-csv", "p.csv"]),
    ("compare", ["compare", "knn-imagenet"]),
    ("tried", ["demo", "tried", *NETWORK_OF_DEMO, *HERE]),
    ("tried/landmarks", ["demo", "tried", *NETWORK_OF_DEMO, *HERE]),
]


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Another thread holds the lock of this output."""
    has_it, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with output_lock(output):
            has_it.set()
            may_end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    has_it.wait()
    try:
        yield
    finally:
        may_end.set()
        thread.join()


@pytest.mark.parametrize(("output", "arguments"), WRITERS, ids=[f"{w[0]} of {o}" for o, w in WRITERS])
def test_what_another_run_writes_is_refused_and_left_as_it_is(tiny_set, output, arguments):
    before = listing(tiny_set)
    with held(Path(output)):
        told = refused(*arguments)
    assert told == (
        f"{output} is being written by another thread of this process; "
        "run this again when that has ended, or with --wait"
    )
    after = listing(tiny_set)
    assert {name: after[name] for name in before} == before


def test_every_command_that_writes_can_wait():
    group = LmrGroup("lmr")
    context = click.Context(group)
    without = []
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        parts = {f"{name} {part}": one for part, one in getattr(command, "commands", {}).items()} or {name: command}
        without += [part for part, one in parts.items() if "wait" not in {word.name for word in one.params}]
    assert without == ["bench", "index info", "index verify", "search", "serve", "score", "info"]


def test_two_outputs_that_are_one_file_are_refused(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "x.csv")
    outputs = (tmp_path / "x.csv", None, tmp_path / "link.csv")
    with pytest.raises(LmrError) as caught, output_locks(*outputs, wait=False, progress=TerminalProgress()):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'x.csv'} and {tmp_path / 'link.csv'} are one file, and both would be written; give them two names"
    )


def both_at_once(folder: Path, *commands: list[object]) -> list[int]:
    """Exit codes of commands that begin together in one folder."""
    with ExitStack() as running:
        processes = [
            running.enter_context(another_process(run_there, str(folder), [str(word) for word in command], {}))
            for command in commands
        ]
        for process in processes:
            process.join(120)
        return [process.exitcode for process in processes]


def test_two_submissions_at_once_that_wait_are_the_same_whole_one(tiny_set):
    done("submit", "--output", "alone.csv", "--store", "alone.h5", *HERE)
    arguments = ["submit", "--wait", "--overwrite", *HERE]
    assert both_at_once(tiny_set, arguments, arguments) == [0, 0]
    assert Path("submission.csv").read_text() == Path("alone.csv").read_text()
    assert not (read_store("test.h5").state == TODO).any()


def test_two_embeds_at_once_leave_a_whole_store(images):
    done("embed", "--model", "model", "--output", "alone.h5", *NETWORK, *HERE)
    arguments = ["embed", *HERE]
    codes = both_at_once(images, arguments, arguments)
    assert sorted(codes) in ([0, 0], [0, 1])
    assert (read_store("train.h5").vectors == read_store("alone.h5").vectors).all()
    left = {path.name for path in images.iterdir() if path.name.startswith(("train.h5", ".train.h5"))}
    assert left == {"train.h5"}
