"""lmr export: a model as ONNX."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.network import description_of, description_options, picture_options
from cli.options import MODEL, PATH, config_option, overwrite_option, warn, writes
from cli.terminal import say
from retrieval.errors import LmrError

if TYPE_CHECKING:
    from retrieval.models.card import Card


@click.command(name="export")
@click.argument("model", type=PATH, default=MODEL)
@click.argument("output", type=PATH, default=Path("model.onnx"))
@picture_options
@description_options
@config_option
@overwrite_option
@writes(lambda given: [given["output"]])
def command(model: Path, output: Path, overwrite: bool, **values: Any) -> None:
    """Write MODEL, a model folder (model/ when it is not given), as one ONNX file OUTPUT (model.onnx).

    The file takes prepared pictures and gives descriptors: normalisation, flip, scales and the members of an ensemble
    are inside, and it says how pictures are prepared. It is written only where its descriptors are those of torch.
    `embed`, `build-index`, `query` and `submit` then need no torch: onnxruntime describes the pictures.

    \b
    Example:
      lmr export model model.onnx --flip
      lmr export both both.onnx --scales 0.707,1,1.414
    """
    from retrieval.embed.load import describe_otherwise, onnx_path, open_card

    if output.suffix != ".onnx":
        raise LmrError(f"{output}: the name of an exported model ends in .onnx")
    if onnx_path(model) is not None:
        raise LmrError(f"{model} is exported already; give the model folder that it was made of")
    card = describe_otherwise(model, open_card(model), description_of(values))
    if output.exists() and not overwrite:
        _require_same(output, card)
        say(f"{output}: unchanged, nothing to do")
        return
    from retrieval.embed.onnx_export import TOLERANCE, export_onnx

    exported = export_onnx(model, card, output)
    say(
        f"{output}: {exported.n_bytes / 1e6:.1f} MB, d = {exported.d}, differs from torch by at most "
        f"{exported.difference:.1e} (allowed {TOLERANCE:.0e})"
    )


def _require_same(output: Path, card: "Card") -> None:
    """LmrError when what is there is not this very model, whole."""
    from retrieval.embed.load import open_card
    from retrieval.embed.onnx_digest import require_as_written

    try:
        found = open_card(output)
    except LmrError as error:
        raise LmrError(f"{error}; or give another OUTPUT") from error
    if found.fingerprint != card.fingerprint:
        raise LmrError(f"{output} exists and is another model; --overwrite replaces it")
    if not require_as_written(output):
        warn(f"{output} carries no digest (it is of an earlier lmr): what it says it is made of was compared alone")
