"""The page of answers: every image, filters under the policy of the page, links, and nothing else that runs."""

import base64
import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cli.report import answers as page_module
from cli.report import lettering
from cli.report.answers import render_answers, save_answers
from cli.report.sheet import GAP_PX, MARGIN_PX, NEIGHBOUR_PX, QUERY_PX
from lmr import Answer, LandmarkScore, Neighbour
from retrieval.errors import LmrError


def answer(image: str, landmark_id: str | None, **changes) -> Answer:
    best = LandmarkScore("Hawa_Mahal", "Hawa Mahal", 0.62, 0.5)
    near = Neighbour("n1", "Hawa_Mahal", 0.7, changes.pop("near", ""), "Hawa Mahal")
    name = best.name if landmark_id else ""
    return Answer(image, landmark_id, name, "", 0.62, 0.86, (best,), (near,), **changes)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a b.jpg", "javascript:alert(1).jpg", "near.jpg"):
        Image.new("RGB", (30, 20), "red").save(tmp_path / name)
    return tmp_path


def asked(folder: Path) -> list[Answer]:
    return [
        answer(str(folder / "a b.jpg"), "Hawa_Mahal", near=str(folder / "near.jpg")),
        answer(str(folder / "javascript:alert(1).jpg"), None),
        Answer("<script>x</script>.jpg", None, "", "", None, None, (), (), None, "cut short"),
    ]


def test_the_page_holds_every_answer_with_its_state_and_what_was_nearest(images: Path) -> None:
    page = render_answers(asked(images), Path("landmarks"), images)
    assert re.findall(r'data-state="(\w+)" data-landmark="([^"]*)"', page) == [
        ("answered", "Hawa Mahal"), ("rejected", ""), ("unreadable", ""),
    ]  # fmt: skip
    assert "Hawa Mahal, confidence 0.620" in page
    assert "no known landmark; nearest was Hawa Mahal, confidence 0.620, below 0.860" in page
    assert "unreadable: cut short" in page
    assert '<option value="Hawa Mahal">Hawa Mahal</option>' in page  # without a value two spaces would be one


def test_links_lead_to_the_files_and_hostile_names_are_only_names(images: Path) -> None:
    page = render_answers(asked(images), Path("landmarks"), images)
    assert re.findall(r'href="([^"]*)"', page) == ["./a%20b.jpg", "./near.jpg", "./javascript%3Aalert%281%29.jpg"]
    assert "<script>x" not in page
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page, "no other script may run"


def test_what_does_not_fit_is_said(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "MAX_CARDS", 2)
    path = images / "answers.html"
    told = save_answers(path, asked(images), Path("landmarks"))
    assert told == f"{path}: the first 2 of 3 pictures with their neighbours"
    assert "The first 2 are shown" in path.read_text()
    monkeypatch.setattr(page_module, "MAX_ROWS", 1)
    monkeypatch.setattr("cli.report.sheet.MAX_ROWS", 1)
    sheet = images / "answers.png"
    assert save_answers(sheet, asked(images), Path("landmarks")) == (
        f"{sheet}: the first 1 of 2 pictures beside their neighbours; a name that ends in .html makes a page of all"
    )


def test_one_image_has_its_neighbours(images: Path) -> None:
    one = [answer for answer in asked(images) if answer.unreadable is None][:1]
    page, sheet = images / "answers.html", images / "answers.png"
    assert save_answers(page, one, Path("landmarks")) == f"{page}: 1 picture with its neighbours"
    assert save_answers(sheet, one, Path("landmarks")) == f"{sheet}: 1 picture beside its neighbours"


def test_letters_that_no_font_has_are_said_of_a_sheet(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = lettering._font_of
    monkeypatch.setattr(lettering, "_font_of", lambda letter, size: None if letter in "故宫" else found(letter, size))
    answers = [replace(answer, name="宫 故宫 a") for answer in asked(images)]
    sheet = images / "answers.png"
    assert save_answers(sheet, answers, Path("landmarks")) == (
        f"{sheet}: 2 pictures beside their neighbours; no font here has the letters 宫故: boxes stand for them, not so "
        "in a page (.html)"
    )


def test_nothing_asked_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LmrError) as error:
        save_answers(tmp_path / "a.html", [], Path("landmarks"))
    assert str(error.value) == f"{tmp_path}/a.html: there is no picture to show"


def test_answers_have_a_short_repr_and_a_page_for_notebooks(images: Path) -> None:
    known, rejected, unreadable = asked(images)
    assert repr(known) == f"<Answer '{images}/a b.jpg': Hawa Mahal, confidence 0.620>"
    assert repr(unreadable) == "<Answer '<script>x</script>.jpg': unreadable: cut short>"
    assert known._repr_html_().count("data:image/jpeg;base64,") == 2
    assert "<script>" not in unreadable._repr_html_()
    assert "nearest was Hawa Mahal" in rejected._repr_html_()


def small_image(colour: str) -> bytes:
    jpeg = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(jpeg, "JPEG")
    return jpeg.getvalue()


def test_what_the_index_keeps_is_shown_where_the_image_is_gone(images: Path) -> None:
    def with_near(path: str) -> Answer:
        near = Neighbour("n1", "Hawa_Mahal", 0.7, path, "Hawa Mahal", lambda: small_image("blue"))
        return replace(answer(str(images / "a b.jpg"), "Hawa_Mahal"), neighbours=(near,))

    def middle_of_the_neighbour(told: Answer) -> object:
        save_answers(images / "sheet.png", [told], Path("landmarks"))
        with Image.open(images / "sheet.png") as sheet:
            x = MARGIN_PX + QUERY_PX + 2 * GAP_PX + NEIGHBOUR_PX // 2
            return sheet.convert("RGB").getpixel((x, MARGIN_PX + QUERY_PX - NEIGHBOUR_PX // 2))

    gone, there = str(images / "gone.jpg"), str(images / "near.jpg")
    assert middle_of_the_neighbour(with_near(gone)) == pytest.approx((0, 0, 255), abs=6)
    assert middle_of_the_neighbour(with_near(there)) == pytest.approx((255, 0, 0), abs=6), "the picture goes first"
    without = answer(str(images / "a b.jpg"), "Hawa_Mahal", near=gone)
    for told, n in ((with_near(gone), 2), (with_near(""), 2), (without, 1)):
        assert render_answers([told], Path("landmarks"), images).count('src="data:image/jpeg;base64,') == n
        assert told._repr_html_().count("data:image/jpeg;base64,") == n
