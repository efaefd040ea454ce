"""Feeds damaged and hostile files to lmr: nothing may end in a traceback, hang, fill the memory or pass in silence.

    python scripts/bench/fuzz.py [--kind KIND]... [--number N] [--seed SEED] [--json out.json] [--keep FOLDER]

Each input lies in a fresh copy of a tiny set and is read in a process forked after the imports: half of them by the
functions that read such a file, half of them by a command, of which every tenth is a new process of `lmr`. A command
ends with exit code 0, 1 or 2, one line that begins with `Error:` where not 0, and no traceback. Each may compute for
60 s and wait for 300; its peak memory is measured. An input of which the outcome is known (a changed byte in a file
that carries digests) must be refused; a forged one, with impossible values under right digests, may be read or refused.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"  # a forked process has no OpenMP threads but its own, and would wait for others

from examples import Kind, make_kinds  # noqa: E402

from cli.main import main as lmr  # noqa: E402
from retrieval.errors import LmrError, UnreadableError  # noqa: E402

COMPUTING_S = 60  # after which an input is said to hang
WAITING_S = 300  # the same, on a machine with much other work
PEAK_BYTES = 3 << 29  # 1.5 GB
N_KEPT = 20  # failures whose words are in the report
KINDS = ("store", "store of before", "forged store", "index", "forged index", "grown index", "forged grown index",
         "share", "table of changes", "model", "forged model", "record",
         "forged record", "picture", "manifest")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an input did. what: fine, refused, or a failure. words: the last line that was said."""

    what: str
    words: str
    peak_bytes: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", help=f"one of {', '.join(KINDS)}; all of them")
    parser.add_argument("--number", type=int, default=2000, help="inputs of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that failed")
    args = parser.parse_args()
    keep = args.keep and args.keep.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch, "set")
        whole.mkdir()
        with contextlib.chdir(whole):
            kinds = [kind for kind in make_kinds() if not args.kind or kind.name in args.kind]
        if not kinds:
            parser.error(f"--kind is one of {', '.join(KINDS)}")
        report = run(kinds, whole, (args.number, args.seed), keep)
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(1 if report["failures"] else 0)


def run(kinds: list[Kind], whole: Path, tries: tuple[int, int], keep: Path | None) -> dict[str, Any]:
    """Tries inputs, of each kind in turn; the figures. tries: how many, and the seed."""
    number, seed = tries
    rng = random.Random(seed)
    counts: dict[str, Counter[str]] = {kind.name: Counter() for kind in kinds}
    peak, slowest, failures, began, by_command = 0, 0.0, [], time.monotonic(), 0
    here = whole.with_name("here")
    for i in range(number):
        kind = kinds[i % len(kinds)]
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(whole, here)
        file, words = rng.choice(kind.files), shlex.split(rng.choice(kind.commands))
        is_command, is_new = kind.name.endswith("record") or rng.random() < 0.5, rng.random() < 0.1
        with contextlib.chdir(here):
            name = kind.change(file, kind.files, rng)
            data = file.read_bytes()
            is_damaged = data not in {(whole / other).read_bytes() for other in kind.files}
            places = {"PATH": str(file), "MODEL": str(file.parent)}
            words = [places.get(word, word) for word in words]
            outcome = try_apart(partial(command_line, words, is_new) if is_command else partial(read, kind, file))
        outcome = judge(outcome, kind, is_damaged)
        by_command += is_command
        counts[kind.name][outcome.what] += 1
        peak, slowest = max(peak, outcome.peak_bytes), max(slowest, outcome.seconds)
        if outcome.what not in ("fine", "refused"):
            told = f"lmr {shlex.join(words)}" if is_command else "read"
            failures.append(f"{i}: {kind.name} {file}, {name}, {told}: {outcome.what}: {outcome.words}")
            print(failures[-1], file=sys.stderr, flush=True)
            if keep:
                shutil.copytree(here, keep / str(i), dirs_exist_ok=True)
    return {
        "inputs": number,
        "by_command": by_command,
        "seed": seed,
        "outcomes": {name: dict(count) for name, count in counts.items()},
        "peak_mb": peak >> 20,
        "slowest_s": round(slowest, 2),
        "seconds": round(time.monotonic() - began, 1),
        "n_failures": len(failures),
        "failures": failures[:N_KEPT],
    }


def judge(outcome: Outcome, kind: Kind, is_damaged: bool) -> Outcome:
    """The outcome, with what was accepted in silence and too much memory as failures."""
    if outcome.what == "fine" and kind.sealed and is_damaged:
        return Outcome("accepted", "a changed file was read as if it were whole", outcome.peak_bytes, outcome.seconds)
    if outcome.what in ("fine", "refused") and outcome.peak_bytes > PEAK_BYTES:
        return Outcome("memory", f"{outcome.peak_bytes >> 20} MB", outcome.peak_bytes, outcome.seconds)
    return outcome


def try_apart(what: Callable[[], tuple[str, str]]) -> Outcome:
    """Does it in a process of its own, a group that is killed when it takes too long."""
    receiver, sender = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (COMPUTING_S, COMPUTING_S + 1))
        signal.alarm(WAITING_S)
        os.write(sender, "\n".join(what()).encode(errors="replace")[:2000])
        os._exit(0)
    os.close(sender)
    with open(receiver, errors="replace") as said:
        answer, _, words = said.read().partition("\n")
    _, status, used = os.wait4(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if os.WIFSIGNALED(status):
        by = os.WTERMSIG(status)
        answer, words = ("hang", "") if by in (signal.SIGALRM, signal.SIGXCPU) else ("killed", signal.Signals(by).name)
    return Outcome(answer, words[:300], used.ru_maxrss << 10, time.monotonic() - began)


def read(kind: Kind, path: Path) -> tuple[str, str]:
    """What reading does, and its words."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        kind.read(path)
    except (LmrError, UnreadableError) as error:
        lines = str(error).split("\n")
        is_list = kind.name == "manifest" and all(line.startswith(str(path)) for line in lines[:-1])  # of bad rows
        return ("refused" if len(lines) == 1 or is_list else "many lines"), str(error)
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"
    return "fine", ""


def command_line(words: list[str], is_new: bool) -> tuple[str, str]:
    """What a command does, in this process or a new one, and the end of what it printed."""
    printed = Path("printed.txt")
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code: Any = 0
    if is_new:
        os.environ["PYTHONPATH"] = str(ROOT)
        begin = "from cli.main import program; program()"
        code = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", begin, *words])
    else:
        try:
            lmr(words, prog_name="lmr")
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
    text = printed.read_text(errors="replace")
    lines = [line for line in text.splitlines() if line.startswith("Error: ")]
    if "Traceback (most recent call last)" in text or code not in (0, 1, 2):
        return "traceback", f"exit code {code}: {text[-250:]}"
    if (code != 0) != bool(lines):
        return "unclear", f"exit code {code}: {text[-250:]}"
    return ("refused", lines[0]) if code else ("fine", "")


if __name__ == "__main__":
    main()
