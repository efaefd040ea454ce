"""Local features in an index folder: carried along from local stores, and by every change of the index."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from local_world import CARD, expected, features_of, write_local_store
from tiny_set import HERE, done, flip_byte, read_rows, refused, write_csv

from index.folder.folder import open_folder
from index.folder.info import list_file, write_info
from retrieval.errors import DamageError
from retrieval.store.store import open_descriptors

BUILT = ["build-index", "--local", "--output", "local", "--device", "cpu", "--engine", "torch", "--thumbnails", "0"]
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
    again = "copy the whole folder or run lmr build-index again"
    with pytest.raises(Exception, match=rf"^local/{name} is damaged \(.*\); {again}$"):
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


def test_weights_for_local_features_without_a_network_are_refused(local_set):
    assert refused(*BUILT, "--local-weights", "nope.pth") == (
        "--local-weights nope.pth: RootSIFT has no weights, only ALIKED and XFeat have; leave it out"
    )
    assert not Path("local").exists()
    done(*BUILT)
    assert refused("index", "add", "train.h5", "--index", "local", "--local-weights", "nope.pth") == (
        "--local-weights nope.pth: RootSIFT has no weights, only ALIKED and XFeat have; leave it out"
    )


def test_images_go_and_come_back_with_their_local_features(local_set):
    done(*BUILT)
    done("index", "remove", "train-arch-0", "train-dome-7", "--index", "local")
    gone = opened()
    assert features_of(gone) == {
        name: one for name, one in expected(ROWS).items() if name in gone.rows.image_id.tolist()
    }
    assert (gone.info.local.n, gone.info.local.n_gone) == (30, 2)
    told = done("index", "add", "train.h5", "--index", "local")
    assert told.stderr == ""
    assert told.stdout.splitlines()[-1] == "local: local features of 32 of 32 images: rootsift, 0.0 MB"
    assert features_of(opened()) == expected(ROWS)
    assert len(opened().info.local.files) == 1  # the same local store
    done("index", "verify", "local")


def test_an_image_that_took_the_name_of_another_has_not_its_local_features(local_set):
    done(*BUILT)
    done("index", "remove", "train-arch-0", "--index", "local")
    shutil.copy("images/val-arch-0.jpg", "images/train-arch-0.jpg")
    write_csv(Path("again.csv"), "id,landmark_id", ["train-arch-0,arch"])
    done("embed", "again.csv", *HERE)
    told = done("index", "add", "again.h5", "--index", "local")
    assert told.stderr == (
        "1 image without local features, so that nothing verifies it; lmr embed --local makes them, and the same "
        "command again takes them\n"
    )
    assert features_of(opened()) == expected(ROWS) | {"train-arch-0": None}


def test_added_images_bring_their_local_features_now_or_later(local_set):
    done(*BUILT)
    done("embed", "val.csv", *HERE)
    told = done("index", "add", "val.h5", "--index", "local")
    assert any(line.startswith("16 images without local features, ") for line in told.stderr.splitlines())
    assert features_of(opened()) == expected(ROWS) | dict.fromkeys(
        name for name in image_ids("val.csv") if "other" not in name
    )
    write_local_store(Path("val.local.h5"), image_ids("val.csv"), sha256=sha256_of("val.h5"))
    told = done("index", "add", "val.h5", "--index", "local")
    assert told.stdout.splitlines() == [
        "local: local features of 16 images taken: 48 images of 4 landmarks now",
        "local: local features of 48 of 48 images: rootsift, 0.1 MB",
    ]
    folder = opened()
    assert features_of(folder) == expected(folder.rows.image_id)
    assert len(folder.info.local.files) == 2
    told = done("index", "add", "val.h5", "--index", "local")
    assert told.stdout == "local: nothing to do: 48 images of 4 landmarks now\n"
    done("index", "verify", "local")


def test_an_index_without_local_features_takes_them_when_it_is_asked_to(local_set):
    Path("train.local.h5").rename("elsewhere.h5")
    assert done("index", "add", "train.h5").stdout == "landmarks: nothing to do: 32 images of 4 landmarks now\n"
    assert refused("index", "add", "train.h5", "--local") == (
        "train.local.h5: there is no such store of local features; lmr embed --local makes one"
    )
    done("index", "add", "train.h5", "--local-store", "elsewhere.h5")
    assert features_of(opened("landmarks")) == expected(ROWS)
    assert opened("landmarks").calibration is not None


def test_relabelled_images_keep_their_local_features(local_set):
    done(*BUILT)
    write_csv(Path("labels.csv"), "landmark_id,new_landmark_id", ["arch,zoo"])
    done("index", "relabel", "labels.csv", "--index", "local")
    assert features_of(opened()) == expected(ROWS)
    assert opened().info.local.n == 32


def test_merged_folders_have_the_local_features_of_both(local_set):
    plain = ("--whitening-power", "0", "--device", "cpu", "--engine", "torch")
    done("embed", "val.csv", *HERE)
    write_local_store(Path("val.local.h5"), image_ids("val.csv"))
    done("build-index", "train.h5", "--local", "--output", "local", *plain)
    done("build-index", "val.h5", "--local", "--output", "second", *plain)
    done("build-index", "val.h5", "--output", "bare", *plain)
    done("build-index", "train.h5", "--output", "poor", *plain)
    for index in ("with-bare", "with-second"):
        shutil.copytree("local", index)
    told = done("index", "merge", "bare", "--index", "with-bare")
    assert told.stderr.splitlines()[-1] == (
        "16 images without local features, so that nothing verifies them; lmr index add with --local gives them theirs"
    )
    assert features_of(opened("with-bare")) == expected(ROWS) | dict.fromkeys(opened("bare").rows.image_id)
    done("index", "merge", "second", "--index", "with-second")
    both = opened("with-second")
    assert features_of(both) == expected(both.rows.image_id)
    done("index", "merge", "second", "--index", "poor")
    assert features_of(opened("poor")) == dict.fromkeys(ROWS) | expected(opened("second").rows.image_id)
    done("index", "merge", "second", "--index", "with-bare")  # its images are there, without local features
    assert features_of(opened("with-bare")) == expected(both.rows.image_id)

    done("index", "compact", "--index", "with-second")
    after = opened("with-second")
    assert len(after.info.local.files) == 1
    assert features_of(after) == expected(both.rows.image_id)
    done("index", "verify", "with-second")
    assert done("index", "compact", "--index", "with-second").stdout.startswith("with-second: nothing to do: ")


def test_local_features_of_other_settings_are_refused_by_name(local_set):
    done(*BUILT)
    done("embed", "val.csv", *HERE)
    write_local_store(Path("val.local.h5"), image_ids("val.csv"), card=replace(CARD, n_keypoints=500))
    assert refused("index", "add", "val.h5", "--index", "local") == (
        "the local features of val.h5 do not fit those of local: another number of keypoints (1000, now 500); make "
        "both with the same settings of lmr embed --local"
    )
    assert refused("build-index", "train.h5", "val.h5", "--local", "--output", "both", "--device", "cpu") == (
        "the local features of val.h5 do not fit those of train.h5: another number of keypoints (1000, now 500); make "
        "both with the same settings of lmr embed --local"
    )
    write_local_store(Path("train.local.h5"), image_ids("train.csv"), card=replace(CARD, long_side=800))
    assert refused(*BUILT) == ("local exists and was built with other local features; --overwrite replaces it")


def test_compacting_leaves_the_features_of_removed_images_behind(local_set):
    done(*BUILT)
    before = opened().info.local.files
    done("index", "remove", "train-arch-0", "--index", "local")
    assert opened().info.local.files == before
    done("index", "compact", "--index", "local")
    after = opened()
    assert after.info.local.files != before
    assert (after.info.local.n, after.info.local.n_gone) == (31, 0)
    assert features_of(after) == {name: one for name, one in expected(ROWS).items() if name != "train-arch-0"}
    assert done("index", "compact", "--index", "local").stdout.startswith("local: nothing to do: ")


def test_an_index_built_again_without_local_features_says_so(local_set):
    done(*BUILT)
    words = [word for word in BUILT if word != "--local"]
    assert refused(*words) == "local exists and was built with other local features; --overwrite replaces it"
    told = done(*words, "--overwrite")
    assert told.stderr.splitlines()[-1] == (
        "warning: local has no local features any more, so that nothing verifies its answers; --local carries them "
        "along"
    )


def test_an_index_that_is_there_names_what_gives_it_local_features(local_set):
    assert refused("build-index", "--names", "names.csv", "--local", "--device", "cpu") == (
        "landmarks exists and has no local features; lmr index add with --local gives it those of its rows, "
        "--overwrite replaces it"
    )


def test_places_that_no_local_store_has_are_damage(local_set):
    done(*BUILT)
    folder, info = Path("local"), opened().info
    assert info.local is not None
    (name,) = info.local.files
    with h5py.File(folder / "local-rows.h5") as file:
        before = tuple(file["place"][3])
    lacks = f"local/{name} lacks features that local-rows.h5 says it has"
    unnamed = "local/local-rows.h5 is damaged (place must name one of 1 files)"
    for place, told in {(0, 44): lacks, (0, -1): lacks, (1, 0): unnamed, (-2, 0): unnamed, before: ""}.items():
        with h5py.File(folder / "local-rows.h5", "r+") as file:
            file["place"][3] = place
        listed = {**info.files, "local-rows.h5": list_file(folder / "local-rows.h5")}
        write_info(folder, replace(info, files=listed))
        if not told:
            done("index", "verify", "local")
            continue
        with pytest.raises(DamageError) as caught:
            features_of(opened())
        assert str(caught.value) == f"{told}; copy the whole folder or run lmr build-index again"
        assert refused("index", "verify", "local") == str(caught.value)
