"""Which servers the pictures of a manifest are on."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from retrieval.arrays import ObjArray


def describe_hosts(url: ObjArray, n_shown: int) -> dict[str, Any]:
    """How many hosts, and the n_shown with most pictures, as a JSON object. url: (n,) str, '' = none."""
    counts = count_hosts(url)
    without = counts.pop("", 0)
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n_shown]
    return {
        "hosts": len(counts),
        "without": without,
        "top": [{"host": host, "pictures": n, "share": n / len(url)} for host, n in top],
    }


def count_hosts(urls: Iterable[str]) -> Counter[str]:
    """Pictures by host in small letters, without user and port; '' for what has no host."""
    counts: Counter[str] = Counter()
    for place, n in Counter(url.partition("://")[2].partition("/")[0] for url in urls).items():
        counts[_host(place)] += n
    return counts


def _host(place: str) -> str:
    """`user@Host:80?x` -> `host`; an address of version 6 keeps its brackets."""
    host = place.partition("?")[0].partition("#")[0].rpartition("@")[2].lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
