"""Options of asking an opened index."""

from dataclasses import dataclass
from pathlib import Path

from index.rerank.config import VerifyJob
from retrieval.jobs import option

N_LANDMARKS = 5  # listed with an answer


@dataclass(frozen=True, kw_only=True)
class AskJob(VerifyJob):
    """What an opened index is asked beside the images."""

    threshold: float | None = option(
        None, default_text="the calibrated one", help="Confidence below which an image shows no known landmark."
    )
    n_landmarks: int = option(N_LANDMARKS, low=0, name="n_landmarks", help="Landmarks listed with an answer.")
    allow_private: bool = option(False, help="Also fetch URLs from loopback, private and link-local addresses.")


@dataclass(frozen=True, kw_only=True)
class ExplainAskJob(AskJob):
    """The same where answers are explained."""

    classifier: Path | None = option(None, help="Model folder of lmr train: explain its most probable class too.")
