"""Embedding on a Spark cluster: each task embeds a share of the rows, and a last one joins them.

What a task does is what `embed` does with `shard`, so that the whole is what one machine makes. The driver knows
numbers and names alone.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

from retrieval.data.overview import require_there
from retrieval.data.pipes import is_pipe
from retrieval.embed.complete import N_LISTED, list_unreadable, require_any_read
from retrieval.embed.engine import ONNX_NAME, Engine
from retrieval.embed.fill import FillReport, info_of
from retrieval.embed.job import EmbedJob, find_card, make_card
from retrieval.embed.load import model_files
from retrieval.embed.shares import Made, Seen, Share, Work, embed_share, find_finished, info_at, join_shares, look
from retrieval.embed.store_name import find_store
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.files.lock import output_lock
from retrieval.files.urls import remote_url
from retrieval.models.card import Card
from retrieval.models.folder import CARD
from retrieval.progress import SILENT
from retrieval.shard import Shard
from retrieval.spark.cluster import Cluster
from retrieval.spark.config import require_spark
from retrieval.spark.staging import Staging
from retrieval.store.info import StoreInfo


def unreadable_path(store: Path) -> Path:
    """The table of the images of a store that could not be read: `train.h5` -> `train.unreadable.csv`."""
    return store.with_suffix(".unreadable.csv")


def embed_on_spark(job: EmbedJob) -> tuple[Path, FillReport]:
    """As `embed`, by a cluster. Raises LmrError as that, before Spark is started where that can be known."""
    require_spark()
    require_there(job.manifest)
    if remote_url(str(job.manifest)) is None and is_pipe(job.manifest):
        raise LmrError(f"{job.manifest}: a pipe is read once, and executors read it too; give a file")
    output = job.output or find_store(job.manifest, "output", job.progress)
    job = replace(job, output=output)
    card = None if job.network is not None else find_card(job)
    if card is not None and not job.overwrite:
        _require_alike(output, info_at(output), card, job)
    with Staging(output, wait=job.wait, progress=job.progress) as staging, Cluster(job, job.progress) as cluster:
        return output, embed_in(cluster, staging, job)


def embed_in(cluster: Cluster, staging: Staging, job: EmbedJob, engine: Engine | None = None) -> FillReport:
    """Makes, completes or finds the store `output` of a job, in tasks of a cluster.

    engine: as of `plan_embedder`. Raises LmrError as `embed`.
    """
    assert job.output is not None
    cluster.require_shared(job.output.absolute().parent)
    plain = replace(job, engine="local", master=None, n_tasks=None, spark_conf=(), progress=SILENT)
    work = Work(plain, Path.cwd(), secrets.token_hex(8), engine, unreadable_path(job.output.absolute()))
    if job.local_features.weights is not None:
        work = replace(work, weights=cluster.share(job.local_features.weights))
    (seen,) = cluster.run("reading the manifest", look, [work])
    card = _card_of(job, seen)
    files = None if job.model.is_file() else [CARD, *model_files(job.model, card)]
    if files and engine is not None and (job.model / ONNX_NAME).is_file():
        files.append(ONNX_NAME)
    work = replace(work, model=cluster.share(job.model, files), digest=seen.digest)
    wants_local = job.local_features.kind is not None and (job.overwrite or not seen.has_local)
    wants_vectors = job.overwrite or not seen.is_finished
    report: FillReport | None = None
    if not wants_vectors:
        (report,) = cluster.run("looking for changed pictures", find_finished, [(work, not wants_local)])
    if wants_vectors or wants_local:
        made = _Shares(cluster, staging, job, work, seen).make(card, vectors=wants_vectors, local=wants_local)
        report = made if report is None else replace(report, local=made.local)
    staging.remove()
    assert report is not None
    if wants_vectors:
        list_unreadable(dict(report.unreadable), report.n_unreadable, report.n_pictures, job.progress)
        require_any_read(report, str(job.manifest))
    return report


def _card_of(job: EmbedJob, seen: Seen) -> Card:
    """The card of the model, which is made here where the job says so. LmrError: another store is in the place."""
    output = job.output
    assert output is not None

    def check(card: Card) -> None:
        _require_alike(output, None if job.overwrite else seen.store, card, job, seen.digest)

    if job.network is None:
        card = find_card(job)
    else:
        with output_lock(job.model, wait=job.wait, progress=job.progress):
            card = make_card(job, job.network, check)
    check(card)
    return card


def _require_alike(output: Path, there: StoreInfo | None, card: Card, job: EmbedJob, digest: str = "") -> None:
    """Raises LmrError where a store is of something else. digest: of the manifest, where that is known."""
    if there is None:
        return
    info = info_of(card, digest or there.manifest_digest, job.dtype, 1, mapped=job.columns)
    if difference := there.difference(info):
        raise LmrError(f"{output} was made with {difference}; give `overwrite` or another file name")


@dataclass(frozen=True, slots=True)
class _Shares:
    """The shares of a store that is made."""

    cluster: Cluster
    staging: Staging
    job: EmbedJob
    work: Work
    seen: Seen

    def make(self, card: Card, *, vectors: bool, local: bool) -> FillReport:
        """Makes those that are not there yet, and joins them."""
        job = self.job
        of = {"manifest": self.seen.digest, "model": card.fingerprint, "dtype": job.dtype, "local": _local_digest(job)}
        of |= {"columns": " ".join(job.columns)} if job.columns else {}
        n, was_begun = self.staging.settle(
            of,
            lambda: job.count_tasks(self.seen.n_rows, self.cluster.n_slots),
            asked=job.n_tasks,
            overwrite=job.overwrite,
        )
        shares = [Share(Shard(i + 1, n), vectors, local) for i in range(n)]
        made = self._embed(shares)
        if n_before := sum(one.was_there for one in made):
            job.progress.tell(f"{n_before:,} of {n:,} shares were finished before")
        try:
            report = self._join(shares)
        except LmrError:  # of a share that was damaged since it was written, where it is one's fault
            made = self._embed(shares)
            if not any(one.was_damaged for one in made):
                raise
            report = self._join(shares)
        unreadable = dict(islice(chain.from_iterable(one.unreadable.items() for one in made), N_LISTED + 1))
        return replace(report, state="resumed" if was_begun or self.seen.store else "made", unreadable=unreadable)

    def _embed(self, shares: Sequence[Share]) -> list[Made]:
        return self.cluster.run("embedding", embed_share, [(self.work, share) for share in shares], "shares")

    def _join(self, shares: Sequence[Share]) -> FillReport:
        (report,) = self.cluster.run("joining", join_shares, [(self.work, tuple(shares))])
        return report


def _local_digest(job: EmbedJob) -> str:
    options = job.local_features
    return sha256_json([options.kind, options.n_keypoints, options.long_side]) if options.kind else "none"
