"""The store of a manifest: filled by a model, completed or found, and what a person is told of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retrieval.embed.engine import Engine
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import ComputingJob
from retrieval.words import agreeing, counted, none_can, shortened

if TYPE_CHECKING:
    from retrieval.data.manifest import Manifest
    from retrieval.embed.embedder import Embedder
    from retrieval.embed.fill import FillReport, FillRun, StoreDtype
    from retrieval.embed.job import AskingJob, StoreFilling
    from retrieval.models.card import Card
    from retrieval.models.config import DescriptorPart
    from retrieval.progress import Progress
    from retrieval.store.changes import Changes
    from retrieval.store.store import Descriptors

N_NAMED = 5  # changed images that a line names
N_LISTED = 20  # unreadable images that are listed with their reasons


def embed_manifest(
    manifest: "Manifest",
    images: Path,
    model: Path,
    card: "Card",
    output: Path,
    *,
    run: "FillRun",
    job: "StoreFilling",
    batch_size: int | None = None,
    engine: Engine | Literal["compiled", "openvino"] | None = None,
) -> "FillReport":
    """Fills the store `output` by a model and its card, and tells of images that changed or cannot be read.

    batch_size: None = found by trying. engine: as of `plan_embedder`, or OpenVINO.
    """
    from retrieval.data.image_source import ImageSource
    from retrieval.embed.fill import fill_store

    progress = job.progress
    workers, load = plan_loading(model, card, job=job, batch_size=batch_size, engine=engine)
    run = replace(run, n_workers=workers, progress=progress)
    report = fill_store(output, manifest, ImageSource(manifest, images), card, load, run=run)
    tell_changes(report.changes, manifest, output, progress)
    row = {image_id: row for row, image_id in enumerate(manifest.image_id)} if report.unreadable else {}
    told = {manifest.name_unreadable(row[image_id], why): why for image_id, why in report.unreadable.items()}
    list_unreadable(told, report.n_unreadable, report.n_pictures, progress)
    require_any_read(report, manifest.source)
    return report


def require_any_read(report: "FillReport", source: str) -> None:
    """Raises LmrError where no image of a manifest has a descriptor. source: of the manifest, for people."""
    if report.n_unreadable == report.n_pictures:
        raise LmrError(
            f"{source}: {none_can(report.n_pictures, 'picture', whose='its')} be found and read; "
            "check `images`, and give `retry_unreadable` once they can be"
        )


def plan_loading(
    model: Path,
    card: "Card",
    *,
    job: ComputingJob,
    batch_size: int | None,
    engine: Engine | Literal["compiled", "openvino"] | None,
) -> "tuple[int, Callable[[int], Embedder]]":
    """How many threads decode, and a function that loads the embedder for so many images and tells what it does.

    batch_size, engine: as of `embed_manifest`.
    """
    from retrieval.embed.load import plan_embedder, plan_openvino
    from retrieval.parallel import count_workers

    progress = job.progress
    workers = max(1, count_workers(job.workers, progress))
    how: dict[str, Any] = {"device": job.device, "threads": job.threads, "n_workers": workers}
    if engine == "openvino":
        plan = plan_openvino(model, card, **how)
    else:
        plan = plan_embedder(model, card, engine=None if engine == "compiled" else engine, **how)

    def load(n_images: int) -> "Embedder":
        embedder = plan()
        if embedder.note:
            progress.warn(f"warning: {embedder.note}")
        at_once = embedder.settle_batches(n_images, asked=batch_size)
        if engine == "compiled":
            progress.tell(embedder.compile(n_images))
        why = "one for each core" if job.workers is None else "as asked"
        progress.tell(f"computing in {embedder.about}, {at_once}; decoding with {counted(workers, 'thread')} ({why})")
        return embedder

    return workers, load


def complete_store(
    manifest: "Manifest",
    images: Path,
    model: Path,
    output: Path,
    *,
    job: "AskingJob",
    overwrite: bool,
    wait: bool,
) -> "Descriptors":
    """The store of a manifest, made, completed or found. overwrite: one that is of something else is replaced."""
    from retrieval.store.store import open_descriptors

    with output_locks(output, wait=wait, progress=job.progress):
        complete(manifest, images, model, output, job=job, overwrite=overwrite, wait=wait)
        return open_descriptors(output, manifest.shard)


def complete(
    manifest: "Manifest",
    images: Path,
    model: Path,
    output: Path,
    *,
    job: "AskingJob",
    overwrite: bool,
    wait: bool,
) -> "FillReport":
    """Makes, completes or finds the store of a manifest; what was done. overwrite: as of `complete_store`."""
    from retrieval.embed.fill import FillRun, require_same_job
    from retrieval.embed.load import open_card

    with output_locks(output, wait=wait, progress=job.progress):
        card, run = open_card(model), FillRun(check=job.check)
        try:
            require_same_job(output, manifest, card, run)
        except LmrError:
            run = replace(run, overwrite=overwrite)
        return embed_manifest(manifest, images, model, card, output, run=run, job=job, engine=job.engine)


def adapt_whole(
    source: Path,
    model: Path,
    output: Path,
    dtype: "StoreDtype",
    *,
    job: ComputingJob,
    overwrite: bool,
    part: "DescriptorPart | None" = None,
) -> "FillReport":
    """Fills the store `output` by the adapter of a model from a store of the model before it; or finds it filled.

    part: that one of a store of both neck and pooled features is taken instead.

    Raises LmrError for stores and models that do not belong together, and for another store at `output`.
    """
    from retrieval.embed.fill import FillReport, info_of
    from retrieval.embed.load import plan_adapter, plan_part
    from retrieval.store.join import adapt_store, is_adapted, renew_columns
    from retrieval.store.store import UNREADABLE, open_descriptors, partial_path, read_store_info, require_finished

    if output.resolve() == source.resolve():
        raise LmrError(f"`output` {output} is the store that is adapted; give another file name")
    require_finished(source)
    given, state = read_store_info(source)
    if part is None:
        card, adapt = plan_adapter(model, given, source, device=job.device, threads=job.threads)
    else:
        card, adapt = plan_part(model, given, source, part)
    assert card.d is not None
    info = info_of(card, given.manifest_digest, dtype, card.d, given.shard, given.mapped)
    places = [] if overwrite else [place for place in (output, partial_path(output)) if place.exists()]
    for place in places:
        if difference := read_store_info(place)[0].difference(info):
            raise LmrError(f"{place} was made with {difference}; give `overwrite` or another file name")
    is_there = bool(places) and places[0] == output
    if is_there and not is_adapted(source, output, adapt):
        raise LmrError(f"{output} holds other descriptors; give `overwrite` or another file name")
    if is_there:
        renew_columns(output, open_descriptors(source).columns, job.progress)
    else:
        adapt_store(source, output, info, adapt, progress=job.progress)
    n_unreadable = int((state == UNREADABLE).sum())
    return FillReport("unchanged" if is_there else "made", len(state), n_unreadable)


def list_unreadable(unreadable: dict[str, str], n_unreadable: int, n_pictures: int, progress: "Progress") -> None:
    """Warns of the unreadable images: the first ones with their reasons, then a count."""
    for image_id, reason in list(unreadable.items())[:N_LISTED]:
        progress.warn(f"unreadable: {shortened(image_id)}: {shortened(reason)}")
    if len(unreadable) > N_LISTED:
        progress.warn(f"unreadable: and {len(unreadable) - N_LISTED} more; lmr info STORE lists them")
    if n_unreadable:
        progress.warn(
            f"{counted(n_unreadable, 'picture', of=n_pictures)} {agreeing(n_unreadable, 'is', 'are')} unreadable and "
            f"{agreeing(n_unreadable, 'has', 'have')} no descriptor"
        )


def tell_changes(changes: "Changes", manifest: "Manifest", output: Path, progress: "Progress") -> None:
    """Warns of images that are not what they were when the store was made."""
    if not changes.is_known:
        progress.warn(f"{output} does not say what its pictures were (it is of an earlier lmr): all count as unchanged")
    told = {
        "replaced since they were embedded, embedded again": changes.replaced,
        "there that were not there before, embedded": changes.returned,
        "gone or not readable any more, their descriptors stay": changes.gone,
        "not as they were written (a power cut, or a failing disk), embedded again": changes.damaged,
    }
    for what, rows in told.items():
        if len(rows):
            names = ", ".join(manifest.image_id[rows[:N_NAMED]])
            more = f" and {len(rows) - N_NAMED:,} more" if len(rows) > N_NAMED else ""
            of_what = "descriptor" if rows is changes.damaged else "picture"
            progress.warn(f"{counted(len(rows), of_what, of=len(manifest))} {what}: {names}{more}")
