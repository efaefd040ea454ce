"""Folders of a comparison, named by what goes into them, so that what is finished is found again."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.compare.data import ComparisonData, file_digest
from retrieval.errors import LmrError
from retrieval.train.recipes.recipe import Recipe
from retrieval.train.recipes.values import texts

if TYPE_CHECKING:
    from index.compare.job import CompareJob
    from index.compare.measure import Asked
    from index.queries import Queries
    from retrieval.data.manifest import Manifest

FINISHED, FACTS = "finished.json", "facts.json"  # what is written last, for a model and for a system
FORMAT_VERSION = 2  # of what is kept; raise it when answers to the same recipe change
MANIFEST_KEYS = ("negatives", "val", "data")  # options whose value is a manifest of the data folder
FILE_KEYS = ("weights", "teacher", "names")  # options whose value is another file, or several


@dataclass(frozen=True, slots=True)
class Workshop:
    """Place where the systems of a comparison are made. queries: of each part, manifest and labels.

    fresh: folders that were made anew in this run, where `overwrite` asks for that.
    """

    data: ComparisonData
    queries: "Mapping[str, tuple[Manifest, Queries, Asked]]"
    job: "CompareJob"
    fresh: set[Path] = field(default_factory=set)

    @property
    def output(self) -> Path:
        """Folder that all of it lies in."""
        return self.job.output

    def clear(self, folder: Path) -> None:
        """Removes a folder that is to be made anew and was not yet."""
        if self.job.overwrite and folder not in self.fresh:
            for done in (FINISHED, FACTS):  # first, so that what a kill leaves behind does not look whole
                (folder / done).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            self.fresh.add(folder)


def model_folder(shop: Workshop, label: str, recipe: Recipe) -> Path | None:
    """Folder in which a member's network is trained; None where nothing is."""
    if "train" not in recipe.tables:
        return None
    named = {shop.data.train.name: shop.data.digest(shop.data.train)}
    for table in (recipe.tables["train"], *recipe.stages):
        there = [str(table[key]) for key in MANIFEST_KEYS if _is_there(shop, table, key)]
        named |= {name: shop.data.digest(shop.data.folder / name) for name in there}
    identity = {
        "train": recipe.tables["train"],
        "stages": recipe.stages,
        "manifests": named,
        "files": [_files_digests(table) for table in (recipe.tables["train"], *recipe.stages)],
    }
    # By the recipe alone, so that systems that differ in their answers share a network.
    return shop.output / "models" / _folder_name(label.partition(":")[0], identity)


def described_folder(shop: Workshop, label: str, parts: Sequence[Recipe], models: Sequence[Path | None]) -> Path:
    """Folder of the descriptors of one network or of several joined; systems that search in them share it."""
    tables = [recipe.tables.get("embed", {}) for recipe in parts]
    identity = {
        "models": [model.name if model else None for model in models],
        "embed": tables,
        "files": [_files_digests(table) for table in tables],
    }
    return shop.output / "stores" / _folder_name(label.partition(":")[0], identity)


def system_folder(shop: Workshop, label: str, parts: Sequence[Recipe], models: Sequence[Path | None]) -> Path:
    """Folder in which a system of these members answers."""
    return shop.output / "systems" / _folder_name(label, _system_identity(shop, parts, models))


def store_path(shop: Workshop, described: Path, manifest: Path) -> Path:
    """Store of the descriptors of a manifest; those of another one, or of other images, lie elsewhere."""
    return described / f"{manifest.stem}-{shop.data.digest(manifest)[:12]}.h5"


def backgrounds(shop: Workshop, recipe: Recipe) -> list[str]:
    """The manifests of an index's background that the data has."""
    named = recipe.tables.get("build-index", {}).get("background", [])
    return [name for name in texts(named) if shop.data.find(name) is not None]


def in_data(shop: Workshop, table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the paths of the manifests that it names."""
    found = {key: value for key, value in table.items() if key not in MANIFEST_KEYS}
    there = [key for key in MANIFEST_KEYS if _is_there(shop, table, key)]
    return found | {key: str((shop.data.folder / table[key]).resolve()) for key in there}


def _system_identity(shop: Workshop, parts: Sequence[Recipe], models: Sequence[Path | None]) -> dict[str, Any]:
    names = sorted({shop.data.train.name, *(name for member in parts for name in backgrounds(shop, member))})
    return {
        "members": [
            {"model": model.name if model else None, "tables": _answering_tables(member)}
            for member, model in zip(parts, models, strict=True)
        ],
        "manifests": {name: shop.data.digest(shop.data.folder / name) for name in names},
        "parts": {"val": shop.data.digest(shop.data.parts["val"])},
    }


def _answering_tables(member: Recipe) -> dict[str, Any]:
    named = [name for name in ("embed", "build-index", "calibrate", "answer") if member.tables.get(name)]
    files = {name: _files_digests(member.tables[name]) for name in named}
    return {name: dict(member.tables[name]) for name in named} | {"files": files}


def _files_digests(table: Mapping[str, Any]) -> list[str]:
    """sha256 of the files that a table names."""
    return [file_digest(Path(path)) for key in FILE_KEYS if table.get(key) for path in texts(table[key])]


def _folder_name(label: str, identity: Mapping[str, Any]) -> str:
    """A name for people with a digest that no other identity has."""
    text = json.dumps([FORMAT_VERSION, identity], sort_keys=True, default=str)
    name, _, values = label.partition(":")
    words = re.sub(r"[^\w=.-]+", "-", f"{Path(name).stem}-{values}")[:60].strip("-")
    return f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _is_there(shop: Workshop, table: Mapping[str, Any], key: str) -> bool:
    """True where a manifest that a table names is in the data; negatives may be missing, others may not."""
    if key not in table:
        return False
    there = shop.data.find(table[key]) is not None
    if not there and key != "negatives":
        raise LmrError(f"{key} = {table[key]}: {shop.data.folder} has no such file")
    return there
