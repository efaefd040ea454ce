"""Words of jobs that look at images themselves."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.data.header.mapping import ColumnMap, parse_columns
from retrieval.jobs import DecodingJob, Job, option
from retrieval.progress import SILENT, Progress

if TYPE_CHECKING:
    from retrieval.data.manifest import Manifest

NEAR_BITS = 4  # of 64 that may differ between two copies of an image; a copy at half size and quality 60 has 0 to 2
NEAR_SIMILARITY = 0.95  # cosine, of the descriptors of two copies

FACTS = Path("picture-facts.sqlite")  # beside all that is made of the same images


@dataclass(frozen=True, kw_only=True)
class TableJob(Job):
    """A job that reads a table of images. columns: may be given as a mapping too, and one alone as a text."""

    columns: tuple[str, ...] = option(
        (),
        name="column",
        metavar="ROLE=NAME",
        help="Column that holds the image_id, landmark_id, landmarks, path, url, kind, usage, name, lat or lon, as in "
        "landmark_id=class; a blank NAME = none does. Repeat it for each. The others are read by their names.",
    )

    def __post_init__(self) -> None:
        """Raises InvalidValueError for what no column can be, and two columns for one."""
        super().__post_init__()
        object.__setattr__(self, "columns", parse_columns(self.columns).texts)

    @property
    def column_names(self) -> ColumnMap:
        """The columns of the main table."""
        return parse_columns(self.columns)

    @property
    def column_names_beside(self) -> ColumnMap:
        """The same of another table, which may have none of them and is read by its own header then."""
        return self.column_names.of_others()


@dataclass(frozen=True, kw_only=True)
class ImagesJob(DecodingJob, TableJob):
    """A job for which the images of a manifest are looked up."""

    images: Path | None = option(
        None,
        default_text="images/ beside the manifest",
        help="Folder of the images: <id>.jpg, Google's a/b/c/<id>.jpg, tars that hold them, or what a path column is "
        "relative to; one tar; or a URL, as s3://bucket/folder.",
    )


@dataclass(frozen=True, kw_only=True)
class CellsJob(Job):
    """A job that may take the place where a picture was taken for its landmark."""

    cells: str | None = option(
        None,
        metavar="DISTANCE",
        help="Take the cell of a grid that a picture was taken in, by its lat and lon, for its landmark where it has "
        "none; how wide cells are, as 25m.",
    )

    def __post_init__(self) -> None:
        """Raises LmrError for what is no width of a cell."""
        super().__post_init__()
        _ = self.cells_m

    @property
    def cells_m(self) -> float | None:
        """Width of a cell in metres; None where places are no landmarks."""
        from retrieval.places import parse_cells  # which needs numpy

        return None if self.cells is None else parse_cells(self.cells, "cells")

    def load(self, path: Path, progress: Progress, names: ColumnMap) -> "Manifest":
        """As `load_manifest`, with the landmarks that this job gives it."""
        from retrieval.data.overview import load_manifest

        manifest = load_manifest(path, progress, names, labels_expected=self.cells_m is None)
        return self.labelled(manifest, progress)

    def labelled(self, manifest: "Manifest", progress: Progress = SILENT) -> "Manifest":
        """The manifest with the landmarks that this job gives it, which it tells. LmrError as `label_by_cells`."""
        from retrieval.places import label_by_cells

        return manifest if self.cells_m is None else label_by_cells(manifest, self.cells_m, "cells", progress)


@dataclass(frozen=True, kw_only=True)
class MeasuringJob(ImagesJob):
    """A job for which they are measured too."""

    facts: Path = option(FACTS, help="File that keeps what was measured.")
