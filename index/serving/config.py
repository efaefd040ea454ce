"""Options of serving an index folder, and of looking through its images."""

from dataclasses import dataclass
from typing import Literal

from retrieval.jobs import Job, option

MOST_SHOWN = 1_000  # images of a page


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """Settings of a service.

    n_batch: images that the network computes at once. n_waiting: images that wait for it at most. n_decoding: images
    that are decoded at once, None = one for each core. verify: answers are verified where the index has local features.
    """

    n_batch: int = option(16, low=1, high=1024, help="Images that the network computes at once.")
    n_waiting: int = option(64, low=1, high=100_000, help="Images that may wait; further ones are told to come again.")
    n_decoding: int | None = option(None, low=1, default_text="the cores", help="Images decoded at once.")
    verify: bool = option(False, help="Verify answers by local features (needs an index that has some).")


@dataclass(frozen=True, kw_only=True)
class SearchJob(Job):
    """Which of the images that are most similar to one are listed. leave_out: image_id of another image that is not."""

    n_first: int = option(0, low=0, help="Images left out at the beginning of the list.")
    n: int = option(20, low=1, high=MOST_SHOWN, help="Images listed.")
    leave_out: str | None = option(None, help="Leave out the image of this image_id.")
    landmark: str | None = option(None, help="Only images of this landmark_id.")
    sort: Literal["similarity", "megapixels", "pixels_per_inch"] = option(
        "similarity", help="What comes first; sizes are compared among the 1,000 most similar images."
    )
    fold: bool = option(True, help="List images that are nearly the same as one.")
    sure: bool = option(False, help="Only images whose landmark reaches the threshold in the answer.")
