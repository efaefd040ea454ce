"""Cleaning a training set: images measured, checks made, the decisions written; or those that a person went through."""

import difflib
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from index.clean.config import CHECKS, CleaningRule
from retrieval.data.request import MeasuringJob
from retrieval.errors import LmrError, WordsError
from retrieval.files.lock import output_locks
from retrieval.jobs import ComputingJob, WritingJob, option, told
from retrieval.words import shortened

if TYPE_CHECKING:
    from index.clean.decisions import Decisions
    from index.clean.inputs import CleaningInputs
    from index.clean.neighbours import Block
    from index.clean.plan import Verify
    from retrieval.data.locate import LocatedImages
    from retrieval.data.manifest import Manifest
    from retrieval.local.config import LocalCard
    from retrieval.local.store import LocalStore
    from retrieval.store.store import Descriptors

State = Literal["written", "reviewed", "unchanged", "dry run"]


class Gallery(Protocol):
    """Renders the page of what is left out."""

    def require(self) -> None:
        """Raises LmrError where something is not installed, before anything that takes long."""

    def render(self, manifest: "Manifest", decisions: "Decisions") -> str:
        """HTML text."""


@dataclass(frozen=True)
class CleanJob(MeasuringJob, ComputingJob, WritingJob):
    """Find mislabelled, duplicate, low-quality and non-landmark images.

    gallery: renders gallery.html, which is written with the decisions; None = none is written.
    """

    manifest: Path = field(metadata=told(is_argument=True))
    _: KW_ONLY
    store: Path | None = option(None, help="Descriptors of the manifest's images (lmr embed).")
    background: tuple[Path, ...] = option((), help="Store of non-landmarks, besides unlabelled rows.")
    output: Path = option(Path("cleaned"), help="Folder to write.")
    review: Path | None = option(None, help="Apply this decisions.csv, which a person has gone through.")
    checks: str = option(",".join(CHECKS), metavar="NAMES", help="Checks that are done.")
    rule: CleaningRule = field(default_factory=CleaningRule)
    ppi_range: str | None = option(
        None, metavar="LOW,HIGH", help="Keep images of so many pixels per inch; either may be left out."
    )
    dry_run: bool = option(False, help="Say what would be left out and write nothing.")
    gallery: Gallery | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises WordsError for what are no checks and no range."""
        super().__post_init__()
        checks, (low, high) = _parse_checks(self.checks), _parse_range(self.ppi_range)
        if (low, high) != (None, None) and "quality" not in checks:
            raise WordsError("`ppi_range` is part of the check quality, which `checks` leaves out")
        object.__setattr__(self, "rule", replace(self.rule, checks=checks, ppi_low=low, ppi_high=high))


@dataclass(frozen=True, slots=True)
class CleanReport:
    """output: the folder. counts: n_pictures, n_kept, n_dropped, n_relabelled, and n_ of each reason."""

    output: Path
    state: State
    counts: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {"output": str(self.output), "state": self.state, **self.counts}


def clean(job: CleanJob) -> CleanReport:
    """Cleans and writes, unless it is a dry run or done already; with a review writes what a person decided.

    Raises WordsError for words that contradict each other, LmrError for what cannot be used.
    """
    from retrieval.data.overview import require_there

    if (job.review is None) == (job.store is None):
        raise WordsError("give `store` to look for pictures to leave out, or `review` to apply decisions")
    with output_locks(None if job.dry_run else job.output, wait=job.wait, progress=job.progress):
        require_there(job.manifest)
        if job.review is not None:
            return _apply_review(job, job.review)
        assert job.store is not None
        with ExitStack() as limits:
            if job.threads is not None:
                from retrieval.models.device import limit_threads

                limits.enter_context(limit_threads(job.threads))
            return _clean(job, job.store)


def _clean(job: CleanJob, store: Path) -> CleanReport:
    from index.clean.decisions import Decisions
    from index.clean.folder import DECISIONS, begin, finish, has_edits, read_state, remove_unfinished, require_place
    from index.clean.inputs import join_inputs, measure_images
    from index.clean.plan import decide
    from retrieval.parallel import count_workers
    from retrieval.store.store import open_descriptors

    rule, output, progress = job.rule, job.output, job.progress
    if rule.verify:
        from retrieval.local.rootsift import require_opencv

        require_opencv()
    if job.gallery is not None and not job.dry_run:
        job.gallery.require()
    located = _locate(job)
    manifest = located.manifest
    stores = [open_descriptors(place) for place in (store, *job.background)]
    identity = _identity(located, stores, rule)

    place = "new" if job.dry_run else require_place(output, identity, overwrite=job.overwrite)
    if place == "finished":
        remove_unfinished(output)
        state = read_state(output) or {}
        if has_edits(output, state):
            table = output / DECISIONS
            progress.warn(
                f"{shortened(table)} was changed since it was written and is not applied; "
                f"apply it with `review` {shlex.quote(str(table))}"
            )
        return CleanReport(output, "unchanged", state["counts"])

    facts = None
    if {"quality", "duplicates"} & set(rule.checks):
        cache = None if job.dry_run and not job.facts.exists() else job.facts
        workers = max(1, count_workers(job.workers, progress))
        facts = measure_images(located, cache, n_workers=workers, progress=progress)
    inputs = join_inputs(manifest, stores, facts)
    if "background" in rule.checks and not len(inputs.background):
        progress.warn(
            "non-landmarks were not looked for: there is no background; give `background`, or rows without a label"
        )
    work = None if job.dry_run else begin(output, identity, place)
    verify = _verifier(inputs, located, work, job) if rule.verify else None
    decisions: Decisions = decide(inputs, rule, _look_around(inputs, work, job), verify)
    if job.dry_run:
        return CleanReport(output, "dry run", decisions.counts())
    page = None if job.gallery is None else job.gallery.render(manifest, decisions)
    finish(output, identity, manifest, decisions, page)
    return CleanReport(output, "written", decisions.counts())


def _apply_review(job: CleanJob, review: Path) -> CleanReport:
    """Writes what a person decided."""
    from index.clean.decisions import read_decisions
    from index.clean.folder import finish_review

    manifest = _locate(job).manifest
    decisions = read_decisions(review, manifest)
    state: State = "dry run"
    if not job.dry_run:
        state = "unchanged" if finish_review(job.output, manifest, decisions, review) == "finished" else "reviewed"
    return CleanReport(job.output, state, decisions.counts())


def _locate(job: CleanJob) -> "LocatedImages":
    """The manifest, which has to be labelled, with where its images are."""
    from retrieval.data.locate import locate_images
    from retrieval.data.overview import load_manifest

    manifest = load_manifest(job.manifest, job.progress, job.column_names)
    if not manifest.has_labels or not (manifest.landmark >= 0).any():
        raise LmrError(f"{job.manifest} names no landmark; cleaning needs a manifest with landmark_id")
    return locate_images(manifest, job.images, job.progress)


def _identity(located: "LocatedImages", stores: "Sequence[Descriptors]", rule: CleaningRule) -> dict[str, Any]:
    """Everything that the outcome depends on."""
    from retrieval.own_columns import digest_of_columns

    given = located.manifest
    return {
        "manifest": given.digest,
        **({"columns": [*given.mapped, digest_of_columns(given.columns)]} if given.mapped or given.columns else {}),
        "images": None if located.folder is None else str(located.folder.resolve()),
        "store": stores[0].digest,
        "background": [store.digest for store in stores[1:]],
        **{name: list(value) if isinstance(value, tuple) else value for name, value in asdict(rule).items()},
    }


def _look_around(inputs: "CleaningInputs", work: Path | None, job: CleanJob) -> "Block | None":
    """The neighbours of the images whose labels can be judged; None where they are fewer than two."""
    from index.clean.neighbours import centre, look_around_all

    judged = inputs.judged
    if len(judged) < 2:
        return None
    space = centre(inputs.vectors.select(judged), inputs.background)
    return look_around_all(space, inputs.codes, job.rule, work, device=job.device, progress=job.progress)


def _verifier(inputs: "CleaningInputs", located: "LocatedImages", work: Path | None, job: CleanJob) -> "Verify":
    """Counts the neighbours that show the same place, of rows that are given later."""
    from index.clean.labels import count_verified, local_matcher
    from retrieval.data.image_source import ImageSource
    from retrieval.local.config import LocalOptions
    from retrieval.local.extractor import open_extractor

    assert job.store is not None

    if located.folder is None:
        raise LmrError("`verify` needs the pictures, which were not found; give `images`")
    extractor = open_extractor(LocalOptions(kind="rootsift"))  # for which `min_inliers` is meant
    known = _known_features(job.store, extractor.card, job)
    inliers = local_matcher(ImageSource(inputs.manifest, located.folder), extractor, known, inputs.manifest.image_id)
    saved = None if work is None else work / "verified.jsonl"
    return lambda rows: count_verified(
        rows, inputs.manifest.landmark, inputs.vectors, job.rule, inliers, saved=saved, progress=job.progress
    )


def _known_features(store: Path, card: "LocalCard", job: CleanJob) -> "LocalStore | None":
    """The local store beside a store, where there is one of the same images and as features are compared here."""
    from index.folder.local import beside, find_places
    from retrieval.local.store import open_local
    from retrieval.store.store import open_descriptors

    place = beside(store)
    if not place.exists():
        return None
    found = open_local(place)
    try:
        if difference := found.card.difference(card):
            raise LmrError(f"{place} was made with {difference}")
        find_places(open_descriptors(store), [place])
    except LmrError as error:
        job.progress.warn(f"local features are extracted anew: {error}")
        return None
    job.progress.warn(f"local features are those of {place}")
    return found


def _parse_checks(text: str) -> tuple[str, ...]:
    """Names separated by commas, in the order in which the checks are done."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in CHECKS:
            close = difflib.get_close_matches(name, CHECKS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise WordsError(
                f"Invalid value for '`checks`': {name!r} is not a check{hint} They are {', '.join(CHECKS)}."
            )
    return tuple(name for name in CHECKS if name in names)


def _parse_range(text: str | None) -> tuple[float | None, float | None]:
    """LOW,HIGH, of which either may be left out."""
    if text is None:
        return None, None
    try:
        low, high = (float(part) if part.strip() else None for part in text.split(","))
    except ValueError:
        raise WordsError(f"Invalid value for '`ppi_range`': {text!r} is not LOW,HIGH, such as 15,40 or 15,") from None
    if low is not None and high is not None and not low <= high:
        raise WordsError(f"Invalid value for '`ppi_range`': {text!r}: the first number must not be above the second")
    return low, high
