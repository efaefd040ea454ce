"""`lmr sync`: an index follows a folder of images, of which only new ones are embedded."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, done, image, n_file_operations, run_and_die, write_csv

import lmr
from index.folder.rows import read_rows
from retrieval.store.store import read_store


@pytest.fixture
def photos(tiny_set) -> Path:
    """A folder of landmarks, in which the images of the set lie, and an index of it."""
    for line in Path("train.csv").read_text().splitlines()[1:]:
        image_id, label = line.split(",")
        place = Path("photos") / label
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(f"images/{image_id}.jpg", place / f"{image_id}.jpg")
    shutil.rmtree("landmarks")
    done("embed", "photos", *HERE)
    done("build-index", "photos.h5", "--device", "cpu", "--whitening-power", "0")
    return Path("photos")


def rows() -> list[list[str]]:
    """image_id, label and path of the images of the index."""
    done("index", "export", "rows.csv", "--overwrite")
    return [line.split(",") for line in Path("rows.csv").read_text().splitlines()[1:]]


def labels() -> dict[str, str]:
    """Labels of the images of the index."""
    return {image_id: label for image_id, label, _ in rows()}


def folder_of(label: str) -> set[str]:
    """Paths of the images of a landmark."""
    return {str(path.resolve()) for path in Path("photos", label).iterdir()}


def change(photos: Path) -> None:
    """Two new images, one replaced, one moved to another landmark, one renamed, two gone."""
    image(0, 900).save(photos / "arch" / "new-0.jpg", quality=92)
    (photos / "gate").mkdir()
    image(1, 901).save(photos / "gate" / "new-1.jpg", quality=92)
    image(3, 902).save(photos / "arch" / "train-arch-0.jpg", quality=92)
    (photos / "arch" / "train-arch-1.jpg").rename(photos / "dome" / "train-arch-1.jpg")
    (photos / "arch" / "train-arch-2.jpg").rename(photos / "arch" / "renamed.jpg")
    (photos / "arch" / "train-arch-3.jpg").unlink()
    (photos / "dome" / "train-dome-0.jpg").unlink()


def test_an_index_follows_its_folder(photos):
    before = labels()
    assert "nothing to do" in done("sync", "photos", *HERE).stdout
    change(photos)
    told = done("sync", "photos", *HERE)
    assert told.stdout == ("landmarks: 3 added, 3 removed, 1 relabelled, 1 moved: 32 images of 5 landmarks now\n")
    assert "3 images embedded, 41 the same as before" in told.stderr
    gone = {"train-arch-2", "train-arch-3", "train-dome-0"}
    expected = {name: label for name, label in before.items() if name not in gone}
    expected |= {"new-0": "arch", "new-1": "gate", "train-arch-1": "dome", "renamed": "arch"}
    assert labels() == expected
    for label in ("arch", "dome", "gate"):
        assert {path for _, name, path in rows() if name == label} == folder_of(label)
    assert "nothing to do" in done("sync", "photos", *HERE).stdout
    assert {path.name for path in Path().glob("photos*")} == {"photos", "photos.h5"}
    (entry,) = json.loads(done("index", "info", "--json").stdout)["last_changes"]
    assert (entry["kind"], entry["sources"]) == ("sync", ["photos"])


def test_the_index_is_that_of_a_new_build(photos):
    change(photos)
    done("sync", "photos", *HERE)
    done("embed", "photos", "--output", "again.h5", *HERE)
    one, other = read_store("photos.h5"), read_store("again.h5")
    assert one.image_id == other.image_id
    assert abs(one.vectors[:].astype(float) - other.vectors[:].astype(float)).max() < 2e-3
    done("build-index", "again.h5", "--output", "again", "--device", "cpu", "--whitening-power", "0")
    asked = [
        json.loads(done("query", "images/test-arch-0.jpg", "--index", name, "--json", *HERE).stdout)
        for name in ("landmarks", "again")
    ]
    assert asked[0][0]["landmark_id"] == asked[1][0]["landmark_id"]
    assert [one["image_id"] for one in asked[0][0]["neighbours"]] == [
        one["image_id"] for one in asked[1][0]["neighbours"]
    ]


def test_rows_from_elsewhere_stay(photos):
    done("index", "remove", "train-arch-5")
    done("embed", "val.csv", "--output", "more.h5", *HERE)
    done("index", "add", "more.h5")
    n = len(labels())
    (photos / "arch" / "train-arch-4.jpg").unlink()
    assert "1 added, 1 removed" in done("sync", "photos", *HERE).stdout
    assert len(labels()) == n


def test_a_sync_killed_at_any_write_ends_as_if_it_had_not_been(photos, monkeypatch):
    change(photos)
    here = Path.cwd()
    arguments = ["sync", "photos", *HERE]
    n = n_file_operations(Path(shutil.copytree(here, here.parent / "counted")), arguments)
    for at in sorted({1, n // 3, 2 * n // 3, n}):
        folder = Path(shutil.copytree(here, here.parent / f"killed-{at}"))
        run_and_die(folder, arguments, at)
        monkeypatch.chdir(folder)
        done("index", "verify")
        done(*arguments)
        done("index", "verify")
        assert len(labels()) == 32
        assert {path.name for path in Path().glob("*photos*")} == {"photos", "photos.h5"}


def test_a_store_that_was_begun_gets_the_descriptors_that_are_there(photos, monkeypatch):
    """One that was killed before it copied them embeds new images only, when it is given again."""
    change(photos)
    with monkeypatch.context() as killed:
        killed.setattr("retrieval.store.writer.StoreWriter.write", _killed)
        with pytest.raises(KeyboardInterrupt):
            lmr.sync("photos", device="cpu", threads=1, workers=1)
    assert Path("photos.sync.h5.partial").exists()
    assert "3 images embedded" in done("sync", "photos", *HERE).stderr


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_images_under_other_names_keep_their_rows(photos):
    before = lmr.open_index("landmarks").folder
    shutil.copyfile("images/val-arch-0.jpg", photos / "dome" / "train-arch-0.jpg")  # now a name needs its folder
    told = done("sync", "photos", *HERE)
    assert told.stdout == "landmarks: 1 added, 44 moved: 33 images of 4 landmarks now\n"
    assert "1 image embedded, 44 the same as before" in told.stderr
    after = lmr.open_index("landmarks").folder
    assert (after.index.stored[:32] == before.index.stored).all()
    assert after.rows.image_id[:32].tolist() != before.rows.image_id[:].tolist()
    assert {"arch/train-arch-0.jpg", "dome/train-arch-0.jpg"} < set(labels())
    assert (after.background.vectors == before.background.vectors).all()
    assert sorted(after.background.image_id)[0] == "train-other-0.jpg"
    assert (after.info.changes.added, after.info.changes.removed) == (1, 0)


def test_a_folder_that_moved_keeps_its_rows_and_their_images_are_found(photos):
    store = Path("photos.h5").read_bytes()
    Path("moved").mkdir()
    photos.rename("moved/photos")
    Path("moved/photos.h5").write_bytes(store)
    told = done("sync", "moved/photos", *HERE)
    assert told.stdout == "landmarks: 32 moved: 32 images of 4 landmarks now\n"
    assert all(Path(path).is_file() for _, _, path in rows())
    assert "nothing to do" in done("sync", "moved/photos", *HERE).stdout


def test_the_background_follows_too(photos):
    for i in range(3):
        shutil.copyfile(f"images/val-other-{i}.jpg", photos / f"val-other-{i}.jpg")
    assert "3 of the background" in done("sync", "photos", "--background", *HERE).stdout
    (photos / "val-other-0.jpg").unlink()
    (photos / "val-other-1.jpg").rename(photos / "arch" / "val-other-1.jpg")
    told = done("sync", "photos", "--background", *HERE)
    assert told.stdout == "landmarks: 1 added, 2 of the background: 33 images of 4 landmarks now\n"
    folder = lmr.open_index("landmarks").folder
    assert "val-other-2" in set(folder.background.image_id)
    assert not {"val-other-0", "val-other-1"} & set(folder.background.image_id)
    (entry,) = [one for one in rows() if one[0] == "val-other-1"]
    assert entry[1:] == ["arch", str((photos / "arch" / "val-other-1.jpg").resolve())]


def test_two_ways_in_which_a_folder_changed_make_two_indexes(photos):
    digests = []
    for name in ("train-arch-1", "train-arch-2"):
        copy = Path(shutil.copytree(".", f"../{name}"))
        path = copy / "photos" / "arch" / f"{name}.jpg"
        path.rename(copy / "photos" / "dome" / f"{name}.jpg")
        done("sync", copy / "photos", "--index", copy / "landmarks", *HERE)
        digests.append(lmr.open_index(copy / "landmarks").folder.info.inputs_digest)
    assert digests[0] != digests[1]


def test_an_image_that_cannot_be_read_keeps_its_row_and_is_not_embedded(photos):
    (photos / "arch" / "train-arch-0.jpg").write_bytes(b"no image")
    for _ in range(2):
        told = done("sync", "photos", *HERE)
        assert told.stdout == "landmarks: nothing to do: 32 images of 4 landmarks now\n"
        assert "0 images embedded, 43 the same as before" in told.stderr
        assert "1 row without a descriptor left out" in told.stderr


@pytest.mark.parametrize("kind", [["flat"], ["ivf-sq8", "--lists", "2", "--recall", "0.5"]], ids=["flat", "ivf-sq8"])
def test_an_index_in_shards_follows_its_folder_as_one_without_does(photos, kind):
    words = ("--device", "cpu", "--whitening-power", "0", "--kind", *kind, "--overwrite")
    shutil.copyfile("photos.h5", "before.h5")
    told = {}
    done("build-index", "photos.h5", *words)
    change(photos)
    for n_shards in (1, 3):
        shutil.copyfile("before.h5", "photos.h5")
        done("build-index", "photos.h5", *words, "--shards", n_shards)
        done("sync", "photos", *HERE)
        assert lmr.open_index("landmarks").folder.info.n_shards == n_shards
        done("index", "verify")
        (answer,) = json.loads(done("query", "photos/gate/new-1.jpg", "--json", *HERE).stdout)
        told[n_shards] = (sorted(rows()), answer["landmark_id"], [one["image_id"] for one in answer["neighbours"][:2]])
    assert told[3] == told[1]
    assert told[3][2][0].endswith("new-1")


def test_own_columns_that_changed_are_those_of_the_rows_that_stay(photos):
    manifest = Path("own.csv")
    table = [line.split(",") for line in Path("train.csv").read_text().splitlines()[1:]]
    lines = [f"{image_id},{label},{i}.5" for i, (image_id, label) in enumerate(table)]
    write_csv(manifest, "id,landmark_id,lat", lines)
    done("embed", "own.csv", *HERE)
    done("build-index", "own.h5", "--device", "cpu", "--whitening-power", "0", "--overwrite")
    assert "nothing to do" in done("sync", "own.csv", *HERE).stdout
    write_csv(manifest, "id,landmark_id,lat", [line.replace(".5", ".25") for line in lines])
    told = done("sync", "own.csv", *HERE).stderr
    assert "landmarks: own columns of its images are as given now\n" in told
    found = read_rows(Path("landmarks/rows.h5"))
    at = {image_id: i for i, (image_id, _) in enumerate(table)}
    assert found.columns["lat"].tolist() == [f"{at[image_id]}.25" for image_id in found.image_id]
    assert "nothing to do" in done("sync", "own.csv", *HERE).stdout
