"""`lmr index`: changes to an index folder without building it again."""

from pathlib import Path
from typing import Any

import click

from cli.index_changes import tell_change
from cli.index_facts import export, info, verify
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import say
from index.folder.config import INDEX_FOLDER
from index.search.config import search_line
from index.update.compact import IndexCompactJob
from index.update.job import IndexAddJob, IndexMergeJob, IndexRelabelJob, IndexRemoveJob


@click.group(name="index")
def command() -> None:
    """Change an index folder without building it again, and look after it.

    Every change makes the next version of the folder beside it and then takes its place, so that a query finds the old
    one or the new one at any moment. changes.jsonl in the folder tells what was done.

    \b
    Example:
      lmr index add more.h5
      lmr index remove wrong-1 wrong-2
      lmr index relabel labels.csv
      lmr index info
    """


@command.command("add")
@job_options(IndexAddJob)
@json_option
def add(as_json: bool, **words: Any) -> None:
    """Add the images of STORES, made by the model of the index.

    Images that the index has already, with the same label and descriptor, are left as they are. The whitening and the
    inverted file stay as they were trained; lmr index compact trains the latter anew.

    \b
    Example:
      lmr index add more.h5 --names names.csv
    """
    import lmr

    with TerminalProgress() as progress:
        tell_change(words, lmr.index_add(**words, progress=progress), progress, as_json=as_json)


@command.command("remove")
@job_options(IndexRemoveJob)
@json_option
def remove(as_json: bool, **words: Any) -> None:
    """Remove the images with these IDS from the index and its background.

    \b
    Example:
      lmr index remove wrong-1 wrong-2
      lmr index remove --ids-file wrong.csv
    """
    import lmr

    with TerminalProgress() as progress:
        tell_change(words, lmr.index_remove(**words, progress=progress), progress, as_json=as_json)


@command.command("merge")
@job_options(IndexMergeJob)
@json_option
def merge(as_json: bool, **words: Any) -> None:
    """Add the rows of other index FOLDERS, of the same model and whitening.

    \b
    Example:
      lmr index merge other/landmarks --index landmarks
    """
    import lmr

    with TerminalProgress() as progress:
        tell_change(words, lmr.index_merge(**words, progress=progress), progress, as_json=as_json)


@command.command("relabel")
@job_options(IndexRelabelJob)
@json_option
def relabel(as_json: bool, **words: Any) -> None:
    """Rename or merge landmarks, or relabel images, by the table LABELS.

    Its header says which: landmark_id,new_landmark_id gives all images of a landmark another label, so that two
    landmarks with one new label become one; image_id,landmark_id gives images another one.

    \b
    Example:
      lmr index relabel labels.csv
    """
    import lmr

    with TerminalProgress() as progress:
        tell_change(words, lmr.index_relabel(**words, progress=progress), progress, as_json=as_json)


@command.command("compact")
@job_options(IndexCompactJob)
def compact(**words: Any) -> None:
    """Train the inverted file anew over the rows that there are now, tune and measure it; or make another kind.

    Rows, labels and whitening stay. A calibration is kept where 99 % of the answers are alike.

    \b
    Example:
      lmr index compact
      lmr index compact --kind flat
    """
    import lmr

    index: Path = words.get("index", INDEX_FOLDER)
    with TerminalProgress() as progress:
        done = lmr.index_compact(**words, progress=progress)
        info = done.info
        if done.state == "unchanged":
            why = "search is exact" if info.search is None else "nothing was added or removed since it was made"
            say(f"{index}: nothing to do: {why}")
        else:
            kind = "flat, exact" if info.search is None else search_line(info.search, info.n_rows, info.d)
            say(f"{index}: {kind}")
        if done.lost:
            progress.warn(f"warning: {index} answers otherwise now and is not calibrated any more; run lmr calibrate")


for looking in (info, verify, export):
    command.add_command(looking)
