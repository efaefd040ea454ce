"""Options of serving an index folder."""

from dataclasses import dataclass

from retrieval.jobs import option


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
