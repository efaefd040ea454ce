"""Pictures of Wikimedia Commons: fetched as thumbnails of the widths that its servers make, as its robot policy asks.

https://wikitech.wikimedia.org/wiki/Robot_policy: two requests at a time, 25 Mbit a second, thumbnails of standard
widths rather than originals, and a contact in the User-Agent.
"""

import math
import re
from dataclasses import dataclass
from urllib.parse import unquote

from yarl import URL

from retrieval.download.config import Form

WIDTHS = (20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840)  # mediawiki.org/wiki/Common_thumbnail_sizes
AT_ONCE = 2
BYTES_A_SECOND = 25_000_000 / 8

_ORIGINALS = "upload.wikimedia.org"
_HOSTS = frozenset((_ORIGINALS, "thumb.wikimedia.org"))
# /wikipedia/commons/a/ab/Name.jpg, and /wikipedia/commons/thumb/a/ab/Name.jpg/330px-Name.jpg
_PATH = re.compile(r"(/[^/]+/[^/]+)(?:/thumb)?(/[0-9a-f]/[0-9a-f]{2}/[^/]+)")
_THUMBNAIL = re.compile(r"(/[^/]+/[^/]+/thumb/[0-9a-f]/[0-9a-f]{2}/[^/]+/(?:[^/]*-)?)(\d+)(px-[^/]*)")
_AROUND = {  # of the name of a thumbnail: what stands before its width and after the picture's name
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".gif"), ("", "")),
    **dict.fromkeys((".svg", ".webp"), ("", ".png")),
    **dict.fromkeys((".tif", ".tiff"), ("lossy-page1-", ".jpg")),
}
_LONGEST_NAME_BYTES = 160  # a longer one is "thumbnail" in the name of its thumbnails
_WIDE = 3 / 2  # as a picture of unknown shape is taken to be: cameras' are 4:3 and 3:2, or upright
_CONTACT = re.compile(r"@|https?://|\bUser:", re.IGNORECASE)
_UNWELCOME = (403, 429)  # refusals of whoever asks, which another address does not change


@dataclass(frozen=True, slots=True)
class _Thumbnail:
    before: str
    width: int
    after: str


def is_wikimedia(host: str) -> bool:
    """True for a host, with or without its port, that serves pictures of Wikimedia."""
    return host.partition(":")[0] in _HOSTS


def queue_of(url: URL) -> str:
    """Name of the host whose limits hold for a URL: one for all of Wikimedia's."""
    return _ORIGINALS if is_wikimedia(url.host or "") else url.host_port_subcomponent or ""


def names_contact(user_agent: str) -> bool:
    """True where a User-Agent says whom to turn to, by a mail address, a page or a user of a wiki."""
    return _CONTACT.search(user_agent) is not None


def address_of(url: URL, form: Form) -> URL:
    """Where a picture is fetched from first: the narrowest thumbnail that has the pixels of the form.

    The original where no thumbnail is as wide. The URL itself for a picture that is none of Wikimedia's or of which no
    thumbnails are made, and for originals that are to be kept.
    """
    if not is_wikimedia(url.host or ""):
        return url
    given = _thumbnail(url)
    if form.resize is None:
        return url if given is None else _of_width(url, given, given.width)
    made = given or _made_of(url)
    return url if made is None else _of_width(url, made, _least_width(form, _WIDE))


def larger(address: URL, size: tuple[int, int], form: Form) -> URL | None:
    """Another address of a thumbnail that came in this size, where that has too few pixels for the form, else None."""
    given = _thumbnail(address) if is_wikimedia(address.host or "") else None
    if given is None or form.resize not in ("shorter", "center-crop") or min(size) >= form.size:
        return None
    width, _ = size
    return _of_width(address, given, max(_least_width(form, width / min(size)), given.width + 1))


def instead(address: URL, http_code: int | None) -> URL | None:
    """The original of a thumbnail that is refused with this code, as those wider than the original are, else None."""
    is_refused = http_code is not None and http_code >= 400 and http_code not in _UNWELCOME
    if not is_refused or not is_wikimedia(address.host or "") or _thumbnail(address) is None:
        return None
    return _original(address)


def _thumbnail(url: URL) -> _Thumbnail | None:
    found = _THUMBNAIL.fullmatch(url.raw_path)
    return None if found is None else _Thumbnail(found[1], int(found[2]), found[3])


def _made_of(url: URL) -> _Thumbnail | None:
    """The thumbnails of an original, None where there are none."""
    found = _PATH.fullmatch(url.raw_path)
    if found is None:
        return None
    name = found[2].rpartition("/")[2]
    suffix = re.sub(r".*(?=\.)", "", name).lower()
    if suffix not in _AROUND:
        return None
    before, after = _AROUND[suffix]
    if len(unquote(name).encode()) > _LONGEST_NAME_BYTES:
        name = f"thumbnail{suffix}"
    return _Thumbnail(f"{found[1]}/thumb{found[2]}/{before}", 0, f"px-{name}{after}")


def _of_width(url: URL, thumbnail: _Thumbnail, least: int) -> URL:
    """The thumbnail of the next width that is made, the original where there is none."""
    width = next((width for width in WIDTHS if width >= least), None)
    if width is None:
        return _original(url)
    return url.with_path(f"{thumbnail.before}{width}{thumbnail.after}", encoded=True)


def _original(url: URL) -> URL:
    found = _PATH.match(url.raw_path)
    assert found is not None
    return url.with_path(found[1] + found[2], encoded=True).with_host(_ORIGINALS)


def _least_width(form: Form, shape: float) -> int:
    """Width from which on a picture has the form's pixels. shape: its width by its shorter side."""
    return form.size if form.resize in ("longer", "square-pad") else math.ceil(form.size * max(shape, 1.0))
