"""Extras of pyproject.toml: how to install what is missing."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from retrieval.errors import LmrError

_HOME = Path(__file__).resolve().parents[1]


def install_hint(extra: str, home: Path = _HOME) -> str:
    """The command that installs an extra, from the checkout where lmr runs from one. home: holds this package."""
    if not (home / "pyproject.toml").is_file():
        return f"pip install 'lmr[{extra}]'"
    where = "." if os.path.samefile(home, os.curdir) else home
    return f'pip install -e "{where}[{extra}]"'


def anywhere(message: object) -> str:
    """A message for pages that are passed on: what it says to install, without the place of the checkout."""
    return re.sub(r'pip install -e "[^"]*\[(\w+)\]"', r"pip install 'lmr[\1]'", str(message))


def package_hint(package: str) -> str:
    """The command that installs a package which is no part of an extra, as those it asks for clash with ours."""
    return f"pip install --no-deps {package}"


def missing(*modules: str) -> list[str]:
    """Those of the modules that are not installed; none of them is imported."""
    return [name for name in modules if find_spec(name) is None]


def require_extra(what: str, extra: str, *modules: str) -> None:
    """Asked for before the work whose outcome needs them. Raises LmrError that names what is not installed.

    what: what needs it, such as `report`.
    """
    if wanting := missing(*modules):
        raise LmrError(f"{what} needs {' and '.join(wanting)}; {install_hint(extra)}")


def require_report(what: str) -> None:
    """As `require_extra`, for a page with figures."""
    require_extra(what, "report", "jinja2", "matplotlib")
