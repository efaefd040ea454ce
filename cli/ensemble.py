"""lmr ensemble: several models as one."""

from pathlib import Path

import click

from cli.options import PATH, config_option, overwrite_option, writes
from cli.terminal import say
from retrieval.errors import LmrError
from retrieval.words import counted


@click.command(name="ensemble")
@click.argument("models", type=PATH, nargs=-1, required=True)
@click.option("--output", type=PATH, required=True, help="Model folder to write.")
@click.option(
    "--weight", "weights", type=float, multiple=True, help="Of each model, in their order; repeated. [default: 1 each]"
)
@config_option
@overwrite_option
@writes(lambda given: [given["output"]])
def command(models: tuple[Path, ...], output: Path, weights: tuple[float, ...], overwrite: bool) -> None:
    """Join MODELS, two model folders or more, into one that every command takes like any other.

    Its descriptors are those of the members one after the other, so that the cosine of two pictures is the weighted
    mean of the members' cosines. Members may differ in network, size and normalisation. The folder holds a copy of
    their weights.

    \b
    Example:
      lmr ensemble model-a model-b --weight 1 --weight 0.5 --output both
    """
    from retrieval.models.ensemble import save_ensemble

    if weights and len(weights) != len(models):
        raise LmrError(
            f"--weight is given {counted(len(weights), 'time')} for {counted(len(models), 'model')}; give one "
            f"for each or none"
        )
    state, card = save_ensemble(output, models, weights or (1.0,) * len(models), overwrite=overwrite)
    if state == "unchanged":
        say(f"{output}: unchanged, nothing to do")
        return
    shares = ", ".join(f"{member.weight:.3g} {member.card.config.backbone}" for member in card.members)
    say(f"{output}: {counted(len(card.members), 'model')} ({shares})")
