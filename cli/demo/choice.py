"""Which of a demo's networks answers somebody's own images: as it came, or trained on them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.files.atomic import replacing
from retrieval.files.folders import replacing_folder
from retrieval.progress import Progress
from retrieval.words import named

UNTRAINED, TRAINED = Path("untrained"), Path("trained")
FOLDERS = ("model", "landmarks")


def better_on_val(progress: Progress) -> Path:
    """The folder of the network whose index has the higher GAP on val, by nested cross-validation; tells both."""
    gaps = {folder: _val_gap(folder / "landmarks") for folder in (UNTRAINED, TRAINED)}
    chosen = max(gaps, key=gaps.__getitem__)  # the first of equal ones: what training does not better stays
    told = ", ".join(f"{folder} {gap:.3f}" for folder, gap in gaps.items())
    progress.tell(f"GAP on the val pictures: {told}; answers are of the {chosen} network")
    return chosen


def refuse_others(names: Sequence[str]) -> None:
    """Raises LmrError where the working folder has things of these names that no earlier run of a demo chose."""
    if TRAINED.exists():
        return
    if found := [name for name in names if Path(name).exists()]:
        raise LmrError(f"{named(found)}: there already, and not of this demo; give `overwrite` or another folder")


def take(folder: Path, stores: Sequence[str]) -> Path:
    """Copies model, index and stores from the folder of a network into the working folder; gives the index."""
    for name in FOLDERS:
        with replacing_folder(Path(name)) as target:
            shutil.copytree(folder / name, target, dirs_exist_ok=True)
    for name in stores:
        if (folder / name).exists():
            with (folder / name).open("rb") as source, replacing(Path(name)) as copy:
                shutil.copyfileobj(source, copy)
    return Path("landmarks")


def _val_gap(index: Path) -> float:
    from index.folder.folder import open_folder

    calibration = open_folder(index, device="cpu").calibration
    assert calibration is not None
    return calibration.cross_validated.gap
