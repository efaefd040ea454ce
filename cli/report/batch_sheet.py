"""A contact sheet of one batch: the pictures that the network sees, pixel for pixel, with what they count as."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from cli.report.sheet import FAINT, GAP_PX, INK, MARGIN_PX, PAPER, save_image, write_line
from index.answer import NO_LANDMARK

if TYPE_CHECKING:
    from retrieval.train.first_batch import SeenImage

MIN_TILE_PX = 160  # smaller pictures are enlarged by a whole number, so that there is room to read what is under them
LINE_PX = 20


def save_batch_sheet(path: Path, pictures: Sequence["SeenImage"]) -> None:
    """Writes the sheet. Raises LmrError for a suffix that Pillow cannot write or a file that cannot be written."""
    save_image(path, draw_batch(pictures))


def draw_batch(pictures: Sequence["SeenImage"]) -> Image.Image:
    """The pictures of a batch, at least one, in rows from the left, as an RGB picture that is about square."""
    size = len(pictures[0].pixels)
    side = size * -(-MIN_TILE_PX // size)
    n_columns = math.ceil(math.sqrt(len(pictures)))
    n_rows = -(-len(pictures) // n_columns)
    text_px = LINE_PX * (1 + max(max(1, len(picture.labels)) for picture in pictures)) + 6
    cell = side + GAP_PX, side + text_px + GAP_PX
    width, height = (2 * MARGIN_PX - GAP_PX + n * px for n, px in zip((n_columns, n_rows), cell, strict=True))
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        left, top = MARGIN_PX + i % n_columns * cell[0], MARGIN_PX + i // n_columns * cell[1]
        sheet.paste(Image.fromarray(picture.pixels).resize((side, side), Image.Resampling.NEAREST), (left, top))
        lines = [(text, INK) for text in picture.labels] or [(NO_LANDMARK, FAINT)]
        for k, (text, colour) in enumerate([*lines, (picture.image_id, FAINT)]):
            write_line(pen, (left, top + side + 6 + k * LINE_PX), text, side, colour)
    return sheet
