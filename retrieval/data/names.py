"""Names and addresses of landmarks, by landmark_id."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from retrieval.data.csv_table import BadRows, CsvTable
from retrieval.data.formats import has_no_header, recognise
from retrieval.data.labels import compose, require_apart, spelling_of
from retrieval.errors import LmrError
from retrieval.progress import SILENT, Progress
from retrieval.words import agreeing, counted

_SHOWN = 3
_CATEGORY = "/Category:"  # in Wikimedia's addresses, before the category's name


@dataclass(frozen=True, slots=True)
class Name:
    """Name of a landmark. address: of a page about it; '' = none."""

    name: str
    address: str = ""


def shown_name(landmark_id: str, name: str) -> str:
    """Calls a landmark wherever people read: by its name, and the landmark_id where that says something else.

    `Hawa Mahal` of the label `Hawa_Mahal` stands alone, `Hawa Mahal (9633)` does not. A name with decomposed letters
    (NFD), as folders on a Mac have, is the name of the composed label.
    """
    if not name or name == landmark_id:
        return landmark_id
    return name if compose("_".join(name.split())) == compose(landmark_id) else f"{name} ({landmark_id})"


def read_names(path: str | Path, progress: Progress = SILENT) -> dict[str, Name]:
    """Names by landmark_id: GLDv2 train_label_to_category.csv or train_label_to_hierarchical.csv, Open Images class
    descriptions, or a CSV file with landmark_id, name and perhaps address.

    A Wikimedia category's address is its address, and what follows `Category:` its name.
    Raises LmrError on another file, and on bad rows by their line. progress: is warned of columns that are
    not separated by commas.
    """
    table = CsvTable(path)
    for note in table.notes:
        progress.warn(note)
    layout = recognise(table.header, table.source)
    if layout.format != "names":
        raise LmrError(f"{path} holds no names; `names` takes landmark_id,name[,address] or landmark_id,category")
    at = layout.columns
    label_at, name_at, address_at = at.get("landmark", at.get("label_name", 0)), at["name"], at.get("address", -1)
    names: dict[str, Name] = {}
    line_of: dict[str, int] = {}
    bad = BadRows(table.source)
    if has_no_header(table.header):
        names[table.header[label_at]], line_of[table.header[label_at]] = _name(table.header[name_at]), 1
    labels = dict.fromkeys(row[label_at] for _, row in table.numbered(BadRows(table.source)))
    spelling = spelling_of(labels)
    require_apart(labels, spelling, table.source)
    for line, row in table.numbered(bad):
        label = spelling.of(row[label_at])
        if not label or not row[name_at]:
            bad.add(line, f"{table.header[name_at] if label else table.header[label_at]} is missing")
        elif label in line_of:
            bad.add(line, f"{table.header[label_at]} {label} is also on line {line_of[label]}")
        else:
            line_of[label] = line
            names[label] = _name(row[name_at], row[address_at] if address_at >= 0 else "")
    bad.refuse_any()
    return names


def of_no_landmark(names: Collection[str], landmarks: Iterable[str], source: Path, known: Path) -> str:
    """A line on the names whose landmark_id is none of `landmarks`, which `known` holds; '' where there are none."""
    landmarks = set(landmarks)
    strange = [label for label in names if label not in landmarks]
    if not strange:
        return ""
    first, more = ", ".join(strange[:_SHOWN]), ", …" if len(strange) > _SHOWN else ""
    return (
        f"{source}: {counted(len(strange), 'name', of=len(names))} {agreeing(len(strange), 'is', 'are')} of "
        f"no landmark of {known}: {first}{more}"
    )


def _name(text: str, address: str = "") -> Name:
    if "://" not in text:
        return Name(text.strip(), address)
    tail = text.partition(_CATEGORY)[2] or text.rstrip("/").rsplit("/", 1)[-1]
    return Name(unquote(tail).replace("_", " ").strip(), address or text)
