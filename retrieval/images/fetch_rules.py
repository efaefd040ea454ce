"""Rules of fetching: limits of time and size, how many at once, which addresses, how often again."""

import math
from dataclasses import dataclass

from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.jobs import option
from retrieval.progress import Progress
from retrieval.words import shortened

USER_AGENT = "lmr/0.1 (downloads the pictures of a data set; no contact given)"


@dataclass(frozen=True, slots=True)
class FetchRules:
    """Rules by which images are fetched.

    connections: at once in total, per_host of them to one host. timeout_s: for one try of one image, redirects
    included. idle_s: longest time without a byte. n_retries: further tries after 429, 5xx, timeouts and cut
    connections, after back_off_s, twice that, four times that. max_wait_s: the longest rest that a Retry-After
    brings; a host that asks again and again for more is left for a later run. allow_private: also loopback, private
    and link-local addresses. ignore_robots_tag: also what a server excludes by X-Robots-Tag.
    """

    connections: int = option(64, help="Images fetched at once, in total.")
    per_host: int = option(8, help="Images fetched at once from one host.")
    timeout_s: float = option(60.0, help="Seconds for one try of one image.")
    idle_s: float = option(15.0, help="Longest time without a byte, seconds.")
    n_retries: int = option(3, help="Further tries after 429, 5xx, timeouts and cut connections.")
    back_off_s: float = option(1.0, help="Seconds before the first further try; doubled for each one after it.")
    max_wait_s: float = option(
        120.0,
        help="Longest rest that a Retry-After brings, seconds; a host that only asks for more is left for later.",
    )
    allow_private: bool = option(False, help="Also fetch from loopback, private and link-local addresses.")
    ignore_robots_tag: bool = option(
        False, help="Also fetch what a server excludes from learning or indexing by the header X-Robots-Tag."
    )
    user_agent: str = option(USER_AGENT, help="How the program names itself to servers; put a contact address into it.")
    limits: Limits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        for name, least in (("connections", 1), ("per_host", 1), ("n_retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("timeout_s", "idle_s", "back_off_s", "max_wait_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive number, not {getattr(self, name):g}")

    def tell_long_wait(self, host: str, asked_s: float, progress: Progress) -> None:
        """Warns that a host asks for a longer rest than it is given."""
        after = f"{self.max_wait_s:g} s (`max_wait_s`)"
        progress.warn(f"{shortened(host)} asks to wait {asked_s:,.0f} s; it is asked again after {after}")

    def tell_no_contact(self, host: str, progress: Progress) -> None:
        """Warns that a host asks for a contact that the User-Agent does not name."""
        progress.warn(
            f"{host} asks for a contact in the User-Agent, and serves those who give none slowly or not at all: "
            'give `user_agent` "lmr/0.1 (you@example.org)"'
        )
