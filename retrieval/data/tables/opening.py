"""Opens the table that a manifest is in, whatever its form, told by its content."""

import os
from pathlib import Path

from retrieval.data.csv_table import CsvTable, Table, file_errors
from retrieval.data.parquet import ParquetTable
from retrieval.data.pipes import Place, json_form, place_of
from retrieval.data.tables.json_table import CocoTable, JsonTable
from retrieval.data.tables.webdataset import open_webdataset
from retrieval.errors import LmrError
from retrieval.files.urls import is_folder_url, read_range, remote_url, text_of
from retrieval.images.parquet_parts import is_folder, part_files
from retrieval.images.remote import tars_at
from retrieval.images.signatures import HEAD_BYTES, is_hidden, is_image
from retrieval.images.tars.archive import TarSet, is_tar_name, list_tars, open_tar
from retrieval.images.tars.headers import is_tar
from retrieval.progress import SILENT, Progress


def open_table(path: str | Path, progress: Progress = SILENT) -> Table | None:
    """The table that a manifest is in; None for a folder, tar or image. LmrError when it is missing or unreadable.

    progress: is told of the bytes of a file of text.
    """
    try:
        if url := remote_url(str(path)):
            return _open_at_url(url, progress)
        place = place_of(path)
        source = Path(place.path)
        if source.is_dir() and not is_folder(source):
            return ParquetTable(path, place)
        holds_many = source.is_dir() or is_tar(source)
        tars = _tars_of(source, progress) if holds_many else None
        head = b"" if holds_many else _head(source)
    except FileNotFoundError as error:
        raise LmrError(f"{text_of(path)}: there is no such file or folder") from error
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror}") from error
    if holds_many:
        return open_webdataset(str(path), tars, progress)
    if is_image(head):
        return None
    return ParquetTable(path, place) if head.startswith(b"PAR1") else _open_text(path, progress, place)


def _tars_of(source: Path, progress: Progress) -> TarSet | None:
    """A tar, or the tars of a folder that holds nothing else."""
    if not source.is_dir():
        return open_tar(source, progress)
    paths = list_tars(source)
    with os.scandir(source) as entries:
        holds_others = any(not is_hidden(entry.name) and not is_tar_name(entry.name) for entry in entries)
    return TarSet(paths, progress) if paths and not holds_others else None


def _open_at_url(url: str, progress: Progress) -> Table:
    """FileNotFoundError where there is nothing. LmrError as `open_table`, and for what is no table."""
    if tars := tars_at(url):
        table = open_webdataset(url, TarSet(list(map(Path, tars)), progress), progress)
        if table is not None:
            return table
    if is_folder_url(url):
        if not part_files(url):
            raise LmrError(
                f"{url}: a folder, and not one of Parquet's part files; give a table of the images, CSV or Parquet, "
                "and this folder as `images`"
            )
        return ParquetTable(url)
    head = read_range(url, 0, HEAD_BYTES)
    if is_image(head):
        raise LmrError(f"{url}: a picture; give a table of the images, CSV or Parquet, and their folder as `images`")
    return ParquetTable(url) if head.startswith(b"PAR1") else _open_text(url, progress)


def _open_text(path: str | Path, progress: Progress, place: Place | None = None) -> Table:
    """A table of text by how it begins. LmrError as `open_table`."""
    with file_errors(text_of(path)):
        place = place or place_of(path, progress)
        form = json_form(place.path, text_of(path))
    if form == "coco":
        return CocoTable(path, progress, place)
    return JsonTable(path, progress, place) if form else CsvTable(path, progress, place)


def _head(source: Path) -> bytes:
    with source.open("rb") as file:
        return file.read(HEAD_BYTES)
