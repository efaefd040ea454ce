"""Runs two commands that write one output at once, and compares what is there then with what one after the other makes.

    python scripts/bench/pairs.py [--pairs 20] [--only "submit + submit"] [--seed 0]

A tiny rendered set is made in a temporary folder. Both commands of a pair are started in one copy of it, the second
while the first runs, every other time with --wait. Each may end with exit code 0, or with 1 and one line; with --wait
neither may be refused since the other writes. All that is there at the end must be what one of them alone makes, or
one after the other in some order (`wrong`; `unreadable`: not whole), no file of either may be left (`left`), and no run
may end in another way (`broken`). `held_up`: pairs in which one waited for the other or was refused; `unguarded`: kinds
of pairs of which none was, as without a lock. Prints one JSON document. Linux and macOS. The default takes about two
hours on two cores.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trials
from commands import names_of
from pairings import PAIRS, Pair, Words
from trials import Ended

BUSY = "is being written by"
WITHIN = 0.6  # of the time that the first takes alone, the second is started


def main() -> None:
    """Makes the set, tries every pair, prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20, help="of each two commands (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="PAIR", help="names of pairs")
    parser.add_argument("--seed", type=int, default=0, help="of the delays (default %(default)s)")
    given = parser.parse_args()
    trials.import_all()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        server, port = trials.serve(root / "set")
        try:
            prepared = trials.make_set(root / "set", port)
            found = {}
            for pair in given.only:
                found[pair] = try_pair(PAIRS[pair], given.pairs, prepared, random.Random(f"{given.seed} {pair}"))
                print(pair, json.dumps(found[pair]), file=sys.stderr, flush=True)
        finally:
            os.kill(server, signal.SIGKILL)
    counts = ("pairs", "held_up", "wrong", "unreadable", "left", "broken")
    total = {count: sum(one[count] for one in found.values()) for count in counts}
    seconds = round(time.monotonic() - began)
    unguarded = [name for name, one in found.items() if not one["held_up"]]
    report = {"seed": given.seed, "seconds": seconds, "total": total, "unguarded": unguarded, "commands": found}
    print(json.dumps(report, indent=1))


def try_pair(pair: Pair, n: int, prepared: Path, rng: random.Random) -> dict[str, Any]:
    """Runs two commands at once, n times."""
    allowed, kept, runs = [], set(), []
    for words in ([pair.one], [pair.other], [pair.one, pair.other], [pair.other, pair.one]):
        folder = trials.fresh(prepared, pair.outputs)
        runs += [trials.run(folder, each).seconds for each in words]
        allowed.append(pair.look(folder))
        kept |= set(names_of(folder))
    latest_s = WITHIN * min(runs[0], runs[2])
    found: dict[str, Any] = {"pairs": n, "held_up": 0, "wrong": 0, "unreadable": 0, "left": 0, "broken": 0, "told": []}
    for i in range(n):
        folder = trials.fresh(prepared, pair.outputs)
        waits = i % 2 == 1
        ended = both(folder, pair, rng.random() * latest_s, ("--wait",) if waits else ())
        found["held_up"] += any(BUSY in one.text for one in ended)
        for problem, told in judge(folder, pair, ended, (allowed, kept, waits)):
            found[problem] += 1
            found["told"].append(f"{problem}: {told}"[:400])
    return found


def both(folder: Path, pair: Pair, delay_s: float, more: Words) -> list[Ended]:
    """How both commands ended, the second of which began that much later."""
    begun = []
    for number, words in enumerate((pair.one, pair.other)):
        output = folder.with_name(f"{number}.txt")
        begun.append((trials.begin(folder, (*words, *more), output), output, time.monotonic()))
        if number == 0:
            time.sleep(delay_s)
    return [trials.end(*one) for one in begun]


def judge(
    folder: Path, pair: Pair, ended: list[Ended], known: tuple[list[dict[str, Any]], set[str], bool]
) -> list[tuple[str, str]]:
    """What is wrong after both have ended. known: what may be there, names that may be, whether both waited."""
    allowed, kept, waits = known
    problems = []
    for one in ended:
        lines = [line for line in one.text.splitlines() if line.startswith("Error: ")]
        refused = one.code == 1 and len(lines) == 1 and "Traceback" not in one.text
        if (one.code and not refused) or (waits and refused and BUSY in lines[0]):
            problems.append(("broken", f"exit code {one.code}: {one.text[-300:]}"))
    try:
        found = pair.look(folder)
    except Exception as error:  # whatever a reader raises, the file is not whole
        return [*problems, ("unreadable", f"{type(error).__name__}: {error}")]
    if not any(trials.same(found, one) for one in allowed):
        problems.append(("wrong", "other than one after the other"))
    left = sorted(set(names_of(folder)) - kept)
    if left:
        problems.append(("left", ", ".join(left)))
    return problems


if __name__ == "__main__":
    main()
