"""The look of the pages: their templates, and the files that these load."""

import gzip
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from cli.report.html import new_environment
from cli.terminal import escaped
from index.answer import verification

STATIC = "/static"  # where the files are
TYPES = {".css": "text/css", ".svg": "image/svg+xml", ".js": "text/javascript"}
FOR_EVER = "public, max-age=31536000, immutable"  # as the address of a file holds the digest of all
NEARLY_ALL = 0.999  # what is said of a confidence beyond it, and likewise of one near 0
WORDS = ((0.99, "as good as certain"), (0.9, "very likely"), (0.7, "likely"), (0.4, "a guess"), (0.0, "unlikely"))


class Views:
    """The templates of the pages, and the static files by their names, as they are and packed by gzip."""

    def __init__(self) -> None:
        files = sorted((Path(__file__).parent / "static").iterdir())
        self.files = {file.name: file.read_bytes() for file in files if file.suffix in TYPES}
        self.packed = {name: gzip.compress(data, mtime=0) for name, data in self.files.items()}
        self.digest = sha256(b"".join(self.files.values())).hexdigest()[:16]
        self._environment = new_environment("web/templates")
        self._environment.filters |= {
            one.__name__: one for one in (breakable, exact, in_path, in_words, sure, verification)
        }
        self._environment.globals["static"] = f"{STATIC}/{self.digest}"
        self._environment.globals["scripts"] = [name for name in self.files if name.endswith(".js")]

    def render(self, name: str, **values: Any) -> str:
        """A template as HTML; values are escaped."""
        return self._environment.get_template(name).render(values)

    def caching(self, digest: str) -> str:
        """How long a browser may keep a file that it asked for under a digest."""
        return FOR_EVER if digest == self.digest else "no-cache"


@cache
def views() -> Views:
    """The views, read once."""
    return Views()


def exact(text: str) -> Markup:
    """An id as the value of an attribute, from which a script and a form get it as it is."""
    return Markup("".join(c if c.isprintable() else f"&#{ord(c)};" for c in escape(text)))


def breakable(text: str) -> Markup:
    """A name that may go on in the next line after each _."""
    return Markup(escape(escaped(text)).replace("_", Markup("_<wbr>")))


def in_path(text: str) -> str:
    """An id as a part of an address."""
    return quote(text.encode(errors="surrogateescape"), safe="")


def sure(confidence: float) -> str:
    """A confidence as a share, which is neither all nor nothing."""
    if confidence > NEARLY_ALL:
        return f"over {NEARLY_ALL:.1%}"
    return f"{confidence:.1%}" if confidence >= 1 - NEARLY_ALL else f"under {1 - NEARLY_ALL:.1%}"


def in_words(confidence: float) -> str:
    """A confidence in words."""
    return next(words for least, words in WORDS if confidence >= least)
