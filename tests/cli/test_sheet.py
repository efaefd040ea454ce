"""The sheet of query images beside their neighbours, looked at pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from cli.report import sheet as sheet_module
from cli.report.lettering import draw_text, elide, has_letters, text_width
from cli.report.sheet import (
    EMPTY,
    GAP_PX,
    MARGIN_PX,
    MAX_ROWS,
    NEIGHBOUR_PX,
    OTHER,
    QUERY_PX,
    VOTED,
    SheetEntry,
    SheetNeighbour,
    draw_sheet,
    sheet_bytes,
)
from retrieval.errors import LmrError
from retrieval.files.atomic import write_bytes

RED, GREEN = (220, 20, 30), (10, 180, 40)


def image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 40)) -> str:
    Image.new("RGB", size, colour).save(path)
    return str(path)


@pytest.fixture
def red(tmp_path: Path) -> str:
    return image(tmp_path / "red.png", RED)


@pytest.fixture
def green(tmp_path: Path) -> str:
    return image(tmp_path / "green.png", GREEN)


def entry(query: str, *neighbours: SheetNeighbour, landmark_id: str | None = "tower") -> SheetEntry:
    return SheetEntry(query, landmark_id and "The Tower", ("confidence 0.910",), landmark_id, neighbours)


def neighbour_corner(i: int) -> tuple[int, int]:
    """Left and top of the i-th neighbour of the first row."""
    return MARGIN_PX + QUERY_PX + 2 * GAP_PX + i * (NEIGHBOUR_PX + GAP_PX), MARGIN_PX + QUERY_PX - NEIGHBOUR_PX


def middle(i: int) -> tuple[int, int]:
    x, y = neighbour_corner(i)
    return x + NEIGHBOUR_PX // 2, y + NEIGHBOUR_PX // 2


def frame_of(sheet: Image.Image, i: int) -> tuple[int, ...]:
    x, y = neighbour_corner(i)
    colour = sheet.getpixel((x - 2, y + NEIGHBOUR_PX // 2))
    assert isinstance(colour, tuple)
    return colour


def test_the_query_stands_left_of_its_neighbours(red: str, green: str) -> None:
    sheet = draw_sheet([entry(red, SheetNeighbour(green, "The Tower", "tower", 0.8))])
    assert sheet.getpixel((MARGIN_PX + QUERY_PX // 2, MARGIN_PX + QUERY_PX // 2)) == RED
    assert sheet.getpixel(middle(0)) == GREEN


def test_neighbours_of_the_predicted_landmark_are_marked_by_colour_and_by_sign(red: str, green: str) -> None:
    same, other = SheetNeighbour(green, "a", "tower", 0.8), SheetNeighbour(green, "b", "gate", 0.7)
    sheet = draw_sheet([entry(red, same, other)])
    assert (frame_of(sheet, 0), frame_of(sheet, 1)) == (VOTED, OTHER)
    signs = []
    for i, colour in enumerate((VOTED, OTHER)):
        x, y = neighbour_corner(i)
        badge = np.asarray(sheet.crop((x + NEIGHBOUR_PX - 23, y + 7, x + NEIGHBOUR_PX - 7, y + 23)))
        signs.append((badge == colour).all(axis=2))
    assert all(sign.any() for sign in signs)
    assert (signs[0] != signs[1]).any()


def test_without_a_landmark_no_neighbour_is_marked(red: str, green: str) -> None:
    sheet = draw_sheet([entry(red, SheetNeighbour(green, "a", "tower", 0.8), landmark_id=None)])
    assert frame_of(sheet, 0) == OTHER


def test_the_title_says_the_label_or_no_known_landmark(red: str) -> None:
    under = (MARGIN_PX, MARGIN_PX + QUERY_PX, MARGIN_PX + QUERY_PX, MARGIN_PX + QUERY_PX + 26)
    titles = {
        draw_sheet([SheetEntry(red, label, ("confidence 0.900",), landmark_id, ())]).crop(under).tobytes()
        for label, landmark_id in (("The Tower", "tower"), ("The Gate", "tower"), (None, None), ("ignored", None))
    }
    assert len(titles) == 3, "the label of a query without a landmark is not printed"


def test_a_wide_image_is_shown_whole(tmp_path: Path) -> None:
    wide = Image.new("RGB", (400, 100), RED)
    wide.paste(GREEN, (380, 0, 400, 100))
    wide.save(tmp_path / "wide.png")
    sheet = draw_sheet([entry(str(tmp_path / "wide.png"))])
    row = [sheet.getpixel((MARGIN_PX + x, MARGIN_PX + QUERY_PX // 2)) for x in (3, QUERY_PX - 4)]
    assert row == [RED, GREEN]
    assert sheet.getpixel((MARGIN_PX + QUERY_PX // 2, MARGIN_PX + 4)) == EMPTY


@pytest.mark.parametrize("where", ["", None, "gone/away.jpg", "https://example.org/a.jpg", "a\0b.jpg"])
def test_a_neighbour_without_a_image_is_a_grey_tile(red: str, where: str | None) -> None:
    sheet = draw_sheet([entry(red, SheetNeighbour(where, "a", "tower", 0.8))])
    x, y = neighbour_corner(0)
    tile = np.asarray(sheet.crop((x, y, x + NEIGHBOUR_PX, y + NEIGHBOUR_PX)))
    assert tuple(tile[NEIGHBOUR_PX - 20, 20]) == EMPTY
    assert len(np.unique(tile[50:120].reshape(-1, 3), axis=0)) > 3, "the tile says why"


def test_a_broken_image_is_a_grey_tile_too(tmp_path: Path, red: str) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"<html>")
    sheet = draw_sheet([entry(red, SheetNeighbour(str(tmp_path / "broken.jpg"), "a", "tower", 0.8))])
    x, y = neighbour_corner(0)
    assert sheet.getpixel((x + 20, y + NEIGHBOUR_PX - 20)) == EMPTY


def test_several_queries_are_several_rows_as_wide_as_the_longest(red: str, green: str) -> None:
    one = SheetNeighbour(green, "a", "tower", 0.8)
    single, both = draw_sheet([entry(red)]), draw_sheet([entry(red), entry(green, one, one)])
    assert both.height > 2 * QUERY_PX
    assert both.width == single.width + 2 * (NEIGHBOUR_PX + GAP_PX) + GAP_PX


def test_a_sheet_ends_after_its_last_row_and_says_how_many_follow(red: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ROWS * (QUERY_PX + 100) < 2**16 + 3000, "a JPEG has at most 65,535 rows"
    monkeypatch.setattr(sheet_module, "MAX_ROWS", 2)
    two, three = draw_sheet([entry(red)] * 2), draw_sheet([entry(red)] * 3)
    assert 0 < three.height - two.height < QUERY_PX


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".png", ".webp", ".gif", ".pdf", ".tiff"])
def test_the_suffix_chooses_the_format(tmp_path: Path, red: str, suffix: str) -> None:
    path = tmp_path / f"sheet{suffix}"
    write_bytes(path, sheet_bytes(path, [entry(red)]))
    assert path.stat().st_size > 500
    if suffix != ".pdf":
        with Image.open(path) as written:
            assert written.convert("RGB").size == draw_sheet([entry(red)]).size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["red.png", path.name]


@pytest.mark.parametrize(("name", "suffix"), [("sheet.docx", ".docx"), ("sheet", "(none)"), ("sheet.psd", ".psd")])
def test_a_suffix_that_pillow_cannot_write_is_refused(tmp_path: Path, red: str, name: str, suffix: str) -> None:
    with pytest.raises(LmrError) as error:
        sheet_bytes(tmp_path / name, [entry(red)])
    expected = f"{tmp_path / name}: a sheet cannot have the suffix {suffix}; use .jpg, .png or .webp"
    assert str(error.value) == expected


def test_a_sheet_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LmrError) as error:
        sheet_bytes(tmp_path / "sheet.jpg", [])
    assert str(error.value) == f"{tmp_path / 'sheet.jpg'}: there is no readable picture to put on a sheet"


def test_a_folder_that_is_not_there_is_named_and_nothing_is_left(tmp_path: Path, red: str) -> None:
    path = tmp_path / "gone" / "sheet.jpg"
    with pytest.raises(LmrError) as error:
        write_bytes(path, sheet_bytes(path, [entry(red)]))
    assert str(error.value) == (
        f"{path} cannot be written: No such file or directory; choose another place or make room"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["red.png"]


def test_labels_in_any_script_are_drawn_or_replaced_but_never_stop_the_sheet(red: str) -> None:
    for label in ("東京タワー", "Собор", "برج", "🗼", "a\nb\tc", "", "x" * 5000):
        drawn = np.asarray(draw_sheet([SheetEntry(red, label, (), "tower", ())]))
        below = drawn[MARGIN_PX + QUERY_PX :]
        assert (below < 128).all(axis=2).any(), "a name, or the landmark_id in its place"


def test_a_long_label_is_cut_to_the_width_that_there_is() -> None:
    cut = elide("The Tower of the Winds in the Roman Agora", 13, 100)
    assert cut.endswith("...")
    assert text_width(cut, 13) <= 100
    assert cut.removesuffix("...") == "The Tower of the Winds in the Roman Agora"[: len(cut) - 3]
    assert text_width(cut, 13) > 85, "no more than needed is cut"
    assert elide("Tower", 13, 100) == "Tower"
    assert elide("a \n b", 13, 100) == "a b"


def test_a_font_is_chosen_that_has_the_letters() -> None:
    assert has_letters(ImageFont.load_default(size=13), "The Tower")
    assert not has_letters(ImageFont.load_default(size=13), "東")


def drawn(text: str) -> Image.Image:
    image = Image.new("RGB", (400, 30), "white")
    draw_text(ImageDraw.Draw(image), (2, 2), text, 16, (0, 0, 0))
    return image


def test_what_no_font_has_is_a_box_and_leaves_what_is_beside_it_as_it_is() -> None:
    strange = "\U000f1234\U0001f9ff"[1:]  # an emoji that few fonts have
    plain, broken = drawn("Tower"), drawn(f"Tower {strange}")
    edge = round(2 + text_width("Tower", 16))
    assert plain.crop((0, 0, edge, 30)).tobytes() == broken.crop((0, 0, edge, 30)).tobytes()
    assert text_width(f"Tower {strange}", 16) > text_width("Tower ", 16)


def test_joiners_and_variation_selectors_are_not_drawn() -> None:
    assert text_width("a\u200db\ufe0f", 16) == text_width("ab", 16)
    assert drawn("a\u200db\ufe0f").tobytes() == drawn("ab").tobytes()
