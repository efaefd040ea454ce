"""What the driver of a cluster does to build an index, and to answer a submission.

It plans, and holds nothing that grows with rows or images.
"""

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from index.build_index import BuildJob, finish
from index.build_index import look as look_at_stores
from index.folder.build import BuildReport
from index.folder.info import AUGMENTED, INDEX
from index.folder.sums import groups_of, row_groups
from index.kaggle.submit import SubmitJob, SubmitReport
from index.search.choose import Tuned, choose_kind
from index.search.plan import IndexPlan
from index.spark.answering import Work, answer_block, search_shard
from index.spark.planning import Asking, embedding_of, join, plan
from index.spark.planning import look as look_at_index
from index.spark.row_tasks import (
    add_pairs,
    add_products,
    add_vectors,
    augment_part,
    join_rows,
    learn_whitening,
    whiten_part,
)
from index.spark.search_tasks import encode, learn, measure, pack
from index.spark.staged import BuildWork, Looked, PartDamageError, most_parts
from retrieval.embed.spark import embed_in
from retrieval.embed.store_name import find_store
from retrieval.errors import LmrError
from retrieval.files.urls import remote_url
from retrieval.progress import SILENT, Progress
from retrieval.spark.cluster import Cluster
from retrieval.spark.config import require_spark
from retrieval.spark.staging import Staging

MOST_ROUNDS = 32  # of a build, each of which makes again what the one before found damaged
_MOST_TURNS = 32  # of all blocks of a submission; four are enough, but where files are damaged meanwhile


def build_on_spark(job: BuildJob) -> BuildReport:
    """As `build_index`, by tasks of a cluster: the driver plans, and holds nothing that grows with rows."""
    require_spark()
    for path in (*job.stores, *job.background):
        if not path.exists():
            raise LmrError(f"{path}: there is no such file; lmr embed makes one")
    with Staging(job.output, wait=job.wait, progress=job.progress) as staging, Cluster(job, job.progress) as cluster:
        cluster.require_shared(job.output.absolute().parent)
        return build_in(cluster, staging, job)


def build_in(cluster: Cluster, staging: Staging, job: BuildJob) -> BuildReport:
    """Builds an index folder, or finds it, in tasks of a cluster. Raises LmrError where each round finds damage."""
    for _ in range(MOST_ROUNDS):
        try:
            report = _in_tasks(job, staging, cluster)
        except PartDamageError as error:
            job.progress.warn(str(error))
        else:
            staging.remove()
            return report
    raise LmrError(f"files in {staging.folder} are damaged again and again; look at the disk, or give `overwrite`")


def _in_tasks(job: BuildJob, staging: Staging, cluster: Cluster) -> BuildReport:
    """One round of all tasks, which find done what was done before. PartDamageError: something is to be made again."""
    plain = replace(job, engine="auto", master=None, n_tasks=None, spark_conf=(), device="cpu", progress=SILENT)
    [looked] = cluster.run("reading descriptors", look_at_stores, [plain])
    if looked.is_there:
        [report] = cluster.run("looking at the index", finish, [(plain, looked, None, None)])
        return report
    work = BuildWork(plain, staging.folder.absolute(), looked, _count_parts(job, looked, staging, cluster))
    d = _make_rows(work, cluster)
    tuned = _make_search(work, d, cluster, job.progress)
    [report] = cluster.run("writing the index", finish, [(plain, looked, work, tuned)])
    return report


def _count_parts(job: BuildJob, looked: Looked, staging: Staging, cluster: Cluster) -> int:
    """Parts that the rows are made in: those of before where the same was begun."""

    def count() -> int:
        return min(most_parts(looked.n_rows), job.count_tasks(looked.n_rows, cluster.n_slots))

    of = {"descriptor or option": looked.digests.inputs}
    try:
        n_parts, was_begun = staging.settle(of, count, asked=None, overwrite=False)
    except LmrError:
        if not job.overwrite:
            raise
        n_parts, was_begun = staging.settle(of, count, asked=None, overwrite=True)
    if was_begun:
        job.progress.tell(f"{staging.folder}: what was finished before is not made again")
    return n_parts


def _make_rows(work: BuildWork, cluster: Cluster) -> int:
    """The rows as they are stored, in the staging; the length of one."""
    looked, options = work.looked, work.job.options
    if options.whitening_power is not None:
        groups = [(work, i) for i in range(len(row_groups(looked.n_both)))]
        pairs = [(work, i) for i in range(len(groups_of(looked.n_pairs)))]
        cluster.run("learning the mean", add_vectors, groups)
        cluster.run("learning the differences", add_pairs, pairs)
        cluster.run("learning the spread", add_products, groups)
    cluster.run("learning the whitening", learn_whitening, [work])
    parts = [(work, i) for i in range(work.n_parts)]
    cluster.run("whitening rows", whiten_part, parts, "parts")
    [d] = cluster.run("joining rows", join_rows, [(work, INDEX)])
    if options.refinement.n_augment:
        cluster.run("augmenting rows", augment_part, parts, "parts")
        cluster.run("joining rows", join_rows, [(work, AUGMENTED)])
    return d


def _make_search(work: BuildWork, d: int, cluster: Cluster, progress: Progress) -> Tuned | None:
    """The inverted file, in the staging; None where search is exact."""
    plan = replace(work.looked.plan, d=d)
    if plan.kind == "flat":
        return None

    def make(candidate: IndexPlan) -> Tuned:
        cluster.run(f"learning {candidate.name}", learn, [(work, candidate, 0)])
        parts = [(work, candidate, i) for i in range(work.n_parts)]
        cluster.run("coding rows", encode, parts, "parts")
        shards = [(work, candidate, i) for i in range(candidate.n_shards)]
        cluster.run("packing shards", pack, shards, "shards")
        [tuned] = cluster.run("measuring", measure, [(work, candidate, 0)])
        return tuned

    return choose_kind(plan, work.job.options.search, make, progress)


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
        [replaces] = cluster.run("looking at the index", look_at_index, [asking])
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
