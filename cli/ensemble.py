"""lmr ensemble: several models as one."""

from typing import Any

import click

from cli.options import job_options
from cli.progress import TerminalProgress
from cli.terminal import say
from retrieval.models.ensemble import EnsembleJob
from retrieval.words import counted


@click.command(name="ensemble")
@job_options(EnsembleJob)
def command(**words: Any) -> None:
    """Join MODELS, two model folders or more, into one that every command takes like any other.

    Its descriptors are those of the members one after the other, so that the cosine of two images is the weighted
    mean of the members' cosines. Members may differ in network, size and normalisation. The folder holds a copy of
    their weights.

    \b
    Example:
      lmr ensemble model-a model-b --weight 1 --weight 0.5 --output both
    """
    import lmr

    with TerminalProgress() as progress:
        state, card = lmr.ensemble(**words, progress=progress)
    if state == "unchanged":
        say(f"{words['output']}: unchanged, nothing to do")
        return
    shares = ", ".join(f"{member.weight:.3g} {member.card.config.backbone}" for member in card.members)
    say(f"{words['output']}: {counted(len(card.members), 'model')} ({shares})")
