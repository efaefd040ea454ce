"""Ensembles: several model folders joined into one, without torch."""

import shutil
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Literal

from retrieval.errors import LmrError
from retrieval.files.atomic import replacing, write_bytes
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob, option, told
from retrieval.models.card import EnsembleCard, join
from retrieval.models.folder import CARD, STATE_NAME, read_any_card, require_no_strangers, require_weights, write_card
from retrieval.models.page import PAGE, model_page
from retrieval.words import counted


@dataclass(frozen=True)
class EnsembleJob(WritingJob):
    """Join several model folders into one."""

    models: tuple[Path, ...] = field(metadata=told(is_argument=True))
    _: KW_ONLY
    output: Path = field(metadata=told(help="Model folder to write."))
    weights: tuple[float, ...] = option(
        (), name="weight", default_text="1 each", help="Weight of each model, in their order; repeated."
    )


def ensemble(job: EnsembleJob) -> tuple[Literal["made", "unchanged"], EnsembleCard]:
    """Writes an ensemble; whether it was there already, and its card. Raises LmrError as `save_ensemble`."""
    if job.weights and len(job.weights) != len(job.models):
        raise LmrError(
            f"`weight` is given {counted(len(job.weights), 'time')} for {counted(len(job.models), 'model')}; give one "
            f"for each or none"
        )
    with output_locks(job.output, wait=job.wait, progress=job.progress):
        weights = job.weights or (1.0,) * len(job.models)
        return save_ensemble(job.output, job.models, weights, overwrite=job.overwrite)


def save_ensemble(
    folder: Path, models: Sequence[Path], weights: Sequence[float], *, overwrite: bool = False
) -> tuple[Literal["made", "unchanged"], EnsembleCard]:
    """Writes the ensemble of these model folders; its members' weights first, then a page for people, its card last.

    Weights are files named by their hash, so a kill leaves a folder without a card, or the one that was there.
    Raises LmrError: fewer than two models, one that is missing or damaged, another model at `folder`, disk full.
    """
    if folder.resolve() in {model.resolve() for model in models}:
        raise LmrError(f"`output` {folder} is one of the members; give another folder")
    cards = [read_any_card(model) for model in models]
    card = join(cards, weights, {"members": [str(model) for model in models]})
    sources = {
        member.card.weights_name: require_weights(model, member.card)
        for model, given in zip(models, cards, strict=True)
        for member in given.members
    }
    if (folder / CARD).exists() and not overwrite:
        if read_any_card(folder).fingerprint != card.fingerprint:
            raise LmrError(f"{folder} holds another model; give `overwrite` or another `output`")
        for member in card.members:
            require_weights(folder, member.card)
        return "unchanged", card
    if not overwrite:
        require_no_strangers(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in sources.items():
            with source.open("rb") as original, replacing(folder / name) as copy:
                shutil.copyfileobj(original, copy)
        write_bytes(folder / PAGE, model_page(card.to_json()).encode())
        (folder / STATE_NAME).unlink(missing_ok=True)
        write_card(folder, card)
        for old in folder.glob("weights-*"):
            if old.name not in sources:
                old.unlink()
    except OSError as error:
        raise LmrError(
            f"{folder}: the ensemble cannot be written: {error.strerror}; make room or choose another `output`"
        ) from error
    return "made", card
