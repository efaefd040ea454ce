"""Stand-ins for local features and their comparison: what two images have in common is looked up in a table."""

from dataclasses import dataclass, replace

import numpy as np

from index.calibration import VerifiedBy
from index.confidence import ConfidenceModel
from index.rerank.evidence import EvidenceRule
from index.rerank.verification import Verification
from index.vote_rule import VoteRule

BY = VerifiedBy("f" * 64, "nearest", 3)


@dataclass(frozen=True)
class Named:
    """Local features that are nothing but a number."""

    number: int


@dataclass(frozen=True)
class Counted:
    """A match that is nothing but its inliers, which surprise by a tenth of their number."""

    n_inliers: int

    @property
    def surprise(self):
        return self.n_inliers / 10


class Table:
    """Compares by a table of inliers (q, n_rows), and notes what it was asked."""

    def __init__(self, inliers):
        self.inliers, self.asked = np.asarray(inliers), []

    def verify(self, query, others):
        self.asked += [(query.number, other.number) for other in others]
        return [Counted(int(self.inliers[query.number, other.number])) for other in others]


def verification(table, *, top=3, rule=None, n_threads=1, without=()):
    """Verification by a table. without: rows of the index that have no local features."""
    return Verification(
        rows=lambda row: None if row in without else Named(row),
        verifier=table,
        by=replace(BY, top=top),
        rule=rule,
        n_inliers=12,
        n_threads=n_threads,
    )


class Calibrated:
    """Stands in for a calibration of verified answers: the parts of one that answers use."""

    rule = VoteRule(k=4, tau=0.1, r=0.5)
    confidence = ConfidenceModel(a=10.0, g=0.0, h=0.7, e=-6.0)
    evidence = EvidenceRule(weight=0.2)
