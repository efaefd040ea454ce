"""Pictures that are like one, in a browser: filtered, ordered, without end, side by side, by a part; landmarks."""

import re

import pytest
from tiny_set import image
from watched import contains, settled

N_TILES, N_ROWS = 24, 32
TILES = "form.gallery ul.tiles > li"


def apart(asked):
    """The page, on which near copies are not folded into one tile."""
    asked.page.get_by_label("copies apart").check()
    settled(asked.page, TILES, N_TILES)
    return asked.page


def first_names(page) -> list[str]:
    """The landmarks of the tiles, in their order."""
    return [name.inner_text() for name in page.locator(f"{TILES} .what a:not(.pic)").all()]


def test_the_gallery_of_one_landmark_holds_no_other(asked):
    page = apart(asked)
    page.locator("select[name=landmark]").select_option("castle")
    settled(page, TILES, 8)
    assert set(first_names(page)) == {"castle"}
    page.locator("select[name=sort]").select_option("megapixels")
    page.locator("form.gallery:not([aria-busy])").wait_for()
    settled(page, TILES, 8)


def test_scores_fall_from_picture_to_picture_and_go_on_as_one_scrolls(asked):
    page = apart(asked)
    page.mouse.wheel(0, 20_000)
    settled(page, TILES, N_ROWS)
    shown = [tile.get_attribute("data-image") for tile in page.locator(f"{TILES} > a.pic").all()]
    assert len(set(shown)) == N_ROWS
    scores = [float(one.inner_text()) for one in page.locator(f"{TILES} .what > span").all()]
    assert scores == sorted(scores, reverse=True)
    asked.require_accessible()


def test_more_comes_by_the_button_too(asked):
    page = apart(asked)
    page.get_by_role("button", name="More").press("Enter")
    settled(page, TILES, N_ROWS)


def test_a_click_shows_both_pictures_side_by_side(asked):
    page = asked.page
    page.locator(f"{TILES} a.pic").first.click()
    dialog = page.get_by_role("dialog")
    dialog.locator("figure img").first.wait_for()
    contains(dialog, "similarity")
    asked.require_accessible()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.wait_for_function("(document.activeElement.dataset.image ?? '').startsWith('train-')")


def test_a_neighbour_is_searched_by(asked):
    page = asked.page
    page.get_by_role("link", name="Search by this").first.click()
    page.wait_for_url(re.compile("/similar/train-"))
    settled(page, TILES, N_TILES)
    asked.require_accessible()
    page.locator("a.compare").first.click()
    page.get_by_role("dialog").locator("figure img").first.wait_for()


@pytest.fixture
def large(visit, tmp_path):
    """A page on which a picture is answered that is large enough to draw on."""
    image(3, 500, 480).save(tmp_path / "large.jpg")
    visit.ask(tmp_path / "large.jpg")
    visit.page.get_by_role("button", name="Search by a part").click()
    visit.page.locator(".veil .area").wait_for()
    return visit


def drawn(page) -> list[int]:
    """The rectangle as it is read out: from, to across; from, to down; in percent."""
    return [int(number) for number in re.findall(r"\d+", page.locator(".area").get_attribute("aria-label"))]


def answered(page) -> None:
    """Waits for the answer to the part."""
    settled(page, "article.answer", 2)
    contains(page.get_by_role("status").first, "a part of large.jpg")


def test_a_part_is_searched_by_with_the_mouse(large):
    page = large.page
    page.locator(".veil").scroll_into_view_if_needed()
    bounds = page.locator(".veil").bounding_box()
    left, top, width, height = (bounds[key] for key in ("x", "y", "width", "height"))
    page.mouse.move(left + 0.1 * width, top + 0.1 * height)
    page.mouse.down()
    page.mouse.move(left + 0.3 * width, top + 0.4 * height, steps=3)
    page.mouse.up()
    assert drawn(page) == pytest.approx([10, 30, 10, 40], abs=1)
    large.require_accessible()
    page.get_by_role("button", name="Search by this part").click()
    answered(page)


def test_a_part_is_searched_by_with_the_keys(large):
    page = large.page
    assert drawn(page) == [20, 80, 20, 80]
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowLeft", "Shift+ArrowUp"):
        page.keyboard.press(key)
    assert drawn(page) == [22, 80, 22, 80]
    page.keyboard.press("Enter")
    answered(page)


def test_drawing_is_called_off_by_escape(large):
    page = large.page
    page.keyboard.press("Escape")
    settled(page, ".veil", 0)
    page.wait_for_function("document.activeElement.textContent === 'Search by a part'")
    assert page.locator("article.answer").count() == 1


def test_a_part_is_searched_by_with_a_finger(visits, tmp_path):
    visit = visits(has_touch=True, viewport={"width": 390, "height": 844})
    image(3, 500, 480).save(tmp_path / "large.jpg")
    page = visit.ask(tmp_path / "large.jpg")
    page.get_by_role("button", name="Search by a part").tap()
    page.locator(".veil").scroll_into_view_if_needed()
    bounds = page.locator(".veil").bounding_box()
    finger = visit.context.new_cdp_session(page)

    def touch(kind: str, *at: float) -> None:
        points = (
            [{"x": bounds["x"] + at[0] * bounds["width"], "y": bounds["y"] + at[1] * bounds["height"]}] if at else []
        )
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.1, 0.1)
    for share in (0.2, 0.4, 0.6):
        touch("touchMove", share, share)
    touch("touchEnd")
    assert drawn(page) == pytest.approx([10, 60, 10, 60], abs=1)
    page.get_by_role("button", name="Search by this part").click()  # a tap after events of a session of ours is lost
    answered(page)


def test_landmarks_are_browsed_and_found_by_name(visit):
    page = visit.open("/landmarks")
    settled(page, "ul.tiles > li", 4)
    visit.require_accessible()
    page.get_by_label("Name").fill("great")
    page.keyboard.press("Enter")
    settled(page, "ul.tiles > li", 1)
    page.get_by_role("link", name="The Great Arch").first.click()
    page.get_by_role("heading", name="Most typical").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "The Great Arch"
    visit.require_accessible()


def test_a_name_that_nothing_has_is_said_so(visit):
    page = visit.open("/landmarks?search=nothing")
    assert page.locator("#found").inner_text() == "0 landmarks with “nothing” in the name."
    visit.require_accessible()


def test_reports_are_there(visit):
    page = visit.open("/reports")
    assert page.get_by_role("heading", name="Precision and recall").count() == 1
    visit.require_accessible()


@pytest.mark.parametrize("path", ["/similar/none", "/landmarks/none", "/none", "/static/0/none"])
def test_what_there_is_not_is_said_so_on_a_page(visit, path):
    visit.expected = ["404"]
    response = visit.page.goto(path)
    assert response.status == 404


@pytest.mark.parametrize(("button", "told"), [("Right", "Noted"), ("Wrong", "Noted"), ("No landmark", "Noted")])
def test_a_verdict_is_noted(visit, finished_set, button, told):
    page = visit.ask(finished_set / "images" / "train-dome-0.jpg")
    page.locator("article.answer .feedback").get_by_role("button", name=button, exact=True).click()
    page.locator(".feedback .noted", has_text=told).wait_for()
    visit.require_accessible()


def test_a_verdict_that_is_not_recorded_is_told_as_a_fault(visit, finished_set):
    page = visit.ask(finished_set / "images" / "train-dome-0.jpg")
    visit.expected = ["503"]
    full = {"status": 503, "content_type": "application/problem+json", "body": '{"detail": "no room"}'}
    page.route("**/v1/feedback", lambda route: route.fulfill(**full))
    page.locator("article.answer .feedback").get_by_role("button", name="Right", exact=True).click()
    page.locator(".feedback .noted.failed", has_text="no room").wait_for()
    visit.require_accessible()
    page.unroute("**/v1/feedback")
    page.locator("article.answer .feedback").get_by_role("button", name="Right", exact=True).click()
    page.locator(".feedback .noted:not(.failed)", has_text="Noted").wait_for()
    page.locator("article.answer .feedback").get_by_role("button", name="Wrong", exact=True).click()
    page.locator(".feedback .noted", has_text="(right) stands too: the two count against each other.").wait_for()


def test_another_landmark_is_noted(asked, finished_set):
    page = asked.page
    page.get_by_label("It shows").fill("arch")
    page.locator(".feedback").get_by_role("button", name="Send").click()
    page.locator(".feedback .noted", has_text="Noted").wait_for()
    table = finished_set / "landmarks.feedback" / "feedback.csv"
    assert "arch" in table.read_text().splitlines()[-1]
