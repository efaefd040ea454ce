"""`lmr download`: fetches the pictures of a manifest, resized on arrival, or Google's tar files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import click

from cli.options import (
    PATH,
    config_option,
    json_option,
    overwrite_option,
    pick_values,
    value_options,
    workers_option,
    writes,
)
from retrieval.download.config import Form, Resize
from retrieval.download.google import MIRROR, Archives, Part, parse_numbers
from retrieval.images.fetch_rules import FetchRules
from retrieval.images.limits import Limits

_FETCH_HELP = {
    "connections": "Pictures fetched at once, in total.",
    "per_host": "Pictures fetched at once from one host.",
    "timeout_s": "Seconds for one try of one picture.",
    "idle_s": "Longest time without a byte, seconds.",
    "n_retries": "Further tries after 429, 5xx, timeouts and cut connections.",
    "back_off_s": "Seconds before the first further try; doubled for each one after it.",
    "max_wait_s": "Longest rest that a Retry-After brings, seconds; a host that only asks for more is left for later.",
    "allow_private": "Also fetch from loopback, private and link-local addresses.",
    "ignore_robots_tag": "Also fetch what a server excludes from learning or indexing by the header X-Robots-Tag.",
    "user_agent": "How the program names itself to servers; put a contact address into it.",
}
_FORM_HELP = {
    "size": "Pixels.",
    "quality": "Of the JPEG files, 1 to 100.",
    "layout": "<id>.jpg, or as Google keeps them, a/b/c/<id>.jpg.",
}
_LIMITS_HELP = {"max_bytes": "Largest file that is fetched.", "max_pixels": "Largest width times height."}


def _images(given: Mapping[str, Any]) -> Path | None:
    """The folder that is filled, None where that is not known."""
    manifest: Path | None = given["manifest"]
    if given["tars"]:
        return manifest or Path("images")
    return given["images"] or (manifest.parent / "images" if manifest is not None else None)


@click.command("download")
@click.argument("manifest", metavar="[CSV]", type=PATH, required=False)
@click.argument("images", metavar="[IMAGES]", type=PATH, required=False)
@click.option(
    "--resize",
    type=click.Choice(get_args(Resize)),
    default=Form().resize,
    show_default=True,
    help="What is brought to --size: the shorter or longer side (nothing is enlarged), or a square of the middle or of "
    "everything on white.",
)
@value_options(Form(), _FORM_HELP)
@click.option("--keep-original", is_flag=True, help="Keep the files as they come.")
@value_options(FetchRules(), _FETCH_HELP)
@value_options(Limits(), _LIMITS_HELP)
@click.option("--retry-failed", is_flag=True, help="Also try again what failed in an earlier run.")
@click.option("--dry-run", is_flag=True, help="Only say what is there and what would be fetched.")
@click.option("--tars", type=click.Choice(get_args(Part)), default=None, help="Fetch this part of Google Landmarks.")
@click.option("--mirror", default=MIRROR, show_default=True, help="Where the tar files are.")
@click.option("--numbers", default=None, metavar="0-9,12", help="Only these tar files. [default: all]")
@workers_option
@config_option
@overwrite_option
@json_option
@writes(lambda given: [] if given["dry_run"] else [_images(given)])
def command(manifest: Path | None, images: Path | None, **values: Any) -> None:
    """Fetch the url of every row of CSV to <id>.jpg in IMAGES (images/ beside the CSV), resized on arrival.

    A stopped run goes on where it was: what the ledger, IMAGES/download.sqlite, lists is not fetched again. Rows
    without a picture are counted by cause and written to IMAGES/failed.csv. With --tars the files images_000.tar and
    so on of Google Landmarks are fetched to IMAGES and checked against their md5; CSV is then left out.

    \b
    Example:
      lmr download train.csv
      lmr download train.csv images --resize shorter --size 288 --user-agent "landmarks/1 (me@example.org)"
      lmr download train.csv images --retry-failed --per-host 4
      lmr download --tars index google-index
    """
    from cli.archives import download_archives
    from cli.downloading import download_pictures

    try:
        rules = pick_values(FetchRules, values, limits=pick_values(Limits, values))
        form = pick_values(Form, {**values, "resize": None if values["keep_original"] else values["resize"]})
        numbers = parse_numbers(values["numbers"], values["tars"]) if values["tars"] else []
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if values["tars"]:
        if images is not None:
            raise click.UsageError("--tars takes a folder and no CSV")
        archives = Archives(manifest or Path("images"), values["tars"], numbers, values["mirror"])
        download_archives(archives, rules, values)
        return
    if manifest is None:
        raise click.UsageError("Missing argument 'CSV'; or give --tars train, index or test.")
    if images is None:
        images = manifest.parent / "images"
    download_pictures(manifest, images, (form, rules), values)
