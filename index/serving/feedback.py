"""What people said of answers and of rows of an index: a table beside the index folder, which only grows."""

import codecs
import csv
import io
import math
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

from index.serving.gallery import row_of
from index.serving.kept import FullError, KeptImages, side_folder
from retrieval.data.csv_cells import csv_line, guard, unguard
from retrieval.data.csv_table import BadRows, read_head
from retrieval.data.labels import spelling_of
from retrieval.errors import DamageError, LmrError
from retrieval.files.atomic import write_error, write_text
from retrieval.files.digest import sha256_json
from retrieval.files.lock import output_locks
from retrieval.images.limits import Limits
from retrieval.progress import SILENT
from retrieval.words import shortened, visible

if TYPE_CHECKING:
    from index.answer import Answer
    from index.folder.folder import IndexFolder
    from index.landmarks import Landmarks

Verdict = Literal["right", "wrong", "other", "none"]
VERDICTS: Mapping[str, str] = {
    "right": "the answer is right, also where it is that there is no known landmark",
    "wrong": "the answer is wrong",
    "other": "it shows the landmark of `landmark_id`",
    "none": "it shows no landmark",
}
TABLE, IMAGES = "feedback.csv", "images"
MAX_TABLE_BYTES = 256_000_000  # a million verdicts or so
MAX_ID_CHARACTERS = 100
MAX_LABEL_CHARACTERS = 300

_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNWRITABLE = re.compile(r"[\0-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")  # bytes of names that are no UTF-8 may stay
_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_ID_CHARACTERS}}}")


class TwiceError(LmrError):
    """An id is given a second time, with something else."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """A verdict on the answer to an image, or on the label of a row.

    verdict: of VERDICTS. landmark_id: what the image shows, said by `other`, else ''. answered: the landmark that was
    answered, or the label of the row; '' = no known landmark. confidence: of the answer, None where it has none.
    image_id: the row, '' = none. sha256 (hex): of the image that was sent, '' = not known. image: where it is kept,
    from the table's folder, '' = nowhere. index, model: digest of the index and fingerprint of the model that answered.
    id: one verdict has one, however often it is sent; '' = a digest of all the others. time: in UTC, ISO 8601.
    Raises LmrError for what cannot be.
    """

    verdict: Verdict
    landmark_id: str = ""
    answered: str = ""
    confidence: float | None = None
    image_id: str = ""
    sha256: str = ""
    image: str = ""
    index: str = ""
    model: str = ""
    id: str = ""
    time: str = ""

    def __post_init__(self) -> None:
        if problem := _problem(self):
            raise LmrError(problem)

    @property
    def content(self) -> str:
        """Digest of what is said, and of what; when, under which id and whether the image was kept do not count."""
        told = ("verdict", "landmark_id", "answered", "confidence", "image_id", "sha256")
        return sha256_json([getattr(self, name) for name in told])

    def to_line(self) -> str:
        """A line of the table."""
        return csv_line(getattr(self, name) for name in COLUMNS)


COLUMNS = tuple(dict.fromkeys(("time", "id", *(item.name for item in fields(Feedback)))))
_HEADER = csv_line(COLUMNS)


def _problem(said: Feedback) -> str:
    """What is wrong with a verdict; '' where nothing is."""
    if said.verdict not in get_args(Verdict):
        return f"verdict is {said.verdict!r}; give right, wrong, other or none"
    if (said.verdict == "other") != bool(said.landmark_id):
        lacking = said.verdict == "other"
        return (
            "landmark_id is missing; verdict other says which landmark it is"
            if lacking
            else (f"landmark_id goes with verdict other alone, got it with {said.verdict}")
        )
    if said.sha256 and not _SHA256.fullmatch(said.sha256):
        return f"sha256 is {said.sha256!r}; give 64 small hexadecimal digits"
    if not (said.sha256 or said.image_id):
        return "there is nothing that the verdict is on; send the image, its sha256 or the image_id of a row"
    if said.confidence is not None and not 0 <= said.confidence <= 1:
        return f"confidence is {said.confidence}; it must lie in [0, 1]"
    if said.id and not _ID.fullmatch(said.id):
        return f"id is {said.id!r}; give at most {MAX_ID_CHARACTERS} letters, digits and . _ : -"
    for name in ("landmark_id", "answered", "image_id", "image"):
        text = getattr(said, name)
        if _UNWRITABLE.search(text):
            return f"{name} {text!r} holds a control character"
    return ""


def said_landmark(text: str, folder: "IndexFolder") -> str:
    """The landmark_id that a person means: one of the index, by its id or by the name that only it has, or a new one.

    White space in a new one is `_`, as everywhere. Raises LmrError for what cannot be a landmark_id.
    """
    if text in folder.rows.landmarks:
        return text
    meant = [label for label, name in folder.names.items() if name.name.casefold() == text.strip().casefold()]
    if len(meant) == 1:
        return meant[0]
    label = spelling_of([text]).of(text)
    if label in folder.rows.landmarks:
        return label
    if not label:
        raise LmrError(f"landmark_id {text!r} is a word for a blank cell; give the landmark, or verdict none")
    if len(label) > MAX_LABEL_CHARACTERS or _UNWRITABLE.search(label) or not visible(label) == label:
        raise LmrError(
            f"landmark_id {shortened(text)!r} cannot be that of a landmark: at most {MAX_LABEL_CHARACTERS} letters, "
            "all of which can be seen"
        )
    if guard(label) != label:
        raise LmrError(f"landmark_id {label!r} begins as a formula of a spreadsheet does; leave out {label[0]!r}")
    return label


def completed(said: Feedback, landmarks: "Landmarks", answer: "Answer | None", *, is_answered: bool) -> Feedback:
    """A verdict with what the index knows: the row that it is on and its label, the landmark that is meant.

    answer: to the image, where it was sent. is_answered: the verdict says what was answered. Raises UnknownError for a
    row that there is not, LmrError for a landmark that cannot be, and where it is not told what was answered.
    """
    folder = landmarks.folder
    if said.image_id:
        row = row_of(landmarks, said.image_id)
        said = replace(said, answered=folder.rows.landmarks[folder.rows.landmark[row]], confidence=None)
    elif answer is not None:
        said = replace(said, image_id=answer.in_index or "")
        if not is_answered:
            said = replace(said, answered=answer.landmark_id or "", confidence=answer.confidence)
    elif not is_answered and said.verdict in ("right", "wrong"):
        raise LmrError(f"answered is missing; verdict {said.verdict} needs the landmark that was answered, or none")
    if said.landmark_id:
        said = replace(said, landmark_id=said_landmark(said.landmark_id, folder))
    return replace(said, index=folder.info.inputs_digest, model=folder.info.fingerprint)


class FeedbackFolder:
    """The table of verdicts, and the images that came with them.

    max_kept_bytes: of the images; 0 = none is kept. Several processes may write to one table.
    """

    def __init__(self, folder: Path, max_kept_bytes: int = 0) -> None:
        self.folder, self.path = folder, folder / TABLE
        self.images = KeptImages(folder / IMAGES, max_kept_bytes)
        self._guard = threading.Lock()
        self._known: dict[str, str] = {}  # id -> content, of the lines up to _end
        self._end, self._file = 0, (0, 0)

    def keep(self, said: Feedback, image: bytes, limits: Limits) -> Feedback:
        """Keeps the image that a verdict came with; the verdict with its place.

        Raises FullError where no more is kept, and LmrError, as `KeptImages.keep`.
        """
        if not self.images.max_bytes:
            raise FullError("this server keeps no images; start it with `keep_mb` above 0")
        return replace(said, image=self.images.keep(image, limits).relative_to(self.folder).as_posix())

    def add(self, said: Feedback) -> tuple[Feedback, bool]:
        """Appends a verdict, on the disk when this returns, unless it is there already.

        Gives the verdict with its id and time, and whether it is new. Raises TwiceError for an id that is there with
        something else, FullError where there is no room, LmrError where the table cannot be written.
        """
        said = replace(said, id=said.id or said.content[:32], time=datetime.now(UTC).isoformat(timespec="seconds"))
        with self._guard, output_locks(self.path, wait=True, progress=SILENT):
            self._begin()
            try:
                with self.path.open("r+b") as file:
                    self._read_on(file)
                    known = self._known.get(said.id)
                    if known is not None and known != said.content:
                        raise TwiceError(
                            f"id {said.id} was given with another verdict; give each verdict an id of its own"
                        )
                    if known is None:
                        self._append(file, said)
            except OSError as error:
                raise write_error(self.path, error) from error
        return said, known is None

    def _begin(self) -> None:
        """Makes the table with its header where there is none. Raises LmrError."""
        if self.path.exists():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error
        write_text(self.path, [_HEADER])

    def _read_on(self, file: BinaryIO) -> None:
        """Learns the ids of the lines that came since, and cuts off one that a killed writer left unfinished."""
        status = os.fstat(file.fileno())
        if self._file != (status.st_dev, status.st_ino) or status.st_size < self._end:
            self._known, self._end, self._file = {}, 0, (status.st_dev, status.st_ino)
        if not self._end:
            if file.readline() != _HEADER.encode():
                raise DamageError(f"{self.path} does not begin as lmr writes it; move it away, a new one is begun")
            self._end = len(_HEADER)
        file.seek(self._end)
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(self._end + whole)
        for cells in csv.reader(_text(data[:whole])):
            if said := _parsed(dict(zip(COLUMNS, cells, strict=False))):
                self._known[said.id] = said.content
        self._end += whole

    def _append(self, file: BinaryIO, said: Feedback) -> None:
        line = said.to_line().encode(errors="surrogateescape")
        if self._end + len(line) > MAX_TABLE_BYTES:
            raise FullError(f"{self.path} is full ({MAX_TABLE_BYTES / 1e6:,.0f} MB); move it away, a new one is begun")
        file.seek(self._end)
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            file.truncate(self._end)
            raise
        self._end += len(line)
        self._known[said.id] = said.content


def feedback_folder(index: Path) -> Path:
    """The folder of the table of an index: `landmarks.feedback` beside `landmarks`."""
    return side_folder(index, "feedback")


def read_feedback(folder: Path) -> list[Feedback]:
    """The verdicts of a table, the first one first; a line that is still being written is not there yet.

    Raises LmrError: no table, or one that was changed into something else, whose bad rows are named by their lines.
    """
    path = folder / TABLE
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise LmrError(f"{path}: there is no feedback yet; lmr serve writes it there") from error
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror}") from error
    whole = data[: data.rfind(b"\n") + 1].removeprefix(codecs.BOM_UTF8)
    try:
        head = read_head(_text(whole))
        rows = [row for row in csv.reader(_text(whole), delimiter=head.delimiter) if row][head.n_rows :]
    except csv.Error as error:
        raise LmrError(f"{path} cannot be read: {error}") from error
    if missing := [name for name in COLUMNS if name not in head.names]:
        raise LmrError(f"{path}:1: no column {missing[0]}; give a table that lmr serve wrote")
    bad, found = BadRows(str(path)), []
    for line, row in enumerate(rows, start=1 + head.n_rows):
        try:
            found.append(_of_cells(dict(zip(head.names, row, strict=True))))
        except (LmrError, ValueError) as error:
            bad.add(line, str(error))
    bad.refuse_any()
    return found


def _text(data: bytes) -> io.StringIO:
    """Lines of the table; names that are no UTF-8 are as Python has them."""
    return io.StringIO(data.decode(errors="surrogateescape"))


def _of_cells(cells: Mapping[str, str]) -> Feedback:
    """The verdict of a row. Raises LmrError or ValueError for what is none."""
    known: dict[str, Any] = {name: unguard(cells[name]) for name in COLUMNS}
    known["confidence"] = _number(known["confidence"])
    return Feedback(**known)


def _parsed(cells: Mapping[str, str]) -> Feedback | None:
    """None where a person has made something else of the row."""
    try:
        return _of_cells(cells)
    except (KeyError, LmrError, ValueError):
        return None


def _number(text: str) -> float | None:
    number = float(text) if text else None
    return None if number is None or math.isnan(number) else number
