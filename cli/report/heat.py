"""Heat maps over photographs: colours of even steps to the eye, and a legend with their values."""

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from cli.report.lettering import draw_text, text_width
from retrieval.arrays import FloatArray, UInt8Array
from retrieval.explain.maps import WHOLE, Area

N_COLOURS = 256
SHOWN_SHARE = 0.998  # of the values, that the colours end at; single pixels of saliency are far above the others
COVER, FADE = (
    0.78,
    0.75,
)  # how much the strongest colours hide of the photograph, and how fast weaker ones let it through
LEGEND_PX, BAR_PX, TEXT_SIZE = 34, 10, 12
PAPER, INK, FAINT = (255, 255, 255), (28, 32, 38), (104, 110, 118)


def draw_heat(
    image: Image.Image,
    values: FloatArray,
    *,
    is_signed: bool = False,
    area: Area = WHOLE,
    limit: float | None = None,
) -> Image.Image:
    """The photograph in grey under the colours of a map, with a legend below it, RGB.

    values: (h, w) of places. is_signed: colours go from blue for what is below 0 over none to yellow. area: what of the
    photograph they cover. limit: value of the last colour, so that several maps can share it; None = as the map has it.
    """
    limit = heat_limit(values) if limit is None else limit
    spread = _spread(values, image.size, area) / (limit or 1.0)
    strength = np.clip(np.abs(spread) if is_signed else spread, 0, 1)
    place = np.clip(spread / 2 + 0.5 if is_signed else spread, 0, 1)
    colours = _colours(is_signed)[np.rint(place * (N_COLOURS - 1)).astype(np.int64)].astype(np.float64)
    cover = COVER * strength[:, :, None] ** FADE
    mixed = _ground(image) * (1 - cover) + colours * cover
    return _with_legend(Image.fromarray(np.rint(mixed).astype(np.uint8)), limit, is_signed)


def heat_limit(values: FloatArray) -> float:
    """The value that the last colour stands for: nearly the largest one, without its sign."""
    return float(np.quantile(np.abs(values), SHOWN_SHARE, method="higher"))


def _ground(image: Image.Image) -> FloatArray:
    """The photograph in grey, neither black nor white anywhere, so that colours are seen on light and dark ones."""
    grey = np.asarray(ImageEnhance.Contrast(image.convert("L")).enhance(0.9), dtype=np.float64)
    return np.repeat((40 + grey * (200 / 255))[:, :, None], 3, axis=2)


def _spread(values: FloatArray, size: tuple[int, int], area: Area) -> FloatArray:
    """(height, width) values of the pixels of a photograph, smooth between the middles of places; 0 outside."""
    width, height = size
    left, right = round(area[0] * width), round(area[2] * width)
    top, bottom = round(area[1] * height), round(area[3] * height)
    within = (max(1, right - left), max(1, bottom - top))
    spread = Image.new("F", size)
    spread.paste(Image.fromarray(values.astype(np.float32)).resize(within, Image.Resampling.BICUBIC), (left, top))
    return np.asarray(spread, dtype=np.float64)


def _colours(is_signed: bool) -> UInt8Array:
    """(N_COLOURS, 3) from violet to yellow, or from blue over grey to yellow, in even steps of lightness and hue."""
    t = np.linspace(0, 1, N_COLOURS)
    if is_signed:
        away = np.abs(2 * t - 1)
        return _oklch(0.55 + 0.35 * (2 * t - 1), 0.17 * away, np.where(t < 0.5, 262.0, 92.0))
    return _oklch(0.32 + 0.58 * t, 0.17 + 0.0 * t, 310 + 150 * t)


def _oklch(lightness: FloatArray, chroma: FloatArray, hue_deg: FloatArray) -> UInt8Array:
    """sRGB of colours in OKLCH, where equal steps look equal (Ottosson, A perceptual color space, 2020)."""
    hue = np.deg2rad(hue_deg)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    to_cones = np.array(
        [
            [1, 0.3963377774, 0.2158037573],
            [1, -0.1055613458, -0.0638541728],
            [1, -0.0894841775, -1.2914855480],
        ]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_cones.T) ** 3 @ to_linear.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: UInt8Array = np.rint(255 * encoded).astype(np.uint8)
    return colours


def _with_legend(picture: Image.Image, limit: float, is_signed: bool) -> Image.Image:
    width = max(picture.width, 120)
    sheet = Image.new("RGB", (width, picture.height + LEGEND_PX), PAPER)
    sheet.paste(picture, (0, 0))
    bar = np.broadcast_to(_colours(is_signed)[None], (BAR_PX, N_COLOURS, 3))
    drawn = Image.fromarray(np.ascontiguousarray(bar)).resize((width, BAR_PX), Image.Resampling.BILINEAR)
    sheet.paste(drawn, (0, picture.height + 4))
    pen, top = ImageDraw.Draw(sheet), picture.height + BAR_PX + 6
    low, high = f"{-limit if is_signed else 0:.3g}", f"{limit:.3g}"
    draw_text(pen, (0, top), low, TEXT_SIZE, INK)
    draw_text(pen, (round(width - text_width(high, TEXT_SIZE)), top), high, TEXT_SIZE, INK)
    if is_signed:
        draw_text(pen, (round((width - text_width("0", TEXT_SIZE)) / 2), top), "0", TEXT_SIZE, FAINT)
    return sheet
