"""lmr build-index: descriptor stores to an index folder."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.describing import card_of_store
from cli.options import (
    INDEX,
    MODEL,
    PATH,
    STORE,
    Share,
    config_option,
    device_option,
    overwrite_option,
    pick_values,
    value_options,
    warn,
    workers_option,
    writes,
)
from cli.progress import PictureBar, TerminalProgress
from cli.terminal import command_line, say
from cli.workers import default_workers
from index.folder.thumbnail_config import DEFAULT_PX, MOST_PX, ThumbnailPlan
from index.rerank.config import Refinement
from retrieval.errors import LmrError
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.folder.build import BuildOptions, BuildReport
    from index.folder.folder import FolderInfo


_REFINEMENT_HELP = {
    "n_augment": "Neighbours that each row of the index borrows from (database augmentation); 0 = off.",
    "augment_alpha": "Power of the similarity that these count with.",
    "n_expand": "Neighbours that each query borrows from (alpha query expansion); 0 = off.",
    "expand_alpha": "Power of the similarity that these count with.",
    "n_rerank": "Best rows that are scored again by their own neighbours (SuperGlobal), 100 or more; 0 = off.",
    "rerank_neighbours": "Neighbours that each of them borrows from.",
    "rerank_weight": "What these count, times their similarity.",
}


@click.command(name="build-index")
@click.argument("stores", type=PATH, nargs=-1)
@click.option("--output", type=PATH, default=INDEX, show_default=True, help="Index folder to write.")
@click.option(
    "--model", type=PATH, default=MODEL, show_default=True, help="Model folder or file of lmr export that made them."
)
@click.option("--background", type=PATH, multiple=True, help="Store of non-landmarks, besides unlabelled rows.")
@click.option("--names", type=PATH, default=None, help="CSV that gives landmarks a name and an address.")
@click.option(
    "--storage",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="How the index keeps descriptors.",
)
@click.option(
    "--whitening",
    type=click.Choice(["pca", "supervised"]),
    default="pca",
    show_default=True,
    help="By the spread of all descriptors, or learnt from how pictures of one landmark differ.",
)
@click.option(
    "--whitening-power",
    type=Share(0, 1),
    default=0.5,
    show_default=True,
    help="w: directions are divided by their standard deviation to this power; 0 = no whitening.",
)
@click.option(
    "--dimensions", type=click.IntRange(1), default=None, help="Kept by the whitening. [default: min(512, d)]"
)
@click.option(
    "--thumbnails",
    type=click.IntRange(0, MOST_PX),
    default=DEFAULT_PX,
    show_default=True,
    help="Longer side in pixels of the small pictures that the folder keeps of its rows; 0 = none.",
)
@value_options(Refinement(), _REFINEMENT_HELP)
@click.option(
    "--recalibrate",
    is_flag=True,
    help="Where --overwrite ends the calibration, make it again from the store of its queries.",
)
@workers_option
@device_option
@config_option
@overwrite_option
@writes(lambda given: [given["output"]])
def command(stores: tuple[Path, ...], model: Path, output: Path, **values: Any) -> None:
    """Build an index folder from STORES (train.h5 when none is given).

    Labelled rows are the index, unlabelled rows its background. The folder holds everything that a query needs,
    the model too, and can be copied to another machine. It keeps small pictures of the index rows, made from where
    those lie, which sheets and pages show where the pictures themselves are not: --thumbnails 0 keeps none.

    --overwrite keeps the calibration where only names and places of pictures change; otherwise it ends, which is said.

    \b
    Example:
      lmr build-index train.h5 --background background.h5 --names names.csv
      lmr build-index train.h5 --dimensions 256 --overwrite --recalibrate
    """
    if values["recalibrate"]:
        _require_queries(output)
    report = build_from_stores(stores or (STORE,), model, output, values)
    info = report.info
    what = "unchanged, nothing to do" if report.state == "unchanged" else "built"
    unreadable = f", {counted(report.n_unreadable, 'row')} without a descriptor left out" if report.n_unreadable else ""
    say(
        f"{output}: {what}: {counted(info.n_rows, 'picture')} of {counted(info.n_landmarks, 'landmark')}, "
        f"{info.n_background} in the background, d = {info.d}{unreadable}"
    )
    _tell_thumbnails(output, info)
    _tell_of_calibration(output, report, values)


def _tell_thumbnails(output: Path, info: "FolderInfo") -> None:
    """Says which rows have no thumbnail."""
    if not info.thumbnails:
        warn(f"{output} has no thumbnails, being made before there were any; --overwrite makes them")
    elif info.thumbnails["side_px"] and info.thumbnails["n"] < info.n_rows:
        n = info.n_rows - info.thumbnails["n"]
        warn(
            f"{counted(n, 'picture', of=info.n_rows)} {agreeing(n, 'was', 'were')} not found or not readable at "
            f"{agreeing(n, 'its path and has', 'their paths and have')} no thumbnail"
        )


def _require_queries(output: Path) -> None:
    """Refuses, before anything is replaced, a calibration that could not be made again."""
    from index.folder.folder import read_calibration, read_info

    calibration = read_calibration(output, read_info(output)) if output.exists() else None
    if calibration is None:
        raise LmrError(
            f"--recalibrate: {output} has no calibration to make again; build without it, and lmr calibrate makes one"
        )
    if not Path(calibration.origin.source).is_file():
        raise LmrError(
            f"--recalibrate: {calibration.origin.source}, which {output} was calibrated on, is not there; run it where "
            "it is, or lmr calibrate afterwards"
        )


def _tell_of_calibration(output: Path, report: "BuildReport", values: dict[str, Any]) -> None:
    """What became of the calibration of the index that was replaced; makes it again where that was asked."""
    if report.kept is not None:
        warn(f"{output}: its calibration from {report.kept.origin.source} is kept; the new index answers alike")
    if report.not_read:
        warn(f"warning: {output} is not calibrated: what it replaced could not be read: {report.not_read}")
    if report.lost is None:
        return
    source = report.lost.origin.source
    if not values["recalibrate"]:
        again = command_line("lmr", "calibrate", source, *([] if output == INDEX else ["--index", output]))
        warn(
            f"warning: {output} is not calibrated any more: its calibration from {source} was of other descriptors, "
            f"labels or options; {again} makes it again (--recalibrate does that in one step)"
        )
        return
    from index.calibrate.run import calibrate_folder
    from index.evaluate.evaluation import queries_of
    from index.folder.folder import open_folder
    from retrieval.store.store import read_store

    folder = open_folder(output, device=values["device"], threads=values["threads"], calibrated=False)
    store = read_store(Path(source))
    found = calibrate_folder(folder, store, queries_of(store), report.lost.settings)
    for text in found.warnings:
        warn(f"warning: {text}")
    seen, before = found.cross_validated, report.lost.cross_validated
    warn(f"{output}: calibrated again on {source}: GAP {seen.gap:.3f}, before {before.gap:.3f}, cross-validated")


def build_options(values: Mapping[str, Any]) -> "BuildOptions":
    """What the options say; those that are not in `values` have their defaults. LmrError for what cannot be."""
    from index.folder.build import BuildOptions

    defaults = BuildOptions()
    return BuildOptions(
        storage=values.get("storage", defaults.storage),
        whitening=values.get("whitening", defaults.whitening),
        whitening_power=values.get("whitening_power", defaults.whitening_power) or None,
        n_dimensions=values.get("dimensions"),
        refinement=pick_values(Refinement, values),
    )


def build_from_stores(stores: tuple[Path, ...], model: Path, output: Path, values: dict[str, Any]) -> "BuildReport":
    """Builds the folder; values: background, names, device, overwrite, and those options that differ from the default:
    storage, whitening, whitening_power, dimensions, thumbnails, workers and the fields of Refinement.
    """
    from index.folder.build import build_folder
    from index.folder.inputs import BuildInputs
    from retrieval.data.names import of_no_landmark, read_names
    from retrieval.embed.load import model_files
    from retrieval.models.card import write_card
    from retrieval.store.store import read_store

    read = [read_store(path) for path in stores]
    card = card_of_store(model, read[0])
    names = read_names(values["names"], TerminalProgress()) if values["names"] else {}
    landmarks = (label for store in read for label in store.landmarks)
    if line := of_no_landmark(names, landmarks, values["names"], stores[0]):
        warn(line if len(stores) == 1 else f"{line} and the other stores")
    with tempfile.TemporaryDirectory() as scratch:
        exact = Path(scratch) / "model"
        exact.mkdir()
        for name, path in model_files(model, card).items():
            shutil.copyfile(path, exact / name)
        write_card(exact, card)
        inputs = BuildInputs(read, exact, [read_store(path) for path in values["background"]], names)
        with PictureBar("thumbnails") as bar:
            n_workers = max(1, default_workers(values.get("workers")))
            return build_folder(
                output,
                inputs,
                build_options(values),
                overwrite=values["overwrite"],
                device=values["device"],
                thumbnails=ThumbnailPlan(values.get("thumbnails", DEFAULT_PX), n_workers, bar.begin, bar.add),
            )
