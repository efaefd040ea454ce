"""Kills every command that writes with `kill -9`, runs it again to its end, and compares with a run that nobody killed.

    python scripts/bench/kills.py [--kills 160] [--commands embed train] [--seed 0] [--no-steps]

A tiny rendered set is made in a temporary folder. Each command runs in a warm child of this process that leads a group
of its own, and the whole group is killed: `--kills` times in all, half of them at a moment spread over the run, half of
them before a file operation of Python, spread over them. Where strace is installed (Linux), each command is also killed
before each different step: a system call that opens for writing, writes, flushes, renames or removes a file of the
working folder, with the name of that file (of `compare` and `demo`, which are made of the others' steps, some by
chance). What is there then is read: what has its final name must be as before the run or as after it (`unreadable`).
The same command is run again (`stuck`: it did not end with exit code 0), after which all that it made must be as
without a kill (`wrong`), and no other file may be left (`left`). The outputs are also read all the time while each
command runs undisturbed. Prints one JSON document. Linux and macOS. The default takes about three quarters of an hour
on two cores.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tracing
import trials
from commands import TRIALS, Trial, names_of
from tracing import Step


def main() -> None:
    """Makes the set, tries every command, prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=160, help="beside the steps (default %(default)s)")
    parser.add_argument("--commands", nargs="+", choices=TRIALS, default=list(TRIALS), metavar="COMMAND")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default %(default)s)")
    parser.add_argument("--no-steps", action="store_true", help="do not kill before each system call")
    given = parser.parse_args()
    by_steps = tracing.is_there() and not given.no_steps
    trials.import_all()
    began = time.monotonic()
    shares = {name: TRIALS[name].share for name in given.commands}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        server, port = trials.serve(root / "set")
        try:
            prepared = trials.make_set(root / "set", port)
            found = {}
            for command in given.commands:
                n = max(2, round(given.kills * shares[command] / sum(shares.values())))
                rng = random.Random(f"{given.seed} {command}")
                found[command] = Kills(TRIALS[command], prepared).try_all(n, rng, by_steps)
                print(command, json.dumps(found[command]), file=sys.stderr, flush=True)
        finally:
            os.kill(server, signal.SIGKILL)
    counts = ("kills", "steps", "steps_killed", "looks", "wrong", "unreadable", "stuck", "left")
    total = {count: sum(one[count] for one in found.values()) for count in counts}
    seconds = round(time.monotonic() - began)
    print(json.dumps({"seed": given.seed, "seconds": seconds, "total": total, "commands": found}, indent=1))


class Kills:
    """The kills of one command. found: counts, and what was wrong in words."""

    def __init__(self, trial: Trial, prepared: Path) -> None:
        """Runs it undisturbed, followed by strace or not, and looks at its outputs meanwhile."""
        self.trial, self.prepared = trial, prepared
        whole = self.fresh()
        self.log, counted = whole.with_name("strace.txt"), whole.with_name("count")
        self.before, self.expected = trial.look(whole), dict[str, Any]()
        self.found: dict[str, Any] = {"kills": 0, "finished_first": 0, "steps": 0, "steps_killed": 0, "looks": 0}
        self.found |= {"wrong": 0, "unreadable": 0, "stuck": 0, "left": 0, "told": []}
        self.must(whole, lambda: trials.watch_files(lambda i: counted.write_text(str(i))))
        self.expected, self.kept, self.n_writes = trial.look(whole), names_of(whole), int(counted.read_text())
        self.must(self.fresh(), lambda: None)
        self.seconds = self.must(self.fresh(), None)
        self.found |= {"n_writes": self.n_writes, "seconds_a_run": round(self.seconds, 2)}

    def try_all(self, n: int, rng: random.Random, by_steps: bool) -> dict[str, Any]:
        """Kills it n times at spread moments, and before each different step."""
        for i in range(n):
            spread = (i // 2 + rng.random()) / ((n + 1) // 2)
            folder = self.fresh()
            if i % 2:
                at = max(1, round(spread * self.n_writes))
                self.count(folder, f"operation {at}", self.kill(folder, at=at))
            else:
                self.count(folder, f"{spread * self.seconds:.3f} s", self.kill(folder, after_s=spread * self.seconds))
        if by_steps:
            self.try_steps(rng)
        return self.found

    def try_steps(self, rng: random.Random) -> None:
        """Kills it before one of each kind of its system calls; who misses one by a race of threads tries again."""
        folder = self.fresh()
        self.must(folder, tracing.follow(self.log))
        by_name: dict[str, list[Step]] = {}
        for step in tracing.steps(self.log, folder):
            by_name.setdefault(step.what, []).append(step)
        wanted = rng.sample(sorted(by_name), min(len(by_name), self.trial.most_steps))
        killed: set[str] = set()
        for name in [*wanted, *wanted]:
            if name in killed:
                continue
            folder = self.fresh()
            self.log.unlink(missing_ok=True)
            step = rng.choice(by_name[name])
            was_killed = self.kill(folder, step=step)
            reached = tracing.killed_at(self.log, folder, step) or name
            killed |= {reached} if was_killed else set()
            self.count(folder, reached, was_killed)
        self.found["steps"] = len(wanted)
        self.found["steps_killed"] = len(killed & set(wanted))

    def fresh(self) -> Path:
        """The prepared set without what is to be made."""
        return trials.fresh(self.prepared, self.trial.outputs)

    def must(self, folder: Path, before: Callable[[], None] | None) -> float:
        """Runs it undisturbed, while its outputs are read again and again; the seconds that it took."""
        output, began = folder.with_name("whole.txt"), time.monotonic()
        pid = trials.begin(folder, self.trial.words, output, before)
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.005)
            if before is not None:  # what is timed is left alone
                self.look(folder, "while it ran")
        ended = trials.end(pid, output, began)
        if ended.code:
            raise SystemExit(f"lmr {' '.join(self.trial.words)} ended with {ended.code}:\n{ended.text}")
        return ended.seconds

    def look(self, folder: Path, told: str) -> None:
        """Reads what has its final name: each output must be as before the run or as at its end."""
        self.found["looks"] += 1
        try:
            there = self.trial.look(folder)
            half = [name for name, value in there.items() if not self.is_whole(name, value)]
        except Exception as error:  # whatever a reader raises, the file is not whole
            self.tell("unreadable", f"{told}: {type(error).__name__}: {error}")
        else:
            if half:
                self.tell("unreadable", f"{told}: {', '.join(half)} is neither the old one nor the new one")

    def is_whole(self, name: str, value: Any) -> bool:
        """Whether an output is as before or as after; while neither is known, whether it could be read."""
        known = [at[name] for at in (self.before, self.expected) if name in at]
        return not self.expected or name in self.trial.grows or any(trials.same(value, one) for one in known)

    def kill(self, folder: Path, *, at: int = 0, after_s: float = 0.0, step: Step | None = None) -> bool:
        """Runs it and kills its group before file operation `at`, so much later, or before a step; whether it ran."""
        output, began, group = folder.with_name("killed.txt"), time.monotonic(), 0

        def die(number: int) -> None:
            if number == at:
                os.killpg(os.getpgid(0), signal.SIGKILL)

        before = tracing.follow(self.log, step) if step else (lambda: trials.watch_files(die)) if at else None
        group = trials.begin(folder, self.trial.words, output, before)
        if step is not None:
            tracing.kill_with(group, self.log)
        elif after_s:
            time.sleep(after_s)
            with contextlib.suppress(ProcessLookupError):  # not yet a group of its own, or ended
                os.killpg(group, signal.SIGKILL)
        ended = trials.end(group, output, began)
        if ended.code not in (0, -signal.SIGKILL):
            words = " ".join(self.trial.words)
            raise SystemExit(f"lmr {words} ended with {ended.code} before it was killed:\n{ended.text}")
        return ended.code != 0

    def count(self, folder: Path, moment: str, was_killed: bool) -> None:
        """Looks at what is there after a kill, runs the command again, and compares."""
        self.found["kills" if was_killed else "finished_first"] += 1
        self.look(folder, moment)
        ended = trials.run(folder, self.trial.words)
        if ended.code:
            self.tell("stuck", f"{moment}: {ended.text[-250:]}")
            return
        try:
            is_same = trials.same(self.trial.look(folder), self.expected)
        except Exception as error:
            self.tell("wrong", f"{moment}: {type(error).__name__}: {error}")
            return
        if not is_same:
            self.tell("wrong", f"{moment}: other than without a kill")
        left = sorted(set(names_of(folder)).symmetric_difference(self.kept))
        if left:
            self.tell("left", f"{moment}: {', '.join(left)}")

    def tell(self, problem: str, words: str) -> None:
        """Counts a problem."""
        self.found[problem] += 1
        self.found["told"].append(f"{problem}: {words}"[:300])


if __name__ == "__main__":
    main()
