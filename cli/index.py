"""`lmr index`: changes to an index folder without building it again, what it is, and whether it is whole."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli.index_changes import done_text, local_line, tell_change
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.report.text import fact_lines
from cli.terminal import say, say_result
from index.folder.config import INDEX_FOLDER
from index.search.address import address_of
from index.search.config import search_line
from index.update.compact import IndexCompactJob
from index.update.inspect import IndexExportJob, IndexInfoJob, IndexVerifyJob
from index.update.job import IndexAddJob, IndexMergeJob, IndexRelabelJob, IndexRemoveJob
from retrieval.words import counted


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

    Rows, labels and whitening stay. A calibration is kept where 99 % of the answers are alike. Local features are put
    into one file, without those of rows that are gone.

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
            line = info.search and search_line(info.search, info.n_rows, info.d, info.n_shards)
            say(f"{index}: {line or 'flat, exact'}")
            if info.local is not None:
                say(f"{index}: {local_line(info)}")
        if done.lost:
            progress.warn(f"warning: {index} answers otherwise now and is not calibrated any more; run lmr calibrate")


@command.command("info")
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


@command.command("verify")
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


@command.command("export")
@job_options(IndexExportJob)
def export(**words: Any) -> None:
    """Write image_id, landmark_id and path of the images of an index as the CSV manifest OUTPUT, or it to a server.

    milvus://HOST[:PORT]/COLLECTION puts all of the index on a Milvus server, so that query, submit and serve need that
    address alone; a stopped export goes on where it was. LMR_MILVUS_TOKEN is its token, milvus+tls:// asks by TLS.

    \b
    Example:
      lmr index export rows.csv
      lmr index export milvus://127.0.0.1:19530/landmarks --index landmarks
      lmr index export milvus://127.0.0.1/landmarks --kind hnsw --leave-out thumbnails
    """
    import lmr

    with TerminalProgress() as progress:
        done = lmr.index_export(**words, progress=progress)
    there = "" if done.state == "written" else "written already, nothing to do: "
    place, on_server = words["output"], ""
    if done.engine:
        from index.update.export import kind_words

        place, on_server = address_of(place), f" on {done.engine}, {kind_words(done.kind, done.recall)}"
    say(f"{place}: {there}{counted(done.n_images, 'image')}{on_server}")
