"""The images of an explanation: the two that were compared, what was found in both, and maps over them."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from cli.report.explanation_words import neighbour_file, signed
from cli.report.html import file_name
from cli.report.pair import caption_of, draw_maps, draw_pair, map_limit, with_caption

if TYPE_CHECKING:
    from index.explain.explanation import Explanation
    from retrieval.explain.maps import NamedMap

MATCH = "match"
QUALITY = 85  # of those within a page


@dataclass(frozen=True, slots=True, eq=False)
class DrawnImage:
    """An image with its caption. name: of its file, without suffix. alt: for those who do not see it.

    is_sum: it is a map whose places sum to the score.
    """

    name: str
    title: str
    about: str
    alt: str
    image: Image.Image
    is_sum: bool = False

    @property
    def data(self) -> str:
        """The image alone as a data: address, for a page."""
        content = BytesIO()
        self.image.save(content, "WEBP", quality=QUALITY)
        return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode("ascii")

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
    """The match of the two images, where both can be shown, then the maps over them."""
    query, row, votes = explained.query, explained.row, explained.votes
    if query is None or query.pixels is None or row is None or votes is None:
        return
    names = f"{file_name(explained.answer.image)} beside {neighbour_file(votes.decisive)}"
    if row.pixels is not None:
        title, about = "The picture that was asked, and the one that decided", explained.why_no_match
        if explained.match is not None:
            title, about = caption_of(explained.match)
        drawn = draw_pair(query.pixels, row.pixels, explained.match)
        yield DrawnImage(MATCH, title, about, f"{names}: {title}", drawn)
    for one in () if explained.maps is None else explained.maps.maps:
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
