"""Asking what a picture shows, in a browser: dropped, pasted, chosen, and what cannot be answered."""

import pytest
from PIL import Image
from watched import contains, drop, paste, settled


def test_the_first_page_is_accessible(visit):
    page = visit.open()
    assert page.get_by_role("heading", level=1).inner_text() == "Which landmark is this?"
    visit.require_accessible()


def test_a_dropped_picture_is_answered(visit, finished_set):
    page = visit.open()
    drop(page, "main", finished_set / "images" / "val-dome-0.jpg")
    page.locator("article.answer h2").wait_for()
    assert page.locator("article.answer figcaption").first.inner_text() == "val-dome-0.jpg"
    contains(page.get_by_role("status").first, "val-dome-0.jpg: ")
    visit.require_accessible()


def test_a_known_picture_is_named_with_its_confidence(visit, finished_set):
    page = visit.ask(finished_set / "images" / "train-dome-0.jpg")
    assert page.locator("article.answer h2").first.inner_text() == "Old Dome"
    told = page.locator("article.answer .told").inner_text()
    assert "sure" in told
    assert "This very picture is in the index" in told


def test_noise_is_no_known_landmark(visit, finished_set):
    page = visit.ask(finished_set / "images" / "val-other-0.jpg")
    assert page.locator("article.answer h2").first.inner_text() == "No known landmark"
    assert "It would have been" in page.locator("article.answer .told").inner_text()
    visit.require_accessible()


def test_an_answer_is_explained_in_a_tab_of_its_own(visit, finished_set):
    page = visit.ask(finished_set / "images" / "train-dome-0.jpg")
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="Why this answer?").click()
    opened.value.get_by_role("heading", name="The votes").wait_for()
    assert opened.value.title() == "Why: train-dome-0.jpg"


def test_several_pictures_are_answered_each_for_itself(visit, finished_set):
    images = sorted((finished_set / "images").glob("val-*-0.jpg"))
    page = visit.ask(*images)
    settled(page, "article.answer", len(images))
    shown = {caption.inner_text() for caption in page.locator("article.answer > .top figcaption").all()}
    assert shown == {image.name for image in images}


def test_a_pasted_picture_is_answered(visit, finished_set):
    page = visit.open()
    paste(page, finished_set / "images" / "val-arch-0.jpg")
    page.locator("article.answer").wait_for()


def test_what_is_no_picture_is_told_and_the_others_are_answered(visit, finished_set, tmp_path):
    (tmp_path / "none.jpg").write_bytes(b"no picture at all")
    page = visit.ask(tmp_path / "none.jpg", finished_set / "images" / "val-dome-0.jpg")
    contains(page.locator("#answers"), "This picture cannot be read")
    settled(page, "article.answer", 2)
    visit.require_accessible()


def test_a_picture_that_is_too_large_is_told_in_one_line(visit, finished_set, tmp_path):
    visit.expected = ["413"]
    Image.effect_noise((4800, 4800), 100).save(tmp_path / "huge.png")
    page = visit.open()
    page.locator("#files").set_input_files(tmp_path / "huge.png")
    told = page.get_by_role("alert")
    told.wait_for()
    assert told.inner_text().startswith("huge.png: ")
    assert told.inner_text().endswith("more than the 20,000,000 bytes that a request may have")
    visit.require_accessible()


def test_a_file_name_is_text_and_nothing_else(visit, finished_set, tmp_path):
    hostile = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    hostile.write_bytes((finished_set / "images" / "val-dome-0.jpg").read_bytes())
    page = visit.ask(hostile)
    assert page.locator("article.answer figcaption").first.inner_text() == hostile.name


def test_the_threshold_says_what_it_would_come_to(asked):
    page = asked.page
    page.get_by_text("How sure must an answer be?").click()
    slider = page.get_by_role("slider")
    slider.focus()
    slider.press("End")
    contains(page.locator(".cut-told"), "of the answers are right")
    last = page.locator(".cut-told").inner_text()
    slider.press("Home")
    page.wait_for_function("last => document.querySelector('.cut-told').innerText !== last", arg=last)
    first = page.locator(".cut-told").inner_text()
    assert first.startswith("From ")
    assert "of the answers are right" in first
    contains(page.locator("article.answer .at-cut"), "At ")
    asked.require_accessible()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a.jpg", "http://[::1]/a.jpg", "http://localhost/a.jpg", "ftp://a.test/"]
)
def test_an_address_that_is_not_public_is_refused_in_one_line(visits, fetching, url):
    visit = visits(fetching)
    visit.expected = ["status of 4"]
    page = visit.open()
    page.get_by_label("Address of a picture").fill(url)
    page.locator(".address button").click()
    told = page.get_by_role("alert")
    told.wait_for()
    assert told.inner_text().startswith(f"{url}: ")


def test_no_address_can_be_given_where_none_is_fetched(visit):
    assert visit.open().get_by_label("Address of a picture").count() == 0
