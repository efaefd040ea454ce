"""The body of an answer: unpacked, counted and kept, within limits; or the cause why there is none."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from retrieval.images.signatures import HEAD_BYTES, is_web_page

SPILL_BYTES = 4 << 20  # of a body that are held in memory; a longer one goes to a file

_UNPACKED_BYTES = 1 << 20  # that a chunk may become at a time
_DETAIL_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Body:
    """Answer of a server. content: the bytes, or the file that holds them."""

    content: bytes | Path
    http_code: int

    @property
    def n_bytes(self) -> int:
        """Its length."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def discard(self) -> None:
        """Removes the file, if there is one still."""
        if isinstance(self.content, Path):
            self.content.unlink(missing_ok=True)


class FetchError(Exception):
    """A try that gave no image.

    cause: short, to be counted. is_transient: another try may help. is_silent: the host did not answer at all.
    wait_s: what the server asked for.
    """

    def __init__(
        self,
        cause: str,
        detail: object = "",
        *,
        http_code: int | None = None,
        is_transient: bool = False,
        is_silent: bool = False,
        wait_s: float | None = None,
    ) -> None:
        said = " ".join(str(detail).split())[:_DETAIL_CHARACTERS]
        text = said.encode(errors="replace").decode()  # servers also say what is no UTF-8, which no ledger takes
        super().__init__(f"{cause}: {text}" if text else cause)
        self.cause, self.detail, self.http_code = cause, text, http_code
        self.is_transient, self.is_silent, self.wait_s = is_transient, is_silent, wait_s


class Unpacking:
    """Undoes a Content-Encoding that was not asked for, a bounded piece at a time."""

    def __init__(self, encoding: str) -> None:
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise FetchError("content encoding", f"{encoding} was not asked for")
        self._inflater = None if encoding in ("", "identity") else zlib.decompressobj(32 + zlib.MAX_WBITS)

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """Unpacks a part of the body, in pieces of bounded size."""
        if self._inflater is None:
            yield chunk
            return
        try:
            while chunk:
                yield self._inflater.decompress(chunk, _UNPACKED_BYTES)
                chunk = self._inflater.unconsumed_tail
        except zlib.error as error:
            raise FetchError("content encoding", error) from error
        if self._inflater.unused_data:  # zlib would keep all of it
            raise FetchError("content encoding", "more bytes after the end of the packed body")

    def end(self) -> None:
        """Raises FetchError when the packed body is not whole."""
        if self._inflater is not None and not self._inflater.eof:
            raise FetchError("cut short", "the packed body ended too early", is_transient=True)


class Sink:
    """Takes the body up to a number of bytes: first in memory, then in a file, if one is given."""

    def __init__(self, spill: Path | None, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._spill, self._n_bytes = spill, 0
        self._head, self._parts = b"", list[bytes]()
        self._file: IO[bytes] | None = None

    def write(self, part: bytes) -> None:
        """Takes a piece. Raises FetchError when it is a web page or the whole is too long."""
        if len(self._head) < HEAD_BYTES:
            self._head += part[:HEAD_BYTES]
            if len(self._head) >= HEAD_BYTES and is_web_page(self._head):
                raise FetchError("a web page", "instead of a picture", http_code=200)
        self._n_bytes += len(part)
        if self._n_bytes > self.max_bytes:
            raise too_long(self.max_bytes)
        if self._file is None and self._spill is not None and self._n_bytes > SPILL_BYTES:
            self._file = self._spill.open("wb")
            self._file.writelines(self._parts)
            self._parts.clear()
        if self._file is None:
            self._parts.append(part)
        else:
            self._file.write(part)

    def content(self) -> bytes | Path:
        """Bytes of the body, or the file that holds it."""
        if self._file is None or self._spill is None:
            return b"".join(self._parts)
        self._file.close()
        return self._spill

    def discard(self) -> None:
        """Removes the file, if there is one."""
        if self._file is not None and self._spill is not None:
            self._file.close()
            self._spill.unlink(missing_ok=True)


def too_long(max_bytes: int, n_bytes: int | None = None) -> FetchError:
    """n_bytes: as the server says it."""
    said = "" if n_bytes is None else f"{n_bytes:,} bytes, "
    return FetchError("too many bytes", f"{said}over the limit of {max_bytes:,}", http_code=200)
