"""Weights that come inside packages of the Python registry."""

from importlib.util import find_spec
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.extras import package_hint
from retrieval.files.digest import sha256_file


def packaged(what: str, package: str, name: str, sha256: str) -> Path:
    """The file of this name inside an installed package, none of whose code is run. what: needs it, for messages.

    Raises LmrError where the package is not installed, or the file is missing or of another content.
    """
    path = package_folder(what, package) / name
    if not path.is_file() or sha256_file(path) != sha256:
        raise LmrError(
            f"{path} is not the file that {what} is known by; remove {package}, then {package_hint(package)}"
        )
    return path


def package_folder(what: str, package: str) -> Path:
    """The folder of an installed package. LmrError where it is not installed."""
    found = find_spec(package.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise LmrError(f"{what} needs the package {package}; {package_hint(package)}")
    return Path(found.submodule_search_locations[0])


def weights_digest(path: Path) -> str:
    """sha256 (hex) of weights that were given. LmrError where they cannot be read."""
    try:
        return sha256_file(path)
    except OSError as error:
        raise LmrError(f"`local_weights` {path} cannot be read: {error.strerror}") from error
