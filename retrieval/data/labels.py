"""Landmark ids as others write them: words for a blank cell, whole numbers with `.0`, labels that cannot meet."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from retrieval.errors import LmrError
from retrieval.words import counted

# What pandas, R, SQL, Python and spreadsheets write for a cell without content. In every spelling that they use: a
# landmark of such a name has to be called otherwise, and is told to be.
BLANK_WORDS = frozenset(
    (
        *("None", "none", "NONE", "nan", "NaN", "NAN", "-nan", "-NaN", "null", "Null", "NULL", "NA", "N/A", "n/a"),
        *("#N/A", "#NA", "#N/A N/A", "<NA>", "NaT", "nil", "1.#QNAN", "-1.#IND", "1.#IND", "-1.#QNAN"),
    )
)
_NO_LANDMARK = BLANK_WORDS | {""}
_SPACE = re.compile(r"\s+")
_WHOLE = re.compile(r"-?\d+(\.0+)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL = re.compile(r"[+-]?\d*\.\d*[1-9]\d*")
_NO_CLASS = re.compile(r"-1(\.0+)?")
_SHOWN = 3
_LIST = "\x1f"  # before each label of a list, within which it counts as white space


def listed(labels: Iterable[str]) -> str:
    """A cell that holds a list of labels, as `labels_in` reads it."""
    return _LIST + _LIST.join(label.replace(_LIST, " ") for label in labels)


def labels_in(cell: str, *, is_one: bool) -> list[str]:
    """The labels of a cell: of a list, or of a text, which is one label or holds several separated by spaces."""
    if cell.startswith(_LIST):
        return [label for label in cell[1:].split(_LIST) if label.strip()]
    return [cell] if is_one and cell.strip() else cell.split()


@dataclass(frozen=True, slots=True)
class Spelling:
    """Spelling of the labels of one column.

    read_as: label as given -> landmark_id, '' = no landmark; only those that are read otherwise than they are written.
    """

    read_as: Mapping[str, str]

    def of(self, label: str) -> str:
        """The landmark_id that a cell stands for."""
        return self.read_as.get(label, label)

    def notes(self, source: str, count: Callable[[str], int] | None = None) -> list[str]:
        """A line for each kind of thing that is read otherwise. count: how many cells hold a label."""
        blank = sorted(label for label, meant in self.read_as.items() if not meant and label)
        whole = sorted(label for label, meant in self.read_as.items() if meant and label.startswith(f"{meant}."))
        lines = []
        if blank:
            n = sum(map(count, blank)) if count else 0
            cells = f"{counted(n, 'cell')} " if count else ""
            lines.append(
                f"{source}: {cells}{', '.join(word.strip() or 'white space' for word in blank)} read as no landmark"
            )
        if whole:
            lines.append(
                f"{source}: {whole[0]} read as {self.read_as[whole[0]]}, and so all labels that end in .0; "
                "pandas makes them of whole numbers beside blank cells, astype('Int64') does not"
            )
        if spaced := self.spaced():
            lines.append(f"{source}: {spaced[0]!r} read as {self.read_as[spaced[0]]}, and so all white space in labels")
        return lines

    def spaced(self) -> list[str]:
        """The labels that hold white space and are read with `_` in its place, sorted."""
        return sorted(label for label, meant in self.read_as.items() if meant and _SPACE.search(label))


def spelling_of(labels: Iterable[str]) -> Spelling:
    """Finds how the labels of a column are spelt, by all of them.

    Words for a blank cell are no landmark. Where all others are whole numbers, `7.0` is 7. -1 is no landmark unless
    there is another number below zero. White space within is `_`, as of folders. Letters are composed (NFC).
    """
    labels = set(labels)
    read_as = {label: "" for label in labels if label and label.strip() in _NO_LANDMARK}
    named = labels - read_as.keys() - {""}
    if not any(label.startswith("-") and _WHOLE.fullmatch(label) and not _NO_CLASS.fullmatch(label) for label in named):
        read_as.update((label, "") for label in named if _NO_CLASS.fullmatch(label))
        named -= read_as.keys()
    if all(map(_WHOLE.fullmatch, named)):
        read_as.update((label, label.partition(".")[0]) for label in named if "." in label)
    read_as.update((label, plain) for label in named if (plain := compose(_SPACE.sub("_", label.strip()))) != label)
    return Spelling(read_as)


def require_no_decimals(labels: Iterable[str], source: str) -> None:
    """Raises LmrError where all labels are numbers and some have decimals: they measure something, and name nothing."""
    named = [label for label in labels if label.strip() not in _NO_LANDMARK]
    decimals = [label for label in named if _DECIMAL.fullmatch(label.strip())]
    if decimals and all(_NUMBER.fullmatch(label.strip()) for label in named):
        raise LmrError(
            f"{source}: the labels are numbers with decimals ({_some(decimals)}), which name no landmark; give the "
            "column that does as `column` landmark_id=NAME, or write a letter before them"
        )


def require_apart(labels: Iterable[str], spelling: Spelling, source: str) -> None:
    """Raises LmrError where a label that holds white space is read as another one is."""
    given = dict.fromkeys(labels)
    of = {spelling.of(label): label for label in given if not _SPACE.search(label)}
    for label in spelling.spaced():
        if (other := of.setdefault(spelling.of(label), label)) != label:
            raise LmrError(
                f"{source}: the labels {other!r} and {label!r} are both the landmark {spelling.of(label)}; rename one"
            )


def compose(name: str) -> str:
    """A name with composed letters (NFC): an accent and its letter are one character, as most programs write them."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def require_meeting(
    asked: Collection[str],
    known: Collection[str],
    between: tuple[str, str],
    *,
    noun: str = "landmark",
    remedy: str = "give `allow_disjoint`",
) -> None:
    """Refuses two sets of labels of which none is in both, or more would be if they were spelt alike.

    between: where the labels are from, in the same order. noun: what they name; only landmarks are compared by their
    spelling. remedy: how to go on nevertheless. Raises LmrError; nothing
    where one side has no labels.
    """
    asked, known = set(asked) - {""}, set(known) - {""}
    if not asked or not known:
        return
    compared = sorted(known, reverse=True) if noun == "landmark" else []  # of labels that look alike the first counts
    likely = {plain: label for label in compared if (plain := _plain(label))}
    pairs = [(label, likely[plain]) for label in sorted(asked - known) if (plain := _plain(label)) in likely]
    here, there = between
    if pairs:
        one, other = pairs[0]
        more = f", and {counted(len(pairs) - 1, 'more such label')}" if len(pairs) > 1 else ""
        raise LmrError(
            f"{here} says {one!r}, {there} says {other!r}{more}: the same but for {_difference(one, other)}; "
            f"spell them alike, or {remedy} if they are different {noun}s"
        )
    if asked.isdisjoint(known):
        what = f"none of the {counted(len(asked), noun)} of {here} ({_some(asked)}) is"
        if len(asked) == 1:
            what = f"the only {noun} of {here} ({_some(asked)}) is not"
        raise LmrError(
            f"{what} among the {len(known):,} of {there} "
            f"({_some(known)}); give files that belong together, or {remedy} if that is meant"
        )


def _plain(label: str) -> str:
    """A label without what is easily changed in it: letters' case and form, `.0`, zeros in front, separators."""
    text = re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFKC", label)).casefold().strip("_")
    return re.sub(r"\.0+$", "", text).lstrip("0") or "0" if re.fullmatch(r"\d+(\.0+)?", text) else text


_DIFFERENCES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("the form of the letters in Unicode", lambda text: unicodedata.normalize("NFKC", text)),
    ("the .0", lambda text: re.sub(r"\.0+$", "", text)),
    ("zeros at the beginning", lambda text: text.lstrip("0")),
    ("capital letters", str.casefold),
    ("white space, _ and -", lambda text: re.sub(r"[\s_-]+", "_", text).strip("_")),
)


def _difference(one: str, other: str) -> str:
    """Says what two labels differ in."""
    return next((name for name, change in _DIFFERENCES if change(one) == change(other)), "how they are written")


def _some(labels: Collection[str]) -> str:
    shown = ", ".join(sorted(labels)[:_SHOWN])
    return f"{shown}, …" if len(labels) > _SHOWN else shown
