"""Local features in an index folder: carried along from local stores, and by every change of the index."""

import os
import shutil
from pathlib import Path

import pytest
from local_world import CARD, expected, features_of, write_local_store
from tiny_set import HERE, done, flip_byte, read_rows, refused

from index.folder.folder import open_folder
from retrieval.store.store import open_descriptors

BUILT = ["build-index", "--local", "--output", "local", "--device", "cpu", "--engine", "torch"]
ROWS = [f"train-{label}-{i}" for label in ("arch", "bridge", "castle", "dome") for i in range(8)]


def image_ids(manifest: str) -> list[str]:
    return [row["id"] for row in read_rows(Path(manifest))]


def sha256_of(store: str) -> dict[str, bytes]:
    """Digest of each image's file, as its descriptor store has it."""
    opened = open_descriptors(store)
    return dict(zip(opened.image_id.tolist(), map(bytes, opened.facts.sha256), strict=True))


def opened(path: str = "local"):
    return open_folder(path, device="cpu")


@pytest.fixture
def local_set(tiny_set):
    """The tiny set with a local store beside its descriptor store."""
    write_local_store(Path("train.local.h5"), image_ids("train.csv"), sha256=sha256_of("train.h5"))
    return tiny_set


def test_an_index_carries_the_local_features_of_its_rows(local_set):
    told = done(*BUILT)
    assert told.stdout.splitlines()[1] == "local: local features of 32 of 32 images: rootsift, 0.0 MB"
    folder = opened()
    assert features_of(folder) == expected(ROWS)
    assert folder.local.card == CARD
    (name,) = folder.info.local.files
    assert Path("local", name).samefile("train.local.h5")  # nothing is copied
    assert folder.info.files[name]["size"] == Path("train.local.h5").stat().st_size
    assert folder.info.local.n == 32
    assert done(*BUILT).stdout.startswith("local: unchanged, nothing to do: 32 pictures")


def test_an_index_answers_the_same_on_another_machine(local_set):
    done(*BUILT)
    shutil.copytree("local", "elsewhere/local")
    shutil.rmtree("local")
    Path("train.local.h5").unlink()
    assert features_of(opened("elsewhere/local")) == expected(ROWS)
    done("index", "verify", "elsewhere/local")


def test_local_features_are_copied_where_a_file_system_has_no_links(local_set, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    done(*BUILT)
    folder = opened()
    (name,) = folder.info.local.files
    assert not Path("local", name).samefile("train.local.h5")
    assert features_of(folder) == expected(ROWS)


def test_a_query_opens_no_local_features(local_set):
    done(*BUILT)
    (name,) = opened().info.local.files
    for path in (Path("local", name), Path("local/local.json"), Path("local/local-rows.h5")):
        path.chmod(0o600)
        size = path.stat().st_size
        path.unlink()
        path.write_bytes(bytes(size))  # of the right size, and no such file
    done("query", "images/test-arch-0.jpg", "--index", "local", *HERE)
    assert refused("index", "verify", "local").startswith(f"local/{name} was changed or damaged: ")


@pytest.mark.parametrize("name", ["local.json", "local-rows.h5"])
def test_what_says_whose_features_are_where_is_compared_when_it_is_read(local_set, name):
    done(*BUILT)
    folder = opened()
    flip_byte(Path("local", name))
    with pytest.raises(Exception, match=r"is not that of the index which was opened: that was replaced meanwhile"):
        folder.local.features(0)


def test_damaged_features_are_named_when_they_are_read(local_set):
    done(*BUILT)
    folder = opened()
    (name,) = folder.info.local.files
    flip_byte(Path("local", name), 0.999)
    with pytest.raises(Exception, match=rf"^local/{name} is damaged \("):
        [folder.local.features(row) for row in range(len(folder.rows))]


def test_images_without_local_features_have_none(tiny_set):
    ids = image_ids("train.csv")
    write_local_store(Path("train.local.h5"), ids[:-3], unreadable=("train-arch-0", "train-other-1"))
    told = done(*BUILT)
    without = {"train-arch-0", "train-dome-5", "train-dome-6", "train-dome-7"}
    assert "local: local features of 28 of 32 images: rootsift, 0.0 MB" in told.stdout.splitlines()
    assert features_of(opened()) == {name: expected(ROWS).get(name) for name in ROWS} | dict.fromkeys(without)


def test_local_stores_that_cannot_be_taken_are_one_line(tiny_set):
    assert refused(*BUILT) == ("train.local.h5: there is no such store of local features; lmr embed --local makes one")
    write_local_store(Path("train.local.h5"), ["a", "b"])
    assert refused(*BUILT) == ("train.local.h5: none of the images of train.h5 is there; give the local store of it")
    sha256 = sha256_of("train.h5")
    write_local_store(Path("train.local.h5"), ROWS, sha256=sha256 | {"train-arch-3": bytes(32)})
    assert refused(*BUILT) == (
        "train.local.h5 was made of other images than train.h5: train-arch-3; lmr embed makes what is behind anew"
    )
    assert not Path("local").exists()
