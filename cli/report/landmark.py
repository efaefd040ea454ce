"""The page of a landmark: typical and deviant images, what it is confused with, the maps of the closest pair."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from cli.report.heat import draw_heat
from cli.report.html import ReportImage, fill_template
from cli.report.pair import png
from index.answer import Neighbour
from index.folder.thumbnails import read_shown
from retrieval.data.names import shown_name
from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import anywhere
from retrieval.files.atomic import write_bytes, write_text
from retrieval.files.digest import sha256_file, sha256_json
from retrieval.files.folders import current_folder, replacing_folder
from retrieval.files.made_of import is_folder_made_of, write_folder_record
from retrieval.images.decode import decode
from retrieval.images.limits import contain
from retrieval.version import program_version

if TYPE_CHECKING:
    from index.explain.job import LandmarkExplained, OwnImage
    from retrieval.explain.maps import Maps

TEMPLATE = "landmark.html"
PAGE, NUMBERS, MAPS = "landmark.html", "landmark.json", ("own-map.png", "other-map.png")
OTHER_FOLDER = "give --overwrite or another name"
MAP_PX = 480  # longer side of the closest pair


@dataclass(frozen=True, slots=True)
class PairImage:
    """One of the closest pair, large. data: a data: address, blank = it cannot be shown. map_data: under its map.

    sums: what the places and the rest add to the similarity.
    """

    label: str
    name: str
    data: str
    map_data: str
    sums: tuple[float, float] | None


def require_own_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises LmrError, before the work, for a folder that holds other things."""
    is_folder_made_of(folder, {}, OTHER_FOLDER, overwrite=overwrite)


def write_landmark(folder: Path, found: "LandmarkExplained", maps_on: Mapping[str, Any], *, overwrite: bool) -> str:
    """Writes the page, the maps and the numbers; a line that says where, or that they were there.

    maps_on: device and threads of the network that makes the maps.
    Raises LmrError for a folder of somebody else or of another account, and where it cannot be written.
    """
    inputs = _inputs(found)
    if is_folder_made_of(folder, inputs, OTHER_FOLDER, overwrite=overwrite):
        return f"{folder}: finished already, nothing to do"
    maps, notes = _maps(found, maps_on)
    with replacing_folder(folder) as private:
        write_text(private / NUMBERS, [json.dumps(_numbers(found, maps, notes), indent=1, allow_nan=False), "\n"])
        drawn = _draw(found, maps)
        for name, (_, heat) in zip(MAPS, drawn, strict=False):
            if heat is not None:
                write_bytes(private / name, png(heat))
        write_text(private / PAGE, [render_landmark(found, maps, notes, drawn, folder)])
        write_folder_record(private, inputs)
    return f"{folder}: written; open {current_folder(folder) / PAGE}"


Drawn = list[tuple[Image.Image | None, Image.Image | None]]  # each of the pair, and it under its map


def render_landmark(found: "LandmarkExplained", maps: "Maps | None", notes: list[str], drawn: Drawn, home: Path) -> str:
    """The page as HTML text; everything that is data is escaped. home: folder that it will be in, for links."""
    return fill_template(
        TEMPLATE,
        {},
        folder=home,
        found=found,
        notes=[*found.notes, *notes],
        typical=[_card(one) for one in found.typical],
        deviant=[_card(one) for one in found.deviant],
        pair=_pair(found, maps, drawn),
        score=None if found.closest is None else found.closest[0].score,
        maps_score=None if maps is None else maps.score,
        index=str(found.folder),
    )


def _card(one: "OwnImage") -> tuple[ReportImage, ReportImage | None]:
    near = one.nearest
    own = ReportImage(one.image.path, one.image.image_id, one.similarity, one.image.kept)
    if near is None:
        return own, None
    return own, ReportImage(near.path, shown_name(near.landmark_id, near.name), near.score, near.kept)


def _pair(found: "LandmarkExplained", maps: "Maps | None", drawn: Drawn) -> list[PairImage]:
    if found.closest is None:
        return []
    sums: list[tuple[float, float] | None] = [None, None]
    if maps is not None and maps.maps:
        first = maps.maps[0]
        for i, (values, rest) in enumerate(((first.query, first.query_rest), (first.row, first.row_rest))):
            if values is not None and rest is not None:
                sums[i] = float(values.sum()), rest
    return [
        PairImage(shown_name(image.landmark_id, image.name), image.image_id, _data(plain), _data(heat), own_sums)
        for image, (plain, heat), own_sums in zip(found.closest, drawn, sums, strict=True)
    ]


def _maps(found: "LandmarkExplained", maps_on: Mapping[str, Any]) -> tuple["Maps | None", list[str]]:
    """The maps of the closest pair, or why there are none."""
    if found.closest is None:
        return None, []
    try:
        maps = found.maps(**maps_on)
    except LmrError as error:
        return None, [f"no similarity map of the closest pair: {anywhere(error)}"]
    return maps, list(maps.notes)


def _draw(found: "LandmarkExplained", maps: "Maps | None") -> Drawn:
    if found.closest is None:
        return []
    own, other = (_shown(image) for image in found.closest)
    first = maps.maps[0] if maps is not None and maps.maps else None
    if first is None:
        return [(own, None), (other, None)]
    values = ((own, first.query, first.query_area), (other, first.row, first.row_area))
    return [
        (image, None if image is None or of is None else draw_heat(image, of, is_signed=first.is_signed, area=area))
        for image, of, area in values
    ]


def _shown(image: Neighbour) -> Image.Image | None:
    try:
        return contain(decode(read_shown(image.path, image.kept), MAP_PX), MAP_PX)
    except UnreadableError:
        return None


def _numbers(found: "LandmarkExplained", maps: "Maps | None", notes: list[str]) -> dict[str, Any]:
    """The JSON document of the account, with the maps."""
    content = found.to_json()
    content["notes"] += notes
    content["maps"] = None
    if maps is not None and maps.maps:
        first = maps.maps[0]
        content["maps"] = {
            "similarity": maps.score,
            "own": {"places": first.query.tolist(), "rest": first.query_rest},
            "other": None if first.row is None else {"places": first.row.tolist(), "rest": first.row_rest},
        }
    return content


def _inputs(found: "LandmarkExplained") -> dict[str, Any]:
    """What the page is made of."""
    closest = found.closest or ()
    return {
        **found.folder.made_of,
        "version of lmr": program_version(),
        "landmark": found.landmark_id,
        "account": sha256_json(found.to_json()),
        "closest pair": sha256_json([_digest_of(image.path) for image in closest]),
    }


def _digest_of(path: str) -> str:
    try:
        return sha256_file(Path(path))
    except (OSError, ValueError):
        return ""


def _data(image: Image.Image | None) -> str:
    if image is None:
        return ""
    content = BytesIO()
    image.save(content, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")
