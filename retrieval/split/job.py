"""Splitting a manifest: images found, near-duplicates grouped, the manifests of the parts and links written."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retrieval.data.request import NEAR_BITS, NEAR_SIMILARITY, MeasuringJob
from retrieval.errors import LmrError, WordsError
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob, option, told
from retrieval.split.quotas import SHARE, Count, Quota, Share
from retrieval.version import program_version

if TYPE_CHECKING:
    from retrieval.data.locate import LocatedImages
    from retrieval.data.manifest import Manifest
    from retrieval.split.class_folders import Tree
    from retrieval.split.groups import Grouping
    from retrieval.split.report import SplitReport, TreeCounts
    from retrieval.split.roles import PickBy
    from retrieval.split.split import SplitRule


@dataclass(frozen=True)
class SplitJob(MeasuringJob, WritingJob):
    """Split a manifest into train, val, test and background."""

    manifest: Path = field(metadata=told(is_argument=True))
    _: KW_ONLY
    output: Path = option(Path("split"), help="Folder for the manifests.")
    val: float | None = option(None, low=0, high=1, default_text=f"{SHARE}", help="Fraction of each landmark for val.")
    test: float | None = option(
        None, low=0, high=1, default_text=f"{SHARE}", help="Fraction of each landmark for test."
    )
    val_per_landmark: int | None = option(None, low=0, help="Images of each landmark for val.")
    test_per_landmark: int | None = option(None, low=0, help="Images of each landmark for test.")
    at_least: int = option(
        0,
        low=0,
        help="Images in val and in test of each landmark with enough for that and for train; smaller ones stay in "
        "train.",
    )
    val_non_landmarks: float | None = option(
        None, low=0, high=1, default_text="as `val`", help="Fraction of the non-landmarks for val."
    )
    test_non_landmarks: float | None = option(
        None, low=0, high=1, default_text="as `test`", help="Fraction of the non-landmarks for test."
    )
    n_landmarks: int | None = option(None, low=1, help="Use this many landmarks, drop the others.")
    pick: str = option(
        "biggest",
        metavar="biggest|random|count:LOW-HIGH",
        help="Landmarks to use: those with most images, any, or any with LOW to HIGH images.",
    )
    min_per_landmark: int = option(0, low=0, help="Images below which a landmark is rare.")
    rare: Literal["non-landmark", "drop"] = option("non-landmark", help="What the images of rare landmarks become.")
    unknown_landmarks: float = option(
        0,
        low=0,
        metavar="N|FRACTION",
        help="Landmarks that are held out whole, as non-landmarks in val and test; below 1 a fraction of them.",
    )
    near_bits: int = option(
        NEAR_BITS, low=0, high=63, help="Bits of 64 in which perceptual hashes of near-duplicates may differ."
    )
    store: Path | None = option(None, help="Find near-duplicates by these descriptors, not by the looks.")
    near_similarity: float = option(
        NEAR_SIMILARITY,
        low=-1,
        high=1,
        help="With `store`: descriptors from this similarity on are near-duplicates.",
    )
    ignore_duplicates: bool = option(False, help="Do not look for near-duplicates.")
    class_folders: Path | None = option(None, help="Also make links DIR/<part>/<landmark>/<image>.")
    links: Literal["symbolic", "hard", "copy"] = option("symbolic", help="What `class_folders` makes.")
    seed: int = option(0, help="Random seed.")
    dry_run: bool = option(False, help="Say what the split would be and write none.")

    def rule(self) -> "SplitRule":
        """Rule of the split. Raises WordsError where the job's words contradict each other."""
        from retrieval.split.roles import Choice
        from retrieval.split.split import SplitRule

        for name in ("val", "test"):
            if getattr(self, name) is not None and getattr(self, f"{name}_per_landmark") is not None:
                raise WordsError(f"give `{name}` or `{name}_per_landmark`, one of them")
        if (self.val_non_landmarks or 0) + (self.test_non_landmarks or 0) > 1:
            raise WordsError("`val_non_landmarks` and `test_non_landmarks` together are more than all")
        val, test = _quota(self.val, self.val_per_landmark), _quota(self.test, self.test_per_landmark)
        shares = [quota.fraction for quota in (val, test) if isinstance(quota, Share)]
        if sum(shares) >= 1:
            raise WordsError(f"fractions of {' and '.join(f'{share:g}' for share in shares)} leave nothing to train")
        unknown = self.unknown_landmarks
        if unknown > 1 and unknown != int(unknown):
            raise WordsError(f"`unknown_landmarks` {unknown:g} is a whole number, or a fraction below 1")
        if unknown and not (_asks(val) or _asks(test)):
            raise WordsError("`unknown_landmarks` needs a val or a test part to go to")
        pick, low, high = _parse_pick(self.pick)
        choice = Choice(
            n_landmarks=self.n_landmarks,
            pick=pick,
            low=low,
            high=high,
            min_pictures=self.min_per_landmark,
            rare=self.rare,
            unknown=unknown,
        )
        return SplitRule(
            val, test, self.at_least, self.val_non_landmarks, self.test_non_landmarks, choice=choice, seed=self.seed
        )

    def options(self) -> dict[str, Any]:
        """Options by which one split differs from another, as split.json has them."""
        shares = {
            name: SHARE if share is None and n is None else _real(share)
            for name, share, n in (
                ("val", self.val, self.val_per_landmark),
                ("test", self.test, self.test_per_landmark),
            )
        }
        return {
            **shares,
            "val-per-landmark": self.val_per_landmark,
            "test-per-landmark": self.test_per_landmark,
            "at-least": self.at_least,
            "val-non-landmarks": _real(self.val_non_landmarks),
            "test-non-landmarks": _real(self.test_non_landmarks),
            "landmarks": self.n_landmarks,
            "pick": self.pick,
            "min-per-landmark": self.min_per_landmark,
            "rare": self.rare,
            "unknown-landmarks": _real(self.unknown_landmarks),
            "seed": self.seed,
        }


def split(job: SplitJob) -> "SplitReport":
    """Splits a manifest and writes the parts, unless it is a dry run or done already.

    Raises WordsError for words that contradict each other, LmrError for what cannot be used.
    """
    rule = job.rule()
    outputs = set() if job.dry_run else {job.output, job.class_folders}
    with output_locks(*outputs, wait=job.wait, progress=job.progress):
        return _split(job, rule)


def _split(job: SplitJob, rule: "SplitRule") -> "SplitReport":
    from retrieval.data.locate import locate_images
    from retrieval.data.overview import load_manifest
    from retrieval.split.folder import is_finished, require_place, write_split
    from retrieval.split.parts import files_of, part_manifests
    from retrieval.split.report import NearDuplicates, SplitReport, count_split
    from retrieval.split.split import split as split_rows

    path, output, overwrite = job.manifest, job.output, job.overwrite or job.dry_run
    _refuse_input_in_the_way(job)
    given = load_manifest(path, job.progress, job.column_names)
    located = locate_images(given, job.images, job.progress)
    identity: dict[str, Any] = {
        "input_sha256": _input_digest(path, given),
        "images": None if located.folder is None else str(located.folder.resolve()),
        "options": job.options(),
        **({"columns": list(given.mapped)} if given.mapped else {}),
    }
    require_place(output, identity, overwrite=overwrite)  # before images are measured, which takes long
    grouping = _find_groups(given, located, job)
    identity["near_duplicates_sha256"] = hashlib.sha256(grouping.group.astype("<i8").tobytes()).hexdigest()
    require_place(output, identity, overwrite=overwrite)

    found = split_rows(located.manifest, grouping.group, rule)
    parts = part_manifests(found, with_kind=given.kind is not None)
    _warn_of_empty_parts(parts, rule, job)
    counts = count_split(found, parts, grouping.group, given)
    near_duplicates = NearDuplicates(
        by=grouping.by,
        near_bits=job.near_bits if grouping.by == "pictures" else None,
        near_similarity=job.near_similarity if grouping.by == "descriptors" else None,
        n_compared=grouping.n_compared,
    )
    report = SplitReport(output, "dry run", near_duplicates, counts)
    if job.dry_run:
        return report

    tree = None if job.class_folders is None else _plan_tree(job.class_folders, parts, identity, job)
    is_there = not overwrite and is_finished(output)
    if not is_there:
        content = {name: value for name, value in report.to_json().items() if name not in ("output", "state")}
        record = {"program_version": program_version(), "input": str(path), **identity, **content}
        write_split(output, files_of(parts), record)
    links = None if tree is None else _make_tree(tree, job)
    state: Literal["written", "unchanged"] = "unchanged" if is_there else "written"
    return SplitReport(output, state, near_duplicates, counts, links)


def _find_groups(given: "Manifest", located: "LocatedImages", job: SplitJob) -> "Grouping":
    """Near-duplicates by the descriptors of `store`, else by the images' looks, else none, which is then said.

    given: the manifest as it was read, by whose paths unreadable images are named.
    """
    from retrieval.data.image_source import ImageSource
    from retrieval.parallel import count_workers
    from retrieval.split.groups import groups_of_descriptors, groups_of_images, no_groups

    if job.ignore_duplicates:
        return no_groups(len(given))
    if job.store is not None:
        return groups_of_descriptors(given, job.store, job.near_similarity, job.progress)
    if located.folder is None:
        job.progress.warn("near-duplicates were not looked for: there are no pictures; give `images` or `store`")
        return no_groups(len(given))
    return groups_of_images(
        given,
        ImageSource(located.manifest, located.folder),
        job.facts,
        job.near_bits,
        n_workers=max(1, count_workers(job.workers, job.progress)),
        progress=job.progress,
    )


def _warn_of_empty_parts(parts: "Mapping[str, Manifest]", rule: "SplitRule", job: SplitJob) -> None:
    for name, quota in (("val", rule.val), ("test", rule.test)):
        if _asks(quota) and not (name in parts and (parts[name].landmark >= 0).any()):
            job.progress.warn(
                f"{name} has no landmark: none has pictures enough for it; ask for more, or see `at_least`"
            )


def _plan_tree(folder: Path, parts: "Mapping[str, Manifest]", identity: Mapping[str, Any], job: SplitJob) -> "Tree":
    """The tree of links, after it is sure that its folder may be used."""
    from retrieval.split.class_folders import Tree, class_folder_links, require_own_folder

    if identity["images"] is None:
        raise LmrError(f"`class_folders` {folder}: there are no pictures to link to; give `images`")
    inside = job.manifest.resolve() if job.manifest.is_dir() else None
    if folder.resolve() == job.output.resolve() or (inside is not None and folder.resolve().is_relative_to(inside)):
        raise LmrError(f"`class_folders` {folder}: is or lies in a folder that is in use; give another folder")
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    tree = Tree(folder, class_folder_links(parts), {"split": digest, "links": job.links})
    require_own_folder(tree, overwrite=job.overwrite)
    return tree


def _make_tree(tree: "Tree", job: SplitJob) -> "TreeCounts":
    from retrieval.split.class_folders import make_class_folders
    from retrieval.split.report import TreeCounts

    n_new = make_class_folders(tree, job.links, job.progress)
    return TreeCounts(str(tree.folder), len(tree.links), n_new)


def _input_digest(path: Path, manifest: "Manifest") -> str:
    """sha256 (hex) of a manifest's file; of what it holds where it is a folder, or was read from a pipe."""
    from retrieval.data.pipes import is_pipe
    from retrieval.files.digest import sha256_file

    if path.is_dir() or is_pipe(path):
        return manifest.digest
    return sha256_file(path)


def _refuse_input_in_the_way(job: SplitJob) -> None:
    """Raises LmrError where a file that is read would be replaced."""
    from retrieval.split.folder import NAMES

    output = job.output
    for path in (job.manifest, job.store):
        if path is not None and path.exists() and path.resolve().parent == output.resolve() and path.name in NAMES:
            raise LmrError(f"`output` {output}: {path} is read and would be replaced; give another folder")


def _quota(share: float | None, n: int | None) -> Quota:
    if n is not None:
        return Count(n)
    return Share(SHARE if share is None else share)


def _asks(quota: Quota) -> bool:
    return bool(quota.n if isinstance(quota, Count) else quota.fraction)


def _real(value: float | None) -> float | None:
    """1 as 1.0, as JSON and what is made of it tell them apart."""
    return None if value is None else float(value)


def _parse_pick(text: str) -> "tuple[PickBy, int, int | None]":
    if text == "biggest":
        return "biggest", 1, None
    if text == "random":
        return "random", 1, None
    found = re.fullmatch(r"count:(\d+)-(\d+)", text)
    if not found or int(found[1]) > int(found[2]):
        raise WordsError(f"`pick` {text}: is none of biggest, random and count:LOW-HIGH, as count:500-550")
    return "random", int(found[1]), int(found[2])
