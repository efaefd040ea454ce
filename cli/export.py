"""lmr export: a model as ONNX."""

from pathlib import Path
from typing import Any

import click

from cli.options import job_options
from cli.progress import TerminalProgress
from cli.terminal import say
from retrieval.embed.export import ExportJob


@click.command(name="export")
@job_options(ExportJob)
def command(**words: Any) -> None:
    """Write MODEL, a model folder (model/ when it is not given), as one ONNX file OUTPUT (model.onnx).

    The file takes prepared images and gives descriptors: normalisation, flip, scales and the members of an ensemble
    are inside, and it says how images are prepared. It is written only where its descriptors are those of torch.
    `embed`, `build-index`, `query` and `submit` then need no torch: onnxruntime embeds the images.

    \b
    Example:
      lmr export model model.onnx --flip
      lmr export both both.onnx --scales 0.707,1,1.414
    """
    import lmr

    with TerminalProgress() as progress:
        exported = lmr.export(**words, progress=progress)
    output: Path = words.get("output", ExportJob.output)
    if exported is None:
        say(f"{output}: unchanged, nothing to do")
        return
    say(
        f"{output}: {exported.n_bytes / 1e6:.1f} MB, d = {exported.d}, differs from torch by at most "
        f"{exported.difference:.1e} (allowed {exported.tolerance:.0e})"
    )
