"""lmr split: a manifest to train, val, test and non-landmarks."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import (
    PATH,
    Share,
    config_option,
    facts_option,
    images_option,
    json_option,
    overwrite_option,
    workers_option,
    writes,
)
from cli.terminal import say_result, shown
from retrieval.data.near_duplicates import NEAR_BITS, NEAR_SIMILARITY
from retrieval.split.stratify import SHARE
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.split.roles import PickBy
    from retrieval.split.split import SplitRule
    from retrieval.split.stratify import Quota

_MATTERING = (
    *("val", "test", "val_per_landmark", "test_per_landmark", "at_least", "val_non_landmarks", "test_non_landmarks"),
    *("landmarks", "pick", "min_per_landmark", "rare", "unknown_landmarks", "seed"),
)


@click.command(name="split")
@click.argument("manifest", type=PATH)
@click.option("--output", type=PATH, default=Path("split"), show_default=True, help="Folder for the manifests.")
@click.option("--val", type=Share(0, 1), default=None, help=f"Fraction of each landmark for val. [default: {SHARE}]")
@click.option("--test", type=Share(0, 1), default=None, help=f"Fraction of each landmark for test. [default: {SHARE}]")
@click.option("--val-per-landmark", type=click.IntRange(0), default=None, help="Pictures of each landmark for val.")
@click.option("--test-per-landmark", type=click.IntRange(0), default=None, help="Pictures of each landmark for test.")
@click.option(
    "--at-least",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Pictures in val and in test of each landmark with enough for that and for train; smaller ones stay in train.",
)
@click.option(
    "--val-non-landmarks", type=Share(0, 1), default=None, help="Fraction of the non-landmarks. [default: as --val]"
)
@click.option(
    "--test-non-landmarks", type=Share(0, 1), default=None, help="Fraction of the non-landmarks. [default: as --test]"
)
@click.option("--landmarks", type=click.IntRange(1), default=None, help="Use this many landmarks, drop the others.")
@click.option(
    "--pick",
    default="biggest",
    show_default=True,
    metavar="biggest|random|count:LOW-HIGH",
    help="Which landmarks: those with most pictures, any, or any with LOW to HIGH pictures.",
)
@click.option(
    "--min-per-landmark", type=click.IntRange(0), default=0, show_default=True, help="Fewer pictures make a rare one."
)
@click.option(
    "--rare",
    type=click.Choice(["non-landmark", "drop"]),
    default="non-landmark",
    show_default=True,
    help="What the pictures of rare landmarks become.",
)
@click.option(
    "--unknown-landmarks",
    type=click.FloatRange(0),
    default=0,
    show_default=True,
    metavar="N|FRACTION",
    help="Landmarks that are held out whole, as non-landmarks in val and test; below 1 a fraction of them.",
)
@images_option
@facts_option
@click.option(
    "--near-bits",
    type=click.IntRange(0, 63),
    default=NEAR_BITS,
    show_default=True,
    help="Bits of 64 in which perceptual hashes of near-duplicates may differ.",
)
@click.option("--store", type=PATH, default=None, help="Tell near-duplicates by these descriptors, not by the looks.")
@click.option(
    "--near-similarity",
    type=Share(-1, 1),
    default=NEAR_SIMILARITY,
    show_default=True,
    help="With --store: descriptors from this similarity on are near-duplicates.",
)
@click.option("--ignore-duplicates", is_flag=True, help="Do not look for near-duplicates.")
@click.option("--class-folders", type=PATH, default=None, help="Also make links DIR/<part>/<landmark>/<picture>.")
@click.option(
    "--links",
    type=click.Choice(["symbolic", "hard", "copy"]),
    default="symbolic",
    show_default=True,
    help="What --class-folders makes.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is left to chance.")
@click.option("--dry-run", is_flag=True, help="Say what the split would be and write none.")
@json_option
@workers_option
@config_option
@overwrite_option
@writes(lambda given: [] if given["dry_run"] else {given["output"], given["class_folders"]})
def command(manifest: Path, output: Path, as_json: bool, **values: Any) -> None:
    """Split MANIFEST (CSV, Parquet or folder of folders) into train, val, test and background (non-landmarks).

    Writes manifests into a folder and never moves a picture. Near-duplicates are looked for and kept in one part; a
    landmark that is in val or test has a picture in train, but those held out as unknown.

    \b
    Example:
      lmr split train.csv --images images --output parts
      lmr split train.csv --val-per-landmark 2 --test 0 --landmarks 100 --pick count:500-550 --ignore-duplicates
    """
    from cli.splitting import split_manifest

    rule = _rule(values)
    content = split_manifest(manifest, output, rule, {**values, "options": _options_that_matter(values)})
    say_result(content, _told(content), as_json=as_json)


def _told(content: dict[str, Any]) -> str:
    from cli.split_summary import to_text

    state = {
        "written": "written",
        "unchanged": "finished already, nothing to do",
        "dry run": "dry run, nothing written",
    }
    lines = [to_text(content), f"{shown(content['output'])}: {state[content['state']]}"]
    if "class_folders" in content:
        tree = content["class_folders"]
        lines.append(f"{shown(tree['path'])}: {counted(tree['n_links'], 'link')}, {tree['n_new']:,} of them new")
    return "\n".join(lines)


def _rule(values: dict[str, Any]) -> "SplitRule":
    """The rule that the options ask for. UsageError where they contradict each other."""
    from retrieval.split.roles import Choice
    from retrieval.split.split import SplitRule
    from retrieval.split.stratify import Share as Fraction

    for name in ("val", "test"):
        if values[name] is not None and values[f"{name}_per_landmark"] is not None:
            raise click.UsageError(f"give --{name} or --{name}-per-landmark, one of them")
    if sum(values[f"{name}_non_landmarks"] or 0 for name in ("val", "test")) > 1:
        raise click.UsageError("--val-non-landmarks and --test-non-landmarks together are more than all")
    val, test = (_quota(values, name) for name in ("val", "test"))
    shares = [quota.fraction for quota in (val, test) if isinstance(quota, Fraction)]
    if sum(shares) >= 1:
        raise click.UsageError(f"fractions of {' and '.join(f'{share:g}' for share in shares)} leave nothing to train")
    unknown = values["unknown_landmarks"]
    if unknown > 1 and unknown != int(unknown):
        raise click.UsageError(f"--unknown-landmarks {unknown:g} is a whole number, or a fraction below 1")
    if unknown and not (_asks(val) or _asks(test)):
        raise click.UsageError("--unknown-landmarks needs a val or a test part to go to")
    pick, low, high = _pick(values["pick"])
    choice = Choice(
        n_landmarks=values["landmarks"],
        pick=pick,
        low=low,
        high=high,
        min_pictures=values["min_per_landmark"],
        rare=values["rare"],
        unknown=unknown,
    )
    others = (values["val_non_landmarks"], values["test_non_landmarks"])
    return SplitRule(val, test, values["at_least"], *others, choice, values["seed"])


def _quota(values: dict[str, Any], name: str) -> "Quota":
    from retrieval.split.stratify import Count
    from retrieval.split.stratify import Share as Fraction

    n = values[f"{name}_per_landmark"]
    if n is not None:
        return Count(n)
    return Fraction(SHARE if values[name] is None else values[name])


def _asks(quota: "Quota") -> bool:
    from retrieval.split.stratify import Count

    return bool(quota.n if isinstance(quota, Count) else quota.fraction)


def _pick(text: str) -> "tuple[PickBy, int, int | None]":
    if text == "biggest":
        return "biggest", 1, None
    if text == "random":
        return "random", 1, None
    found = re.fullmatch(r"count:(\d+)-(\d+)", text)
    if not found or int(found[1]) > int(found[2]):
        raise click.UsageError(f"--pick {text}: is none of biggest, random and count:LOW-HIGH, as count:500-550")
    return "random", int(found[1]), int(found[2])


def _options_that_matter(values: dict[str, Any]) -> dict[str, Any]:
    """The options by which one split differs from another, by their names."""
    given = {name: values[name] for name in _MATTERING}
    for name in ("val", "test"):
        if given[f"{name}_per_landmark"] is None and given[name] is None:
            given[name] = SHARE
    return {name.replace("_", "-"): value for name, value in given.items()}
