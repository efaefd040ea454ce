"""Answers as something to look at: a sheet as one image, a page with all of them, a folder that explains each."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cli.report.html import ReportImage, fill_template
from cli.report.lettering import missing_letters
from cli.report.sheet import MAX_ROWS, SheetEntry, SheetNeighbour, sheet_bytes, sheet_format
from cli.report.text import own_words
from index.answer import NO_LANDMARK, certainty, headline, verification
from index.verify import EXPLANATIONS
from retrieval.data.names import shown_name
from retrieval.errors import LmrError
from retrieval.extras import require_extra
from retrieval.files.atomic import write_bytes
from retrieval.files.digest import sha256_file, sha256_json
from retrieval.files.folder_names import folder_name
from retrieval.files.folders import current_folder, replacing_folder
from retrieval.files.json_file import write_json
from retrieval.files.made_of import (
    Inputs,
    is_folder_made_of,
    is_made_of,
    write_bytes_with_record,
    write_folder_record,
)
from retrieval.version import program_version
from retrieval.words import agreeing, counted, visible

if TYPE_CHECKING:
    from index.explain.explanation import Explanations
    from index.folder.folder import IndexFolder
    from lmr import Answer, Neighbour
    from retrieval.progress import Progress

TEMPLATE = "answers.html"
PAGE_SUFFIXES = (".html", ".htm")
SHOWN_NEIGHBOURS = 5  # on a sheet
N_BESIDE = 4  # on a page, in one row
MAX_CARDS = 2000  # a page of that many is about 60 MB

# Shows the cards that all three filters let through.
_SCRIPT = """
const field = name => document.getElementById(name);
const cards = [...document.querySelectorAll(".card")];
function show() {
  const state = field("state").value, landmark = field("landmark").value, text = field("text").value.toLowerCase();
  let n = 0;
  for (const card of cards) {
    const data = card.dataset;
    const fits = (!state || data.state === state) && (!landmark || data.landmark === landmark)
      && data.text.toLowerCase().includes(text);
    card.hidden = !fits;
    n += fits;
  }
  field("shown").textContent = n + " shown";
}
document.querySelector("form").addEventListener("input", show);
document.querySelector("form").addEventListener("submit", event => event.preventDefault());
"""


@dataclass(frozen=True, slots=True)
class Card:
    """An answer on the page. state: answered, rejected or unreadable. text: what is searched.

    neighbours: images, whether each voted for the answer, and what the own columns say of it.
    """

    state: str
    landmark: str
    headline: str
    text: str
    image: ReportImage
    neighbours: tuple[tuple[ReportImage, bool, str], ...]


class Saving:
    """A sheet or page that is to be saved, unless the same one is there already.

    Raises LmrError for a suffix that answers cannot be saved with, and for a file of somebody else.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path, self.overwrite = path, overwrite
        self._made_of: dict[str, Any] = {}
        self._is_there = self._look()  # refused now, not after the images were embedded
        require_writable(path)

    def find(self, folder: "IndexFolder", answers: "Sequence[Answer]", words: Inputs) -> None:
        """Looks whether it is there, made of these answers. Raises LmrError for another one."""
        self._made_of = _inputs_of(folder, answers, words)
        self._is_there = self._look()

    def save(self, answers: "Sequence[Answer]", index: Path) -> str:
        """A line that says what was written, or that it was there. Raises LmrError as `save_answers`."""
        if self._is_there:
            return f"{self.path}: finished already, nothing to do"
        return save_answers(self.path, answers, index, self._made_of)

    def _look(self) -> bool:
        return not self.overwrite and is_made_of(self.path, self._made_of, "give --overwrite or another name")


class Explaining:
    """A folder of explanations that is to be written, unless the same one is there already.

    Raises LmrError for a folder of somebody else, and without jinja2.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self.folder, self.overwrite = folder, overwrite
        self._made_of: dict[str, Any] = {}
        self._look()  # refused now, not after the images were embedded
        require_extra(f"--explain {folder}", "report", "jinja2")

    def explain(self, index: "IndexFolder", explanations: "Explanations", words: Inputs, progress: "Progress") -> str:
        """Writes a folder for each readable image; a line that says where, or that it was there.

        Raises LmrError as `is_folder_made_of`, and where something cannot be written.
        """
        from cli.report.explanation import PAGE

        answers = explanations.answers
        self._made_of = _inputs_of(index, answers, words)
        if self._look():
            return f"{self.folder}: finished already, nothing to do"
        readable = [i for i, answer in enumerate(answers) if answer.unreadable is None]
        if not readable:
            return f"{self.folder}: nothing to explain, as no picture can be read"
        names = dict(zip(readable, explanation_names([answers[i].image for i in readable]), strict=True))
        progress.begin("explanations", len(readable))
        with replacing_folder(self.folder) as folder:
            self._write(folder, index.path, explanations, names, progress)
        progress.end()
        one = names[readable[0]] if len(readable) == 1 else "NAME"
        page = current_folder(self.folder) / one / PAGE
        return f"{self.folder}: {counted(len(readable), 'picture')} explained; open {page}"

    def _write(
        self, folder: Path, index: Path, explanations: "Explanations", names: Mapping[int, str], progress: "Progress"
    ) -> None:
        """Fills an empty folder. names: that of the folder of each readable image."""
        from cli.report.explanation import write_explanation

        for i, own in names.items():
            (folder / own).mkdir()
            write_explanation(folder / own, explanations[i], index, self.folder / own)
            progress.add(1)
        told = [
            {"image": answer.image, "folder": names.get(i), "unreadable": answer.unreadable}
            for i, answer in enumerate(explanations.answers)
        ]
        write_json(folder / EXPLANATIONS, {"explanations": told})
        write_folder_record(folder, self._made_of)

    def _look(self) -> bool:
        other = "give --overwrite or another name"
        return is_folder_made_of(self.folder, self._made_of, other, overwrite=self.overwrite)


def explanation_names(images: Sequence[str]) -> Iterator[str]:
    """The name of the folder of each image: that of its file without suffix, with a number where it is taken."""
    taken: set[str] = set()
    for image in images:
        path = urlsplit(image).path if image.startswith(("http://", "https://")) else image
        stem = visible(Path(path).stem) or "picture"
        number, name = 1, folder_name(stem)
        while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
            number += 1
            name = folder_name(f"{stem}-{number}")
        taken.add(key)
        yield name


def _inputs_of(folder: "IndexFolder", answers: "Sequence[Answer]", words: Inputs) -> dict[str, Any]:
    """What a file or folder that shows these answers is made of."""
    return {
        **folder.made_of,
        "version of lmr": program_version(),
        "set of pictures": sha256_json([[answer.image, _digest_of(answer.image)] for answer in answers]),
        **words,
        "set of answers": sha256_json([answer.to_json() for answer in answers]),
    }


def _digest_of(image: str) -> str:
    """sha256 (hex) of an image's file; blank where it has none of its own, or cannot be read."""
    try:
        return sha256_file(Path(image))
    except (OSError, ValueError):
        return ""


def require_writable(path: Path) -> None:
    """Raises LmrError for a suffix that answers cannot be saved with, and for a page without jinja2."""
    if path.suffix.lower() in PAGE_SUFFIXES:
        require_extra(f"--save {path}", "report", "jinja2")
    else:
        sheet_format(path)


def save_answers(path: Path, answers: "Sequence[Answer]", index: Path, made_of: Inputs | None = None) -> str:
    """Writes a page (.html) or a sheet (an image's suffix); returns a line that says what is on it.

    made_of: what the file depends on, for the record that is kept beside it; None = no record.

    Raises LmrError: no answers, another suffix, jinja2 is missing, or the file cannot be written.
    """
    if not answers:
        raise LmrError(f"{path}: there is no picture to show")
    if path.suffix.lower() in PAGE_SUFFIXES:
        _write(path, render_answers(answers, index, path.parent).encode(), made_of)
        return f"{path}: {_first(MAX_CARDS, len(answers))} with {agreeing(len(answers), 'its', 'their')} neighbours"
    readable = [answer for answer in answers if answer.unreadable is None]
    _write(path, sheet_bytes(path, [_entry(answer) for answer in readable]), made_of)
    more = "; a name that ends in .html makes a page of all" if len(readable) > MAX_ROWS else ""
    missing = missing_letters("".join(answer.name for answer in readable[:MAX_ROWS]))
    boxes = f"; no font here has the letters {missing}: boxes stand for them, not so in a page (.html)"
    shown = f"{_first(MAX_ROWS, len(readable))} beside {agreeing(len(readable), 'its', 'their')} neighbours"
    return f"{path}: {shown}{more}{boxes if missing else ''}"


def render_answers(answers: "Sequence[Answer]", index: Path, folder: Path) -> str:
    """The page as HTML text; everything that is data is escaped. folder: where it will be, for links."""
    cards = [_card(answer) for answer in answers[:MAX_CARDS]]
    counts = Counter(map(_state, answers))
    return fill_template(
        TEMPLATE,
        {},
        folder=folder,
        script=_SCRIPT,
        index=str(index),
        about=f"Pictures framed in blue voted for the answer. {NO_LANDMARK.capitalize()}: nothing was sure enough.",
        counts={"all": len(answers), **{state: counts[state] for state in ("answered", "rejected", "unreadable")}},
        landmarks=sorted({card.landmark for card in cards if card.landmark}),
        cards=cards,
    )


def _write(path: Path, data: bytes, made_of: Inputs | None) -> None:
    if made_of is None:
        write_bytes(path, data)
    else:
        write_bytes_with_record(path, [data], made_of)


def _first(limit: int, n: int) -> str:
    return f"the first {counted(limit, 'picture', of=n)}" if n > limit else counted(n, "picture")


def _state(answer: "Answer") -> str:
    if answer.unreadable is not None:
        return "unreadable"
    return "rejected" if answer.landmark_id is None else "answered"


def _card(answer: "Answer") -> Card:
    name = shown_name(answer.landmark_id, answer.name) if answer.landmark_id else ""
    said = "; ".join(filter(None, [headline(answer), verification(answer)]))
    return Card(
        state=_state(answer),
        landmark=name,
        headline=said,
        text=f"{answer.image} {said}",
        image=ReportImage(answer.image, _file_name(answer.image)),
        neighbours=tuple(
            (
                ReportImage(near.path, _caption(near), near.score, near.kept),
                answer.landmark_id is not None and near.landmark_id == answer.landmark_id,
                own_words(near),
            )
            for near in answer.neighbours[:N_BESIDE]
        ),
    )


def _entry(answer: "Answer") -> SheetEntry:
    best = answer.best
    details: tuple[str, ...] = ()
    if best is not None:
        sure = certainty(answer.confidence, best.score)
        rejected = (f"nearest: {shown_name(best.landmark_id, best.name)}", f"{sure}, below {answer.threshold or 0:.3f}")
        details = rejected if answer.landmark_id is None else (sure,)
        details += (told,) if (told := verification(answer)) else ()
    return SheetEntry(
        image=answer.image,
        label=shown_name(answer.landmark_id, answer.name) if answer.landmark_id else None,
        details=details,
        landmark_id=answer.landmark_id,
        neighbours=tuple(
            SheetNeighbour(
                near.path,
                shown_name(near.landmark_id, near.name),
                near.landmark_id,
                near.score,
                near.kept,
                near.inliers,
            )
            for near in answer.neighbours[:SHOWN_NEIGHBOURS]
        ),
    )


def _caption(near: "Neighbour") -> str:
    inliers = "" if near.inliers is None else f", {counted(near.inliers, 'inlier')}"
    return f"{shown_name(near.landmark_id, near.name)}, {_file_name(near.path) or near.image_id}{inliers}"


def _file_name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
