"""lmr submit: a Kaggle submission for test.csv."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import (
    PATH,
    SUBMISSION,
    Share,
    check_option,
    config_option,
    device_option,
    images_folder,
    images_option,
    index_option,
    overwrite_option,
    warn,
    workers_option,
    writes,
)
from cli.reading import load_manifest
from cli.tars import index_tars
from cli.terminal import say
from retrieval.errors import LmrError
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder


@click.command(name="submit")
@click.argument("test", type=PATH, default=Path("test.csv"))
@index_option
@images_option
@click.option(
    "--store", type=PATH, default=None, help="Descriptors of the test pictures. [default: TEST with .h5, beside it]"
)
@click.option("--output", type=PATH, default=SUBMISSION, show_default=True, help="Submission to write.")
@click.option(
    "--threshold",
    type=Share(0, 1),
    default=None,
    help="Confidence below which a line stays blank. [default: the calibrated one that costs no GAP]",
)
@check_option
@workers_option
@device_option
@config_option
@overwrite_option
@writes(lambda given: [given["output"]])
def command(test: Path, index_path: Path, output: Path, **values: Any) -> None:
    """Write a submission (id,landmarks) for the pictures of TEST: one line an id, in its order.

    Pictures that have no descriptor yet are embedded first, with the index's model; a stopped run goes on where it
    was. Unreadable and missing pictures get a blank line.

    \b
    Example:
      lmr submit test.csv --images images --output submission.csv
    """
    say(submit_pictures(test, index_path, output, values))


def submit_pictures(test: Path, index_path: Path, output: Path, values: dict[str, Any]) -> str:
    """Embeds what is missing, answers and writes; returns a line that says what was written.

    values: images, store, threshold, overwrite, device, threads, workers.
    """
    from index.answers import answer_store, predict
    from index.folder.folder import open_folder
    from index.kaggle.submission import submission_lines
    from retrieval.files.digest import sha256_json
    from retrieval.files.made_of import is_made_of, require_no_folder, write_with_record

    def is_there(inputs: dict[str, Any]) -> bool:
        return not values["overwrite"] and is_made_of(output, inputs, "give --overwrite or another --output")

    require_no_folder(output)
    is_there({})  # refused now, not after the pictures were embedded
    from retrieval.data.overview import require_there

    require_there(test)
    folder = open_folder(index_path, device=values["device"], threads=values["threads"])
    threshold = threshold_logit(folder, values["threshold"])
    made_with = {
        "index": folder.info.inputs_digest,
        "calibration": None if folder.calibration is None else sha256_json(folder.calibration.to_json()),
        "--threshold": values["threshold"],
    }
    is_there(made_with)
    store = describe_test(folder, test, values)
    made_with["set of descriptors"] = store.digest
    n_missing = int((~store.done).sum())
    if n_missing:
        warn(
            f"{n_missing:,} of the blank lines "
            f"{agreeing(n_missing, 'is a picture that is', 'are pictures that are')} missing or unreadable"
        )
    if is_there(made_with):
        return f"{output}: finished already, nothing to do ({counted(len(store), 'line')})"
    predictions = predict(answer_store(folder, store), store.image_id, threshold)
    write_with_record(output, submission_lines(store.image_id, predictions), made_with)
    n_answered = int(predictions.answered.sum())
    return f"{output}: {counted(len(store), 'line')}, {n_answered} with a landmark, {len(store) - n_answered} blank"


def describe_test(folder: "IndexFolder", test: Path, values: dict[str, Any]) -> Any:
    """The store of the test pictures, made or completed where it is not there yet."""
    from cli.describing import describe, find_store
    from retrieval.embed.load import open_card

    index_tars(test)
    manifest = load_manifest(test)
    output = values["store"] or find_store(test, "--store")
    model = (folder.model_path, open_card(folder.model_path))
    return describe(manifest, images_folder(values["images"], test), model, output, values)


def threshold_logit(folder: "IndexFolder", asked: float | None) -> float:
    """The ranking key from which on a line is filled."""
    from index.confidence import logit_of

    if folder.calibration is None:
        if asked is not None:
            raise LmrError(f"--threshold {asked}: {folder.path} is not calibrated; run lmr calibrate first")
        warn(
            f"{folder.path} is not calibrated: ranked by score, every picture answered; lmr calibrate sets a threshold"
        )
        return float("-inf")
    return folder.calibration.threshold_gap.logit if asked is None else logit_of(asked)
