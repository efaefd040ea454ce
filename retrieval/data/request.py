"""Words of jobs that look at images themselves."""

from dataclasses import dataclass
from pathlib import Path

from retrieval.jobs import DecodingJob, option

NEAR_BITS = 4  # of 64 that may differ between two copies of an image; a copy at half size and quality 60 has 0 to 2
NEAR_SIMILARITY = 0.95  # cosine, of the descriptors of two copies

FACTS = Path("picture-facts.sqlite")  # beside all that is made of the same images


@dataclass(frozen=True, kw_only=True)
class ImagesJob(DecodingJob):
    """A job for which the images of a manifest are looked up."""

    images: Path | None = option(
        None,
        default_text="images/ beside the manifest",
        help="Folder of the images: <id>.jpg, Google's a/b/c/<id>.jpg, tars that hold them, or what a path column is "
        "relative to; one tar; or a URL, as s3://bucket/folder.",
    )


@dataclass(frozen=True, kw_only=True)
class MeasuringJob(ImagesJob):
    """A job for which they are measured too."""

    facts: Path = option(FACTS, help="File that keeps what was measured.")
