"""`lmr info --verify`: everything that lmr stores is compared with its digest."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_set import HERE, done, flip_byte, refused


def verified(path: object) -> str:
    """What `--verify` says of a thing that is whole."""
    return str(json.loads(done("info", path, "--verify", "--json").stdout)["verified"])


def change(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def test_a_plain_look_at_an_index_reads_no_descriptors(tiny_set, monkeypatch):
    monkeypatch.setattr("index.folder.info.sha256_file", None)
    monkeypatch.setattr("index.folder.folder.FlatIndex", None)
    assert json.loads(done("info", "landmarks", "--json").stdout)["what"] == "index folder"
    Path("landmarks/rows.h5").write_bytes(b"")
    assert refused("info", "landmarks").startswith("landmarks/rows.h5 has 0 bytes, index.json says ")


def test_a_changed_byte_in_any_file_of_an_index_is_named(tiny_set):
    assert verified("landmarks").endswith(" files are as they were written, and fit each other")
    for path in sorted(path for path in Path("landmarks").rglob("*") if path.is_file()):
        whole = path.read_bytes()
        flip_byte(path)
        said = refused("info", "landmarks", "--verify")
        assert said.startswith(str(path)), path
        path.write_bytes(whole)
    assert verified("landmarks/calibration.json") == verified("landmarks")


def test_an_unfinished_store_is_verified_row_by_row_and_what_changed_embedded_again(tiny_set):
    from retrieval.store.store import read_store, reopen_store

    before = read_store("train.h5")
    with reopen_store(Path("train.h5")) as writer:
        writer.write_todo(np.array([0, 1]))
    assert verified("train.h5.partial") == "what was written of it is as it was written, the rest is to do"
    with h5py.File("train.h5.partial", "r") as file:
        at = file["vectors"].id.get_offset() + 5 * 2 * before.info.d
    data = bytearray(Path("train.h5.partial").read_bytes())
    data[at] ^= 1
    Path("train.h5.partial").write_bytes(data)
    assert refused("info", "train.h5.partial", "--verify") == (
        "train.h5.partial: 1 of 44 rows are not as they were written, the first is row 5; "
        "the lmr embed that goes on with it does them again"
    )
    assert (
        "1 of 44 descriptors not as they were written (a power cut, or a failing disk), embedded again: "
        f"{before.image_id[5]}\n"
    ) in done("embed", *HERE).stderr
    assert np.array_equal(read_store("train.h5").vectors, before.vectors)


def test_a_cleaning_a_split_and_a_tree_are_verified(tiny_set):
    done("clean", "train.csv", "--store", "train.h5", "--images", "images", *HERE)
    done("split", "train.csv", "--images", "images", "--class-folders", "tree", "--workers", "1")
    assert verified("cleaned") == "its tables are as they were written"
    assert verified("split") == "its manifests are as they were written"
    assert verified("tree") == "its record is as it was written; the pictures carry no digests"
    change(Path("cleaned/kept.csv"), b"train-arch", b"train-arck")
    assert refused("info", "cleaned", "--verify") == "cleaned/kept.csv was changed since it was written"
    change(Path("cleaned/clean.json"), b"_sha256", b"_sha257")
    assert refused("info", "cleaned", "--verify") == (
        "cleaned/clean.json was changed or damaged: its sha256 differs; remove it and run lmr clean again"
    )
    change(Path("split/train.csv"), b"train-arch", b"train-arck")
    assert refused("info", "split", "--verify") == (
        "split/train.csv was changed since it was written; --overwrite writes the split anew"
    )
    change(Path("tree/split.json"), b"finished", b"finishex")
    assert refused("info", "tree", "--verify") == (
        "tree/split.json was changed or damaged: its sha256 differs; run the same lmr split again into another folder"
    )


def test_a_submission_and_the_facts_of_images_are_verified(tiny_set):
    done("submit", "test.csv", "--images", "images", *HERE)
    done("stats", "train.csv", "--images", "images", "--workers", "1")
    assert verified("submission.csv") == "it is as it was written"
    facts = next(Path().glob("*.sqlite"))
    assert verified(facts) == "SQLite finds it sound"
    change(Path("submission.csv"), b"arch", b"arck")
    assert refused("info", "submission.csv", "--verify") == (
        "submission.csv was changed since it was written; make it again"
    )
    data = bytearray(facts.read_bytes())
    data[4096:4200] = bytes(104)
    facts.write_bytes(data)
    assert refused("info", facts, "--verify").startswith(f"{facts} is damaged (")


def test_what_a_comparison_keeps_is_verified(tiny_set):
    from index.compare.make import read_answers, write_answers, write_facts
    from index.compare.measure import Answered
    from index.vote import Votes

    folder = Path("compare/systems/one")
    folder.mkdir(parents=True)
    votes = Votes(np.array([0, 1]), np.array([1, 0], np.int32), np.array([0.5, 0.25]))
    write_answers(folder / "answers-val-1.npz", Answered(votes, np.array([0.5, 0.2]), np.array([0.1, 0.1])))
    write_facts(folder / "facts.json", {"pictures_per_s": 1.5})
    assert verified("compare") == "2 files and folders that lmr wrote are read, and as they were written"
    change(folder / "facts.json", b"1.5", b"7.5")
    assert refused("info", "compare", "--verify") == (
        "compare/systems/one/facts.json was changed or damaged: its sha256 differs; "
        "remove it and run the same command again"
    )
    (folder / "facts.json").unlink()
    with pytest.raises(Exception, match=r"answers-val-1.npz is damaged \(it is not of 3 queries\); remove it"):
        read_answers(folder / "answers-val-1.npz", 3)
    flip_byte(folder / "answers-val-1.npz", 0.3)
    assert refused("info", "compare", "--verify") == (
        "compare/systems/one/answers-val-1.npz is damaged (its sha256 is not the one at its end); "
        "remove it and run the same command again"
    )


def test_images_of_a_download_are_compared_with_its_ledger(tiny_set):
    from retrieval.download.ledger import Entry, Ledger
    from retrieval.files.digest import sha256_file

    folder = Path("fetched")
    folder.mkdir()
    shutil.copy("images/train-arch-0.jpg", folder / "a.jpg")
    size, digest = (folder / "a.jpg").stat().st_size, sha256_file(folder / "a.jpg")
    with Ledger(folder / "download.sqlite") as ledger:
        ledger.put([Entry("a", "http://x/a.jpg", "done", "2026", bytes=size, sha256=digest)])
    assert verified("fetched") == "1 picture compared with the ledger, none differs"
    flip_byte(folder / "a.jpg")
    assert refused("info", "fetched", "--verify") == (
        "fetched/a.jpg was changed since it was written; remove it: "
        "the same lmr download fetches again what is not there"
    )
    (folder / "a.jpg").unlink()
    assert refused("info", "fetched", "--verify") == (
        "fetched: the picture a is missing; the same lmr download fetches again what is not there"
    )


def test_all_in_a_folder_is_verified_and_the_first_damage_named(tiny_set):
    said = verified(".")
    assert said.endswith(" files and folders that lmr wrote are read, and as they were written")
    flip_byte(Path("val.h5"), 0.9)
    assert refused("info", ".", "--verify").startswith("val.h5 is damaged (")
