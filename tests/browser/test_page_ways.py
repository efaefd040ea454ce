"""Ways to use the page: by keys alone, on a telephone, in the dark, without scripts, with a token."""

import pytest
from watched import settled

PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 3, "is_mobile": True, "has_touch": True}
SEEN = """(() => {
    const { id } = document.activeElement;
    const shown = (id && document.querySelector(`label.button[for=${id}]`)) || document.activeElement;
    return [getComputedStyle(shown).outlineStyle, getComputedStyle(shown).outlineWidth];
})()"""
PATHS = ("/", "/landmarks", "/landmarks/dome", "/reports", "/similar/train-dome-0")


def test_everything_is_reached_by_keys(visit, finished_set):
    page = visit.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    page.locator("#files").set_input_files(finished_set / "images" / "val-dome-0.jpg")
    page.locator("article.answer").wait_for()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.name || ''"))
    for name in ("Search by a part", "Compare", "Search by this", "How sure must an answer be?"):
        assert any(text.startswith(name) for text in reached), name


def test_what_has_the_focus_is_seen(visit):
    page = visit.open()
    for _ in range(4):
        page.keyboard.press("Tab")
        style = page.evaluate(SEEN)
        assert style[0] != "none"
        assert style[1] != "0px"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PATHS)
def test_each_page_fits_a_telephone_and_can_be_read(visits, path, scheme):
    visit = visits(**PHONE, color_scheme=scheme)
    page = visit.open(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    visit.require_accessible()


def test_an_answer_fits_a_telephone(visits, finished_set):
    visit = visits(**PHONE)
    page = visit.ask(finished_set / "images" / "val-dome-0.jpg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    visit.require_accessible()


def test_the_dark_is_dark(visits, finished_set):
    visit = visits(color_scheme="dark")
    page = visit.ask(finished_set / "images" / "val-dome-0.jpg")
    red, green, blue = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number)"
    )
    assert max(red, green, blue) < 60
    visit.require_accessible()


def test_a_picture_is_answered_without_scripts(visits, finished_set):
    visit = visits(java_script_enabled=False)
    page = visit.open()
    page.locator("#files").set_input_files(finished_set / "images" / "val-dome-0.jpg")
    page.locator("form#ask button[type=submit]").click()
    page.locator("article.answer h2").wait_for()
    assert page.locator("article.answer img.own").get_attribute("src").startswith("data:image/")
    page.locator("form.gallery select[name=landmark]").select_option("castle")
    page.get_by_label("copies apart").check()
    page.get_by_role("button", name="Show").click()
    settled(page, "form.gallery ul.tiles > li", 8)
    page.locator("form.gallery ul.tiles a.pic").first.click()
    page.locator("h1.verdict").wait_for()
    page.locator("a.compare").first.click()
    page.locator(".pair figure img").first.wait_for()


def test_nothing_is_seen_without_the_token(visits, guarded):
    visit = visits(guarded.server)
    visit.expected = ["401", "403"]
    page = visit.open()
    assert page.url.endswith("/login")
    visit.require_accessible()
    page.get_by_label("Token").fill("wrong" * 8)
    page.keyboard.press("Enter")
    page.get_by_text("This is not the token.").wait_for()
    page.get_by_label("Token").fill(guarded.token)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Which landmark is this?").wait_for()
    page.locator("#files").set_input_files(guarded.server.folder / "images" / "val-dome-0.jpg")
    page.locator("article.answer").wait_for()
    page.wait_for_function("document.querySelector('form.gallery img').naturalWidth > 0")
