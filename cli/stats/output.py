"""Files of `lmr stats`: written whole, left alone when they are as they would be, never silently replaced."""

from collections.abc import Iterable
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.files.atomic import write_text


def save_text(path: Path, text: Iterable[str], *, overwrite: bool) -> str:
    """Writes the file and returns the line that says so. LmrError when another one is there and may not be replaced."""
    content = "".join(text)
    if path.exists():
        if path.read_bytes() == content.encode(errors="surrogatepass"):
            return f"{path}: unchanged"
        if not overwrite:
            raise LmrError(f"{path}: exists and holds something else; give --overwrite or another name")
    write_text(path, [content])
    return f"{path}: written"
