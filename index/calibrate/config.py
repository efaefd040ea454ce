"""Settings of a calibration: what its threshold is for, and what the queries stand for."""

from dataclasses import dataclass

from retrieval.jobs import option


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """Settings of a calibration. non_landmark_share: None = as among the queries."""

    precision: float = option(
        0.95,
        low=0,
        high=1,
        low_open=True,
        high_open=True,
        help="Share of right answers that the threshold of query is for; the output tells what each costs.",
    )
    non_landmark_share: float | None = option(
        None,
        low=0,
        high=1,
        high_open=True,
        default_text="as in QUERIES",
        help="Share of non-landmarks to expect; Google's tests had about 0.99.",
    )
    seed: int = option(0, low=0, help="Random seed of the folds of cross-validation.")
