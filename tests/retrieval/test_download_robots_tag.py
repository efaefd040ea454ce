"""What the header X-Robots-Tag excludes."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from retrieval.download.hosts import heed_robots_tag
from retrieval.images.http_body import FetchError


def heed(*values: str, user_agent: str = "landmarks/1 (me@example.org)") -> str:
    """The directive that excludes; '' when nothing does."""
    headers = CIMultiDictProxy(CIMultiDict([("x-robots-tag", value) for value in values]))
    try:
        heed_robots_tag(headers, user_agent)
    except FetchError as error:
        return error.detail
    return ""


@pytest.mark.parametrize(
    ("values", "directive"),
    [
        (["noai"], "noai"),
        (["noimageai"], "noimageai"),
        (["noindex"], "noindex"),
        (["noimageindex"], "noimageindex"),
        (["none"], "none"),
        (["NoAI"], "noai"),
        (["nofollow,  noimageai ,noarchive"], "noimageai"),
        (["nofollow", "noindex"], "noindex"),
        (["lmr: noai"], "noai"),
        (["LMR:NOAI"], "noai"),
        (["landmarks: nofollow, noai"], "noai"),
        (["*: noai"], "noai"),
        (["googlebot: nofollow, lmr: noindex"], "noindex"),
        (["noai, googlebot: nofollow"], "noai"),
        (["max-snippet: 5, noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"], "noindex"),
    ],
)
def test_a_image_is_excluded(values, directive):
    assert heed(*values) == directive


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["all"],
        ["nofollow, noarchive"],
        ["noaim, xnoindex"],
        ["googlebot: noindex"],
        ["googlebot: nofollow, noindex"],
        ["googlebot: noindex", "otherbot: noai"],
        ["max-image-preview: none"],
        [":::,,,"],
    ],
)
def test_a_image_is_not_excluded(values):
    assert heed(*values) == ""


def test_what_is_excluded_is_not_tried_again():
    with pytest.raises(FetchError, match=r"^X-Robots-Tag: noai$") as caught:
        heed_robots_tag(CIMultiDictProxy(CIMultiDict({"X-Robots-Tag": "noai"})), "")
    assert (caught.value.cause, caught.value.http_code, caught.value.is_transient) == ("X-Robots-Tag", 200, False)


def test_a_program_without_a_name_is_lmr():
    assert heed("lmr: noai", user_agent="") == "noai"
    assert heed("landmarks: noai", user_agent="other/1") == ""
