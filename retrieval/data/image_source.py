"""Images of a manifest as a source: an images folder, tars in it, the manifest's own paths."""

import errno
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from retrieval.data.manifest import Manifest
from retrieval.data.pipes import folder_beside
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.urls import is_folder_url, joined, remote_url, status_of
from retrieval.images import noise
from retrieval.images.candidates import (
    OTHER_LETTERS,
    Otherwise,
    find_listed,
    forms,
    has_image_suffix,
    is_windows_root,
    other_letters,
    others_of_path,
    places_in_sets,
    places_of_id,
    places_of_path,
    sets_in,
    the_only,
)
from retrieval.images.given import image_state, list_images, read_image
from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.images.parquet_parts import is_folder
from retrieval.images.remote import RemoteImages, tars_at
from retrieval.images.signatures import IMAGE_SUFFIXES
from retrieval.images.tars.archive import Found, TarSet, find_member, is_tar, is_tar_name, list_tars, open_tar
from retrieval.progress import SILENT, Progress

_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class ImageSource:
    """The encoded images of a manifest. Can be pickled for worker processes.

    images: folder of `<image_id>.jpg` (or another suffix of images), flat or as Google's `a/b/c/abc….jpg`, and of
    tars that hold images by such names; one tar; or a URL of either that fsspec opens; None = the manifest's own
    folder and `images` in it. Where the manifest gives a path, that is the image's only place, which may be a URL of
    its own; when relative it counts from the same folders and from within the tars. An image that lies beside the tars
    goes before one in them. Sets in these folders, as Kaggle's `train/` and `test/`, are looked through too. Raises
    LmrError when a tar cannot be read.
    """

    def __init__(self, manifest: Manifest, images: Path | None, limits: Limits = DEFAULT_LIMITS) -> None:
        self._source = manifest.source
        whole = manifest.whole or manifest
        self._all = whole.image_id, whole.path  # by which it is told which name is whose, also of a share
        self._image_id, self._path, self._content = manifest.image_id, manifest.path, manifest.content
        beside = folder_beside(manifest.source)
        self._given, self._beside = None if images is None else str(images), str(beside)
        url = None if images is None else remote_url(str(images))
        self._remote = None if url is None else RemoteImages(url)
        self._roots = [str(images)] if images is not None else [str(beside), str(beside / "images")]
        if self._remote is not None:
            self._roots = [self._remote.root]
        table = manifest.source
        self._sets = [] if url or manifest.content else [one for root in self._roots for one in sets_in(root, table)]
        self._tars = [] if manifest.content is not None else _open_tars([*self._roots, *self._sets], self._remote)
        self._only_tars = bool(self._tars) and all(map(_holds_only_tars, self._roots))
        self._limits = limits
        self._bare_ids: frozenset[str] | None = None  # ids without an image's suffix, once they are asked for
        self._named: frozenset[str] | None = None  # all ids and paths, once they are asked for

    def __len__(self) -> int:
        return len(self._image_id)

    def read(self, row: int) -> bytes:
        """The encoded image. Raises UnreadableError with the reason when there is none or it is too large."""
        noise.reading(self._image_id[row])
        if self._content is not None:
            return self._content.read(row)
        place = self._find(row)
        if isinstance(place, Found):
            return place.read(self._limits)
        if place and self._remote is not None and self._remote.status(place):
            return self._remote.read(place, self._limits)
        if place:
            return read_image(place, self._limits)
        candidates = self._candidates(row)
        others, n_tars = len(candidates) - 1, sum(map(len, self._tars))
        tried = f"{candidates[0]} and {others} other {'places' if others > 1 else 'place'}" if others else candidates[0]
        in_tars = f", and looked into {n_tars} {'tars' if n_tars > 1 else 'tar'}" if n_tars else ""
        raise UnreadableError(f"not found: tried {tried}{in_tars}")

    def where(self, row: int) -> str:
        """Path of the image's file, or `<tar>/<path in it>`; '' when there is none."""
        if self._content is not None:
            return ""
        try:
            place = self._find(row)
        except UnreadableError:
            return ""
        return place.path if isinstance(place, Found) else place

    def known_as(self, row: int) -> tuple[str, str]:
        """Path or name of an image, and a text that is another one once its file has changed; '' for none."""
        if self._content is not None:
            return self._content.known_as(row)
        place = self.where(row)
        if remote_url(place) is None:
            return place, image_state(place)
        size, changed_ns = self.status(row) or (0, 0)
        return place, f"{size} {changed_ns}" if changed_ns else ""

    def status(self, row: int) -> tuple[int, int] | None:
        """Size in bytes and time of change (ns) of the image's file, or in a tar its own size and the tar's time.

        None where there is no image. Of one in a Parquet file 0 and that file's time.
        """
        try:
            if self._content is not None:
                return 0, self._content.changed_ns(row)
            place = self._find(row)
            if isinstance(place, Found):
                return place.member.size, place.entry.mtime_ns
            if self._remote is not None and (known := self._remote.status(place)):
                return known
            found = status_of(place)
        except (OSError, ValueError, UnreadableError):
            return None
        return found.st_size, found.st_mtime_ns

    def _find(self, row: int) -> str | Found:
        """A file, or an image in a tar; '' = neither. Raises UnreadableError when it cannot be told which."""
        path: str = "" if self._path is None else self._path[row]
        if self._remote is not None and (place := self._remote.find(path, self._candidates(row))):
            return place
        if "://" in path and remote_url(path) == path:
            return path
        if self._remote is None and (path or not self._only_tars):
            for candidate in self._candidates(row):  # in their order: one of two is the same one whatever came before
                if _is_there(candidate):
                    return candidate
            if not path and (listed := find_listed(_inside(self._image_id[row]), self._roots)):
                return listed
        if path:
            roots = self._roots if self._remote is None else [self._remote.url]
            by_name = (find_member(os.path.join(root, name)) for name in forms(path) for root in roots)
            found = itertools.chain(by_name, (tars.find_path(name) for name in forms(path) for tars in self._tars))
        else:
            names = forms(_inside(self._image_id[row]))
            found = itertools.chain(tars.find_id(name) for name in names for tars in self._tars)
        if one := next((one for one in found if one is not None), None):
            return one
        return self._find_otherwise(row, path) if self._remote is None else ""

    def _find_otherwise(self, row: int, path: str) -> str:
        """The file by another reading of the path or id, which is said; '' = none."""
        name = path or self._image_id[row]
        if self._named is None:
            ids, paths = self._all
            self._named = frozenset((*ids.tolist(), *(() if paths is None else paths.tolist())))
        names = [other for other in other_letters(name) if other not in self._named]
        if path:
            others = others_of_path(path, self._roots, self._given, self._beside, names)
        else:
            others = iter([Otherwise(OTHER_LETTERS, [f"{root}/{other}" for other in names for root in self._roots])])
        for other in others:
            if place := the_only(other.places):
                noise.say(f"{self._source}: {other.how}")
                return place
        return ""

    def _candidates(self, row: int) -> list[str]:
        """Every place where the image may be as a file of its own."""
        path: str = "" if self._path is None else self._path[row]
        if path:
            sets = [] if os.path.isabs(path) else self._sets
            return [path] if is_windows_root(path) else places_of_path(path, [*self._roots, *sets])
        image_id = _inside(self._image_id[row])
        places = places_of_id(image_id, self._roots, names_itself=self._names_itself(image_id))
        return [*places_in_sets(image_id, self._sets), *places]

    def _names_itself(self, image_id: str) -> bool:
        """True where a file may be named like the id, without a further suffix: not x.jpg where x is an id too."""
        if not has_image_suffix(image_id):
            return False
        if self._bare_ids is None:
            ids = self._all[0].tolist()
            self._bare_ids = frozenset(name for name in ids if not name.lower().endswith(tuple(IMAGE_SUFFIXES)))
        return os.path.splitext(image_id)[0] not in self._bare_ids


def query_images(paths: Sequence[str], progress: Progress = SILENT) -> list[str]:
    """Places of the images of `list_images`. Tars are indexed; `progress` is warned of what is wrong with them."""
    for place in (Path(path) for path in paths if remote_url(path) is None):
        tars = index_tars(place, progress)
        for line in tars.warnings() if tars and not place.is_dir() else ():
            progress.warn(line)
    return [image.where for image in list_images(paths, progress)]


def images_folder(images: Path | None, manifest_path: Path, progress: Progress = SILENT) -> Path:
    """The folder or tar of images: the one asked for, the manifest itself if it is one, or images/ beside it.

    Indexes the tars in it and in its sets, which takes a while the first time, and warns of what is wrong with them.
    """
    if images is None and (is_folder(manifest_path) or is_tar(manifest_path)):
        return manifest_path
    if url := remote_url(str(images or manifest_path)):
        folder = Path(url if images or tars_at(url) else _beside_url(url))
    else:
        above = folder_beside(manifest_path)
        beside = above / "images"
        folder = images_place(images) if images is not None else beside if beside.is_dir() else above
    sets = [] if remote_url(str(folder)) else map(Path, sets_in(str(folder), str(manifest_path)))
    for place in (folder, *sets):
        tars = index_tars(place, progress)
        for line in tars.warnings() if tars else ():
            progress.warn(line)
    return folder


def _beside_url(manifest: str) -> str:
    """The folder `images` beside a manifest at a URL, or else the one that it lies in."""
    above = manifest.rstrip("/").rpartition("/")[0]
    try:
        return joined(above, "images") if is_folder_url(joined(above, "images")) else above
    except FileNotFoundError:
        return above


def images_place(images: Path) -> Path:
    """The folder or tar of images that was asked for. LmrError when it is neither."""
    if not images.exists():
        if str(images).lower().startswith(("http:", "https:")):
            url = str(images).replace(":/", "://", 1)  # of which a path makes one slash
            raise LmrError(f"`images` {url}: the web is not read in place; give the folder that lmr download makes")
        raise LmrError(f"`images` {images}: there is no such folder")
    if not images.is_dir() and not is_tar(images):
        raise LmrError(f"`images` {images}: neither a folder nor a tar; give what the pictures are in")
    return images


def index_tars(place: Path, progress: Progress = SILENT) -> TarSet | None:
    """Indexes a tar, or the tars directly in a folder, where that is not done yet; None for anything else.

    Raises LmrError for a tar given by name that cannot be used.
    """
    if url := remote_url(str(place)):
        names = tars_at(url)
        return TarSet(list(map(Path, names)), progress) if names else None
    if place.is_dir():
        paths = list_tars(place)
        return TarSet(paths, progress) if paths else None
    return open_tar(place, progress) if is_tar(place) else None


def _open_tars(roots: Sequence[str], remote: RemoteImages | None) -> list[TarSet]:
    """The tars that are roots or lie directly in them. remote: what is at the URL that is the root, None = folders."""
    if remote is not None:
        return [TarSet(list(map(Path, remote.tars)))] if remote.tars else []
    sets = [open_tar(root) for root in roots if os.path.isfile(root)]
    return sets + [TarSet(tars) for root in roots if (tars := list_tars(root))]


def _holds_only_tars(root: str) -> bool:
    """True where there is nothing in a folder where images by id could be beside tars."""
    try:
        with os.scandir(root) as entries:
            return all(is_tar_name(e.name) or not (e.is_dir() or has_image_suffix(e.name)) for e in entries)
    except OSError:
        return True


def _is_there(path: str) -> bool:
    """True where something is at a path; also where the system does not let that be seen, as reading will tell."""
    try:
        os.stat(path)
    except ValueError:  # a NUL in it
        return False
    except OSError as error:
        return error.errno not in _NO_PLACE
    return True


def _inside(image_id: str) -> str:
    """The id. Raises UnreadableError for one that leads out of the images folder."""
    if "\0" in image_id or image_id.startswith("/") or not {"", ".", ".."}.isdisjoint(image_id.split("/")):
        raise UnreadableError(f"image_id {image_id!r} leads out of the images folder")
    return image_id
