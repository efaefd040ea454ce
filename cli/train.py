"""lmr train: a network on labelled images, its curves, a search for its learning rate, its first batch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.config_file import PATH, read_stages
from cli.options import job_options
from cli.progress import TerminalProgress
from cli.terminal import say, say_lines
from retrieval.errors import LmrError
from retrieval.extras import require_extra
from retrieval.files.lock import output_locks
from retrieval.jobs import words_of
from retrieval.models.request import SummaryJob
from retrieval.parallel import is_first
from retrieval.train.job import STAGE_WORDS, TrainJob
from retrieval.train.stored.request import OUTPUT, is_store
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.train.record import Trained

_RATE_HEADER = "backbone_rate,head_rate,loss"


@click.command(name="train")
@job_options(TrainJob, stage_words=STAGE_WORDS)
@click.option("--show-batch", type=PATH, help="Write a sheet of the first batch as the network sees it; no training.")
@click.option("--summary", is_flag=True, help="Print the layers with shapes and parameters; no training.")
@click.option(
    "--find-rate",
    type=PATH,
    metavar="PNG",
    help="Learning rate range test: draw the loss at rising learning rates, and suggest one; no training.",
)
def command(show_batch: Path | None, summary: bool, find_rate: Path | None, **words: Any) -> None:
    """Train a network on the labelled rows of MANIFEST (CSV, Parquet, or a folder or tar of folders).

    Rows without a landmark are used as negatives. Of a store of descriptors (.h5) in the place of MANIFEST an adapter
    is trained, without pictures: a model folder that makes better descriptors of what --model makes. A run that was
    stopped goes on where it was. The file of --config may end in [[stage]] tables: each is trained from the last one's
    weights, with its own values of the options from --epochs to --per-landmark, its own size and data. On several GPUs:
    torchrun --no-python --nproc-per-node N lmr train ...

    \b
    Example:
      lmr train train.csv --images images --backbone mobilenet_v3_small --epochs 2 --size 96
      lmr train train.h5 --negatives background.h5 --val val.h5
      torchrun --no-python --nproc-per-node 2 lmr train train.csv
      torchrun --no-python --nnodes 2 --node-rank 0 --nproc-per-node 4 --master-addr HOST lmr train train.csv
    """
    import lmr

    with TerminalProgress() as progress:
        asked = {**words, "stages": read_stages(), "progress": progress}
        if summary:
            _print_summary(words)
        elif show_batch is not None:
            _show_batch(show_batch, asked)
        elif find_rate is not None:
            _find_rate(find_rate, asked)
        else:
            output: Path = words.get("output", OUTPUT if is_store(words["manifest"]) else TrainJob.output)
            trained = lmr.train(**asked)
            if is_first():
                from cli.report.plots import draw_curves

                draw_curves(output, trained, progress)
                say(_end_line(output, trained))


def _end_line(output: Path, trained: "Trained") -> str:
    """The outcome of a training, and the epoch that is in the model folder."""
    log = trained.log
    last = log[-1]
    kept = max(log, key=lambda row: (row.get("gap", 0.0), row["epoch"]))  # the last of those with the largest GAP
    text = (
        f"{output}: trained {counted(len(log), 'epoch')} in {last['seconds']:.0f} s, loss "
        f"{last['loss']:.3f}{_figures(last)}"
    )
    if "gap" in kept:
        whose = "the last epoch" if kept is last else f"epoch {kept['epoch']:.0f}"
        text += f"; the model is that of {whose}{_figures(kept) if kept is not last else ', the best'}"
    return text


def _figures(row: Mapping[str, float]) -> str:
    return "".join(f", {name} {row[name]:.3f}" for name in ("gap", "top1") if name in row)


def _print_summary(words: Mapping[str, Any]) -> None:
    """The layers of the network that would be trained."""
    import lmr

    known = {word for word, _, _ in words_of(SummaryJob)}
    layers, model = lmr.summarise(**{word: value for word, value in words.items() if word in known})
    from retrieval.models.summary import to_text

    say_lines(to_text(layers, model))


def _show_batch(path: Path, asked: Mapping[str, Any]) -> None:
    """A sheet of the first batch."""
    import lmr
    from cli.report.sheet import save_batch_sheet, sheet_format

    sheet_format(path)
    with output_locks(path, wait=asked.get("wait", False), progress=asked["progress"]):
        images = lmr.first_batch(**asked)
        save_batch_sheet(path, images)
    say(f"{path}: {counted(len(images), 'picture')} of the first batch; nothing was trained")


def _find_rate(image: Path, asked: Mapping[str, Any]) -> None:
    """The loss at rising learning rates as an image, with a CSV of the same name beside, and the suggestion."""
    import lmr

    table = _rate_table(image)  # refused now, not after the search
    require_extra(f"--find-rate {image}", "report", "matplotlib")
    from cli.report.plots import plot_rates, to_png
    from retrieval.files.atomic import write_bytes

    with output_locks(image, table, wait=asked.get("wait", False), progress=asked["progress"]):
        found = lmr.find_rate(**asked)
        lines = [
            f"{share * found.backbone_rate:g},{share * found.head_rate:g},{loss:g}"
            for share, loss in zip(found.share, found.loss, strict=True)
        ]
        write_bytes(table, ("\n".join([_RATE_HEADER, *lines]) + "\n").encode())
        head_rates = (found.share * found.head_rate).tolist()
        write_bytes(image, to_png(plot_rates(head_rates, found.loss.tolist(), found.best * found.head_rate)))
    backbone, head = found.best * found.backbone_rate, found.best * found.head_rate
    say(f"{image}, {table}: --backbone-rate {backbone:.2g} --head-rate {head:.2g}")


def _rate_table(image: Path) -> Path:
    """The CSV beside the image of a search for a rate. LmrError: not a PNG, or something else has that name."""
    if image.suffix.lower() != ".png":
        raise LmrError(f"--find-rate {image}: it is drawn as a PNG; give a name that ends in .png")
    table = image.with_suffix(".csv")
    if table.exists() and not table.read_bytes().startswith(_RATE_HEADER.encode()):
        raise LmrError(f"--find-rate {image}: its table would replace {table}; give another name")
    return table
