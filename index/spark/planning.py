"""Tasks before and after the answers of a submission: its index is looked at, it is planned, and joined."""

import shutil
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from index.folder.folder import N_OF_AUGMENTED
from index.folder.info import MODEL
from index.kaggle.shares import inputs_of, join_submissions, sets_of
from index.kaggle.submit import Opened, SubmitJob, embed_test, is_there, open_index, tell_missing
from index.recognition import BLOCK_QUERIES, BLOCK_VERIFIED
from index.rerank.verification import Ledger
from index.spark.answering import Work, store_state
from index.spark.rounds import Plan, Rounds, read_plan, write_plan
from retrieval.data.overview import load_manifest
from retrieval.embed.fill import FillRun, require_same_job
from retrieval.embed.job import EmbedJob, StoreFilling
from retrieval.embed.load import open_card
from retrieval.embed.shares import info_at
from retrieval.errors import LmrError
from retrieval.files.folders import current_folder
from retrieval.files.lock import output_lock
from retrieval.progress import SILENT
from retrieval.spark.staging import staging_path
from retrieval.spark.task import Place
from retrieval.store.store import open_descriptors

_STEP = 128  # queries of a block are a multiple of it, as shares are, so that last bits are those of the whole
_PRODUCTS = 1 << 38  # multiplications of a search task: 5 to 10 seconds of a core
_FOUND_BYTES = 1 << 26  # of what a search task writes
_NEIGHBOUR_BYTES = 12
_SHARD_BYTES = 1 << 30  # of rows that a search task maps, where the index has no shards of its own
_LEAST_ROWS = 1 << 14  # of such a shard
_PER_SLOT = 3  # search tasks for each slot, so that a slow one is not waited for long


@dataclass(frozen=True, slots=True)
class Asking:
    """A submission that is to be planned. job: with absolute paths; n_slots: of the cluster."""

    job: SubmitJob
    n_slots: int


@dataclass(frozen=True, slots=True)
class Planned:
    """A submission that was planned. work: None where it is there already."""

    n_queries: int
    work: Work | None


def look(asking: Asking, place: Place) -> bool:
    """Tells what is to be known of an index, and whether the store of the queries is to be replaced.

    Raises LmrError as `open_index`, before anything is embedded.
    """
    job = place.give(asking.job)
    opened = open_index(job, job.output, searched=False)
    assert job.store is not None
    if not job.overwrite or info_at(job.store) is None:
        return False
    manifest = load_manifest(job.test, SILENT, job.column_names)
    try:
        require_same_job(job.store, manifest, open_card(opened.folder.model_path), FillRun(check=job.check))
    except LmrError:
        return True
    return False


def embedding_of(job: SubmitJob, *, overwrite: bool) -> EmbedJob:
    """The embedding of the images of a submission by the network of the index."""
    words: dict[str, Any] = {item.name: getattr(job, item.name) for item in fields(StoreFilling) if item.init}
    words |= {"master": job.master, "n_tasks": job.n_tasks, "spark_conf": job.spark_conf, "engine": "spark"}
    model = current_folder(job.index) / MODEL
    return EmbedJob(job.test, model=model, output=job.store, overwrite=overwrite, wait=job.wait, **words)


def plan(asking: Asking, place: Place) -> Planned:
    """Writes how a submission is divided, or takes up the plan that is there; its images have descriptors."""
    job = place.give(asking.job)
    assert job.store is not None
    opened, store, verifying = open_index(job, job.output, searched=False), open_descriptors(job.store), None
    if opened.verification is None:
        tell_missing(store, job.progress)
    else:
        store, verifying = embed_test(opened, job)
    if is_there(job, job.output, inputs_of(job.output, opened.made_with, store, verifying)):
        return Planned(len(store), None)
    made_with = {**opened.made_with, **sets_of(store, verifying, range(len(store)))}
    new = Plan(made_with, store.info.manifest_digest, len(store), *divided(opened, len(store), asking))
    rounds = Rounds(staging_path(job.output), job.output, new)
    there = _taken_up(rounds, overwrite=job.overwrite)
    if there is None:
        shutil.rmtree(rounds.folder, ignore_errors=True)
        write_plan(rounds)
    return Planned(len(store), Work(asking, replace(rounds, plan=there or new), store_state(job.store)))


def join(work: Work, place: Place) -> None:
    """Joins the shares of all blocks to the submission, and tells what could not be verified."""
    rounds, ledger = work.rounds, Ledger()
    blocks = range(rounds.plan.n_blocks)
    with output_lock(rounds.output, wait=work.job.wait, progress=place.progress):
        join_submissions([rounds.share(block)[0] for block in blocks], rounds.output, overwrite=work.job.overwrite)
    for rows, n_blind in filter(None, map(rounds.unverified, blocks)):
        ledger.note(n_blind=n_blind, without=list(rows))
    ledger.tell(place.progress)


def divided(opened: Opened, n_queries: int, asking: Asking) -> tuple[int, int]:
    """Blocks of queries and shards of rows, so that a search takes seconds and finds little, and no slot is idle."""
    folder, job, wanted = opened.folder, asking.job, _PER_SLOT * asking.n_slots
    info = folder.info
    is_exact = info.search is None
    is_free = is_exact and info.n_shards == 1
    n_bytes = info.n_rows * info.d * np.dtype(folder.index.storage).itemsize
    n_shards = max(1, -(-n_bytes // _SHARD_BYTES)) if is_free else info.n_shards
    size = BLOCK_QUERIES if opened.verification is None else BLOCK_VERIFIED
    size = min(size, _FOUND_BYTES // (_NEIGHBOUR_BYTES * _most_neighbours(opened)))
    if is_exact:
        size = min(size, _PRODUCTS * n_shards // (info.n_rows * info.d))
    size = max(_STEP, size // _STEP * _STEP)
    n_blocks = job.count_tasks(n_queries, asking.n_slots)
    if job.n_tasks is None:
        n_blocks = max(n_blocks, -(-n_queries // size))
        if is_free:
            n_shards = max(n_shards, min(-(-wanted // n_blocks), info.n_rows // _LEAST_ROWS))
    return n_blocks, n_shards


def _most_neighbours(opened: Opened) -> int:
    """The most neighbours that a search of a query finds."""
    folder, refinement = opened.folder, opened.folder.refinement
    n_verified = 0 if opened.verification is None else opened.verification.by.top
    return max(folder.rule.k, refinement.n_expand, refinement.n_rerank, n_verified, N_OF_AUGMENTED)


def _taken_up(rounds: Rounds, *, overwrite: bool) -> Plan | None:
    """The plan that is there, where it is of the same submission. Raises LmrError for another one, unless overwrite."""
    try:
        there = read_plan(rounds.folder)
    except LmrError:
        if not overwrite:
            raise
        return None
    if there is None:
        return None
    now, before = ({**one.made_with, "manifest": one.manifest} for one in (rounds.plan, there))
    differing = [name for name in now.keys() | before.keys() if now.get(name) != before.get(name)]
    if differing and not overwrite:
        raise LmrError(
            f"{rounds.folder} holds an unfinished submission made with another {min(differing)}; give `overwrite` "
            "or another `output`"
        )
    return None if differing else there
