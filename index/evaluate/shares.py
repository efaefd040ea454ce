"""What the answers to queries come to, kept in files: of a share of them, of all, and of an evaluation that goes on.

A share of queries is asked and compared alone, and what its answers come to lies in a file of its own. Joined, they are
taken from there by the evaluation of all, which asks nothing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from index.evaluate.outcome import OUTCOME, PLACED, Questions
from index.folder.verified import LOCAL_SET, Verifying
from index.verify import OUTCOMES, STORES
from retrieval.errors import LmrError
from retrieval.files.atomic import replacing
from retrieval.files.digest import sha256_json
from retrieval.files.json_file import convert
from retrieval.files.kept import Kept, kept_bytes
from retrieval.shard import MOST_SHARES, Shard, parse_shard, require_all, require_lengths
from retrieval.version import program_version

if TYPE_CHECKING:
    from retrieval.progress import Progress
    from retrieval.store.store import Descriptors

HEAD = b"lmr outcomes 1\n"
MOST_HEAD_BYTES = 1 << 20
VERIFIED = ".verified"  # in the name of a file of verified answers
_REMEDY = "make it again with lmr evaluate `shard` `overwrite`"
_WITHIN = "`within`"  # a distance, where that says what is right
_SETS = ("set of queries", "set of descriptors", LOCAL_SET)  # inputs that differ between shares


class _Content(TypedDict):
    """What a file says of itself. shares: how many it was joined of. n: queries. made_of: all that they depend on."""

    shard: str | None
    shares: int | None
    n: int
    made_of: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asking:
    """Queries that are asked, all or a share, and what tells them from others.

    store: of their descriptors, None where they are the index's own. source: digest of the manifest or store of all.
    verifying: how their neighbours are verified, None where they are not.
    """

    questions: Questions
    source: str
    store: "Descriptors | None" = None
    shard: Shard | None = None
    verifying: Verifying | None = None

    @property
    def verification(self) -> Mapping[str, str]:
        """Digest of how neighbours are verified; none where they are not."""
        return {} if self.verifying is None else self.verifying.verification.made_of

    def content(self, shares: int | None = None) -> _Content:
        """What a file of them says of itself. shares: as if it was joined of so many."""
        n = len(self.questions.queries)
        parts = [slice(0, n)] if shares is None else [_slice(Shard(i + 1, shares), n) for i in range(shares)]
        told = [self.sets(part) for part in parts]
        sets = told[0] if shares is None else {name: sha256_json([one[name] for one in told]) for name in told[0]}
        near = self.questions.queries.near
        made_of: dict[str, Any] = {
            **({} if near is None else {_WITHIN: near.within_m}),
            **self.questions.folder.made_of,
            "manifest": self.source,
            "version of lmr": program_version(),
            **self.verification,
            **sets,
        }
        return _Content(shard=None if self.shard is None else str(self.shard), shares=shares, n=n, made_of=made_of)

    def sets(self, part: slice) -> dict[str, str]:
        """Digests of some of the queries and what is known of them, by what they are for people."""
        rows = np.arange(len(self.questions.queries))[part]
        digests = [self.questions.queries.select(rows).digest]
        digests.append(sha256_json(None) if self.store is None else self.store.select(rows).digest)
        if self.verifying is not None:
            digests.append(self.verifying.digest(part))
        return dict(zip(_SETS, digests, strict=False))


def outcomes_path(place: Path, shard: Shard | None = None, *, verified: bool = False) -> Path:
    """The file of outcomes beside a store or an index: `val.h5` -> `val.outcomes`, `val-1-of-4.outcomes`.

    verified: of verified answers, `val.verified.outcomes`.
    """
    place = place if place.name else place.resolve()
    name = place.stem if place.suffix in STORES else place.name
    path = place.with_name(f"{name}{VERIFIED if verified else ''}{OUTCOMES}")
    return path if shard is None else shard.beside(path)


def kept_outcomes(asking: Asking, place: Path, progress: "Progress") -> tuple[Kept, bool]:
    """The file of outcomes to go on with, and whether it is a joined one that stays.

    place: of the store or the index. A joined file of other queries or of another index is told of and left alone.
    """
    joined = outcomes_path(place, verified=bool(asking.verification))
    if joined.is_file():
        try:
            shares = read_content(joined)["shares"]
            if shares is not None and shares <= MOST_SHARES and is_finished(joined, content := asking.content(shares)):
                return _kept(joined, content), True
        except LmrError:  # of another index, or an earlier one
            progress.warn(f"{joined} is not of these queries and this index as they are: all are asked again")
    content = asking.content()
    name = f".{joined.name}.{sha256_json(content)[:8]}.answered"
    return _kept(joined.with_name(name), content), False


def is_finished(output: Path, content: _Content) -> bool:
    """Tells whether a file of outcomes is there, whole and of this. LmrError for another one, by what differs."""
    if not output.exists():
        return False
    before = read_content(output)
    for name, value in content["made_of"].items():
        if before["made_of"].get(name) != value:
            raise LmrError(f"{output} was made with another {name}; give `overwrite` or another name")
    if before != content or sum(map(len, _kept(output, content).read())) != content["n"]:
        raise LmrError(f"{output} is of other queries, or was changed; give `overwrite` or another name")
    return True


def unfinished(output: Path, content: _Content) -> Kept:
    """The file of outcomes that becomes the output when all are there."""
    return _kept(output.with_name(f".{output.name}.answered"), content)


def read_content(path: Path) -> _Content:
    """What a file of outcomes says of itself. Raises LmrError for another file, and for a damaged one."""
    with path.open("rb") as file:
        if file.read(len(HEAD)) != HEAD:
            raise LmrError(f"{path} holds no outcomes of queries; {_REMEDY}")
        line = file.readline(MOST_HEAD_BYTES)
    try:
        content: _Content = convert(json.loads(line), _Content, str(path), _REMEDY)
    except ValueError as error:
        raise LmrError(f"{path} is damaged; {_REMEDY}") from error
    return content


def require_outcomes(path: Path) -> _Content:
    """What a whole file of outcomes says of itself. Raises LmrError where it is not as it was written."""
    content = read_content(path)
    for _ in _blocks([(path, content)]):
        pass  # each is compared with its digest when it is read
    return content


def join_evaluations(
    paths: Sequence[Path], output: Path, *, overwrite: bool
) -> tuple[Literal["joined", "unchanged"], int]:
    """Writes the outcomes of all shares; what was done, and of how many queries they are.

    Raises LmrError for files that are not all shares of one evaluation, each once and whole, and for another file in
    the place of the output.
    """
    contents = [read_content(path) for path in paths]
    _require_alike(paths, contents)
    shares = [(path, parse_shard(content["shard"] or "")) for path, content in zip(paths, contents, strict=True)]
    order = require_all(shares)
    require_lengths(shares, [content["n"] for content in contents])
    made_of = dict(contents[0]["made_of"])
    for name in made_of.keys() & _SETS:
        made_of[name] = sha256_json([contents[at]["made_of"][name] for at in order])
    n = sum(content["n"] for content in contents)
    whole = _Content(shard=None, shares=len(paths), n=n, made_of=made_of)
    if not overwrite and is_finished(output, whole):
        return "unchanged", n
    with replacing(output) as file:
        for part in kept_bytes(_head(whole), _blocks([(paths[at], contents[at]) for at in order])):
            file.write(part)
    return "joined", n


def _blocks(parts: Sequence[tuple[Path, _Content]]) -> Iterator[NDArray[np.void]]:
    for path, content in parts:
        blocks = _kept(path, content).read()
        if sum(map(len, blocks)) != content["n"]:
            raise LmrError(f"{path} was changed or is cut short; {_REMEDY}")
        yield from blocks


def _require_alike(paths: Sequence[Path], contents: Sequence[_Content]) -> None:
    """Raises LmrError where one is no share, or of other queries or another index than the first."""
    first = contents[0]["made_of"]
    for path, content in zip(paths, contents, strict=True):
        if content["shard"] is None:
            raise LmrError(f"{path} is no share, it holds all queries; give what was made with `shard`")
        for name in content["made_of"].keys() | first.keys():
            here, there = content["made_of"].get(name), first.get(name)
            if here != there and (name not in _SETS or None in (here, there)):
                raise LmrError(f"{path} was made with another {name} than {paths[0]}; make it again")


def _kept(path: Path, content: _Content) -> Kept:
    """A file of outcomes that says this of itself."""
    return Kept(path, _head(content), PLACED if _WITHIN in content["made_of"] else OUTCOME)


def _head(content: _Content) -> bytes:
    return HEAD + json.dumps(content, sort_keys=True).encode() + b"\n"


def _slice(shard: Shard, n: int) -> slice:
    rows = shard.rows(n)
    return slice(rows.start, rows.stop)
