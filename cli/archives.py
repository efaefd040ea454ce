"""What `lmr download --tars` does and says."""

from functools import partial
from typing import Any

from cli.downloading import make_folder, tell_wait
from cli.progress import ByteBar
from cli.terminal import say, say_json, say_result
from retrieval.download.archives import archives_there, require_part, run_archives
from retrieval.download.google import Archives
from retrieval.download.ledger import LEDGER_NAME, Ledger
from retrieval.errors import LmrError
from retrieval.images.fetch_rules import FetchRules


def download_archives(archives: Archives, rules: FetchRules, values: dict[str, Any]) -> None:
    """values: of the options dry_run, overwrite and as_json."""
    names = archives.names()
    path = archives.folder / LEDGER_NAME
    if values["dry_run"]:
        with Ledger(path if path.exists() else None) as ledger:
            there = [] if values["overwrite"] else archives_there(archives, ledger)
        content = {"images": str(archives.folder), "n_archives": len(names), "n_there": len(there)}
        text = f"{archives.folder}: {len(names) - len(there)} of {len(names)} tar files would be fetched"
        say_result(content, text, as_json=values["as_json"], indent=2)
        return
    make_folder(archives.folder)
    with Ledger(path) as ledger:
        require_part(ledger, archives)
        if values["overwrite"]:
            ledger.forget_archives(names)
            for name in names:
                for suffix in ("", ".partial"):
                    (archives.folder / f"{name}{suffix}").unlink(missing_ok=True)
        there = archives_there(archives, ledger)
        bar = ByteBar("downloading")
        with bar:
            failed = run_archives(archives, ledger, rules, bar, partial(tell_wait, rules))
    content = {
        "images": str(archives.folder),
        "n_archives": len(names),
        "n_done": len(names) - len(failed),
        "n_new": len(names) - len(there) - len(failed),
        "failed": failed,
    }
    if values["as_json"]:
        say_json(content, indent=2)
    else:
        what = "nothing to do" if len(there) == len(names) else f"{content['n_new']} new"
        say(f"{archives.folder}: {content['n_done']} of {len(names)} tar files are there and checked, {what}")
    if failed:
        name, cause = next(iter(failed.items()))
        raise LmrError(
            f"{len(failed)} of {len(names)} tar files could not be fetched, first {name}: {cause}; "
            "run the same command again"
        )
