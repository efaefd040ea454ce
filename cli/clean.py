"""lmr clean: which pictures of a training set to leave out, and why."""

import difflib
from pathlib import Path
from typing import Any

import click

from cli.options import (
    PATH,
    config_option,
    device_option,
    facts_option,
    images_option,
    json_option,
    overwrite_option,
    pick_values,
    value_options,
    warn,
    workers_option,
    writes,
)
from cli.terminal import command_line, say_result, shown
from index.clean.config import CHECKS, CleaningRule
from retrieval.images.quality import SCREEN_DIAGONAL_IN
from retrieval.words import counted

N_SHOWN = 100  # pictures of each reason in the gallery
_HELP = {
    "n_neighbours": "Nearest pictures that are asked about each one.",
    "odds": "A label is wrong when another is this many times as probable.",
    "background_margin": "A non-landmark is this much more similar to the background than to its landmark.",
    "near_similarity": "Centred descriptors from this similarity on are of one picture.",
    "near_bits": "Bits of 64 in which perceptual hashes of one picture may differ.",
    "component_similarity": "Pictures of a landmark from this similarity on hang together.",
    "component_share": "Pictures that hang apart are left out when fewer than this share of the largest group.",
    "min_per_landmark": "Landmarks with fewer pictures left are left out.",
    "min_sharpness": "Variance of the Laplacian, of a picture at 256 pixels.",
    "min_contrast": "Standard deviation of the luma, 0 to 255.",
    "min_brightness": "Mean of the luma, 0 to 255.",
    "max_brightness": "Mean of the luma, 0 to 255.",
    "min_side_px": "Shorter side, pixels.",
    "verify": "Keep only pictures that enough neighbours of their landmark match geometrically (extra: local).",
    "min_inliers": "With --verify: matches that agree on one geometry, from which two pictures show one place.",
    "min_verified": "With --verify: such neighbours that a picture needs.",
    "n_verified_neighbours": "With --verify: nearest pictures of its landmark that each one is matched with.",
    "relabel": "Give a mislabelled picture the suggested label where that is confident, instead of leaving it out.",
}


def _as_checks(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Names separated by commas, in the order in which the checks are done."""
    names = [part.strip() for part in value.split(",") if part.strip()]
    for name in names:
        if name not in CHECKS:
            close = difflib.get_close_matches(name, CHECKS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            text = f"{name!r} is not a check{hint} They are {', '.join(CHECKS)}."
            raise click.BadParameter(text, ctx, parameter)
    return tuple(name for name in CHECKS if name in names)


def _as_span(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float | None, float | None]:
    """LOW,HIGH, of which either may be left out."""
    if value is None:
        return None, None
    try:
        low, high = (float(part) if part.strip() else None for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not LOW,HIGH, such as 15,40 or 15,", ctx, parameter) from None
    if low is not None and high is not None and not low <= high:
        raise click.BadParameter(f"{value!r}: the first number must not be above the second", ctx, parameter)
    return low, high


@click.command(name="clean")
@click.argument("manifest", type=PATH)
@click.option("--store", type=PATH, default=None, help="Descriptors of the manifest's pictures (lmr embed).")
@click.option("--background", type=PATH, multiple=True, help="Store of non-landmarks, besides unlabelled rows.")
@click.option("--output", type=PATH, default=Path("cleaned"), show_default=True, help="Folder to write.")
@click.option("--review", type=PATH, default=None, help="Apply this decisions.csv, which a person has gone through.")
@click.option(
    "--checks",
    callback=_as_checks,
    default=",".join(CHECKS),
    show_default=True,
    metavar="NAMES",
    help="What is looked for.",
)
@value_options(CleaningRule(), _HELP)
@click.option(
    "--ppi-range",
    callback=_as_span,
    default=None,
    metavar="LOW,HIGH",
    help="Keep pictures of so many pixels per inch; either may be left out.",
)
@click.option(
    "--diagonal-in",
    type=click.FloatRange(0, min_open=True),
    default=SCREEN_DIAGONAL_IN,
    show_default=True,
    help="Inches of the screen for --ppi-range: 224 x 224 pixels are 18 per inch.",
)
@click.option(
    "--gallery",
    type=click.IntRange(0),
    default=N_SHOWN,
    show_default=True,
    help="Pictures of each reason in gallery.html; 0 = no gallery.",
)
@facts_option
@click.option("--dry-run", is_flag=True, help="Say what would be left out and write nothing.")
@images_option
@json_option
@workers_option
@device_option
@config_option
@overwrite_option
@writes(lambda given: [] if given["dry_run"] else [given["output"]])
def command(manifest: Path, output: Path, as_json: bool, **values: Any) -> None:
    """Find mislabelled, duplicate, low-quality and non-landmark pictures of MANIFEST.

    Writes a folder: kept.csv, the manifest without them; decisions.csv, a line for each picture with the reason and the
    evidence; gallery.html, to look at. Edit the column `decision` (keep, drop or relabel) and give the file back with
    --review. A stopped run goes on where it was.

    \b
    Example:
      lmr clean train.csv --store train.h5 --background background.h5
      lmr clean train.csv --review cleaned/decisions.csv
    """
    from cli.cleaning import apply_review, clean_manifest

    if (values["review"] is None) == (values["store"] is None):
        raise click.UsageError("give --store to look for pictures to leave out, or --review to apply decisions")
    from retrieval.data.overview import require_there

    require_there(manifest)
    if values["review"] is not None:
        content = apply_review(manifest, output, values)
    else:
        content = clean_manifest(manifest, output, _rule(values), values)
    say_result(content, _told(content), as_json=as_json)
    if content["state"] == "written":
        look, review = output / "gallery.html", output / "decisions.csv"
        first = f"look at {look}; " if values["gallery"] else ""
        again = command_line("lmr", "clean", manifest, "--review", review)
        warn(f"{first}after changes in {review}: {again}")


def _rule(values: dict[str, Any]) -> CleaningRule:
    low, high = values["ppi_range"]
    if (low, high) != (None, None) and "quality" not in values["checks"]:
        raise click.UsageError("--ppi-range is part of the check quality, which --checks leaves out")
    try:
        return pick_values(CleaningRule, values, ppi_low=low, ppi_high=high)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _told(content: dict[str, Any]) -> str:
    from index.clean.decisions import REASONS

    state = {
        "written": "written",
        "reviewed": "reviewed decisions applied",
        "unchanged": "finished already, nothing to do",
        "dry run": "dry run, nothing written",
    }
    lines = [
        f"{counted(content['n_pictures'], 'picture')}: {content['n_kept']} kept, {content['n_dropped']} left out, "
        f"{content['n_relabelled']} with another label"
    ]
    for reason, about in REASONS.items():
        if n := content[f"n_{reason.replace('-', '_')}"]:
            lines.append(f"{n:8}  {reason}: {about}")
    return "\n".join([*lines, f"{shown(content['output'])}: {state[content['state']]}"])
