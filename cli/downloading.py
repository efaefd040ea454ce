"""What `lmr download` does and says about the pictures of a manifest."""

import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cli.options import warn
from cli.progress import PictureBar
from cli.reading import load_manifest
from cli.terminal import say, say_json, shown
from cli.workers import default_workers
from retrieval.arrays import UInt8Array
from retrieval.data.manifest import Manifest
from retrieval.download.config import Form
from retrieval.download.ledger import LEDGER_NAME, Ledger
from retrieval.download.robots_tag import ROBOTS_TAG
from retrieval.download.scheduler import Listener, Task, run_download
from retrieval.download.summary import Tally, failed_lines
from retrieval.download.survey import BAD_ID, EXCLUDED, FAILED, NO_URL, THERE, TO_FETCH, TO_VERIFY, Places, survey
from retrieval.errors import LmrError
from retrieval.files.atomic import write_error, write_text
from retrieval.images.addresses import PRIVATE
from retrieval.images.fetch_rules import FetchRules
from retrieval.words import agreeing, counted, none_can

FAILED_NAME = "failed.csv"

_SHOWN = 10  # causes and hosts in the table
_STATES = {
    "n_there": THERE,
    "n_failed_before": FAILED,
    "n_excluded_before": EXCLUDED,
    "n_to_fetch": TO_FETCH,
    "n_to_verify": TO_VERIFY,
    "n_without_url": NO_URL,
    "n_bad_id": BAD_ID,
}


def download_pictures(path: Path, images: Path, how: tuple[Form, FetchRules], values: dict[str, Any]) -> None:
    """values: of the options dry_run, retry_failed, ignore_robots_tag, allow_private, overwrite, workers, as_json."""
    form, rules = how
    manifest = load_manifest(path)
    if manifest.url is None:
        raise LmrError(f"{manifest.source} has no url column; give a csv file with the columns id,url")
    places = Places(images, form.layout)
    if values["dry_run"]:
        _tell_plan(manifest, places, form, values)
        return
    make_folder(images)
    with Ledger(images / LEDGER_NAME) as ledger:
        if values["overwrite"]:
            ledger.begin_anew(form)
        ledger.require_form(form)
        states = _look(manifest, ledger, places, values)
        task = Task(manifest, states, places, form, rules, default_workers(values["workers"]))
        began_s = time.monotonic()
        n_new, left = _fetch(task, ledger)
        content = _account(manifest, ledger, images)
        content["n_new"] = n_new
        content["seconds"] = round(time.monotonic() - began_s, 3)
        content["hosts_left"] = left
    _tell(content, bool((states > EXCLUDED).any()), values["as_json"])
    if not content["n_done"]:
        raise LmrError(
            f"{none_can(len(manifest), 'picture', can='could')} be fetched, most often: "
            f"{next(iter(content['causes']))}; "
            f"{_advice(content)}"
        )


def make_folder(images: Path) -> None:
    """Raises LmrError when it cannot be made."""
    try:
        images.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(images, error) from error


def _look(manifest: Manifest, ledger: Ledger, places: Places, values: dict[str, Any]) -> UInt8Array:
    with PictureBar("looking") as bar:
        bar.begin(len(manifest))
        passes = {PRIVATE: values["allow_private"], ROBOTS_TAG: values["ignore_robots_tag"]}
        causes = {cause for cause, is_let in passes.items() if is_let}
        again = values["retry_failed"]
        return survey(manifest, ledger, places, retry_failed=again, retry_causes=causes, on_done=bar.add)


def _fetch(task: Task, ledger: Ledger) -> tuple[int, dict[str, str]]:
    """Number of pictures that are new, and the hosts that were left with the reason."""
    counts = {True: 0, False: 0}
    n = int((task.states > EXCLUDED).sum())
    if not n:
        task.places.remove_work_folder()
        return 0, {}

    with PictureBar("downloading") as bar:
        bar.begin(n)

        def count(n_finished: int, is_stored: bool) -> None:
            counts[is_stored] += n_finished
            bar.add(n_finished)
            if not is_stored:
                bar.note(f"{counts[False]:,} failed")

        left = run_download(task, ledger, Listener(count, partial(tell_wait, task.rules), warn))
    return counts[True], left


def tell_wait(rules: FetchRules, host: str, asked_s: float) -> None:
    """Says that a host asks for a longer rest than it is given."""
    after = f"{rules.max_wait_s:g} s (--max-wait-s)"
    warn(f"{shown(host)} asks to wait {asked_s:,.0f} s; it is asked again after {after}")


def _account(manifest: Manifest, ledger: Ledger, images: Path) -> dict[str, Any]:
    """Writes failed.csv and counts every row."""
    tally, failed = Tally(), images / FAILED_NAME
    write_text(failed, failed_lines(manifest, ledger, tally))
    if not tally.n_missing:
        failed.unlink()
    hosts = sorted(tally.hosts.items(), key=lambda item: (-item[1].n_missing, -item[1].n_done, item[0]))
    return {
        "images": str(images),
        "n_rows": len(manifest),
        "n_done": tally.n_done,
        "n_missing": tally.n_missing,
        "bytes": tally.n_bytes,
        "n_excluded": tally.causes[ROBOTS_TAG],
        "causes": dict(tally.causes.most_common()),
        "hosts": {name: asdict(host) for name, host in hosts},
        "failed": str(failed) if tally.n_missing else None,
    }


def _tell(content: dict[str, Any], was_anything: bool, as_json: bool) -> None:
    for host, reason in content["hosts_left"].items():
        warn(f"{shown(host)} was left for a later run: {reason}; the same command tries it again")
    if as_json:
        say_json(content, indent=2)
        return
    done = (
        f"{counted(content['n_done'], 'picture', of=content['n_rows'])} "
        f"{agreeing(content['n_done'], 'is', 'are')} there, {content['bytes'] / 1e6:,.2f} MB"
    )
    if not was_anything:
        say(f"{content['images']}: {done}, nothing to do")
    else:
        rate = content["n_new"] / max(content["seconds"], 1e-3)
        say(f"{content['images']}: {done}; {content['n_new']:,} new, {rate:.1f} a second")
    if content["n_missing"]:
        _table("not there, by cause", content["causes"])
        _table("not there, by host", {name: host["n_missing"] for name, host in content["hosts"].items()})
        say(_advice(content))


def _advice(content: dict[str, Any]) -> str:
    """Where the rows without a picture are, and what can be done about them."""
    private = content["causes"].get(PRIVATE)
    verb = "is" if private == 1 else "are"
    also = f"; {private:,} {verb} at private addresses, which --allow-private lets pass" if private else ""
    if n := content["n_excluded"]:
        also += f"; {n:,} are excluded by their servers' {ROBOTS_TAG}, which --ignore-robots-tag lets pass"
    return f"{content['failed']} lists them; --retry-failed tries them again{also}"


def _table(title: str, counts: dict[str, int]) -> None:
    """The largest counts and how many others there are."""
    items = [(name, n) for name, n in counts.items() if n]
    if not items:
        return
    say(f"{title}:")
    for name, n in items[:_SHOWN]:
        say(f"  {n:>9,}  {shown(name)}")
    if len(items) > _SHOWN:
        say(f"  {sum(n for _, n in items[_SHOWN:]):>9,}  in {len(items) - _SHOWN} others")


def _tell_plan(manifest: Manifest, places: Places, form: Form, values: dict[str, Any]) -> None:
    """What a run would do. Nothing is written and nothing is asked of any server."""
    path = places.images / LEDGER_NAME
    with Ledger(path if path.exists() and not values["overwrite"] else None) as ledger:
        if ledger.note("form") is not None:
            ledger.require_form(form)
        states = _look(manifest, ledger, places, values)
    if values["overwrite"]:
        states[states == TO_VERIFY] = TO_FETCH
    content: dict[str, Any] = {"images": str(places.images), "n_rows": len(manifest)}
    content |= {name: int((states == state).sum()) for name, state in _STATES.items()}
    content["hosts"] = dict(_hosts(manifest, states).most_common())
    if values["as_json"]:
        say_json(content, indent=2)
        return
    say(
        f"{places.images}: {counted(content['n_to_fetch'], 'picture', of=len(manifest))} would be fetched; "
        f"{content['n_there']:,} are there, {counted(content['n_to_verify'], 'file')} would be checked, "
        f"{content['n_failed_before']:,} failed before, {content['n_excluded_before']:,} are excluded by "
        f"{ROBOTS_TAG}, {content['n_without_url']:,} have no url, "
        f"{content['n_bad_id']:,} a bad id"
    )
    _table("to fetch, by host", content["hosts"])


def _hosts(manifest: Manifest, states: UInt8Array) -> Counter[str]:
    from retrieval.download.summary import host_of

    assert manifest.url is not None
    return Counter(host_of(manifest.url[row]) for row in np.flatnonzero(states == TO_FETCH))
