"""How what is not installed is installed: the extras of pyproject.toml."""

import os
from pathlib import Path

_HOME = Path(__file__).resolve().parents[1]


def install_hint(extra: str, home: Path = _HOME) -> str:
    """The command that installs an extra, from the checkout where lmr runs from one. home: holds this package."""
    if not (home / "pyproject.toml").is_file():
        return f"pip install 'lmr[{extra}]'"
    where = "." if os.path.samefile(home, os.curdir) else home
    return f'pip install -e "{where}[{extra}]"'
