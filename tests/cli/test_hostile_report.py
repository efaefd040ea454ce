"""Labels and names of files that try to be HTML, formulas or directions of writing, in every page."""

import os
import re
from html import escape
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_set import HERE, done, image

from cli.report.comparison import (
    plot_confusion,
    plot_landmark_accuracies,
    plot_precision_recalls,
    plot_training_runs,
)
from cli.report.plots import plot_false_answers, to_png, to_svg
from cli.report.sheet import SheetEntry, draw_sheet
from cli.report.statistics import plot_shares

LABELS = (
    "<img_src=x_onerror=alert(1)>",
    '"><svg_onload=alert(2)>',
    r"$\frac{$x",
    "javascript:alert(3)",
    "'{{7*7}}'",
    "\u202egnp.exe",
)
NAME = "p{}<b>'\"&$_{{.png"
NETWORK = ("--backbone", "plain-cnn", "--size", "16")


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """Every HTML page that is made of such images."""
    folder = tmp_path_factory.mktemp("hostile")
    before = os.getcwd()
    os.chdir(folder)
    try:
        for number, label in enumerate(LABELS):
            (folder / "photos" / label).mkdir(parents=True)
            for k in range(3):
                image(number % 4, k + 10 * number).save(folder / "photos" / label / NAME.format(k))
        done("stats", "photos", "--report", "stats.html", "--workers", "1")
        done("embed", "photos", "--output", "all.h5", *NETWORK, *HERE)
        done("build-index", "all.h5", "--model", "model", "--device", "cpu")
        done("evaluate", "--leave-one-out", "--report", "evaluation.html", "--device", "cpu")
        done("clean", "photos", "--store", "all.h5", "--output", "cleaned", "--workers", "1")
        return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("**/*.html")}
    finally:
        os.chdir(before)


def test_there_is_a_page_of_each_kind_and_it_names_the_labels(pages):
    assert set(pages) >= {"stats.html", "evaluation.html", "gallery.html"}
    assert all("&lt;img_src=x_onerror" in pages[name] for name in ("stats.html", "evaluation.html"))


def test_no_label_or_name_becomes_an_element_an_attribute_or_a_script(pages):
    for name, page in pages.items():
        assert not re.search(r"<(img_src|svg_onload|b>')", page), name
        assert not re.search(r"""(href|src)=["']?\s*javascript:""", page, re.IGNORECASE), name
        assert "'49'" not in page, name
        for attribute in re.findall(r"<[a-z]+ [^<>]*>", page):
            assert "onerror=alert" not in re.sub(r'"[^"]*"', "", attribute), (name, attribute)


def test_no_label_turns_the_direction_of_a_page(pages):
    for name, page in pages.items():
        assert "\u202e" not in page, name
    assert r"\u202egnp.exe" in pages["stats.html"]


HOSTILE = "a\ud800\u202e\n$\\frac{$x"
DRAWN = r"a\ud800\u202e\x0a\$\frac{\$x"


def test_names_of_any_characters_can_be_drawn_in_every_figure():
    curve = SimpleNamespace(recall=[0.0, 1.0], precision=[1.0, 0.5])
    confusion = SimpleNamespace(landmarks=(HOSTILE, "b"), counts=np.array([[2, 1, 0], [0, 3, 0]]))
    drawn = [
        plot_precision_recalls({(0, HOSTILE): curve}),
        plot_training_runs({(0, HOSTILE): [{"epoch": 1, "loss": 2.0}]}, "loss"),
        plot_confusion(confusion),
        plot_landmark_accuracies([HOSTILE], {(0, HOSTILE): [0.5]}),
        plot_false_answers({HOSTILE: 0.25}),
        plot_shares([HOSTILE], [0.5], "share"),
    ]
    for figure in drawn:
        page = to_svg(figure, "a figure").encode().decode()
        assert escape(DRAWN.replace(r"\$", "$")) in page
        assert to_png(figure).startswith(b"\x89PNG")


def test_a_sheet_with_names_of_any_characters_can_be_drawn(tmp_path):
    image(0, 1).save(tmp_path / "a.png")
    entry = SheetEntry(str(tmp_path / "a.png"), HOSTILE, (HOSTILE,), HOSTILE, ())
    assert draw_sheet([entry]).size[0] > 100
