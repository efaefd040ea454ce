"""Names of networks, without importing the libraries that have them, which takes seconds.

torchvision and timm mark the functions that make their networks; the marks are read from their source.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.extras import install_hint

PLAIN_NAMES = ("plain-mlp", "plain-cnn")
TIMM = "timm:"

_NETWORK = re.compile(r"^@register_model(?:\(\))?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
_RENAMED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)\}\)", re.MULTILINE | re.DOTALL)
_OLD_NAME = re.compile(r"['\"]([\w.]+)['\"]\s*:")


def require_name(name: str, *, pretrained: bool = False) -> None:
    """LmrError for a network that nobody has, naming the nearest, and for one of timm where that is missing.

    pretrained: also for one that nobody has published weights of.
    """
    if name.startswith(TIMM):
        its_name = name.removeprefix(TIMM)
        if not any(True for _ in _sources("timm")):
            raise LmrError(f"--backbone {name}: needs timm; {install_hint('timm')}")
        if its_name.split(".")[0] not in known_names("timm") | renamed_names("timm"):
            raise LmrError(f"--backbone {name}: timm has no such network{_nearest(its_name, known_names('timm'))}")
    elif name not in (*PLAIN_NAMES, *known_names("torchvision")):
        near = _nearest(name, [*known_names("torchvision"), *PLAIN_NAMES])
        raise LmrError(f"--backbone {name}: torchvision has no such network{near}")
    if pretrained and not _is_published(name):
        raise LmrError(
            f"--backbone {name}: there are no pretrained weights of it; leave out --pretrained "
            "(in a recipe: pretrained=false)"
        )


@cache
def known_names(package: str) -> frozenset[str]:
    """What torchvision or timm can make; nothing when it is not installed."""
    return frozenset(name for text in _sources(package) for name in _NETWORK.findall(text))


@cache
def renamed_names(package: str) -> frozenset[str]:
    """What timm made by other names in earlier releases, and still takes."""
    tables = (table for text in _sources(package) for table in _RENAMED.findall(text))
    return frozenset(name.split(".")[0] for table in tables for name in _OLD_NAME.findall(table))


def _sources(package: str) -> Iterator[str]:
    spec = find_spec(package)
    for place in (spec.submodule_search_locations if spec else None) or ():
        for path in sorted(Path(place, "models").glob("*.py")):
            yield path.read_text(encoding="utf-8")


def _is_published(name: str) -> bool:
    """Whether there are weights of a known network; of one of timm only timm can tell."""
    if not name.startswith(TIMM):
        return name not in PLAIN_NAMES
    import timm

    return bool(timm.is_model_pretrained(name.removeprefix(TIMM)))


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""
