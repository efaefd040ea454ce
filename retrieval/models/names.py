"""Names of networks, without importing the libraries that have them, which takes seconds.

torchvision and timm mark the functions that make their networks; the marks are read from their source.
"""

import difflib
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.models.libraries import timm_with
from retrieval.models.packaged import PACKAGED

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
        if not _folders("timm"):
            raise LmrError(f"`backbone` {name}: needs timm; {install_hint('timm')}")
        if _base(its_name) not in known_names("timm") | renamed_names("timm"):
            raise LmrError(f"`backbone` {name}: timm has no such network{_nearest(its_name, known_names('timm'))}")
    elif name not in (*PLAIN_NAMES, *known_names("torchvision")):
        near = _nearest(name, [*known_names("torchvision"), *PLAIN_NAMES, *PACKAGED])
        raise LmrError(f"`backbone` {name}: torchvision has no such network{near}")
    if pretrained and not _is_published(name):
        raise LmrError(
            f"`backbone` {name}: there are no pretrained weights of it; leave out `pretrained` "
            "(in a recipe: pretrained=false)"
        )


def known_names(package: str) -> frozenset[str]:
    """The networks that torchvision or timm can make; none when it is not installed."""
    return frozenset(_modules(package)[0])


def renamed_names(package: str) -> frozenset[str]:
    """The names that timm had in earlier releases, and still takes."""
    return frozenset(_modules(package)[1])


def module_of(name: str) -> str:
    """The module that has a network: of `timm:tf_efficientnet_lite0.in1k` it is `efficientnet` of `timm.models`."""
    known, renamed = _modules("timm" if name.startswith(TIMM) else "torchvision")
    return (renamed | known)[_base(name.removeprefix(TIMM))]


def _base(name: str) -> str:
    """A name of timm without the tag of its weights."""
    return name.split(".")[0]


@cache
def _modules(package: str) -> tuple[dict[str, str], dict[str, str]]:
    """The modules that make the networks of each name, also of earlier releases."""
    known: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for folder in _folders(package):
        for path in sorted(folder.glob("models/*.py")):
            text = path.read_text(encoding="utf-8")
            known |= dict.fromkeys(_NETWORK.findall(text), path.stem)
            old = (name for table in _RENAMED.findall(text) for name in _OLD_NAME.findall(table))
            renamed |= dict.fromkeys(map(_base, old), path.stem)
    return known, renamed


def _folders(package: str) -> list[Path]:
    """The folders of a package; none when it is not installed."""
    spec = find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]


def _is_published(name: str) -> bool:
    """True if there are weights of a known network; of one of timm only timm can tell."""
    if not name.startswith(TIMM):
        return name not in PLAIN_NAMES
    return timm_with(module_of(name)).is_model_pretrained(name.removeprefix(TIMM))


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""
