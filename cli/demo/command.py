"""lmr demo: the whole path on a small rendered set of landmarks, or on somebody's own folder."""

from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import PATH, device_option, is_waiting, job_options, overwrite_option, warn, workers_option, writes
from cli.progress import TerminalProgress
from cli.tars import index_tars
from cli.terminal import command_line, say_json, say_lines, shown, warn_lines
from retrieval.extras import require_report
from retrieval.images.preprocess import MOST_PIXELS
from retrieval.jobs import build, words_of
from retrieval.models.request import NetworkRequest, PreparationRequest
from retrieval.train.config import AugmentConfig, LossConfig, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.demo.scenes import DemoSet
    from retrieval.images.preprocess import ImageSpec

SIZE = 64  # pixels: the rendered details survive it, and training takes one to four minutes on two cores
EPOCHS = 26
# Random crops show things larger in training than they are when pictures are described (Touvron et al., Fixing the
# train-test resolution discrepancy, 2019); the ratio is that of docs/benchmarks.md, 288 pixels after training at 224.
DESCRIBED_LARGER = 9 / 7
NETWORK = {"backbone": "resnet18", "dimensions": 128}
LAST_LAYER, WHOLE_FROM = "layer3", 128  # below these pixels layer4 has a map of less than 4 x 4 left
# From random weights: higher rates, and a milder loss than fine-tuning takes.
FROM_SCRATCH = TrainConfig(
    backbone_rate=1.5e-3,
    head_rate=1e-2,
    weight_decay=0.02,
    loss=LossConfig(margin_rad=0.1, margin_rare_rad=0.2, scale=16.0, negative_weight=0.5),
    augment=AugmentConfig(
        flip=0.0, greyscale=0.0, brightness=0.4, saturation=0.4, hue=0.0
    ),  # no rendered landmark is ever seen mirrored
)
PRECISION = 0.9  # of few hundred held-out pictures hardly one in three is surely right in 95 of 100 cases
N_SHOWN = 4  # queries on the sheet
STORES = ("train.h5", "val.h5", "background.h5", "test_solution.h5", "test.h5")
OUTPUTS = ("model", "untrained", "landmarks", *STORES, "report.html", "sheet.jpg", "submission.csv")  # beside manifests


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a demo found: GAP and top-1 on its test queries, trained and untrained, and where things are."""

    gap: float
    top1: float
    untrained_gap: float
    report: Path
    sheet: Path
    submission: Path


@click.command(name="demo", context_settings={"default_map": NETWORK})
@click.argument("directory", type=PATH, default=Path("lmr-demo"))
@click.option(
    "--images", type=PATH, default=None, help="Your own pictures, FOLDER/<landmark>/<picture> or a tar, instead."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the landmarks, the split and the training.")
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, show_default=True, help="Passes over the pictures.")
@click.option(
    "--size", type=click.IntRange(16, MOST_PIXELS), default=SIZE, show_default=True, help="Side of the input, pixels."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@job_options(NetworkRequest)
@workers_option
@device_option
@overwrite_option
@writes(lambda given: [given["directory"], *(given["directory"] / name for name in OUTPUTS)])
def command(directory: Path, images: Path | None, as_json: bool, **values: Any) -> None:
    """Make a small set of landmarks in DIRECTORY and run everything on it: train, embed, build-index, calibrate,
    evaluate, query and submit.

    A stopped demo goes on where it was. With --images it does the same on your own pictures, which are only read.
    From random weights, on pictures below 128 pixels, its ResNet-18 ends at layer3. Answers are given where 90 of 100
    are right, since there are few pictures to calibrate on; lmr calibrate asks for 95.

    \b
    Example:
      lmr demo
      lmr demo my-demo --images holiday-photos --backbone resnet18 --pretrained --size 224
    """
    require_report("the report of lmr demo")
    images = images.resolve() if images else None
    if images is not None:
        from retrieval.images.source import images_place

        index_tars(images_place(images))
    directory.mkdir(parents=True, exist_ok=True)
    with chdir(directory):
        outcome = run_demo(prepare_pictures(images, values), {**values, "images": images})
    if as_json:
        facts = {"gap": outcome.gap, "top1": outcome.top1, "untrained_gap": outcome.untrained_gap}
        say_json(facts | {"report": str(directory / outcome.report)}, indent=None)
    else:
        say_lines(_summary(directory, outcome))


def prepare_pictures(images: Path | None, values: dict[str, Any]) -> "DemoSet":
    """Renders the set into the working folder, or splits the user's own pictures."""
    from cli.demo.own import split_own
    from cli.demo.scenes import render_demo
    from cli.progress import PictureBar
    from cli.workers import default_workers

    n_workers = max(1, default_workers(values["workers"]))
    if images is not None:
        _step("splitting your pictures")
        return split_own(images, Path(), values["seed"], n_workers)
    _step("rendering landmarks")
    with PictureBar("rendering") as bar:
        n_before = 0

        def on_done(n_done: int, n_pictures: int) -> None:
            nonlocal n_before
            if n_before == 0:
                bar.begin(n_pictures)
            bar.add(n_done - n_before)
            n_before = n_done

        return render_demo(Path(), seed=values["seed"], threads=n_workers, on_done=on_done)


def run_demo(demo: "DemoSet", values: dict[str, Any]) -> Outcome:
    """Train to submission in the working folder, each step by the function of its command, resumed where it stopped."""
    import lmr
    from cli.evaluate import to_text
    from cli.report.answer_text import to_text as answer_text
    from cli.report.answers import save_answers
    from cli.submit import to_text as submission_text

    _step("training a network from scratch" if _is_from_scratch(values) else "training")
    spec = _train(demo, values)
    _step("the same network untrained, for comparison")
    untrained_gap = _measure_untrained(demo, spec, values)
    _step("descriptors, index, calibration")
    index_path = _index(demo, (Path("model"), spec), Path("landmarks"), Path(), values)
    _calibrate(index_path, demo, Path("val.h5"), values)
    _step("evaluating on the test pictures")
    with TerminalProgress() as progress:
        measured = lmr.evaluate(
            demo.test_solution,
            index=index_path,
            images=demo.images,
            store=Path("test_solution.h5"),
            overwrite=values["overwrite"],
            **_computing(values, progress),
        )
    evaluation = measured.evaluation
    for text in measured.warnings:
        warn(f"warning: {text}")
    warn_lines(to_text(measured.to_json()))
    report = _report(Path("report.html"), measured)
    _step("asking about pictures, and writing a submission")
    shown = [str(measured.queries.path[row]) for row in across_landmarks(measured.queries.landmarks.tolist(), N_SHOWN)]
    found = lmr.open_index(index_path, device=values["device"], threads=values["threads"]).query(shown)
    warn_lines("\n\n".join(answer_text(answer) for answer in found))
    warn(save_answers(Path("sheet.jpg"), found, index_path))
    submission = Path("submission.csv")
    with TerminalProgress() as progress:
        written = lmr.submit(
            demo.test,
            index=index_path,
            images=demo.images,
            output=submission,
            overwrite=True,
            **_computing(values, progress),
        )
    warn(submission_text(written))
    return Outcome(
        evaluation.accuracy.gap, evaluation.accuracy.top1, untrained_gap, report, Path("sheet.jpg"), submission
    )


def across_landmarks(labels: "Sequence[tuple[str, ...]]", n: int) -> list[int]:
    """The positions of n queries of different landmarks, spread over their names; the last one shows none, if any does.

    labels: the landmarks of each query.
    """
    first: dict[str, int] = {}
    for row, names in enumerate(labels):
        first.setdefault(names[0] if names else "", row)
    other = [first.pop("")] if "" in first else []
    n_known = min(n - len(other), len(first))
    known = [row for _, row in sorted(first.items())]
    rows = [known[i * (len(known) - 1) // max(n_known - 1, 1)] for i in range(n_known)] + other
    return (rows + [row for row in range(len(labels)) if row not in rows])[:n]


def _train(demo: "DemoSet", values: dict[str, Any]) -> "ImageSpec":
    """Trains a network; returns how pictures are prepared when it describes them."""
    import lmr
    from cli.train import draw_curves
    from retrieval.models.checkpoint import load_model

    config = replace(
        FROM_SCRATCH if _is_from_scratch(values) else TrainConfig(), epochs=values["epochs"], seed=values["seed"]
    )
    folder = Path("model")
    with TerminalProgress() as progress:
        trained = lmr.train(
            demo.train,
            negatives=demo.background if demo.background.exists() else None,
            images=demo.images,
            output=folder,
            network=_network(values),
            size=values["size"],
            training=config,
            **{name: values[name] for name in ("workers", "device", "threads", "overwrite")},
            wait=is_waiting(),
            progress=progress,
        )
        draw_curves(folder, trained, progress)
    model, card = load_model(folder)
    spec = card.image_spec
    return spec if model.picture_size else replace(spec, size=round(DESCRIBED_LARGER * spec.size))


def _measure_untrained(demo: "DemoSet", spec: "ImageSpec", values: dict[str, Any]) -> float:
    """GAP on the test queries of the network that training began with, through the same steps."""
    import torch

    import lmr
    from retrieval.models.checkpoint import CARD, save_model

    folder = Path("untrained")
    folder.mkdir(exist_ok=True)
    if values["overwrite"] or not (folder / "model" / CARD).exists():
        torch.manual_seed(values["seed"])
        model, made_for = _network(values).build(PreparationRequest(size=values["size"]))
        save_model(folder / "model", model, made_for, made_by={"training": None})
    index_path = _index(demo, (folder / "model", spec), folder / "landmarks", folder, values)
    _calibrate(index_path, demo, folder / "val.h5", values)
    with TerminalProgress() as progress:
        result = lmr.evaluate(
            demo.test_solution,
            index=index_path,
            images=demo.images,
            store=folder / "test.h5",
            overwrite=values["overwrite"],
            **_computing(values, progress),
        )
    return result.evaluation.accuracy.gap


def _index(
    demo: "DemoSet", made_by: "tuple[Path, ImageSpec]", index_path: Path, stores: Path, values: dict[str, Any]
) -> Path:
    """The index folder of a model and a preparation, with the stores that it is built from."""
    import lmr
    from retrieval.data.manifest import read_manifest
    from retrieval.embed.fill import FillRun
    from retrieval.embed.job import StoreFilling, embed_manifest
    from retrieval.models.checkpoint import read_card

    model, spec = made_by
    card = replace(read_card(model), image_spec=spec)
    paths = []
    with TerminalProgress() as progress:
        filling = StoreFilling(**{name: values[name] for name in ("device", "threads", "workers")}, progress=progress)
        run = FillRun(overwrite=values["overwrite"])
        for manifest in (demo.train, demo.background):
            if manifest.exists():
                paths.append(stores / f"{manifest.stem}.h5")
                embed_manifest(read_manifest(manifest), demo.images, (model, card), paths[-1], run, filling)
        lmr.build_index(
            tuple(paths[:1]),
            output=index_path,
            model=model,
            background=tuple(paths[1:]),
            names=demo.names,
            overwrite=True,
            **_computing(values, progress),
        )
    return index_path


def _calibrate(index_path: Path, demo: "DemoSet", store: Path, values: dict[str, Any]) -> None:
    from index.calibrate.fit import calibrate_folder
    from index.calibration import CalibrationSettings
    from index.folder.folder import open_folder
    from index.queries import QueriesJob, embed_queries

    folder = open_folder(index_path, device="cpu")
    with TerminalProgress() as progress:
        job = QueriesJob(
            images=demo.images,
            store=store,
            overwrite=values["overwrite"],
            **_computing(values, progress),
        )
        embedded, queries = embed_queries(demo.val, folder, job)
    settings = CalibrationSettings(precision=PRECISION, seed=values["seed"])
    for text in calibrate_folder(folder, embedded, queries, settings).warnings:
        warn(f"warning: {text}")


def _computing(values: dict[str, Any], progress: TerminalProgress) -> dict[str, Any]:
    """How each step computes, and who is told of it."""
    named = {name: values[name] for name in ("device", "threads", "workers")}
    return {**named, "wait": is_waiting(), "progress": progress}


def _report(path: Path, measured: Any) -> Path:
    from cli.report.evaluation import write_report

    write_report(path, measured)
    return path


def _network(values: dict[str, Any]) -> NetworkRequest:
    known = {word for word, _, _ in words_of(NetworkRequest)}
    asked = build(NetworkRequest, {word: value for word, value in values.items() if word in known})
    own = asked.backbone == NETWORK["backbone"] and _is_from_scratch(values) and values["size"] < WHOLE_FROM
    return replace(asked, last_layer=asked.last_layer or (LAST_LAYER if own else None))


def _is_from_scratch(values: dict[str, Any]) -> bool:
    return not (values.get("weights") or values.get("pretrained"))


def _step(text: str) -> None:
    warn(f"-- {text}")


def _summary(directory: Path, outcome: Outcome) -> str:
    return "\n".join(
        [
            f"GAP {outcome.gap:.3f}, top-1 {outcome.top1:.3f} on the test pictures "
            f"(untrained: GAP {outcome.untrained_gap:.3f})",
            f"report:     {shown(directory / outcome.report)}",
            f"sheet:      {shown(directory / outcome.sheet)}  (queries beside the pictures that voted)",
            f"submission: {shown(directory / outcome.submission)}",
            "",
            "Try next:",
            f"  {shown(command_line('cd', directory))}",
            "  lmr query images --csv" if (directory / "images").is_dir() else "  lmr query PICTURE",
            "  lmr evaluate test_solution.csv --report again.html",
            "  lmr info landmarks",
            "  lmr demo my-demo --images FOLDER_OF_FOLDERS",
        ]
    )
