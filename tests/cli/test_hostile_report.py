"""Labels and names of files that try to be HTML, formulas or directions of writing, in every page."""

import os
import re

import pytest
from tiny_set import HERE, done, picture

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
    """Every HTML page that is made of such pictures."""
    folder = tmp_path_factory.mktemp("hostile")
    before = os.getcwd()
    os.chdir(folder)
    try:
        for number, label in enumerate(LABELS):
            (folder / "photos" / label).mkdir(parents=True)
            for k in range(3):
                picture(number % 4, k + 10 * number).save(folder / "photos" / label / NAME.format(k))
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
        text = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
        assert "\u202e" not in text, name
    assert r"\u202egnp.exe" in pages["stats.html"]
