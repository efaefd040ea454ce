"""`lmr index info`, `verify` and `export`: what an index folder is, and whether it is whole."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli.index_changes import done_text
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.report.text import fact_lines
from cli.terminal import say, say_result
from index.folder.config import INDEX_FOLDER
from index.update.inspect import IndexExportJob, IndexInfoJob, IndexVerifyJob
from retrieval.words import counted


@click.command(name="info")
@job_options(IndexInfoJob)
@json_option
def info(as_json: bool, **words: Any) -> None:
    """Tell what INDEX (landmarks when none is given) is, and what was changed in it.

    \b
    Example:
      lmr index info landmarks
    """
    import lmr

    with TerminalProgress() as progress:
        facts = lmr.index_info(**words, progress=progress)
    shown = {name: value for name, value in facts.items() if name not in ("last_changes", "warnings")}
    lines = [f"{one['at']}  {done_text(one)}  {', '.join(one['sources'])}" for one in facts["last_changes"]]
    lines += [f"warning: {line}" for line in facts["warnings"]]
    say_result(facts, "\n".join([fact_lines(shown), *lines]), as_json=as_json)


@click.command(name="verify")
@job_options(IndexVerifyJob)
@json_option
def verify(as_json: bool, **words: Any) -> None:
    """Read INDEX whole: digests of all files, counts, its journal; and ask it for a sample of its own rows.

    \b
    Example:
      lmr index verify landmarks
    """
    import lmr

    index: Path = words.get("index", INDEX_FOLDER)
    with TerminalProgress() as progress:
        found = lmr.index_verify(**words, progress=progress)
    text = (
        f"{index}: whole: {counted(found.n_files, 'file')} of {found.n_bytes / 1e6:,.1f} MB, "
        f"{counted(found.n_rows, 'image')} of {counted(found.n_landmarks, 'landmark')}, "
        f"{counted(found.n_changes, 'change')}; {found.self_recall:.1%} of {found.n_asked:,} rows find themselves"
    )
    say_result(asdict(found), text, as_json=as_json)


@click.command(name="export")
@job_options(IndexExportJob)
def export(**words: Any) -> None:
    """Write image_id, landmark_id and path of the images of an index as the CSV manifest OUTPUT.

    \b
    Example:
      lmr index export rows.csv
    """
    import lmr

    with TerminalProgress() as progress:
        done = lmr.index_export(**words, progress=progress)
    there = "" if done.state == "written" else "written already, nothing to do: "
    say(f"{words['output']}: {there}{counted(done.n_images, 'image')}")
