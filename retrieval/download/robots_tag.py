"""The header X-Robots-Tag, by which a server says that its images are not for machines to learn from or to index."""

import re
from collections.abc import Iterable

from retrieval.images.http import Headers
from retrieval.images.http_body import FetchError

ROBOTS_TAG = "X-Robots-Tag"  # the header, and the cause why there is no image

# Those that img2dataset heeds, and `none`, which means noindex and nofollow.
_EXCLUDING = frozenset(("noai", "noimageai", "noindex", "noimageindex", "none"))
_WITH_VALUE = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))
_OUR_NAME = "lmr"
_PRODUCT = re.compile(r"[^\s/;(]*")  # landmarks of landmarks/1 (me@example.org)


def heed_robots_tag(headers: Headers, user_agent: str) -> None:
    """Raises FetchError when the server excludes what it sends, for everybody or for this program."""
    names = {"*", _OUR_NAME, _PRODUCT.match(user_agent.strip())[0].lower()}  # type: ignore[index]
    if directive := excluding(headers.getall(ROBOTS_TAG, []), names):
        raise FetchError(ROBOTS_TAG, directive, http_code=200)


def excluding(values: Iterable[str], names: set[str]) -> str:
    """The first directive in the values of the header that excludes; '' when there is none.

    A value is a list with commas, of directives for everybody until a name with a colon begins those for that one
    program. names: of this program, in lower case.
    """
    for value in values:
        concerns_us = True
        for part in value.lower().split(","):
            name, colon, rest = (text.strip() for text in part.partition(":"))
            if colon and name not in _WITH_VALUE:
                concerns_us, name = name in names, rest
            if concerns_us and name in _EXCLUDING:
                return name
    return ""
