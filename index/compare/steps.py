"""Steps of a comparison: jobs of lmr, each told as the command that does the same, its configuration in a file."""

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.build_index import BuildJob, build_index
from index.calibrate.job import CalibrateJob, calibrate
from index.verify import STORES
from retrieval.embed.job import EmbedJob, embed
from retrieval.jobs import InvalidValueError, Job, build, words_from_text, words_of
from retrieval.train.job import STAGE_WORDS, TrainJob, train, training_job
from retrieval.train.recipes.recipe import Options
from retrieval.train.recipes.values import to_toml
from retrieval.words import counted

if TYPE_CHECKING:
    from index.compare.folders import Workshop

JOBS: Mapping[str, type[Job]] = {
    "train": TrainJob,
    "embed": EmbedJob,
    "build-index": BuildJob,
    "calibrate": CalibrateJob,
}
_TARGETS = {"train": "manifest", "embed": "manifest", "build-index": "stores", "calibrate": "queries"}
# What a comparison gives the jobs itself.
_OWN = {"output", "model", "images", "index", "store", "device", "threads", "workers", "overwrite", "wait"}
_OWN |= {"retry_unreadable", "check", "engine", "column", *_TARGETS.values()}


def step_options() -> Options:
    """The keys that each table of a recipe may have, and whether they take several values."""
    return {
        step: {word.replace("_", "-"): _takes_many(hint) for word, hint, _ in words_of(kind) if word not in _OWN}
        for step, kind in JOBS.items()
    }


def _takes_many(hint: Any) -> bool:
    return str(hint).startswith("tuple[")


def step_job(
    step: str, target: Path, table: Mapping[str, Any], stages: Sequence[Mapping[str, Any]] = (), **own: Any
) -> Job:
    """The job of a table of a recipe, for a manifest or a store.

    own: words that the comparison gives. Raises LmrError for values that cannot be.
    """
    kind = JOBS[step]
    try:
        words = words_from_text(kind, table)
        later = [_stage_words(stage, number) for number, stage in enumerate(stages, start=1)]
    except InvalidValueError as error:
        raise InvalidValueError(f"[{step}] {error}") from error
    words |= {_TARGETS[step]: (target,) if step == "build-index" else target, **own}
    return training_job(words, later) if step == "train" else build(kind, words)


def _stage_words(stage: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The words of a stage of training, which may have a manifest of its own, `data`."""
    known = {_stage_key(word) for word in STAGE_WORDS}
    for key in stage:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"
            raise InvalidValueError(f"stage {number}: {key} is not an option of a stage{hint}")
    table = {"manifest" if key == "data" else key: value for key, value in stage.items()}
    return words_from_text(TrainJob, table, f"stage {number}: ")


def _stage_key(word: str) -> str:
    return "data" if word == "manifest" else word.replace("_", "-")


def run_step(
    shop: "Workshop",
    step: str,
    target: Path,
    config: Path,
    table: Mapping[str, Any],
    *,
    stages: Sequence[Mapping[str, Any]] = (),
    **own: Any,
) -> None:
    """Does a step, unless it is finished. config: file that its table is written to."""
    from retrieval.files.atomic import write_text

    write_text(config, [to_toml(table, stages)])
    known = {word for word, _, _ in words_of(JOBS[step])}
    asked: dict[str, Any] = {"device": shop.job.device, "threads": shop.job.threads, "workers": shop.job.workers}
    asked |= {"images": shop.data.images, "wait": shop.job.wait}
    asked |= {"column": shop.data.mapped(target) or None} if "column" in known and target.suffix not in STORES else {}
    words = own | {word: value for word, value in asked.items() if word in known and value is not None}
    tell_step(shop, step, [target], {"config": config, **words})
    run_job(step_job(step, target, table, stages, **words, progress=shop.job.progress))


def run_job(job: Job) -> None:
    """Does a job of a step."""
    if isinstance(job, TrainJob):
        from index.evaluate.validation import make_validation
        from index.whitening import fit_whitening

        train(job, make_validation, fit_whitening)
    elif isinstance(job, EmbedJob):
        store, report = embed(job)
        n_embedded = report.n_pictures - report.n_unreadable
        job.progress.tell(f"{store}: {counted(n_embedded, 'descriptor')}, {report.n_unreadable:,} unreadable")
    elif isinstance(job, BuildJob):
        build_index(replace(job, engine="torch"))  # nobody asks these indexes from cold
    elif isinstance(job, CalibrateJob):
        for text in calibrate(replace(job, engine="torch")).warnings:
            job.progress.warn(f"warning: {text}")
    else:
        raise TypeError(f"{type(job).__name__} is no job of a step")


def tell_step(shop: "Workshop", step: str, targets: Sequence[Path], words: Mapping[str, Any]) -> None:
    """Tells the command that does the same."""
    parts = ["lmr", step, *(shlex.quote(str(target)) for target in targets)]
    for word, value in words.items():
        for one in value if isinstance(value, tuple) else (value,):
            if one is not False:
                parts += [f"`{word}`"] if one is True else [f"`{word}`", shlex.quote(str(one))]
    shop.job.progress.tell(" ".join(parts))
