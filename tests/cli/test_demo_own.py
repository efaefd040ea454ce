"""The split of somebody's own folder for `lmr demo --images`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_set import listing, read_rows

from cli.demo.own import split_own
from cli.demo.run import across_landmarks
from retrieval.data.manifest import read_manifest
from retrieval.errors import LmrError
from retrieval.train.data import read_training_data


def make_own(folder: Path, counts: dict[str, int], n_others: int = 0) -> Path:
    """A folder of folders; a file's bytes do not matter."""
    for label, n in counts.items():
        (folder / label).mkdir(parents=True)
        for i in range(n):
            (folder / label / f"{label} {i}.jpg").write_bytes(b"x")
    for i in range(n_others):
        (folder / f"other {i}.jpg").write_bytes(b"x")
    return folder


def labels(path: Path) -> list[str]:
    """The label of each row."""
    return [row["landmark_id"] for row in read_rows(path)]


def test_a_fifth_of_each_landmark_goes_to_val_and_a_fifth_to_test(tmp_path):
    own = make_own(tmp_path / "own", {"Old Mill": 10, "tower": 3, "rare": 2}, 9)
    files = listing(own)
    demo = split_own(own, tmp_path / "demo", seed=0)
    assert sorted(labels(demo.train)) == ["Old_Mill"] * 6 + ["rare"] * 2 + ["tower"]
    assert sorted(labels(demo.val)) == [""] * 3 + ["Old_Mill"] * 2 + ["tower"]
    assert labels(demo.background) == [""] * 3
    assert sorted(row["landmarks"] for row in read_rows(demo.test_solution)) == [""] * 3 + ["Old_Mill"] * 2 + ["tower"]
    assert not read_manifest(demo.test).has_labels
    ids = [row["image_id"] for path in (demo.train, demo.val, demo.background, demo.test) for row in read_rows(path)]
    assert len(set(ids)) == len(ids) == demo.n_pictures == 24
    assert listing(own) == files
    assert {row["landmark_id"]: row["name"] for row in read_rows(demo.names)}["Old_Mill"] == "Old Mill"


def test_every_path_leads_to_its_image_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_own(Path("own"), {"mill": 5, "tower": 5}, 3)
    demo = split_own(Path("own"), Path("demo"), seed=0)
    monkeypatch.chdir("/")
    for name in ("train", "val", "test", "background"):
        for row in read_rows(tmp_path / getattr(demo, name)):
            assert Path(row["path"]).is_file()


def test_the_same_seed_gives_the_same_split(tmp_path):
    own = make_own(tmp_path / "own", {"mill": 9, "tower": 9}, 6)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        split_own(own, tmp_path / name, seed)
    assert listing(tmp_path / "a") == listing(tmp_path / "b") != listing(tmp_path / "c")


def test_without_other_images_there_is_no_background(tmp_path):
    own = make_own(tmp_path / "own", {"mill": 4, "tower": 4})
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/background.csv").write_text("image_id,path,landmark_id\nold,,\n")
    demo = split_own(own, tmp_path / "demo", seed=0)
    assert not demo.background.exists()
    data = read_training_data(demo.train, None, demo.images)
    assert data.labels == ("mill", "tower")


@pytest.mark.parametrize(("counts", "n"), [({"mill": 9}, 1), ({"mill": 2, "tower": 2}, 0), ({"mill": 5, "x": 1}, 1)])
def test_too_few_landmarks_are_refused_with_nothing_written(tmp_path, counts, n):
    own = make_own(tmp_path / "own", counts)
    with pytest.raises(LmrError) as error:
        split_own(own, tmp_path / "demo", seed=0)
    assert str(error.value) == (
        f"{own}: {'1 landmark has' if n == 1 else '0 landmarks have'} 3 pictures or more; the demo needs at least 2, "
        "in folders named by landmark: FOLDER/<landmark>/<picture>"
    )
    assert not (tmp_path / "demo").exists()


def test_near_duplicates_stay_together(tmp_path):
    for number, label in enumerate(("mill", "tower")):
        (tmp_path / "own" / label).mkdir(parents=True)
        for i in range(9):
            coarse = np.random.default_rng(10 * number + i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)
            image.save(tmp_path / "own" / label / f"{label} {i}.png")
            image.save(tmp_path / "own" / label / f"{label} {i} again.jpg", quality=80)
    demo = split_own(tmp_path / "own", tmp_path / "demo", seed=0)
    parts = [{row["image_id"].removesuffix(" again") for row in read_rows(path)} for path in (demo.train, demo.val)]
    parts.append({row["id"].removesuffix(" again") for row in read_rows(demo.test_solution)})
    assert sum(map(len, parts)) == 18 == len(set().union(*parts))


def test_landmarks_of_one_image_again_and_again_are_refused(tmp_path):
    for label in ("mill", "tower"):
        (tmp_path / "own" / label).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (40, 40), "red").save(tmp_path / "own" / label / f"{label}{i}.png")
    with pytest.raises(LmrError) as error:
        split_own(tmp_path / "own", tmp_path / "demo", seed=0)
    assert str(error.value) == (
        f"{tmp_path / 'own'}: 0 landmarks have 3 pictures or more that are not near-duplicates; the demo needs at "
        "least 2, in folders named by landmark: FOLDER/<landmark>/<picture>"
    )
    assert not list((tmp_path / "demo").glob("*.csv"))


def test_the_queries_that_are_shown_are_of_different_landmarks_and_one_of_none():
    labels = [("a",), ("a",), ("b",), (), ("c",), ("d",), ()]
    assert across_landmarks(labels, 4) == [0, 2, 5, 3]
    assert across_landmarks(labels[:2], 4) == [0, 1]
    assert across_landmarks([], 4) == []
    assert across_landmarks([("a",), ("b",), ("c",)], 2) == [0, 2]
