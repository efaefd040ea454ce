"""lmr explain: what is typical of a landmark, what deviates, and what it is confused with, and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.config_file import PATH
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import say_result, shown, warn
from index.explain.job import ExplainJob
from retrieval.data.names import shown_name
from retrieval.extras import require_extra
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob
from retrieval.words import counted

if TYPE_CHECKING:
    from index.explain.job import LandmarkExplained, OwnImage


@click.command(name="explain")
@job_options(ExplainJob, WritingJob)
@click.option("--output", type=PATH, default=None, help="Folder to write: a page with the images and their maps.")
@json_option
def command(output: Path | None, as_json: bool, **words: Any) -> None:
    """Tell what an index knows of LANDMARK: a landmark_id, or a name.

    Its most typical images, which are most like its others, and the most deviant ones, whose labels are worth a look;
    and the landmark that it is confused with, by leaving each image out and by the nearest images of other landmarks.
    The two images of both that are most alike say why: with --output in a page, where maps show which places of
    them make the similarity.

    \b
    Example:
      lmr explain arch
      lmr explain arch --output why-arch
      lmr explain arch --json
    """
    import lmr
    from cli.report.landmark import require_own_folder, write_landmark

    overwrite, wait = words.pop("overwrite", False), words.pop("wait", False)
    if output is not None:
        require_extra(f"--output {output}", "report", "jinja2")
    with TerminalProgress() as progress, output_locks(output, wait=wait, progress=progress):
        if output is not None:
            require_own_folder(output, overwrite=overwrite)
        found = lmr.explain(**words, progress=progress)
        say_result(found.to_json(), landmark_text(found), as_json=as_json)
        if output is not None:
            maps_on: dict[str, Any] = {name: words[name] for name in ("device", "threads") if name in words}
            warn(write_landmark(output, found, maps_on, overwrite=overwrite))


def landmark_text(found: "LandmarkExplained") -> str:
    """The account of a landmark for people."""
    like = "" if found.similarity is None else f", mean similarity {found.similarity:.3f}"
    lines = [f"{shown(found.shown)}: {counted(found.n_images, 'image')}{like}"]
    if found.n_right is not None:
        lines.append(f"  left out, {counted(found.n_right, 'image', of=found.n_asked)} answered with it")
    for title, images in (("most typical", found.typical), ("most deviant", found.deviant)):
        if images:
            lines += [f"  {title}:", *map(_line, images)]
    if found.confused:
        lines.append("  confused with:")
    for other in found.confused:
        told = (
            f"{other.n_taken:,} answered with it, {other.n_given:,} of its {other.n_images:,} the other way round, "
            f"nearest for {other.n_nearest:,}"
        )
        lines.append(f"    {shown(other.shown)}: {told}")
    if found.closest is not None:
        own, other_image = found.closest
        paths = f"{shown(own.path or own.image_id)} and {shown(other_image.path or other_image.image_id)}"
        lines.append(f"  most alike of the two: {own.score:.3f}  {paths}")
    return "\n".join([*lines, *(f"  {shown(note)}" for note in found.notes)])


def _line(one: "OwnImage") -> str:
    near = one.nearest
    name = "" if near is None else shown(shown_name(near.landmark_id, near.name))
    other = "" if near is None else f"  (nearest of another: {near.score:.3f} {name})"
    return f"    {one.similarity:6.3f}  {shown(one.image.path or one.image.image_id)}{other}"
