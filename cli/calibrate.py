"""lmr calibrate: vote, confidence and thresholds of an index folder, from held-out queries."""

from typing import Any

import click

from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.report.text import calibration_text
from cli.terminal import say_result
from index.calibrate.job import CalibrateJob
from index.folder.config import INDEX_FOLDER


@click.command(name="calibrate")
@job_options(CalibrateJob)
@json_option
def command(as_json: bool, **words: Any) -> None:
    """Tune the vote and fit the confidence on QUERIES: a manifest with labels, or its store (.h5).

    The queries must not be in the index or its background, and should include non-landmarks (blank landmark_id) as
    they come in use. What is found is written into the index folder; a calibration on other queries or with other
    settings that is there is replaced with --overwrite.

    The constants of the vote leave their defaults only where that gains more than one standard error, on the queries
    and leaving one out of the index. With few queries the threshold is where the confidence expects the precision,
    with many where it is sure.

    With --verify the best neighbours of each query are compared with it by local features, and a second calibration, of
    verified answers, is kept beside the plain one; the output tells what verification gains.

    \b
    Example:
      lmr calibrate val.csv --images images
      lmr calibrate val.csv --verify
      lmr calibrate val.csv --precision 0.9 --overwrite    # more named, more of them wrong
    """
    import lmr

    with TerminalProgress() as progress:
        calibration = lmr.calibrate(**words, progress=progress)
        for text in calibration.told:
            progress.warn(f"warning: {text}")
    say_result(calibration.to_json(), calibration_text(words.get("index", INDEX_FOLDER), calibration), as_json=as_json)
