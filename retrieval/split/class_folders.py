"""A split as folders of links, DIR/<part>/<landmark>/<image>, for tools that want one."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.atomic import private_path, written_for
from retrieval.files.folder_names import UNKNOWN, folder_name
from retrieval.files.folders import flush_tree
from retrieval.files.json_file import read_json, require_signed, require_version, signed, write_json
from retrieval.images.given import read_image
from retrieval.images.tars.archive import find_member
from retrieval.progress import Progress
from retrieval.words import agreeing, counted

RECORD = "split.json"
FORMAT_VERSION = 1
PARTS = ("train", "val", "test", "background")

_LINKS_A_STEP = 256

How = Literal["symbolic", "hard", "copy"]


@dataclass(frozen=True, slots=True)
class Tree:
    """links: from the path within the folder to the image. identity: of the split, as it is kept in the folder."""

    folder: Path
    links: Mapping[str, str]
    identity: Mapping[str, str]


def class_folder_links(parts: Mapping[str, Manifest]) -> dict[str, str]:
    """Maps paths within the tree to images, for all images that have a path.

    Non-landmarks have a folder of their own in each part; an image of several landmarks is under the first. Of
    images of one name in a folder all but the first get a number.
    """
    links: dict[str, str] = {}
    n_of_name: dict[str, int] = {}
    for part, manifest in parts.items():
        folders = [f"{part}/{folder_name(label)}" for label in manifest.landmarks] + [f"{part}/{UNKNOWN}"]
        for code, path in zip(manifest.landmark.tolist(), () if manifest.path is None else manifest.path, strict=False):
            if path:
                wanted = link = f"{folders[code]}/{os.path.basename(path)}"
                stem, suffix = os.path.splitext(wanted)
                while link in links:
                    n_of_name[wanted] = n_of_name.get(wanted, 1) + 1
                    link = f"{stem}-{n_of_name[wanted]}{suffix}"
                links[link] = path
    return links


def require_own_folder(tree: Tree, *, overwrite: bool) -> None:
    """Raises LmrError where the folder holds anything but these links, or those of the split that it is a tree of."""
    folder = tree.folder
    if folder.exists() and not folder.is_dir():
        raise LmrError(f"`class_folders` {folder}: is a file; give another folder")
    there = sorted(name for name in os.listdir(folder) if written_for(name) != RECORD) if folder.exists() else []
    if not there:
        return
    record = _read_record(folder)
    strange = there if record is None else [name for name in there if name not in (*PARTS, RECORD)]
    if strange:
        raise LmrError(f"`class_folders` {folder}: holds {strange[0]}, which is of no split; give another folder")
    if overwrite:
        return
    if record != tree.identity:
        raise LmrError(f"`class_folders` {folder}: holds another split; give another folder or `overwrite`")
    allowed = {RECORD, *tree.links}
    for path in _files_below(folder):
        if path not in allowed and _written_for(path) not in allowed:
            raise LmrError(f"`class_folders` {folder}: holds {path}, which is not of this split; take it out")


def is_tree(folder: Path) -> bool:
    """Tells a folder of links from one of manifests; both have a split.json."""
    return any((folder / part).is_dir() for part in PARTS)


def require_record(folder: Path) -> None:
    """Raises LmrError where the record of a tree of links is damaged, or says that the tree is unfinished."""
    path, remedy = folder / RECORD, "run the same lmr split again into another folder"
    content = require_signed(read_json(path, remedy), str(path), remedy, may_lack=True)
    require_version(content, FORMAT_VERSION, str(path), remedy)
    if content.get("state") != "finished":
        raise LmrError(f"{folder} is unfinished; run the same lmr split again")


def make_class_folders(tree: Tree, how: How, progress: Progress) -> int:
    """Makes what is missing of the tree and returns how many links that was. Raises LmrError when it cannot.

    An image in a tar, where no link can lead, is copied, which is said.
    """
    folder, n_new = tree.folder, 0
    n_in_tars = sum(not os.path.exists(image) for image in tree.links.values())
    if n_in_tars and how != "copy":
        progress.warn(
            f"{folder}: {counted(n_in_tars, 'picture')} {agreeing(n_in_tars, 'is in a tar', 'are in tars')}, "
            f"where no link can lead; "
            f"{agreeing(n_in_tars, 'it is', 'they are')} copied"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _read_record(folder) not in (None, tree.identity):
            for part in PARTS:
                if (folder / part).exists():
                    shutil.rmtree(folder / part)
        for path in [path for path in _files_below(folder) if _written_for(path)]:
            (folder / path).unlink()  # of a run that was killed
        _write_record(folder, tree.identity, "unfinished")
        progress.begin("linking", len(tree.links))
        for done, (link, image) in enumerate(tree.links.items(), start=1):
            n_new += _link(folder / link, image, how)
            if done % _LINKS_A_STEP == 0:
                progress.add(_LINKS_A_STEP)
        progress.add(len(tree.links) % _LINKS_A_STEP)
        progress.end()
        flush_tree(folder)
        _write_record(folder, tree.identity, "finished")
    except OSError as error:
        no_room = how == "copy" or error.errno == errno.ENOSPC
        advice = "give another folder or make room" if no_room else "give `links` copy or another folder"
        raise LmrError(f"`class_folders` {folder}: {error.strerror}; {advice}") from error
    return n_new


def _link(place: Path, image: str, how: How) -> bool:
    """Makes a link that is missing; returns whether it was."""
    if not os.path.exists(image):
        how = "copy"
    if _is_there(place, image, how):
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    if how == "symbolic":
        place.symlink_to(image)
        return True
    private = private_path(place)
    if how == "hard":
        os.link(os.path.realpath(image), private)
    elif os.path.exists(image):
        shutil.copyfile(image, private)
    else:
        private.write_bytes(_from_tar(image))
    os.replace(private, place)
    return True


def _is_there(place: Path, image: str, how: How) -> bool:
    if how == "symbolic":
        return place.is_symlink() and os.readlink(place) == image
    if how == "hard":
        return place.exists() and os.path.samefile(place, image)
    return place.exists() and place.stat().st_size == _n_bytes(image)


def _n_bytes(image: str) -> int:
    """Size of a file, or of an image in a tar; -1 when it is not there."""
    if os.path.exists(image):
        return os.stat(image).st_size
    try:
        found = find_member(image)
    except UnreadableError:
        return -1
    return found.member.size if found else -1


def _from_tar(image: str) -> bytes:
    try:
        return read_image(image)
    except UnreadableError as error:
        raise LmrError(f"{image}: {error}; put a whole picture of that name beside the tar") from error


def _write_record(folder: Path, identity: Mapping[str, str], state: str) -> None:
    content = {"format_version": FORMAT_VERSION, **identity, "state": state}
    write_json(folder / RECORD, signed(content))


def _read_record(folder: Path) -> dict[str, str] | None:
    """The identity of the split that the tree is of; None where it is of none."""
    try:
        content = require_signed(read_json(folder / RECORD, ""), "", "", may_lack=True)
    except LmrError:
        return None
    is_ours = content.pop("format_version", None) == FORMAT_VERSION and content.pop("state", None) is not None
    return content if is_ours else None


def _written_for(path: str) -> str | None:
    """The path within the tree for which a private file was written; None where it is none."""
    place, name = os.path.split(path)
    whole = written_for(name)
    return None if whole is None else f"{place}/{whole}" if place else whole


def _files_below(folder: Path) -> Iterator[str]:
    """Paths within the folder of everything that is no folder; links are not followed."""
    for place, folders, files in os.walk(folder):
        linked = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in [*files, *linked]:
            yield os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")
