"""Verification of what lmr wrote: all of it is read and compared with its digests."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from retrieval.embed.store_name import STORES as STORES
from retrieval.errors import LmrError
from retrieval.files.folders import current_folder
from retrieval.files.made_of import FOLDER_RECORD
from retrieval.local.config import LOCAL_STORE
from retrieval.progress import Progress
from retrieval.words import counted

NO_DIGESTS = "none: it is unfinished, or of an earlier lmr"
OUTCOMES = ".outcomes"
EXPLANATIONS = "explanations.json"  # in a folder of explanations: where that of each image is
EXPLAIN_AGAIN = "explain again with `overwrite`"
KINDS = {  # of folders, by the file in them that tells
    "clean.json": "cleaning",
    "split.json": "split",
    "download.sqlite": "download",
    "comparison-val.json": "comparison",
    "comparison-test.json": "comparison",
}
_FACTS = ("facts.json", "finished.json")  # that lmr compare keeps


def is_store(path: Path) -> bool:
    """Tells whether this is the name of a store of descriptors, finished or not."""
    return not is_local_store(path) and (path.suffix in STORES or path.name.endswith(".partial"))


def is_local_store(path: Path) -> bool:
    """Tells whether this is the name of a store of local features, finished or not."""
    return path.name.endswith((LOCAL_STORE, LOCAL_STORE + ".partial"))


def is_explained(folder: Path) -> bool:
    """Tells whether this is a folder of explanations, of images or of one landmark."""
    return any((current_folder(folder) / name).is_file() for name in (FOLDER_RECORD, EXPLANATIONS))


def verify_whole(path: Path, progress: Progress) -> str:
    """Reads all of the thing at this path; says what was compared. Raises LmrError that names what is wrong."""
    if path.name in ("index.json", "model.json", "calibration.json", EXPLANATIONS, FOLDER_RECORD, *KINDS):
        path = path.parent
    if path.is_dir():
        return _verify_folder(path, progress)
    check = _check_of(path)
    return check(path) if check else "it is read as every command reads it; manifests carry no digests"


def kind_of(folder: Path) -> str | None:
    """Kind of a folder that lmr wrote, beside models and index folders; None for any other."""
    return next((kind for name, kind in KINDS.items() if (folder / name).exists()), None)


def can_verify(path: Path) -> bool:
    """Tells whether a file, or anything in a folder or below, carries digests of lmr."""
    return next(_things(path), None) is not None if path.is_dir() else _check_of(path) is not None


def _verify_folder(folder: Path, progress: Progress) -> str:
    """Says of one thing what it is; of several their number."""
    things, told = list(_things(folder)), []
    progress.begin("verifying", len(things), "files")
    for place, check in things:
        told.append((place, check(place)))
        progress.add(1)
    progress.end()
    if len(told) == 1 and told[0][0] == folder:
        return told[0][1]
    if not told:
        return "it is read as every command reads it; manifests carry no digests"
    lacking = [str(place) for place, said in told if said.startswith("none:")]
    more = f"; without digests: {', '.join(lacking[:5])}" if lacking else ""
    return f"{len(told)} files and folders that lmr wrote are read, and as they were written{more}"


def _things(folder: Path) -> Iterator[tuple[Path, Callable[[Path], str]]]:
    """Files and folders that lmr wrote in a folder and below, each with its check."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if is_explained(here):
            folders.clear()
            yield here, _verify_explanations
            continue
        if "index.json" in names or "current" in names:
            folders.clear()
            yield here, _verify_index
            continue
        folders.sort()
        for name, check in (
            *(("model.json", _verify_model), ("clean.json", _verify_cleaning)),
            *(("split.json", _verify_split), ("download.sqlite", _verify_download)),
        ):
            if name in names:
                yield here, check
        for name in sorted(names):
            check_file = _check_of(here / name)
            if check_file and not (name.endswith(".onnx") and "model.json" in names):
                yield here / name, check_file


def _check_of(path: Path) -> Callable[[Path], str] | None:
    """Check of a file that is a thing of its own; None for one that is none."""
    from retrieval.files.made_of import record_path

    if is_local_store(path):
        return _verify_local
    if is_store(path):
        return _verify_store
    if path.suffix == ".onnx":
        return _verify_model
    if path.name == "training.pt" and not path.with_name("model.json").exists():
        return _verify_state
    if path.name.startswith("answers-") and path.suffix == ".npz":
        return _verify_answers
    if path.name in _FACTS:
        return _verify_facts
    if path.suffix == OUTCOMES:
        return _verify_outcomes
    if path.name == ".lmr-moves.jsonl":
        return _verify_moves
    if path.suffix == ".sqlite" and path.name != "download.sqlite":
        return _verify_table
    return _verify_made if record_path(path).is_file() else None


def _verify_store(path: Path) -> str:
    from retrieval.store.file import PARTIAL, require_whole
    from retrieval.store.store import open_descriptors, read_store_info
    from retrieval.store.writer import require_rows

    has_digests = require_whole(path)
    if path.name.endswith(PARTIAL):
        has_digests = require_rows(path)
        whole = "what was written of it is as it was written, the rest is to do"
    else:
        for _ in open_descriptors(path, read_store_info(path)[0].shard).blocks():
            pass  # each is checked when it is read
        whole = "every byte is as it was written"
    return whole if has_digests else f"{NO_DIGESTS}; every value is possible"


def _verify_local(path: Path) -> str:
    from retrieval.local.journal import open_journal
    from retrieval.local.store import open_local

    if path.name.endswith(LOCAL_STORE):
        open_local(path).require_whole()
        return "every byte is as it was written"
    n_bytes = open_journal(path).n_torn
    torn = f", {n_bytes:,} bytes at its end count for nothing" if n_bytes else ""
    return f"what was written of it is as it was written, the rest is to do{torn}"


def _verify_index(path: Path) -> str:
    from index.folder.folder import open_folder
    from retrieval.embed.load import model_files, open_card

    folder = open_folder(current_folder(path), device="cpu", verify="full")
    model_files(folder.model_path, open_card(folder.model_path))
    if folder.local is not None:
        folder.local.require_whole()
    return f"{counted(len(folder.info.files), 'file')} are as they were written, and fit each other"


def _verify_explanations(folder: Path) -> str:
    from retrieval.files.made_of import require_folder

    return f"{counted(require_folder(folder, EXPLAIN_AGAIN), 'file')} are as they were written"


def _verify_model(path: Path) -> str:
    from retrieval.embed.load import model_files, onnx_path, open_card
    from retrieval.embed.onnx_digest import require_as_written
    from retrieval.models.folder import CARD, CLASSIFIER, STATE_NAME

    files = sorted(model_files(path, open_card(path)))
    exported = onnx_path(path)
    if exported is not None:
        return f"{exported.name} is as it was written" if require_as_written(exported) else NO_DIGESTS
    if (path / CLASSIFIER).is_file():
        from retrieval.train.classifier import load_classifier

        load_classifier(path)
        files.append(CLASSIFIER)
    if (path / STATE_NAME).is_file():
        files.append(STATE_NAME if _is_sealed(path) else f"{STATE_NAME} (without a digest)")
    return f"{CARD} and {', '.join(files)} are as they were written"


def _is_sealed(folder: Path) -> bool:
    from retrieval.train.state import require_state

    return require_state(folder)


def _verify_state(path: Path) -> str:
    return "it is as it was written" if _is_sealed(path.parent) else NO_DIGESTS


def _verify_cleaning(folder: Path) -> str:
    from index.clean.folder import require_written

    require_written(folder)
    return "its tables are as they were written"


def _verify_split(folder: Path) -> str:
    from retrieval.split.class_folders import is_tree, require_record
    from retrieval.split.folder import is_finished

    if is_tree(folder):
        require_record(folder)
        return "its record is as it was written; the pictures carry no digests"
    if not is_finished(folder):
        raise LmrError(f"{folder} is unfinished; run the same lmr split again")
    return "its manifests are as they were written"


def _verify_download(folder: Path) -> str:
    from retrieval.download.survey import verify_images

    return f"{counted(verify_images(folder), 'picture')} compared with the ledger, none differs"


def _verify_answers(path: Path) -> str:
    from index.compare.make import read_answers

    read_answers(path)
    return "it is as it was written"


def _verify_facts(path: Path) -> str:
    from index.compare.make import read_facts

    read_facts(path)
    return "it is as it was written"


def _verify_outcomes(path: Path) -> str:
    from index.evaluate.shares import require_outcomes

    require_outcomes(path)
    return "every block is as it was written"


def _verify_moves(path: Path) -> str:
    from retrieval.files.moves import MoveJournal

    return f"{len(MoveJournal(path.parent).moves):,} moves are written down"


def _verify_table(path: Path) -> str:
    from retrieval.data.quality_cache import require_sound

    require_sound(path)
    return "SQLite finds it sound"


def _verify_made(path: Path) -> str:
    from retrieval.files.made_of import is_made_of

    is_made_of(path, {}, "make it again")
    return "it is as it was written"
