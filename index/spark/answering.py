"""Tasks that answer a submission on executors: what a block asks and answers, and what a shard of the index finds.

A block of queries is answered by `answer` as on one machine, again and again with one more search known, until it ends.
A process of an executor keeps what it opened last: the index without its inverted file, the queries, one shard.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from index.folder.local import beside
from index.folder.searching import Identity, Searching, open_shard, state_of
from index.folder.verified import Verifying
from index.kaggle.shares import read_share, sets_of, share_lines
from index.kaggle.submit import Opened, SubmitJob, open_index
from index.recognition import Answers, Predictions, answer_rows, check_store, confidence_or_nan, named_at
from index.rerank.verification import Ledger
from index.search.base import Neighbours
from index.search.shards import Shard, merge_neighbours
from index.spark.replay import Asks, ReplayedFolder
from index.spark.rounds import DamagedError, Rounds
from retrieval.errors import LmrError
from retrieval.files.atomic import write_text
from retrieval.local.store import open_local
from retrieval.progress import SILENT
from retrieval.store.store import Descriptors, open_descriptors
from retrieval.store.stored import file_identity
from retrieval.texts import Texts

if TYPE_CHECKING:
    from index.spark.planning import Asking
    from retrieval.spark.task import Place


@dataclass(frozen=True, slots=True)
class Work:
    """A submission that is answered by tasks. written: size and time of the store when the plan was made."""

    asking: "Asking"
    rounds: Rounds
    written: tuple[int, ...]

    @property
    def job(self) -> SubmitJob:
        """The job, with absolute paths, that of its store among them."""
        return self.asking.job


@dataclass(frozen=True, slots=True)
class Search:
    """The queries that a round of a block asks, in one shard."""

    work: Work
    round: int
    block: int
    shard: int


@dataclass(frozen=True, slots=True)
class Turn:
    """How far a block is. n_answered: queries that are given a landmark, None where it is not finished.

    searches: what it needs to go on. damaged: names of files that were, and are made again.
    """

    n_answered: int | None
    searches: tuple[Search, ...] = ()
    damaged: tuple[str, ...] = ()


def answer_block(item: tuple[Work, int], place: "Place") -> Turn:
    """Answers a block as far as what was found allows: to its share of the submission, or to the next searches."""
    work, block = item
    damaged: list[str] = []
    with _damage_noted(damaged):
        asked = _asked(work, place)
        is_told = asked.verifying is None or work.rounds.unverified(block) is not None
        if is_told and (n_answered := _finished(work, asked, block)) is not None:
            return Turn(n_answered)
    known: list[Neighbours] = []
    for round_ in count():
        found, lacking = _found(work, round_, block, damaged)
        if lacking:
            return Turn(None, tuple(Search(work, round_, block, i) for i in lacking), tuple(damaged))
        if found is None:
            break
        known.append(found)
    ledger = Ledger()
    try:
        answers = _answers(asked, work.rounds.rows(block), known, ledger)
    except Asks as asks:
        work.rounds.write_asked(len(known), block, asks.question)
        shards = range(work.rounds.plan.n_shards)
        return Turn(None, tuple(Search(work, len(known), block, i) for i in shards), tuple(damaged))
    if asked.verifying is not None:
        work.rounds.write_unverified(block, ledger.without, ledger.n_blind)
    return Turn(_write_share(work, asked, block, answers), damaged=tuple(damaged))


def search_shard(item: Search, place: "Place") -> None:
    """Searches one shard for what a block asks, and writes what was found, where that is not there yet."""
    rounds, plan = item.work.rounds, item.work.rounds.plan
    try:
        if rounds.found(item.round, item.block, item.shard) is not None:
            return
        question = rounds.asked(item.round, item.block)
    except DamagedError:  # which the next turn of the block finds, and names
        return
    if question is None:
        return
    job = place.give(item.work.job)
    index, shard = _shard(job, state_of(job.index), item.shard, plan.n_shards, question.where)
    _require_same({"index": index}, item.work)
    k = max(1, min(question.k, len(shard)))
    rounds.write_found(item.round, item.block, item.shard, shard.search(question.queries, k))


def store_state(path: Path) -> tuple[int, ...]:
    """Tells a store from itself when it was written again, on all machines that see it."""
    return file_identity(path)[2:]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a process opened to answer blocks."""

    opened: Opened
    store: Descriptors
    verifying: Verifying | None


def _asked(work: Work, place: "Place") -> _Asked:
    """The index and the queries. Raises LmrError where they are not those of the plan any more."""
    job = replace(place.give(work.job), progress=SILENT)
    assert job.store is not None
    if store_state(job.store) != work.written:
        raise LmrError(f"{job.store} was changed while its pictures were answered; run the same command again")
    asked = _open(job, work.rounds.output, state_of(job.index), work.written)
    _require_same(asked.opened.made_with, work)
    return asked


@lru_cache(maxsize=1)
def _open(job: SubmitJob, output: Path, state: tuple[Identity | None, ...], written: tuple[int, ...]) -> _Asked:
    """What a process keeps. state, written: tell it from what takes its place."""
    assert job.store is not None
    opened, store = open_index(job, output, searched=False), open_descriptors(job.store)
    check_store(opened.folder, store)
    if opened.verification is None:
        return _Asked(opened, store, None)
    local = open_local(beside(job.store))
    return _Asked(opened, store, Verifying.of_store(opened.verification, local, store.image_id))


@lru_cache(maxsize=1)
def _shard(
    job: SubmitJob, state: tuple[Identity | None, ...], i: int, n: int, where: Literal["searched", "own"]
) -> tuple[str, Shard]:
    """Digest of an index, and the one shard of it that a process keeps."""
    info, shard = open_shard(job.index, i, n, Searching(job.device, job.threads, SILENT), own=where == "own")
    return info.inputs_digest, shard


def _require_same(made_with: dict[str, Any], work: Work) -> None:
    planned = work.rounds.plan.made_with
    for name, value in made_with.items():
        if planned.get(name) != value:
            raise LmrError(
                f"{work.job.index} was replaced while it was asked (another {name}); run the same command again"
            )


def _found(work: Work, round_: int, block: int, damaged: list[str]) -> tuple[Neighbours | None, list[int]]:
    """What a round found in all shards, merged, and the shards that were not searched yet; None = it asks nothing."""
    rounds = work.rounds
    with _damage_noted(damaged):
        if (known := rounds.found(round_, block)) is not None:
            return known, []
    question = None
    with _damage_noted(damaged):
        question = rounds.asked(round_, block)
    if question is None:
        return None, []
    parts: dict[int, Neighbours] = {}
    for shard in range(rounds.plan.n_shards):
        with _damage_noted(damaged):
            if (part := rounds.found(round_, block, shard)) is not None:
                parts[shard] = part
    lacking = [shard for shard in range(rounds.plan.n_shards) if shard not in parts]
    if lacking:
        return None, lacking
    merged = merge_neighbours(list(parts.values()), question.k)
    rounds.write_found(round_, block, None, merged)
    return merged, []


def _answers(asked: _Asked, rows: range, known: list[Neighbours], ledger: Ledger) -> Answers:
    """The answers to a block. Raises Asks where more has to be searched."""
    folder, verifying = ReplayedFolder.of(asked.opened.folder, known), asked.verifying
    if verifying is not None:
        verifying = replace(verifying, verification=replace(verifying.verification, ledger=ledger))
    return answer_rows(folder, asked.store, np.array(rows, np.int64), verifying=verifying)


def _made_with(work: Work, asked: _Asked, block: int) -> dict[str, Any]:
    """Everything that the answers to a block depend on."""
    rows, (_, shard) = work.rounds.rows(block), work.rounds.share(block)
    return {**work.rounds.plan.made_with, "shard": str(shard), **sets_of(asked.store, asked.verifying, rows)}


def _finished(work: Work, asked: _Asked, block: int) -> int | None:
    """How many queries of a block are given a landmark; None where its share is not there. Raises DamagedError."""
    path, shard = work.rounds.share(block)
    if not path.exists():
        return None
    try:
        share = read_share(path)
    except LmrError as error:
        raise DamagedError(path) from error
    if (share.shard, share.made_with) != (shard, _made_with(work, asked, block)):
        raise DamagedError(path)
    return int(share.predictions.answered.sum())


def _write_share(work: Work, asked: _Asked, block: int, answers: Answers) -> int:
    """Writes the share of a block; how many queries are given a landmark."""
    rows, (path, shard) = work.rounds.rows(block), work.rounds.share(block)
    named = Texts.of([*answers.landmarks, ""]).select(named_at(answers, asked.opened.threshold))
    ids = asked.store.image_id.select(np.array(rows, np.int64))
    predictions = Predictions(ids, named, answers.logit, confidence_or_nan(answers))
    made_with = _made_with(work, asked, block)
    write_text(path, share_lines(shard, predictions, work.rounds.plan.manifest, made_with))
    return int(predictions.answered.sum())


@contextlib.contextmanager
def _damage_noted(damaged: list[str]) -> Iterator[None]:
    """Removes a file that the block finds damaged, and notes its name."""
    try:
        yield
    except DamagedError as error:
        damaged.append(error.path.name)
        with contextlib.suppress(OSError):
            os.unlink(error.path)
