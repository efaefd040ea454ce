"""The documentation as the tests read it: code blocks with their marks, commands, tables, links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (\w+): ([\w.]+) -->\s*\Z")
_CODE_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code. mark: what the comment before it says, as (`run`, `photos`); ('', '') without one."""

    language: str
    text: str
    mark: tuple[str, str]


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        mark = _MARK.search(text[: match.start()])
        found.append(Block(match[1], match[2], (mark[1], mark[2]) if mark else ("", "")))
    return found


def marked(document: Path, *mark: str, language: str = "sh") -> str:
    """The text of all blocks with this mark and language, joined."""
    return "".join(b.text for b in blocks(document) if b.mark == mark and b.language == language)


def lmr_commands(text: str) -> Iterator[list[str]]:
    """The arguments of each lmr command in the lines of a shell, without pipes and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words[:1] == ["lmr"] and words[1:2] != ["-->"]:  # an arrow of a diagram
                end = next((i for i, word in enumerate(words) if word in ("|", ">", "2>")), len(words))
                yield words[1:end]


def code_spans(document: Path) -> list[str]:
    """What stands between single backticks outside of blocks."""
    return _CODE_SPAN.findall(_FENCE.sub("", document.read_text(encoding="utf-8")))


def table_after(document: Path, before: str) -> list[list[str]]:
    """The cells of the rows of the first table that follows this text."""
    _, found, rest = document.read_text(encoding="utf-8").partition(before)
    assert found, f"{document.name} has no {before!r}"
    lines = iter(rest.splitlines())
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def first_column(document: Path, before: str) -> set[str]:
    """The code spans in the first column of that table."""
    return {span for row in table_after(document, before) for span in _CODE_SPAN.findall(row[0])}


def spans_in(cell: str) -> set[str]:
    """The code spans of a cell."""
    return set(_CODE_SPAN.findall(cell))


def links(document: Path) -> list[str]:
    """Targets of the links and images of a document."""
    return re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", document.read_text(encoding="utf-8")))


def anchors(document: Path) -> set[str]:
    """The anchors that a document's headings get: small letters, no punctuation, dashes for spaces."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
