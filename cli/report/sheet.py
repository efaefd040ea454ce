"""Contact sheets: query images beside the neighbours that voted, and training batches as the network sees them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from cli.report.lettering import draw_text, elide
from index.answer import NO_LANDMARK
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.atomic import write_bytes
from retrieval.images.decode import decode
from retrieval.images.limits import contain
from retrieval.words import counted

if TYPE_CHECKING:
    from index.folder.thumbnails import Kept
    from retrieval.train.first_batch import SeenImage


MAX_ROWS = 180  # a JPEG ends at 65,535 pixels
JPEG_QUALITY = 90

QUERY_PX, NEIGHBOUR_PX, GAP_PX, MARGIN_PX, TEXT_PX = 232, 168, 14, 22, 86
N_DETAILS, DETAIL_PX = 2, 19  # that TEXT_PX has room for
TITLE_SIZE, TEXT_SIZE = 17, 13
PAPER, INK, FAINT, EMPTY = (255, 255, 255), (28, 32, 38), (104, 110, 118), (224, 226, 230)
VOTED, OTHER = (0, 114, 178), (150, 150, 150)  # blue and grey differ for every kind of colour vision
MIN_TILE_PX = 160  # smaller images are enlarged by a whole number, so that there is room to read what is under them
LINE_PX = 20


@dataclass(frozen=True, slots=True)
class SheetNeighbour:
    """A labelled image beside the query. image: its path, '' or None = not known where.

    kept: reads what the index keeps of it, shown where the image is not there. inliers: None = it was not compared.
    """

    image: str | None
    label: str
    landmark_id: str
    score: float
    kept: "Kept | None" = None
    inliers: int | None = None


@dataclass(frozen=True, slots=True)
class SheetEntry:
    """A row of the sheet. label: what to print; None, like landmark_id, = no known landmark.

    details: lines below it, such as the confidence, or what was nearest and how far.
    """

    image: str
    label: str | None
    details: tuple[str, ...]
    landmark_id: str | None
    neighbours: tuple[SheetNeighbour, ...]


def sheet_bytes(path: Path, entries: Sequence[SheetEntry]) -> bytes:
    """The sheet in the format of the path's suffix; after MAX_ROWS entries it only counts.

    An image that cannot be read becomes a grey tile that says so. Raises LmrError for a suffix that Pillow cannot
    write, or no entries.
    """
    sheet_format(path)
    if not entries:
        raise LmrError(f"{path}: there is no readable picture to put on a sheet")
    return image_bytes(path, draw_sheet(entries))


def save_image(path: Path, sheet: Image.Image) -> None:
    """Writes a sheet that is drawn, whole or not at all. Raises LmrError as `image_bytes` and `write_bytes`."""
    write_bytes(path, image_bytes(path, sheet))


def image_bytes(path: Path, sheet: Image.Image) -> bytes:
    """A sheet that is drawn in the format of the path's suffix. Raises LmrError where that cannot hold it."""
    form, content = sheet_format(path), BytesIO()
    try:
        sheet.save(content, form, **({"quality": JPEG_QUALITY} if form in ("JPEG", "WEBP") else {}))
    except (OSError, ValueError) as error:
        size = f"{sheet.width} x {sheet.height}"
        raise LmrError(f"{path}: a sheet of {size} pixels cannot be a {form} ({error}); use .png") from error
    return content.getvalue()


def sheet_format(path: Path) -> str:
    """Pillow's name of the format that the suffix asks for. Raises LmrError when it cannot write that."""
    form = Image.registered_extensions().get(path.suffix.lower())
    if form is None or form not in Image.SAVE:
        raise LmrError(f"{path}: a sheet cannot have the suffix {path.suffix or '(none)'}; use .jpg, .png or .webp")
    return form


def draw_sheet(entries: Sequence[SheetEntry]) -> Image.Image:
    """The sheet as an RGB image."""
    shown = entries[:MAX_ROWS]
    n_beside = max(len(entry.neighbours) for entry in shown)
    n_more = max(0, max(len(entry.details) for entry in shown) - N_DETAILS)
    row_px = QUERY_PX + TEXT_PX + n_more * DETAIL_PX + GAP_PX
    width = 2 * MARGIN_PX + QUERY_PX + n_beside * (NEIGHBOUR_PX + GAP_PX) + (GAP_PX if n_beside else 0)
    note_px = TEXT_PX if len(entries) > len(shown) else 0
    sheet = Image.new("RGB", (width, 2 * MARGIN_PX + len(shown) * row_px - GAP_PX + note_px), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, entry in enumerate(shown):
        _draw_row(sheet, pen, entry, MARGIN_PX + i * row_px)
    if note_px:
        note = f"the first {counted(len(shown), 'picture', of=len(entries))}; a sheet that ends in .html shows all"
        write_line(pen, (MARGIN_PX, sheet.height - MARGIN_PX - TEXT_PX // 2), note, width, FAINT, TITLE_SIZE)
    return sheet


def _draw_row(sheet: Image.Image, pen: ImageDraw.ImageDraw, entry: SheetEntry, top: int) -> None:
    sheet.paste(_tile(entry.image, QUERY_PX), (MARGIN_PX, top))
    under = top + QUERY_PX + 6
    known = entry.landmark_id is not None
    title = (entry.label or entry.landmark_id or "") if known else NO_LANDMARK
    write_line(pen, (MARGIN_PX, under), title, QUERY_PX, INK if known else FAINT, TITLE_SIZE)
    for i, line in enumerate((*entry.details, _file_name(entry.image))):
        write_line(pen, (MARGIN_PX, under + 22 + DETAIL_PX * i), line, QUERY_PX, FAINT)
    left, low = MARGIN_PX + QUERY_PX + 2 * GAP_PX, top + QUERY_PX - NEIGHBOUR_PX
    for i, neighbour in enumerate(entry.neighbours):
        x = left + i * (NEIGHBOUR_PX + GAP_PX)
        voted = known and neighbour.landmark_id == entry.landmark_id
        sheet.paste(_tile(neighbour.image, NEIGHBOUR_PX, neighbour.kept), (x, low))
        frame = (x - 2, low - 2, x + NEIGHBOUR_PX + 1, low + NEIGHBOUR_PX + 1)
        pen.rectangle(frame, outline=VOTED if voted else OTHER, width=3 if voted else 1)
        _mark(sheet, (x + NEIGHBOUR_PX - 15, low + 15), voted)
        write_line(pen, (x, under), neighbour.label, NEIGHBOUR_PX, INK if voted else FAINT)
        inliers = "" if neighbour.inliers is None else f", {counted(neighbour.inliers, 'inlier')}"
        write_line(pen, (x, under + 19), f"score {neighbour.score:.3f}{inliers}", NEIGHBOUR_PX, FAINT)
        write_line(pen, (x, under + 38), _file_name(neighbour.image), NEIGHBOUR_PX, FAINT)


def write_line(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    width: int,
    colour: tuple[int, int, int],
    size: int = TEXT_SIZE,
) -> None:
    """Text at the left upper corner `at`, cut to `width` pixels, in a font that has its letters."""
    draw_text(pen, at, elide(text, size, width), size, colour)


def _mark(sheet: Image.Image, centre: tuple[int, int], voted: bool) -> None:
    """A tick on blue, or a dash on grey, drawn four times larger for smooth edges."""
    side = 20
    badge, mask = (
        Image.new("RGB", (4 * side, 4 * side), VOTED if voted else OTHER),
        Image.new("L", (4 * side, 4 * side)),
    )
    ImageDraw.Draw(mask).ellipse((0, 0, 4 * side - 1, 4 * side - 1), fill=255)
    stroke = [(20, 42), (35, 56), (60, 26)] if voted else [(22, 40), (58, 40)]
    ImageDraw.Draw(badge).line(stroke, fill=PAPER, width=9, joint="curve")
    at = (centre[0] - side // 2, centre[1] - side // 2)
    sheet.paste(badge.resize((side, side), Image.Resampling.BOX), at, mask.resize((side, side), Image.Resampling.BOX))


def _tile(image: str | None, side: int, kept: "Kept | None" = None) -> Image.Image:
    """The whole image in a square, or a grey square that says why not."""
    tile = Image.new("RGB", (side, side), EMPTY)
    try:
        fitted = contain(decode(_read(image, kept), side), side)
    except UnreadableError as error:
        pen = ImageDraw.Draw(tile)
        write_line(pen, (8, side // 2 - 18), _file_name(image) or "picture", side - 16, FAINT)
        write_line(pen, (8, side // 2), str(error), side - 16, FAINT)
        return tile
    tile.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
    return tile


def _file_name(image: str | None) -> str:
    return (image or "").rstrip("/").rsplit("/", 1)[-1]


def _read(image: str | None, kept: "Kept | None") -> bytes:
    from index.folder.thumbnails import read_shown

    try:
        return read_shown(image or "", kept)
    except UnreadableError as error:
        is_url = (image or "").startswith(("http://", "https://"))
        raise UnreadableError("on the web" if is_url else str(error)) from error


def save_batch_sheet(path: Path, images: Sequence["SeenImage"]) -> None:
    """Writes the sheet. Raises LmrError for a suffix that Pillow cannot write or a file that cannot be written."""
    save_image(path, draw_batch(images))


def draw_batch(images: Sequence["SeenImage"]) -> Image.Image:
    """The images of a batch, at least one, in rows from the left, as an RGB image that is about square."""
    size = len(images[0].pixels)
    side = size * -(-MIN_TILE_PX // size)
    n_columns = math.ceil(math.sqrt(len(images)))
    n_rows = -(-len(images) // n_columns)
    text_px = LINE_PX * (1 + max(max(1, len(image.labels)) for image in images)) + 6
    cell = side + GAP_PX, side + text_px + GAP_PX
    width, height = (2 * MARGIN_PX - GAP_PX + n * px for n, px in zip((n_columns, n_rows), cell, strict=True))
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        left, top = MARGIN_PX + i % n_columns * cell[0], MARGIN_PX + i // n_columns * cell[1]
        sheet.paste(Image.fromarray(image.pixels).resize((side, side), Image.Resampling.NEAREST), (left, top))
        lines = [(text, INK) for text in image.labels] or [(NO_LANDMARK, FAINT)]
        for k, (text, colour) in enumerate([*lines, (image.image_id, FAINT)]):
            write_line(pen, (left, top + side + 6 + k * LINE_PX), text, side, colour)
    return sheet
