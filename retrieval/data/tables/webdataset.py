"""WebDataset: tars in which the files beside an image (`.cls`, `.json`, `.txt`) say what it shows, read in place."""

import itertools
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import BinaryIO

from retrieval.data.csv_table import BadRows, NoBadRows
from retrieval.data.formats import holds_labels
from retrieval.data.rows import ids_of_paths
from retrieval.data.tables.json_table import BATCH_ROWS, MOST_COLUMNS
from retrieval.data.tables.json_text import BrokenJsonError, cells, decode
from retrieval.errors import LmrError
from retrieval.files.urls import open_url, remote_url
from retrieval.images.candidates import has_image_suffix
from retrieval.images.tars.archive import TarSet
from retrieval.images.tars.headers import RefusedTarError, plain_files
from retrieval.progress import SILENT, Progress
from retrieval.texts import Texts, TextsWriter

_KINDS = ("cls", "json", "txt")
_MAX_BYTES = 1 << 20  # of a file beside an image
_FIRST_TEXTS = 1000  # by which it is told whether they are sentences
_WORDS_OF_A_NAME = 4  # at most, on average; captions have more
_TAKEN = frozenset(
    ("id", "image_id", "imageid", "path", "caption", *_KINDS)
)  # names of columns that are not of the JSON
_Place = tuple[int, int]  # offset and size


class WebDatasetTable:
    """The images in some tars, a row each: `image_id`, `path`, the keys of their JSON, and the text of the others.

    tars: their paths or URLs, of one folder. image_id: the name without suffix, or the path where names repeat.
    """

    image_columns: frozenset[str] = frozenset()
    vector_columns: frozenset[str] = frozenset()

    def __init__(self, source: str, tars: TarSet, progress: Progress = SILENT) -> None:
        self.source = source
        self.names: Mapping[str, str] = {}
        self._tars, self._lists, self._label_key = tars.paths, set[str](), ""
        self._tar, self._places = array("i"), {kind: array("q") for kind in _KINDS}
        names = TextsWriter()
        progress.begin("reading tars", tars.n_bytes, "B")
        for number, tar in enumerate(self._tars):
            self._add_tar(number, tar, names, progress)
        progress.end()
        self._names = names.texts()
        self._keys, words = self._look()
        self._set_header(tars.warnings(), words)

    def __len__(self) -> int:
        return len(self._tar)

    @property
    def is_labelled(self) -> bool:
        """True where the files beside the images are what labels them, rather than folders in the tars."""
        if any(self._has(kind) for kind in _KINDS[:1]) or holds_labels(["path", *self._keys], self.source):
            return True
        depths = {name.count("/") for name in self._names}
        is_flat = depths == {0} or (depths == {1} and len({name.split("/")[0] for name in self._names}) == 1)
        return is_flat and any(map(self._has, _KINDS))

    @property
    def list_columns(self) -> frozenset[str]:
        """Names of the keys under which a JSON file has a list."""
        return frozenset(map(_key_of, self._lists))

    def set_label(self, column: str) -> None:
        """Lists under this key are cells as of `listed`."""
        self._label_key = next((key for key in self._lists if _key_of(key) == column), "")

    def batches(self) -> Iterator[list[list[str]]]:
        """Lists of at most 512 rows."""
        rows = (row for _, row in self.numbered(NoBadRows(self.source)))
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            yield batch

    def numbered(self, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Rows counted from 1."""
        places = [tar if remote_url(tar) else os.path.abspath(tar) for tar in self._tars]
        ids = ids_of_paths(Texts.of(self._shown(row) for row in range(len(self))))
        for row, found in self._beside(bad):
            given = {"image_id": ids[row], "path": f"{places[self._tar[row]]}/{self._names[row]}", **found}
            yield row + 1, [given.get(name, "") for name in self._columns]

    def _add_tar(self, number: int, tar: str, names: TextsWriter, progress: Progress) -> None:
        """Places of the images in a tar and of what lies beside each; of one name the last one counts."""
        images: dict[str, None] = {}
        beside: dict[str, _Place] = {}
        try:
            for member in plain_files(tar, progress.add):
                if has_image_suffix(member.name):
                    images[member.name] = None
                elif member.name.endswith(tuple(f".{kind}" for kind in _KINDS)):
                    beside[member.name] = (member.offset, member.size)
        except (OSError, RefusedTarError) as error:
            raise LmrError(f"{tar} {error}") from error
        names.add(list(images))
        for name in images:
            self._tar.append(number)
            for kind in _KINDS:
                place = next((beside[one] for key in _keys_of(name) if (one := f"{key}.{kind}") in beside), (0, -1))
                self._places[kind].extend(place)

    def _has(self, kind: str) -> bool:
        return any(size >= 0 for size in self._places[kind][1::2])

    def _look(self) -> tuple[list[str], float]:
        """The keys of all JSON files, and how many words a text has, of the first ones, on average."""
        keys: dict[str, None] = {}
        n_words = n_texts = 0
        if not self._has("json") and not self._has("txt"):
            return [], 0
        for _, found in self._beside(BadRows(self.source)):
            if n_texts < _FIRST_TEXTS and (text := found.pop("txt", "")):
                n_words, n_texts = n_words + len(text.split()), n_texts + 1
            keys.update(dict.fromkeys(found))
            if len(keys) > MOST_COLUMNS:
                raise LmrError(f"{self.source}: its JSON files have more than {MOST_COLUMNS:,} keys; it is no table")
        return [key for key in keys if key not in _KINDS], n_words / max(1, n_texts)

    def _set_header(self, warnings: list[str], words: float) -> None:
        kinds = [kind for kind in _KINDS if kind != "json" and self._has(kind)]
        self._columns = ["image_id", "path", *self._keys, *kinds]
        self.notes, self.header = warnings, list(self._columns)
        if "txt" not in kinds:
            return
        has_labels = "cls" in kinds or holds_labels(["path", *self._keys], self.source)
        if has_labels or words > _WORDS_OF_A_NAME:
            self.header[self._columns.index("txt")] = "caption"
            if not has_labels:
                self.notes.append(
                    f"{self.source}: the .txt files hold sentences and are kept as caption, not as labels"
                )

    def _beside(self, bad: BadRows) -> Iterator[tuple[int, dict[str, str]]]:
        """Each row with what the files beside it say; those of which one is no good go to `bad`."""
        for number, rows in itertools.groupby(range(len(self)), key=self._tar.__getitem__):
            with closing(_open(self._tars[number])) as file:
                for row in rows:
                    try:
                        yield row, self._said(row, file)
                    except (ValueError, OSError) as problem:
                        bad.add(row + 1, f"{self._shown(row)}: {problem}")

    def _said(self, row: int, file: BinaryIO) -> dict[str, str]:
        found: dict[str, str] = {}
        for kind in _KINDS:
            offset, size = self._places[kind][2 * row : 2 * row + 2]
            if size < 0:
                continue
            text = _text(file, offset, size, kind)
            found |= self._json_cells(text) if kind == "json" else {kind: text}
        return found

    def _json_cells(self, text: str) -> dict[str, str]:
        try:
            found = cells(decode(text), self._lists, self._label_key)
        except (BrokenJsonError, ValueError) as error:
            raise ValueError(f"its .json: {error}") from error
        return {_key_of(key): text for key, text in found.items()}

    def _shown(self, row: int) -> str:
        """An image's path from the folder of the tars, or in the only tar."""
        tar = os.path.basename(self._tars[self._tar[row]])
        return self._names[row] if self.source.endswith(tar) else f"{tar}/{self._names[row]}"


def _key_of(key: str) -> str:
    """A key of a JSON file as a column, beside those of the tars."""
    return f"json.{key}" if key.lower() in _TAKEN else key


def _keys_of(name: str) -> tuple[str, str]:
    """What files beside an image are called before their suffix: as it is, or as it is up to its first point."""
    folder, base = os.path.split(name)
    return os.path.splitext(name)[0], os.path.join(folder, base.split(".")[0])


def _open(tar: str) -> BinaryIO:
    return open(tar, "rb") if remote_url(tar) is None else open_url(tar)


def _text(file: BinaryIO, offset: int, size: int, kind: str) -> str:
    """ValueError where it is too long or no text."""
    if size > _MAX_BYTES:
        raise ValueError(f"its .{kind} has {size:,} bytes, over the {_MAX_BYTES:,} that one may have")
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise ValueError(f"its .{kind} is cut short")
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"its .{kind} is not UTF-8") from error


def open_webdataset(source: str, tars: TarSet | None, progress: Progress = SILENT) -> WebDatasetTable | None:
    """The table of these tars; None where there are none, or what they hold is labelled by its folders."""
    if tars is None or not tars.n_other or not tars.n_pictures:
        return None
    table = WebDatasetTable(source, tars, progress)
    return table if len(table) and table.is_labelled else None
