"""Words of jobs that look at images themselves."""

from dataclasses import dataclass
from pathlib import Path

from retrieval.jobs import DecodingJob, option

FACTS = Path("picture-facts.sqlite")  # beside all that is made of the same images


@dataclass(frozen=True, kw_only=True)
class ImagesJob(DecodingJob):
    """A job for which the images of a manifest are looked up."""

    images: Path | None = option(
        None,
        default_text="images/ beside the manifest",
        help="Folder of the images: <id>.jpg, Google's a/b/c/<id>.jpg, tars that hold them, or what a path column is "
        "relative to; or one tar.",
    )


@dataclass(frozen=True, kw_only=True)
class MeasuringJob(ImagesJob):
    """A job for which they are measured too."""

    facts: Path = option(FACTS, help="File that keeps what was measured.")
