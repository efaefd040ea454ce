"""Asking what a picture shows, in a browser: dropped, pasted, chosen."""

from watched import drop, paste


def test_the_first_page_is_accessible(visit):
    page = visit.open()
    assert page.get_by_role("heading", level=1).inner_text() == "Which landmark is this?"
    visit.require_accessible()


def test_a_dropped_picture_is_answered(visit, finished_set):
    page = visit.open()
    drop(page, "main", finished_set / "images" / "val-dome-0.jpg")
    page.locator("article.answer").wait_for()
    assert page.locator("article.answer h2").count() == 1
    visit.require_accessible()


def test_several_dropped_pictures_are_answered(visit, finished_set):
    page = visit.open()
    drop(page, "main", *sorted((finished_set / "images").glob("val-dome-*.jpg")))
    page.locator("article.answer").nth(3).wait_for()
    assert page.locator("article.answer").count() == 4


def test_a_pasted_picture_is_answered(visit, finished_set):
    page = visit.open()
    paste(page, finished_set / "images" / "val-arch-0.jpg")
    page.locator("article.answer").wait_for()
