"""A split as the command makes it: pictures found, near-duplicates grouped, manifests and links written."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cli.class_folders import Tree, class_folder_links, make_class_folders, require_own_folder
from cli.locating import Pictures, find_pictures
from cli.near_duplicates import Grouping, as_json, groups_of_descriptors, groups_of_pictures, no_groups
from cli.options import warn
from cli.progress import PictureBar
from cli.reading import load_manifest
from cli.split_files import files_of, group_digest, input_digest, part_manifests, refuse_input_in_the_way
from cli.split_summary import to_json
from cli.workers import default_workers
from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.images.source import PictureSource
from retrieval.split.folder import NAMES, is_finished, require_place, write_split
from retrieval.split.split import SplitRule, split


def split_manifest(path: Path, output: Path, rule: SplitRule, values: Mapping[str, Any]) -> dict[str, Any]:
    """Splits and writes, unless it is a dry run or done already; returns what it came to.

    values: those of find_groups; options, by which splits differ; images, class_folders, links, dry_run, overwrite.
    """
    overwrite = values["overwrite"] or values["dry_run"]
    refuse_input_in_the_way(output, NAMES, [path, values["store"]])
    given = load_manifest(path)
    pictures = find_pictures(given, values["images"])
    identity: dict[str, Any] = {
        "input_sha256": input_digest(path, given),
        "images": None if pictures.folder is None else str(pictures.folder.resolve()),
        "options": dict(values["options"]),
    }
    require_place(output, identity, overwrite=overwrite)  # before pictures are measured, which takes long
    grouping = find_groups(pictures, values)
    identity["near_duplicates_sha256"] = group_digest(grouping.group)
    require_place(output, identity, overwrite=overwrite)
    found = split(pictures.manifest, grouping.group, rule)
    parts = part_manifests(found, with_kind=given.kind is not None)
    _warn_of_empty_parts(parts, rule)
    how = as_json(grouping, values)
    content = {"near_duplicates": how, **to_json(found, parts, grouping.group, given)}
    record = {"program_version": version("lmr"), "input": str(path), **identity, **content}
    if values["dry_run"]:
        return {"output": str(output), "state": "dry run", **content}
    tree = None if values["class_folders"] is None else _plan_tree(path, output, parts, identity, values)
    is_there = not overwrite and is_finished(output)
    if not is_there:
        write_split(output, files_of(parts), record)
    if tree is not None:
        content["class_folders"] = _make_tree(tree, values)
    return {"output": str(output), "state": "unchanged" if is_there else "written", **content}


def find_groups(pictures: Pictures, values: Mapping[str, Any]) -> Grouping:
    """Near-duplicates by the descriptors of `store`, else by the pictures' looks, else none, which is then said.

    values: ignore_duplicates, store, near_similarity, facts, near_bits, workers.
    """
    manifest = pictures.manifest
    if values["ignore_duplicates"]:
        return no_groups(len(manifest))
    if values["store"] is not None:
        return groups_of_descriptors(manifest, values["store"], values["near_similarity"])
    if pictures.folder is None:
        warn("near-duplicates were not looked for: there are no pictures; give --images or --store")
        return no_groups(len(manifest))
    source = PictureSource(manifest, pictures.folder)
    n_workers = max(1, default_workers(values["workers"]))
    return groups_of_pictures(manifest, source, values["facts"], values["near_bits"], n_workers)


def _warn_of_empty_parts(parts: Mapping[str, Manifest], rule: SplitRule) -> None:
    for name, quota in (("val", rule.val), ("test", rule.test)):
        if quota.wanted(np.ones(1, dtype=np.int64)).any() and not (name in parts and (parts[name].landmark >= 0).any()):
            warn(f"{name} has no landmark: none has pictures enough for it; ask for more, or see --at-least")


def _plan_tree(
    path: Path, output: Path, parts: Mapping[str, Manifest], identity: Mapping[str, Any], values: Mapping[str, Any]
) -> Tree:
    """The tree of links, after it is sure that its folder may be used."""
    folder: Path = values["class_folders"]
    if identity["images"] is None:
        raise LmrError(f"--class-folders {folder}: there are no pictures to link to; give --images")
    inside = path.resolve() if path.is_dir() else None
    if folder.resolve() == output.resolve() or (inside is not None and folder.resolve().is_relative_to(inside)):
        raise LmrError(f"--class-folders {folder}: is or lies in a folder that is in use; give another folder")
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    tree = Tree(folder, class_folder_links(parts), {"split": digest, "links": values["links"]})
    require_own_folder(tree, overwrite=values["overwrite"])
    return tree


def _make_tree(tree: Tree, values: Mapping[str, Any]) -> dict[str, Any]:
    """Makes what is missing; where the tree is, how many links it has and how many are new."""
    with PictureBar("linking") as bar:
        bar.begin(len(tree.links))
        n_new = make_class_folders(tree, values["links"], bar.add)
    return {"path": str(tree.folder), "n_links": len(tree.links), "n_new": n_new}
