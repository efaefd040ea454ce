"""What an output needs and is not installed is told before the work."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_set import HERE, NETWORK, done, refused

from retrieval.extras import install_hint

BEFORE = [
    (("query", "images/val-dome-0.jpg", "--save", "a.html"), "--save a.html needs jinja2", "report"),
    (("evaluate", "val.csv", "--report", "r.html"), "--report r.html needs jinja2 and matplotlib", "report"),
    (("stats", "train.csv", "--report", "s.html"), "--report s.html needs jinja2 and matplotlib", "report"),
    (("demo", "shown"), "the report of lmr demo needs jinja2 and matplotlib", "report"),
    (("demo", "shown", "--serve"), "--serve needs fastapi and uvicorn and jinja2", "web"),
    (("serve",), "lmr serve needs fastapi and uvicorn and jinja2", "web"),
    (
        ("train", "train.csv", *NETWORK, "--find-rate", "r.png", "--output", "new"),
        "--find-rate r.png needs matplotlib",
        "report",
    ),
    (("export", "model"), "lmr export needs onnx and onnxscript and onnxruntime", "onnx"),
]


@pytest.fixture
def bare(tiny_set, monkeypatch):
    """The tiny set, where nothing of the extras is installed, and no work may begin."""
    extras = ("jinja2", "matplotlib", "onnx", "onnxscript", "onnxruntime", "fastapi", "uvicorn")
    monkeypatch.setattr("retrieval.extras.find_spec", lambda name: None if name in extras else find_spec(name))
    return tiny_set


@pytest.mark.parametrize(("line", "what", "extra"), BEFORE, ids=[line[0] for line, _, _ in BEFORE])
def test_it_is_refused_before_the_work(bare, monkeypatch, line, what, extra):
    def begin(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    for work in (
        "lmr.open_index",
        "lmr.open_service",
        "index.folder.folder.open_folder",
        "lmr.stats",
        "lmr.find_rate",
    ):
        monkeypatch.setattr(work, begin)
    monkeypatch.setattr("cli.demo.run.prepare_images", begin)
    monkeypatch.setattr("retrieval.embed.onnx_export.load_network", begin)
    before = sorted(Path().iterdir())
    assert refused(*line) == f"{what}; {install_hint(extra)}"
    assert sorted(Path().iterdir()) == before


def test_a_sheet_needs_nothing_of_them(bare):
    done("query", "images/val-dome-0.jpg", "--save", "a.jpg", *HERE)
    assert Path("a.jpg").read_bytes().startswith(b"\xff\xd8")
