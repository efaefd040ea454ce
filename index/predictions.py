"""The answers to a set of queries: one landmark or none each, with its confidence."""

from dataclasses import dataclass

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, ObjArray, read_only


@dataclass(frozen=True, slots=True)
class Predictions:
    """One answer per query, in the order of the queries.

    image_id: (q,) str; landmark: (q,) str landmark_id, '' = none; logit: (q,) float64, the key that predictions
    are ranked by, -inf where nothing was found; confidence: (q,) float64 in [0, 1], for people, NaN where the
    index is not calibrated.
    """

    image_id: ObjArray
    landmark: ObjArray
    logit: FloatArray
    confidence: FloatArray

    def __post_init__(self) -> None:
        for name in ("image_id", "landmark", "logit", "confidence"):
            values = getattr(self, name)
            if values.shape != (len(self.image_id),):
                raise ValueError(f"{name} has shape {values.shape}, image_id {self.image_id.shape}")
            object.__setattr__(self, name, read_only(values))
        if self.logit.dtype != np.float64 or self.confidence.dtype != np.float64:
            raise ValueError(f"logit and confidence must be float64, not {self.logit.dtype}, {self.confidence.dtype}")
        if np.isnan(self.logit).any():
            raise ValueError(f"logit[{int(np.flatnonzero(np.isnan(self.logit))[0])}] is NaN")
        if np.any((self.confidence < 0) | (self.confidence > 1)):
            raise ValueError("confidence must lie in [0, 1]")

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def answered(self) -> BoolArray:
        """(q,) bool: the query was given a landmark."""
        answered: BoolArray = (self.landmark != "").astype(np.bool_)
        return answered
