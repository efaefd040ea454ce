"""Answers of an index folder whose best neighbours are verified: what decides them, and when they are settled."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from index.calibration import VerifiedBy
from index.folder.folder import IndexFolder
from index.rerank.config import VERIFY_TOP, VerifyJob
from index.rerank.evidence import UNVERIFIED, Evidence, EvidenceRule, rerank_verified
from index.rerank.verification import Describe, Verification
from index.search.base import Neighbours
from index.vote import Votes, vote
from index.vote_rule import VoteRule
from retrieval.arrays import FloatArray, LongArray, UInt8Array
from retrieval.embed.job import StoreFilling
from retrieval.errors import LmrError, UnreadableError
from retrieval.jobs import ComputingJob
from retrieval.local.verifier import open_verifier
from retrieval.parallel import count_workers
from retrieval.progress import SILENT, Progress

if TYPE_CHECKING:
    from retrieval.data.manifest import Manifest
    from retrieval.images.given import GivenImages
    from retrieval.local.extractor import Extractor
    from retrieval.local.features import LocalFeatures
    from retrieval.local.store import LocalStore

LOCAL_SET = "set of local features"  # of queries, in the records of files made of verified answers


@dataclass(frozen=True, slots=True)
class Verifying:
    """The verification of some queries.

    queries: their local features, by their number. cut: the ranking key from which on they are answered; what can
    neither change the landmark nor whether it reaches the cut is spared. None = all best neighbours are compared.
    told_apart: (q, b) bytes by which the local features are told from others, None where nothing is made of them.
    """

    verification: Verification
    queries: Describe
    cut: float | None = None
    progress: Progress = SILENT
    told_apart: UInt8Array | None = None

    @classmethod
    def of_store(cls, verification: Verification, local: "LocalStore", names: Iterable[str]) -> "Verifying":
        """The verification of queries of these names by a local store of them."""
        names = list(names)
        found = local.columns.told_apart(local.find(names))
        return cls(verification, described(local, names), told_apart=found)

    def of(self, rows: LongArray) -> "Verifying":
        """The verification of some of the queries, by their place among these."""
        told_apart = None if self.told_apart is None else self.told_apart[rows]
        return replace(self, queries=lambda i: self.queries(int(rows[i])), told_apart=told_apart)

    def digest(self, rows: slice) -> str:
        """sha256 (hex) over the local features of some of the queries."""
        return sha256(b"" if self.told_apart is None else self.told_apart[rows].tobytes()).hexdigest()

    def verify(self, folder: IndexFolder, neighbours: Neighbours, background: FloatArray | None) -> Evidence:
        """Evidence of the neighbours of all queries. background: (q,) c(q), None where the index has none."""
        settled, rule = None, self.verification.rule
        if self.cut is not None and rule is not None:
            settled = _Settling(folder, neighbours, background, rule, self.verification.by.top, self.cut)
        return self.verification.verify(self.queries, neighbours, settled, self.progress)


@dataclass(frozen=True, slots=True)
class Computing:
    """What verification computes on. n_workers: pairs of images that are compared at once."""

    device: str = "auto"
    threads: int | None = None
    n_workers: int = 1

    @classmethod
    def of(cls, job: ComputingJob) -> "Computing":
        """What a job computes on."""
        return cls(job.device, job.threads, max(1, count_workers(job.workers, job.progress)))


def open_verification(folder: IndexFolder, job: VerifyJob, how: Computing) -> tuple[IndexFolder, Verification]:
    """The folder as it answers by verified neighbours, and how these are verified.

    Without a calibration of verified answers there is no rule, and the folder is as it was. Raises LmrError for a
    folder without local features, and where it was calibrated with others.
    """
    if folder.local is None:
        remedy = "make some with lmr embed `local`, then run lmr build-index `local`"
        if folder.info.local is not None:
            remedy = "its export left them out; run lmr index export without `leave_out` local"
        raise LmrError(f"{folder} has no local features to verify by; {remedy}")
    folder.local.open()
    calibrated = None if folder.calibration is None else folder.calibration.verified
    top = job.n_verify_top or (VERIFY_TOP if calibrated is None else calibrated.by.top)
    matcher = job.matcher or ("nearest" if calibrated is None else calibrated.by.matcher)
    by = VerifiedBy(folder.local.card.fingerprint, matcher, top)
    if calibrated is not None:
        _require_same(folder, by, calibrated.by)
    verifier = open_verifier(matcher, folder.local.card.kind, how.device, how.threads)
    verification = Verification(folder.local.features, verifier, by, n_threads=how.n_workers)
    if calibrated is None or folder.calibration is None:
        return folder, verification
    verification = replace(verification, rule=calibrated.evidence, n_inliers=calibrated.n_inliers)
    return replace(folder, calibration=folder.calibration.of_verified), verification


def described(local: "LocalStore", names: Iterable[str]) -> Describe:
    """The local features of images, by their place among these names; None of those that the store has none of."""
    rows = local.find(names)
    return lambda i: local.features(int(rows[i])) if rows[i] >= 0 else None


def extracted(extractor: "Extractor", images: "GivenImages") -> Describe:
    """The local features of given images, each extracted when it is asked for; None of what cannot be read again."""
    lock = Lock()

    def describe(i: int) -> "LocalFeatures | None":
        try:
            image = extractor.decode(images.read(i))
        except UnreadableError:
            return None
        if not extractor.finder.is_network:
            return extractor.extract(image)
        with lock:  # a network has threads of its own
            return extractor.extract(image)

    return describe


def complete_local_of(
    folder: IndexFolder,
    manifest: "Manifest",
    images: Path,
    store: Path,
    *,
    job: StoreFilling,
    overwrite: bool,
    wait: bool,
) -> "LocalStore":
    """The local store of images beside their store, extracted as those of the rows; made, completed or found."""
    from index.folder.local import beside
    from retrieval.local.job import LocalRun, complete_local

    assert folder.local is not None
    run = LocalRun(overwrite=overwrite, check=job.check, weights=folder.local.weights)
    return complete_local(manifest, images, folder.local.card, beside(store), job=job, run=run, wait=wait)


def require_calibrated(folder: IndexFolder) -> None:
    """Raises LmrError for a folder that has no rule for verified answers."""
    if folder.calibration is None or folder.calibration.verified is None:
        raise LmrError(f"{folder} is not calibrated for verified answers; run lmr calibrate `index` {folder} `verify`")


def _require_same(folder: IndexFolder, now: VerifiedBy, before: VerifiedBy) -> None:
    """Raises LmrError where answers were calibrated with neighbours that were verified in another way."""
    problem = ""
    if now.local != before.local:
        problem = "was calibrated with other local features than it has"
    elif now.top != before.top:
        problem = f"was calibrated with `verify_top` {before.top}, not {now.top}"
    elif now.matcher != before.matcher:
        problem = f"was calibrated with `matcher` {before.matcher}, not {now.matcher}"
    if problem:
        raise LmrError(f"{folder} {problem}; run lmr calibrate `index` {folder} `verify` again")


def cast_votes(
    folder: IndexFolder,
    neighbours: Neighbours,
    rule: VoteRule | None = None,
    evidence: FloatArray | None = None,
    weight: float = 0.0,
) -> Votes:
    """The votes of neighbours. rule: None = that of the folder. evidence, weight: as of `vote`."""
    rows = folder.rows
    return vote(
        neighbours,
        rows.landmark,
        folder.rule if rule is None else rule,
        counts=rows.counts,
        row_background=rows.background,
        evidence=evidence,
        weight=weight,
    )


@dataclass(frozen=True, slots=True)
class _Settling:
    """Tells whether the evidence found so far settles the answer to a query.

    Neighbours that are not compared are worth from 0 to `most`. S of a landmark is lowest where its own are worth 0 and
    all others `most`, and highest the other way round; the evidence of its best neighbour too. So the best landmark is
    settled where its lowest S is above the highest of the others, and its answer where both ends of its confidence are
    on one side of the cut.
    """

    folder: IndexFolder
    neighbours: Neighbours
    background: FloatArray | None
    rule: EvidenceRule
    top: int
    cut: float

    def __call__(self, query: int, found: Evidence) -> bool:
        one = slice(query, query + 1)
        neighbours = Neighbours(self.neighbours.rows[one], self.neighbours.scores[one])
        known = found.worth(self.rule)
        is_open = found.inliers == UNVERIFIED
        is_open[:, self.top :] = False
        best = self._votes(neighbours, known).landmark[:1]
        if not len(best):
            return True
        is_own = self.folder.rows.landmark[neighbours.rows] == best
        lowest = np.where(is_open & ~is_own, self.rule.most, known)
        highest = np.where(is_open & is_own, self.rule.most, known)
        low, high = (self._votes(neighbours, worths) for worths in (lowest, highest))
        others = self._votes(neighbours, lowest, replace(self.folder.rule, k=max(self.folder.rule.k, neighbours.k)))
        score = low.score[low.landmark == best]
        if not len(score) or score[0] <= others.score[others.landmark != best].max(initial=-np.inf):
            return False
        return self._is_answered(query, low, best) == self._is_answered(query, high, best)

    def _votes(self, neighbours: Neighbours, worths: FloatArray, rule: VoteRule | None = None) -> Votes:
        ordered, worths, _ = rerank_verified(neighbours, worths, self.rule.weight)
        return cast_votes(self.folder, ordered, rule, worths, self.rule.weight)

    def _is_answered(self, query: int, votes: Votes, landmark: NDArray[np.int32]) -> bool:
        calibration, mine = self.folder.calibration, votes.landmark == landmark
        assert calibration is not None
        assert votes.evidence is not None
        background = None if self.background is None else self.background[query : query + 1]
        logit = calibration.confidence.logit(votes.score[mine], background, votes.evidence[mine])
        return bool(logit[0] >= self.cut)
