"""How pictures are fetched: limits of time and size, how many at once, which addresses, how often again."""

import math
from dataclasses import dataclass

from retrieval.images.limits import DEFAULT_LIMITS, Limits

USER_AGENT = "lmr/0.1 (downloads the pictures of a data set; no contact given, --user-agent sets one)"


@dataclass(frozen=True, slots=True)
class FetchRules:
    """How pictures are fetched.

    connections: at once in total, per_host of them to one host. timeout_s: for one try of one picture, redirects
    included. idle_s: longest time without a byte. n_retries: further tries after 429, 5xx, timeouts and cut
    connections, after back_off_s, twice that, four times that. max_wait_s: the longest rest that a Retry-After
    brings; a host that asks again and again for more is left for a later run. allow_private: also loopback, private
    and link-local addresses. ignore_robots_tag: also what a server excludes by X-Robots-Tag.
    """

    connections: int = 64
    per_host: int = 8
    timeout_s: float = 60.0
    idle_s: float = 15.0
    n_retries: int = 3
    back_off_s: float = 1.0
    max_wait_s: float = 120.0
    allow_private: bool = False
    ignore_robots_tag: bool = False
    user_agent: str = USER_AGENT
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        for name, least in (("connections", 1), ("per_host", 1), ("n_retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("timeout_s", "idle_s", "back_off_s", "max_wait_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive number, not {getattr(self, name):g}")
