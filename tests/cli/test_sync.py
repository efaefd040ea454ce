"""`lmr sync`: an index follows a folder of images, of which only new ones are embedded."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, done, image, n_file_operations, run_and_die

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


def labels() -> dict[str, str]:
    """Labels of the images of the index."""
    done("index", "export", "rows.csv", "--overwrite")
    lines = [line.split(",") for line in Path("rows.csv").read_text().splitlines()[1:]]
    return {image_id: label for image_id, label, _ in lines}


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
    assert told.stdout == ("landmarks: 4 added, 4 removed, 1 relabelled: 32 images of 5 landmarks now\n")
    assert "3 images embedded, 41 the same as before" in told.stderr
    gone = {"train-arch-2", "train-arch-3", "train-dome-0"}
    expected = {name: label for name, label in before.items() if name not in gone}
    expected |= {"new-0": "arch", "new-1": "gate", "train-arch-1": "dome", "renamed": "arch"}
    assert labels() == expected
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
