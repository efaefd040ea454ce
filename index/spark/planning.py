"""A submission on a cluster: what its driver does, and its tasks before and after the answers."""

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from index.folder.folder import N_OF_AUGMENTED
from index.folder.info import MODEL
from index.kaggle.shares import inputs_of, join_submissions, sets_of
from index.kaggle.submit import Opened, SubmitJob, SubmitReport, embed_test, is_there, open_index, tell_missing
from index.recognition import BLOCK_QUERIES, BLOCK_VERIFIED
from index.rerank.verification import Ledger
from index.spark.answering import Work, answer_block, at_place, search_shard, store_state
from index.spark.rounds import Plan, Rounds, read_plan, write_plan
from retrieval.data.overview import load_manifest
from retrieval.embed.fill import FillRun, require_same_job
from retrieval.embed.job import EmbedJob, StoreFilling
from retrieval.embed.load import open_card
from retrieval.embed.shares import info_at
from retrieval.embed.spark import embed_in
from retrieval.embed.store_name import find_store
from retrieval.errors import LmrError
from retrieval.files.folders import current_folder
from retrieval.files.lock import output_lock
from retrieval.files.urls import remote_url
from retrieval.progress import SILENT, Progress
from retrieval.spark.cluster import Cluster, Place
from retrieval.spark.config import require_spark
from retrieval.spark.staging import Staging, staging_path
from retrieval.store.store import open_descriptors

_STEP = 128  # queries of a block are a multiple of it, as shares are, so that last bits are those of the whole
_PRODUCTS = 1 << 38  # multiplications of a search task: 5 to 10 seconds of a core
_FOUND_BYTES = 1 << 26  # of what a search task writes
_NEIGHBOUR_BYTES = 12
_SHARD_BYTES = 1 << 30  # of rows that a search task maps, where the index has no shards of its own
_LEAST_ROWS = 1 << 14  # of such a shard
_MOST_TURNS = 32  # of all blocks; four are enough, but where files are damaged meanwhile
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


def submit_on_spark(job: SubmitJob) -> SubmitReport:
    """As `submit`, by tasks of a cluster: the driver plans, and holds nothing that grows with rows or images."""
    require_spark()
    sent = _sent(job)
    assert sent.store is not None
    with ExitStack() as held:
        stagings = [Staging(path, wait=job.wait, progress=job.progress) for path in (sent.output, sent.store)]
        for staging in stagings:
            held.enter_context(staging)
        cluster = held.enter_context(Cluster(job, job.progress))
        cluster.require_shared(sent.output.parent)
        asking = Asking(sent, cluster.n_slots)
        [replaces] = cluster.run("looking at the index", look, [asking])
        embedding = replace(embedding_of(sent, overwrite=replaces), progress=job.progress)
        embed_in(cluster, stagings[1], embedding, "auto")
        [planned] = cluster.run("planning", plan, [asking])
        n_answered = None
        if planned.work is not None:
            n_answered = answer_by_tasks(cluster, planned.work, job.progress)
            cluster.run("joining", join, [planned.work])
        stagings[0].remove()
    return SubmitReport(job.output, "unchanged" if n_answered is None else "written", planned.n_queries, n_answered)


def _sent(job: SubmitJob) -> SubmitJob:
    """The job as tasks do it: with paths that mean the same everywhere, and nobody who is told."""

    def absolute(path: Path) -> Path:
        return path if remote_url(str(path)) is not None else Path(os.path.abspath(path))

    store = job.store or find_store(job.test, "store", job.progress)
    given = {"test": job.test, "index": job.index, "store": store, "output": job.output, "images": job.images}
    paths: dict[str, Any] = {name: absolute(path) for name, path in given.items() if path is not None}
    return replace(job, progress=SILENT, **paths)


def answer_by_tasks(cluster: Cluster, work: Work, progress: Progress) -> int:
    """Answers and searches in turn, until all blocks are finished; how many images are given a landmark."""
    n_answered, blocks = 0, list(range(work.rounds.plan.n_blocks))
    for _ in range(_MOST_TURNS):
        turns = cluster.run("answering", answer_block, [(work, block) for block in blocks], "blocks")
        for name in (name for turn in turns for name in turn.damaged):
            progress.warn(f"{work.rounds.folder / name} was damaged, and is made again")
        n_answered += sum(turn.n_answered or 0 for turn in turns)
        blocks = [block for block, turn in zip(blocks, turns, strict=True) if turn.n_answered is None]
        if not blocks:
            return n_answered
        searches = [search for turn in turns for search in turn.searches]
        # One shard after the other, so that those that run at once share its pages, and processes what they opened.
        cluster.run("searching", search_shard, sorted(searches, key=lambda search: search.shard), "searches")
    raise LmrError(f"files in {work.rounds.folder} are damaged again and again; look at the disk, or give `overwrite`")


def look(asking: Asking, place: Place) -> bool:
    """Tells what is to be known of an index, and whether the store of the queries is to be replaced.

    Raises LmrError as `open_index`, before anything is embedded.
    """
    job = at_place(asking.job, place)
    opened = open_index(job, job.output, searched=False)
    assert job.store is not None
    if not job.overwrite or info_at(job.store) is None:
        return False
    manifest = load_manifest(job.test, SILENT)
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
    job = at_place(asking.job, place)
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
    for rows, n_blind in map(rounds.unverified, blocks):
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
