"""Two images beside each other with what was found in both: lines between them, the edge of the one in the other."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from cli.report.explanation_words import signed
from cli.report.heat import draw_heat, heat_limit
from cli.report.html import file_name
from cli.report.lettering import text_width
from cli.report.sheet import FAINT, INK, PAPER, write_line
from retrieval.arrays import FloatArray, LongArray
from retrieval.images.limits import scaled_size
from retrieval.words import counted

if TYPE_CHECKING:
    from index.explain.comparison import Compared
    from index.explain.explanation import Explanation
    from index.explain.match import ImageMatch
    from retrieval.explain.maps import NamedMap

LONGEST_PX, HIGHEST_PX = 1400, 720  # of the two images together
GAP_PX = 12
MATCH = "match"
QUALITY = 85  # of images within a page
PREFERRED = 1.6  # how much larger it must be shown: lines are followed more easily from side to side
MAP_HIGH_PX, MAP_WIDE_PX = 300, 420  # of an image under a map
MAX_LINES = 60
FINER = 2  # lines are drawn so many times larger, for smooth edges
MARGIN_PX, CAPTION_PX, CAPTION_WIDTH_PX, CAPTION_SIZE, ABOUT_SIZE = 16, 24, 640, 15, 13
LINE_PX, HALO_PX, DOT_PX, FRAME_PX = 2.0, 4.5, 3.6, 3.0
FRAME = (255, 255, 255)
HALO = (0, 0, 0)
EDGE = (128, 128, 128, 255)  # of each image, so that a white one ends on white
_FIRST, _LAST, _CURVE_STEPS = (255, 224, 64), (70, 200, 255), 40  # yellow to sky blue: light, and apart for every eye
_BEYOND = 4.0  # images' sizes that an outline may lie outside; farther it says nothing


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of two images on a sheet: (left, top, width, height) of each, and the size of the whole."""

    query: tuple[int, int, int, int]
    row: tuple[int, int, int, int]
    size: tuple[int, int]


def layout_of(one: tuple[int, int], other: tuple[int, int]) -> Layout:
    """Beside each other at one height, or above each other at one width where that shows the smaller one much larger.

    one, other: width and height.
    """
    shapes = one[0] / one[1], other[0] / other[1]
    high = min(HIGHEST_PX, (LONGEST_PX - GAP_PX) / sum(shapes))
    wide = min(LONGEST_PX, (1.4 * HIGHEST_PX - GAP_PX) / sum(1 / shape for shape in shapes))
    if PREFERRED * min(shapes) * high**2 >= wide**2 / max(shapes):
        sizes = [(max(1, round(shape * high)), max(1, round(high))) for shape in shapes]
        places = [(0, 0), (sizes[0][0] + GAP_PX, 0)]
        size = (sizes[0][0] + GAP_PX + sizes[1][0], sizes[0][1])
    else:
        sizes = [(max(1, round(wide)), max(1, round(wide / shape))) for shape in shapes]
        places = [(0, 0), (0, sizes[0][1] + GAP_PX)]
        size = (sizes[0][0], sizes[0][1] + GAP_PX + sizes[1][1])
    return Layout((*places[0], *sizes[0]), (*places[1], *sizes[1]), size)


def draw_pair(query: Image.Image, row: Image.Image, match: "ImageMatch | None") -> Image.Image:
    """The query and the image of a row, RGBA, with the inliers of their match as lines; transparent between them."""
    layout = layout_of(query.size, row.size)
    sheet = Image.new("RGBA", layout.size)
    pen = ImageDraw.Draw(sheet)
    for image, (left, top, width, height) in ((query, layout.query), (row, layout.row)):
        sheet.paste(image.resize((width, height), Image.Resampling.LANCZOS), (left, top))
        pen.rectangle((left, top, left + width - 1, top + height - 1), outline=EDGE)
    if match is None or not match.match.n_inliers:
        return sheet
    drawn = Image.new("RGBA", (FINER * sheet.width, FINER * sheet.height))
    if (outline := outline_of(match)) is not None:
        _draw_outline(drawn, layout, outline)
    _draw_lines(drawn, layout, match)
    smooth = drawn.convert("RGBa").resize(sheet.size, Image.Resampling.BOX).convert("RGBA")
    return Image.alpha_composite(sheet, smooth)


def draw_maps(query: Image.Image, row: Image.Image | None, of: "NamedMap") -> Image.Image:
    """A map over the query, and over the image of the row beside it, RGBA; colours mean the same in both."""
    limit = map_limit(of)
    shown = [(query, of.query, of.query_area)]
    if row is not None and of.row is not None:
        shown.append((row, of.row, of.row_area))
    drawn = []
    for image, values, area in shown:
        scale = min(MAP_HIGH_PX / image.height, MAP_WIDE_PX / image.width)
        small = image.resize(scaled_size(image.size, scale), Image.Resampling.LANCZOS)
        heat = draw_heat(small, values, is_signed=of.is_signed, area=area, limit=limit)
        drawn.append(heat.crop((0, 0, small.width, small.height)))
    width = sum(image.width for image in drawn) + GAP_PX * (len(drawn) - 1)
    sheet = Image.new("RGBA", (width, max(image.height for image in drawn)))
    left = 0
    for image in drawn:
        sheet.paste(image, (left, 0))
        left += image.width + GAP_PX
    return sheet


def map_limit(of: "NamedMap") -> float:
    """The value that the strongest colour of both images stands for."""
    return max(heat_limit(values) for values in (of.query, of.row) if values is not None)


def with_caption(drawn: Image.Image, title: str, about: str) -> Image.Image:
    """The pair on white paper with its caption in as many lines as it takes, RGB."""
    width = max(drawn.width, CAPTION_WIDTH_PX)
    lines = [(line, INK, CAPTION_SIZE) for line in wrapped(title, CAPTION_SIZE, width)]
    lines += [(line, FAINT, ABOUT_SIZE) for line in wrapped(about, ABOUT_SIZE, width)]
    height = drawn.height + CAPTION_PX * len(lines) + 8
    sheet = Image.new("RGB", (width + 2 * MARGIN_PX, height + 2 * MARGIN_PX), PAPER)
    sheet.paste(drawn, (MARGIN_PX, MARGIN_PX), drawn)
    pen, top = ImageDraw.Draw(sheet), MARGIN_PX + drawn.height + 8
    for i, (line, colour, size) in enumerate(lines):
        write_line(pen, (MARGIN_PX, top + i * CAPTION_PX), line, width, colour, size)
    return sheet


def wrapped(text: str, size: int, width: float) -> list[str]:
    """The text in lines of at most this width, broken between words; a word that is wider has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def outline_of(match: "ImageMatch") -> FloatArray | None:
    """(n, 2) where the edge of the query lies in the image of the row, as shares of its width and height.

    None where the geometry is no homography, or sends the edge to infinity, far away or past the image.
    """
    model = match.match.model
    if match.match.kind != "homography" or model is None:
        return None
    width, height = match.query.size
    t = np.linspace(0, 1, _CURVE_STEPS, endpoint=False)
    sides = ((t, 0 * t), (1 + 0 * t, t), (1 - t, 1 + 0 * t), (0 * t, 1 - t))
    edge = np.concatenate([np.stack([x * width, y * height, np.ones(len(t))], axis=1) for x, y in sides])
    mapped = edge @ np.asarray(model, dtype=np.float64).T
    if not (np.all(mapped[:, 2] > 0) or np.all(mapped[:, 2] < 0)):
        return None
    outline: FloatArray = mapped[:, :2] / mapped[:, 2:] / np.array(match.row.size, dtype=np.float64)
    is_within = np.all((outline > 0) & (outline < 1), axis=1).any()
    return outline if is_within and np.abs(outline).max() < _BEYOND else None


def spread_out(points: FloatArray, n: int) -> LongArray:
    """(n,) numbers of n points that lie far from each other, or of all where there are fewer: each the farthest one."""
    if len(points) <= n:
        return np.arange(len(points), dtype=np.int64)
    chosen = [int(np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < n:
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return np.array(sorted(chosen), dtype=np.int64)


def caption_of(match: "ImageMatch") -> tuple[str, str]:
    """A line on what the match found, and one on how it was found."""
    found = match.match
    names = {"rootsift": "RootSIFT", "aliked": "ALIKED", "xfeat": "XFeat"}
    how = f"{names[match.kind]} found {len(match.query):,} and {counted(len(match.row), 'keypoint')}"
    matches = counted(found.n_matches, "match")
    if not found.n_inliers:
        what = f"No geometry fits the {matches}" if found.n_matches else "Nothing matches"
        return f"{what}: local features do not tell that both show the same thing", how
    kind = {"homography": "homography", "fundamental": "geometry of two cameras"}[found.kind]
    title = f"{found.n_inliers:,} of {matches} agree on one {kind}; by chance {found.n_chance:.1f} would"
    if found.n_inliers > MAX_LINES:
        how += f"; {MAX_LINES} of the {found.n_inliers:,} are drawn as lines, the others as dots"
    if outline_of(match) is not None:
        how += "; the white outline is the edge of the picture that was asked"
    return title, how


def _draw_outline(drawn: Image.Image, layout: Layout, outline: FloatArray) -> None:
    """The frame of the query, and where it lies in the other image, cut at its edge."""
    for place, shares in ((layout.query, None), (layout.row, outline)):
        left, top, width, height = (FINER * value for value in place)
        tile = Image.new("RGBA", (width, height))
        pen = ImageDraw.Draw(tile)
        if shares is None:
            inset = FINER * HALO_PX / 2
            box = [(inset, inset), (width - inset, inset), (width - inset, height - inset), (inset, height - inset)]
        else:
            box = [(x * width, y * height) for x, y in shares.tolist()]
        closed = [*box, box[0], box[1]]
        pen.line(closed, fill=(*HALO, 200), width=round(FINER * (FRAME_PX + 2.4)), joint="curve")
        pen.line(closed, fill=(*FRAME, 255), width=round(FINER * FRAME_PX), joint="curve")
        drawn.paste(tile, (left, top), tile)


def _draw_lines(drawn: Image.Image, layout: Layout, match: "ImageMatch") -> None:
    """Lines between the inliers, light with a dark edge, coloured by their height in the query; dots at all of them."""
    here = _on_sheet(match.match.points_query, match.query.size, layout.query)
    there = _on_sheet(match.match.points_row, match.row.size, layout.row)
    pen, lines = ImageDraw.Draw(drawn), spread_out(here, MAX_LINES)
    order = lines[np.argsort(here[lines, 1], kind="stable")]
    low, high = here[:, 1].min(), here[:, 1].max()
    share = (here[:, 1] - low) / max(high - low, 1.0)
    colours = np.rint(np.outer(1 - share, _FIRST) + np.outer(share, _LAST)).astype(int).tolist()
    for i in order.tolist():
        pen.line((*here[i], *there[i]), fill=(*HALO, 190), width=round(FINER * HALO_PX))
        pen.line((*here[i], *there[i]), fill=(*colours[i], 255), width=round(FINER * LINE_PX))
    is_line = np.isin(np.arange(len(here)), lines)
    for i in range(len(here)):
        radius = FINER * (DOT_PX if is_line[i] else DOT_PX / 1.6)
        for x, y in (here[i], there[i]):
            box = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(box, fill=(*colours[i], 255), outline=(*HALO, 255), width=FINER)


def _on_sheet(points: FloatArray, size: tuple[int, int], place: tuple[int, int, int, int]) -> FloatArray:
    """(n, 2) pixels of the finer sheet, of pixels of an image of this size."""
    left, top, width, height = place
    scaled: FloatArray = points.astype(np.float64) * np.array([width / size[0], height / size[1]])
    moved: FloatArray = FINER * (scaled + np.array([left, top]))
    return moved


@dataclass(frozen=True, slots=True, eq=False)
class DrawnImage:
    """An image with its caption. name: of its file, without suffix. alt: for those who do not see it.

    is_sum: it is a map whose places sum to the score. is_of_class: it is a map of a class.
    """

    name: str
    title: str
    about: str
    alt: str
    image: Image.Image
    is_sum: bool = False
    is_of_class: bool = False

    @property
    def webp(self) -> bytes:
        """The image alone as a WebP file."""
        content = BytesIO()
        self.image.save(content, "WEBP", quality=QUALITY)
        return content.getvalue()

    @property
    def data(self) -> str:
        """The image alone as a data: address, for a page."""
        return "data:image/webp;base64," + base64.b64encode(self.webp).decode("ascii")

    @property
    def png(self) -> bytes:
        """The image on white with its caption."""
        return png(with_caption(self.image, self.title, self.about))


def png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    content = BytesIO()
    image.save(content, "PNG", compress_level=4)
    return content.getvalue()


def drawn_images(explained: "Explanation") -> Iterator[DrawnImage]:
    """The match with the image that decided, where both can be shown, then the maps over them and those of a class."""
    query, asked = explained.query, file_name(explained.answer.image)
    yield from drawn_compared(explained, asked, "The picture that was asked, and the one that decided")
    if explained.of_class is None or query is None or query.pixels is None:
        return
    for one in explained.of_class.maps:
        image, alt = draw_maps(query.pixels, None, one), f"{one.title} of {asked}"
        yield DrawnImage(f"map-{one.name}", one.title, _map_words(one), alt, image, is_of_class=True)


def drawn_compared(
    compared: "Compared", asked: str, title: str = "The picture that was asked, and one of the index"
) -> Iterator[DrawnImage]:
    """The match of two images, where both can be shown, then the maps over them.

    asked: what the one is called. title: where they could not be matched.
    """
    query, row, near = compared.query, compared.row, compared.neighbour
    if query is None or query.pixels is None or row is None or near is None:
        return
    names = f"{asked} beside {file_name(near.path) or near.image_id}"
    if row.pixels is not None:
        about = compared.why_no_match
        if compared.match is not None:
            title, about = caption_of(compared.match)
        yield DrawnImage(MATCH, title, about, f"{names}: {title}", draw_pair(query.pixels, row.pixels, compared.match))
    for one in () if compared.maps is None else compared.maps.maps:
        image = draw_maps(query.pixels, row.pixels, one)
        yield DrawnImage(
            f"map-{one.name}", one.title, _map_words(one), f"{one.title} of {names}", image, one.query_rest is not None
        )


def _map_words(one: "NamedMap") -> str:
    """What a map shows, what its colours stand for, and what its places add up to."""
    limit = map_limit(one)
    colours = f"blue {signed(-limit)} to yellow {signed(limit)}" if one.is_signed else f"violet 0 to yellow {limit:.3g}"
    sentences = [f"{one.about}; from {colours}" if one.about else colours]
    for side, values, rest in (("left", one.query, one.query_rest), ("right", one.row, one.row_rest)):
        if values is not None and rest is not None:
            total = float(values.sum(dtype="float64"))
            sentences.append(
                f"{side}: places {signed(total)}, no place {signed(rest)}, together {signed(total + rest)}"
            )
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences) + "."
