"""lmr search: the images of an index that are most similar to an image."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.report.text import own_names
from cli.terminal import say_csv, say_json, say_lines, shown
from index.folder.config import INDEX_FOLDER
from index.serving.config import SearchJob
from retrieval.data.csv_cells import csv_line
from retrieval.data.names import shown_name
from retrieval.embed.engine import EngineJob
from retrieval.errors import LmrError, UnreadableError
from retrieval.jobs import ComputingJob, build, option, words_of
from retrieval.words import counted

if TYPE_CHECKING:
    from index.serving.page import Page, Similar

CSV_COLUMNS = (
    *("rank", "image_id", "landmark_id", "name", "score", "confidence", "votes", "path"),
    *("width", "height", "megapixels", "pixels_per_inch", "dpi", "folded"),
)


@dataclass(frozen=True)
class SearchCommandJob(ComputingJob, EngineJob, SearchJob):
    """Find the images of an index that are most similar to one."""

    picture: str | None = option(None, is_argument=True)
    _: KW_ONLY
    image_id: str | None = option(None, help="Search by this image of the index, in place of PICTURE.")
    box: str | None = option(
        None, metavar="L,T,R,B", help="Search by a part: left, top, right, bottom, 0 to 1 of the upright image."
    )
    index: Path = option(INDEX_FOLDER, help="Index folder, or milvus://HOST/COLLECTION.")
    allow_private: bool = option(False, help="Also fetch URLs from loopback, private and link-local addresses.")


@click.command(name="search")
@job_options(SearchCommandJob, but=("fold", "workers"))
@click.option("--no-fold", is_flag=True, help="List images that are nearly the same one by one.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print a CSV line for each image.")
def command(no_fold: bool, as_json: bool, as_csv: bool, **words: Any) -> None:
    """Find the images of an index that are most similar to PICTURE, a file or a URL.

    The list goes on far beyond the images that vote. Those that are nearly the same are one line of it, and the
    confidence is that of the landmark in the answer to PICTURE.

    \b
    Example:
      lmr search holiday.jpg
      lmr search holiday.jpg --n 200 --sort megapixels --csv
      lmr search holiday.jpg --box 0.2,0,0.6,0.5 --sure
      lmr search --image-id 2dc16e32cbc6083f --first 20
    """
    with TerminalProgress() as progress:
        job = build(SearchCommandJob, {**words, "fold": not no_fold, "progress": progress})
        if (job.picture is None) == (job.image_id is None):
            raise click.UsageError("Give PICTURE or --image-id, one of them.")
        if as_json and as_csv:
            raise click.UsageError("--json and --csv exclude each other")
        page = _search(job)
    if as_json:
        say_json(page.to_json())
    elif as_csv:
        own = own_names(item.neighbour for item in page.items)
        say_csv("".join([csv_line(_header(own)), *(_csv_line(item, own) for item in page.items)]))
    else:
        say_lines("\n".join([*map(_line, page.items), _end(page)]))


def _search(job: SearchCommandJob) -> "Page":
    import lmr
    from index.serving.gallery import parse_box

    box = None if job.box is None else parse_box(job.box)
    how: dict[str, Any] = {"device": job.device, "threads": job.threads, "engine": job.engine}
    landmarks = lmr.open_index(job.index, workers=1, progress=job.progress, **how)
    for line in landmarks.warnings:
        job.progress.warn(f"warning: {line}")
    asked: dict[str, Any] = {"image_id": job.image_id, "box": box, "allow_private": job.allow_private}
    words = {word: getattr(job, item.name) for word, _, item in words_of(SearchJob)}
    try:
        return landmarks.search(job.picture, **asked, **words)
    except UnreadableError as error:
        raise LmrError(f"{shown(job.picture or job.image_id)} cannot be read: {error}") from error


def _line(item: "Similar") -> str:
    near = item.neighbour
    size = "" if item.width is None else f"  {item.width} x {item.height}"
    sure = "" if item.confidence is None else f"  confidence {item.confidence:.3f}"
    more = f"  and {counted(len(item.folded), 'copy')}" if item.folded else ""
    name = shown(shown_name(near.landmark_id, near.name))
    return f"{item.rank:6,}  {near.score:6.3f}  {name}{sure}  {shown(near.path or near.image_id)}{size}{more}"


def _end(page: "Page") -> str:
    more = "others follow" if page.has_more else "that is all of them"
    return f"{counted(len(page.items), 'image')} listed, {page.n_rows_looked_at:,} looked at; {more}"


def _header(own: Sequence[str]) -> list[str]:
    """Columns of the table; own ones that are called as others get `own_` before their name."""
    names = [*CSV_COLUMNS]
    for name in own:
        names.append(name)
        while names[-1] in names[:-1]:
            names[-1] = f"own_{names[-1]}"
    return names


def _csv_line(item: "Similar", own: Sequence[str]) -> str:
    cells = item.to_json()
    folded = " ".join(near.image_id for near in item.folded)
    votes = str(item.votes).lower()
    known = [{**cells, "folded": folded, "votes": votes}[name] for name in CSV_COLUMNS]
    return csv_line([*known, *(item.neighbour.columns.get(name, "") for name in own)])
