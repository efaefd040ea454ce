"""Addresses of indexes on servers: `milvus://host:port/collection`."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from retrieval.errors import LmrError
from retrieval.files.urls import remote_url

SCHEMES = ("milvus", "milvus+tls")
DEFAULT_PORT = 19530
FILES = "_files"  # ending of the name of the collection that holds all but the rows
ONLY_ASKED = (
    "is an index on a server, which this does not take; give the index folder that it was exported from, and export "
    "that again with lmr index export where it changes"
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


@dataclass(frozen=True, slots=True)
class Address:
    """A collection on a server: `milvus://host:port/collection`."""

    scheme: str
    host: str
    port: int
    collection: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/{self.collection}"

    @property
    def files(self) -> str:
        """The collection that holds all of the index but its rows."""
        return self.collection + FILES


def address_of(path: str | Path) -> Address | None:
    """The address that a text is, also where a path made one slash of two; None for any other text.

    Raises LmrError for an address without a collection, or with a token, whose place is the environment.
    """
    url = remote_url(str(path))
    if url is None or url.partition(":")[0] not in SCHEMES:
        return None
    form = f"{url.partition(':')[0]}://HOST[:PORT]/COLLECTION"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise LmrError(f"the address of an index on a server is {form}: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise LmrError(f"the address of an index on a server is {form}; its token goes into LMR_MILVUS_TOKEN")
    collection = parts.path.strip("/")
    if not host or parts.query or parts.fragment or not _NAME.fullmatch(collection) or collection.endswith(FILES):
        raise LmrError(
            f"{url}: the address of an index on a server is {form}, the collection of letters, digits and _, at most "
            f"200, not ending in {FILES}"
        )
    return Address(parts.scheme, host, port or DEFAULT_PORT, collection)


def require_folder(path: Path) -> None:
    """Raises LmrError for an address, where an index folder is needed that can be read whole or written."""
    if (address := address_of(path)) is not None:
        raise LmrError(f"{address} {ONLY_ASKED}")
