"""Words of jobs that look at images themselves."""

from dataclasses import dataclass
from pathlib import Path

from retrieval.jobs import DecodingJob, option

FACTS = Path("picture-facts.sqlite")  # beside all that is made of the same images


@dataclass(frozen=True, kw_only=True)
class MeasuringJob(DecodingJob):
    """A job for which images are looked up and measured."""

    images: Path | None = option(
        None,
        default_text="images/ beside the manifest",
        help="Folder of the images: <id>.jpg, Google's a/b/c/<id>.jpg, tars that hold them, or what a path column is "
        "relative to; or one tar.",
    )
    facts: Path = option(FACTS, help="File that keeps what was measured.")
