"""lmr split: what it writes, what it refuses, and what a kill leaves."""

import errno
import json
import os
import shutil
import tarfile
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from tiny_set import (
    HERE,
    NETWORK,
    done,
    drop_digests,
    listing,
    misused,
    read_rows,
    refused,
    run,
    run_and_die,
    run_apart,
    write_csv,
)

import lmr
from index.kaggle.submission import read_solution
from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import read_manifest
from retrieval.errors import WordsError
from retrieval.progress import SILENT
from retrieval.store.store import StoreInfo, create_store

ALONE = "--ignore-duplicates"
PARTS = ("train", "background", "val", "test")


def speckled(seed: int) -> Image.Image:
    """Unlike every other one."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)


def make_images(n_each: int = 6, n_copies: int = 4) -> None:
    """images/ and all.csv: landmarks mill and tower and non-landmarks, of each the first ones with a copy."""
    Path("images").mkdir()
    rows = []
    for number, label in enumerate(("mill", "tower", "")):
        for i in range(n_each):
            name = f"{label or 'other'}-{i}"
            speckled(100 * number + i).save(f"images/{name}.png")
            rows.append(f"{name},{label}")
        for i in range(n_copies):
            name = f"{label or 'other'}-{i}-copy"
            speckled(100 * number + i).resize((48, 36)).save(f"images/{name}.jpg", quality=80)
            rows.append(f"{name},{label}")
    write_csv(Path("all.csv"), "id,landmark_id", rows)


def make_rows(counts: dict[str, int], path: str = "all.csv") -> Path:
    """A manifest without images; '' = non-landmarks."""
    rows = [f"{label or 'other'}{i},http://x/{i},{label}" for label, n in counts.items() for i in range(n)]
    return write_csv(Path(path), "id,url,landmark_id", rows)


def ids(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.csv"
    return [row["image_id"] for row in read_rows(path)] if path.exists() else []


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_near_duplicates_stay_together_and_every_manifest_finds_its_images(in_folder, monkeypatch):
    make_images()
    files = listing(in_folder)
    result = done("split", "all.csv", "--val", "0.3", "--test", "0.3", "--workers", "1")
    assert result.stdout.splitlines()[-2:] == [
        "near-duplicates: 12 groups of 24 pictures, each in one part; 0 of several landmarks; the largest has 2",
        "split: written",
    ]
    split = in_folder / "split"
    part_of = {image_id: name for name in PARTS for image_id in ids(split, name)}
    assert len(part_of) == sum(len(ids(split, name)) for name in PARTS) == 30
    for image_id in part_of:
        if image_id.endswith("-copy"):
            original = part_of[image_id.removesuffix("-copy")]
            assert part_of[image_id] == original
    labels = [row["landmark_id"] for row in read_rows(split / "val.csv")]
    assert sorted(labels) == [""] * 3 + ["mill"] * 3 + ["tower"] * 3
    assert {path: digest for path, digest in listing(in_folder).items() if path in files} == files
    monkeypatch.chdir("/")
    for name in (*PARTS, "test_solution"):
        manifest = read_manifest(split / f"{name}.csv")
        source = ImageSource(manifest, None)
        assert all(Path(source.where(row)).is_file() for row in range(len(manifest)))


def test_the_table_says_what_went_where(in_folder):
    make_rows({"a": 20, "b": 10, "c": 1, "": 10})
    result = done("split", "all.csv")
    assert result.stdout == (
        "                pictures   landmarks   non-landmarks     share\n"
        "train                 25           3               0     80.6%\n"
        "background             8           0               8\n"
        "val                    4           2               1      9.7%\n"
        "test                   4           2               1      9.7%\n"
        "split: written\n"
    )
    assert result.stderr == ("near-duplicates were not looked for: there are no pictures; give --images or --store\n")
    assert done("split", "all.csv", ALONE).stderr == ""


def test_the_columns_of_each_file(in_folder):
    make_rows({"a": 20, "": 10})
    done("split", "all.csv", ALONE)
    headers = {path.name: path.read_text().splitlines()[0] for path in Path("split").glob("*.csv")}
    assert headers == {
        "train.csv": "image_id,landmark_id,url",
        "background.csv": "image_id,landmark_id,url,kind",
        "val.csv": "image_id,landmark_id,url,kind",
        "test.csv": "image_id,url",
        "test_solution.csv": "id,landmarks,Usage,url,kind",
    }
    solution = read_solution("split/test_solution.csv")
    assert solution.image_id.tolist() == ids(Path("split"), "test")
    assert sorted(solution.usage[:2]) == ["Private", "Public"]


def test_kinds_and_paths_of_the_input_are_kept(in_folder):
    rows = [f"p/{i}.jpg,{'a' if i < 10 else ''},{'front' if i < 10 else 'street'}" for i in range(20)]
    write_csv(Path("all.csv"), "path,landmark_id,kind", rows)
    done("split", "all.csv", ALONE)
    for name, kinds in (("train", {"front"}), ("background", {"street"}), ("val", {"front", "street"})):
        found = read_rows(Path("split") / f"{name}.csv")
        assert {row["kind"] for row in found} == kinds
        assert all(row["path"] == str(in_folder / "p" / f"{row['image_id']}.jpg") for row in found)


def test_a_folder_of_folders_is_split_and_keeps_its_names(in_folder):
    for i in range(5):
        for label in ("Old Mill", "tower"):
            Path("photos", label).mkdir(parents=True, exist_ok=True)
            speckled(i + 10 * len(label)).save(f"photos/{label}/{label}{i}.png")
    done("split", "photos", "--at-least", "1", "--workers", "1")
    assert sorted(row["landmark_id"] for row in read_rows(Path("split/val.csv"))) == ["Old_Mill", "tower"]
    assert read_rows(Path("split/names.csv")) == [{"landmark_id": "Old_Mill", "name": "Old Mill"}]


def test_rows_of_several_landmarks_keep_all_of_them(in_folder):
    rows = [f"i{i},{'a b' if i % 2 else 'a'},Public" for i in range(20)] + [f"j{i},b,Ignored" for i in range(3)]
    write_csv(Path("all.csv"), "id,landmarks,Usage", rows)
    result = done("split", "all.csv", ALONE)
    assert "dropped: 3 pictures (Usage is Ignored)" in result.stdout.splitlines()
    truth = {row.split(",")[0]: row.split(",")[1].split() for row in rows}
    for name in ("train", "val", "test_solution"):
        manifest = read_manifest(Path("split") / f"{name}.csv")
        for row, image_id in enumerate(manifest.image_id):
            assert [manifest.landmarks[code] for code in manifest.truths(row)] == truth[image_id]


def test_unknown_landmarks_are_non_landmarks_of_val_and_test(in_folder):
    make_rows(dict.fromkeys("abcdefgh", 5))
    content = json.loads(done("split", "all.csv", ALONE, "--unknown-landmarks", "0.25", "--json").stdout)
    assert content["unknown_landmarks"] == {"val": 1, "test": 1}
    for name in ("val", "test_solution"):
        rows = read_rows(Path("split") / f"{name}.csv")
        unknown = [row for row in rows if row["kind"] == "unknown-landmark"]
        assert len(unknown) == 5
        assert {row.get("landmark_id", row.get("landmarks")) for row in unknown} == {""}


def test_landmarks_are_picked_and_rare_ones_dropped_or_kept_as_non_landmarks(in_folder):
    make_rows({"a": 30, "b": 20, "c": 10, "d": 3})
    content = json.loads(
        done("split", "all.csv", ALONE, "--landmarks", "3", "--min-per-landmark", "15", "--json").stdout
    )
    assert content["dropped"] == {"landmark not picked": 3}
    assert {row["kind"] for row in read_rows(Path("split/background.csv"))} <= {"rare-landmark"}
    arguments = ("--pick", "count:10-20", "--min-per-landmark", "15", "--rare", "drop", "--output", "other", "--json")
    content = json.loads(done("split", "all.csv", ALONE, *arguments).stdout)
    assert content["dropped"] == {"landmark not picked": 33, "rare landmark": 10}
    assert {row["landmark_id"] for row in read_rows(Path("other/train.csv"))} == {"b"}


def test_near_duplicates_are_told_by_descriptors(in_folder):
    path = make_rows({"a": 3, "b": 3, "": 2})
    manifest = read_manifest(path).select(np.arange(7))
    angle = np.radians([0, 1, 90, 1.5, 180, 270, 45])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    info = StoreInfo("f" * 64, {}, {}, "0.1.0", "d" * 64, "float32", 2)
    with create_store(Path("d.h5"), manifest, [""] * 7, info) as writer:
        writer.write(np.arange(6), vectors[:6])
        writer.write_unreadable(6, "broken")
        writer.finish()
    arguments = ("split", "all.csv", "--store", "d.h5", "--json", "--dry-run")
    result = done(*arguments)
    assert result.stderr.splitlines()[0] == "2 of 8 pictures have no descriptor and were not compared"
    content = json.loads(result.stdout)
    assert content["groups"] == {"n_groups": 1, "n_pictures": 3, "n_mixed": 1, "largest": 3}
    assert content["near_duplicates"] == {"by": "descriptors", "near_similarity": 0.95, "n_compared": 6}
    assert json.loads(done(*arguments, "--near-similarity", "0.9999").stdout)["groups"]["n_groups"] == 1
    assert json.loads(done(*arguments, "--near-similarity", "0.99999").stdout)["groups"]["n_groups"] == 0
    make_rows({"x": 9}, "others.csv")
    assert refused("split", "others.csv", "--store", "d.h5") == (
        "--store d.h5: has no descriptor of the pictures of others.csv; give its store"
    )
    with h5py.File("d.h5", "r+") as file:
        file["vectors"][4, 1] = np.nan
    message = refused(*arguments)
    assert message.startswith("d.h5 is damaged (its bytes 6,256 to 6,312 are not those that were written); ")
    drop_digests(Path("d.h5"))
    name = manifest.image_id[4]
    assert refused(*arguments) == f"d.h5: the descriptor of {name} is zero or not finite; embed it again"


def test_unreadable_images_are_named_and_split_all_the_same(in_folder):
    make_images()
    Path("images/mill-5.png").write_bytes(Path("images/mill-5.png").read_bytes()[:100])
    Path("images/tower-5.png").unlink()
    result = done("split", "all.csv", "--workers", "1")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("unreadable: mill-5: ")
    assert lines[-1] == "2 of 30 pictures are missing or unreadable and were not compared"
    assert len({image_id for name in PARTS for image_id in ids(Path("split"), name)}) == 30


def test_a_dry_run_writes_nothing(in_folder):
    make_rows({"a": 20, "b": 2})
    files = listing(in_folder)
    result = done("split", "all.csv", ALONE, "--dry-run", "--min-per-landmark", "5", "--rare", "drop")
    assert result.stdout.splitlines()[-2:] == ["dropped: 2 pictures (rare landmark)", "split: dry run, nothing written"]
    assert listing(in_folder) == files


def test_the_same_split_again_is_nothing_to_do(in_folder):
    make_rows({"a": 20, "": 9})
    first = done("split", "all.csv", ALONE).stdout.splitlines()
    files = listing(in_folder)
    again = done("split", "all.csv", ALONE).stdout.splitlines()
    assert again == [*first[:-1], "split: finished already, nothing to do"]
    assert listing(in_folder) == files
    done("split", "all.csv", ALONE, "--output", "other")
    for name in ("train.csv", "val.csv", "test.csv"):
        assert Path("other", name).read_text() == Path("split", name).read_text()


def test_another_split_is_refused_by_name_and_replaced_when_asked(in_folder):
    make_rows({"a": 20, "": 9})
    done("split", "all.csv", ALONE)
    files = listing(in_folder)
    tail = "; give another --output or --overwrite"
    assert (
        refused("split", "all.csv", ALONE, "--seed", "1") == f"split holds a split with another --seed (0, now 1){tail}"
    )
    assert refused("split", "all.csv", ALONE, "--val", "0.2") == (
        f"split holds a split with another --val (0.1, now 0.2){tail}"
    )
    make_rows({"a": 21})
    assert refused("split", "all.csv", ALONE) == f"split holds a split with another input{tail}"
    assert {path: digest for path, digest in listing(in_folder).items() if path != "all.csv"} == {
        path: digest for path, digest in files.items() if path != "all.csv"
    }
    Path("split/model.h5").write_text("of the user")
    done("split", "all.csv", ALONE, "--overwrite")
    assert {path.name for path in Path("split").iterdir()} == {
        *("train.csv", "val.csv", "test.csv", "test_solution.csv", "split.json", "model.h5")
    }


def test_other_images_are_other_near_duplicates(in_folder):
    make_images()
    done("split", "all.csv", "--workers", "1")
    shutil.copy("images/mill-0.png", "images/tower-5.png")
    assert refused("split", "all.csv", "--workers", "1") == (
        "split holds a split with other near-duplicates; give another --output or --overwrite"
    )


def test_files_that_were_changed_or_taken_away_are_named(in_folder):
    make_rows({"a": 20})
    done("split", "all.csv", ALONE)
    with Path("split/val.csv").open("a") as file:
        file.write("x,a,\n")
    assert refused("split", "all.csv", ALONE) == (
        "split/val.csv was changed since it was written; --overwrite writes the split anew"
    )
    Path("split/val.csv").unlink()
    assert refused("split", "all.csv", ALONE) == "split/val.csv is missing; --overwrite writes the split anew"
    done("split", "all.csv", ALONE, "--overwrite")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "split/split.json is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 "
         "(char 1)); --overwrite writes the split anew"),
        ("[]", "split/split.json is not a JSON object; --overwrite writes the split anew"),
        ('{"format_version": 1, "state": "done"}', "split/split.json is damaged or of another version (Invalid enum "
         "value 'done' - at `$.state`); --overwrite writes the split anew"),
        ('{"format_version": 1, "state": "finished", "files": {"train.csv": 7}}', "split/split.json is damaged or of "
         "another version (Expected `object`, got `int` - at `$.files[...]`); --overwrite writes the split anew"),
        ('{"format_version": 9}', "split/split.json has format_version 9, this program reads 1; "
         "use the lmr that made it"),
        ('{"format_version": "9"}', "split/split.json has format_version 9, this program reads 1; "
         "--overwrite writes the split anew"),
    ],
)  # fmt: skip
def test_a_record_that_is_none_or_of_another_version_is_refused(in_folder, content, message):
    make_rows({"a": 20, "": 9})
    done("split", "all.csv", ALONE)
    Path("split/split.json").write_text(content)
    assert refused("split", "all.csv", ALONE) == message
    make_rows({"a": 20})
    done("split", "all.csv", ALONE, "--overwrite")
    assert not Path("split/background.csv").exists()


def test_files_of_no_split_and_the_input_itself_are_not_replaced(in_folder):
    make_rows({"a": 20}, "train.csv")
    Path("out").mkdir()
    Path("out/val.csv").write_text("of the user\n")
    files = listing(in_folder)
    assert refused("split", "train.csv", ALONE, "--output", "out") == (
        "out/val.csv exists and is of no split; give another --output or --overwrite"
    )
    assert refused("split", "train.csv", ALONE, "--output", ".", "--overwrite") == (
        "--output .: train.csv is read and would be replaced; give another folder"
    )
    assert refused("split", "train.csv", ALONE, "--output", "train.csv") == (
        "train.csv is a file; give another --output"
    )
    assert refused("split", "train.csv", ALONE, "--output", "train.csv/x") == (
        "train.csv/x cannot be written: Not a directory; choose another place or make room"
    )
    assert listing(in_folder) == files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.csv"], "no.csv: there is no such file or folder"),
        (["none.csv"], "none.csv: no row has a landmark_id; a split needs labelled pictures"),
        (["ids.csv"], "ids.csv: there is no landmark_id column; a split needs labelled pictures"),
        (["one.csv", "--images", "none"], "--images none: there is no such folder"),
        (["one.csv", "--images", "empty"], "--images empty: has none of the pictures of one.csv (1 tried)"),
        (["one.csv", "--store", "no.h5"], "no.h5: there is no such descriptor store; lmr embed makes one"),
        (["one.csv", "--config", "bad.toml"],
         "--config bad.toml: landmark is not an option of split; did you mean landmarks?"),
        (["one.csv", "--landmarks", "2"],
         "one.csv: 1 landmark has pictures, --landmarks 2 asks for more; choose another --landmarks or --pick"),
        (["one.csv", "--class-folders", "tree"],
         "--class-folders tree: there are no pictures to link to; give --images"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(in_folder, arguments, message):
    write_csv(Path("none.csv"), "id,landmark_id", ["a,", "b,"])
    write_csv(Path("ids.csv"), "id", ["a", "b"])
    write_csv(Path("one.csv"), "id,landmark_id", ["a,x"])
    Path("bad.toml").write_text("landmark = 3\n")
    Path("empty").mkdir()
    files = listing(in_folder)
    assert refused("split", *arguments) == message
    assert listing(in_folder) == files
    assert not Path("split").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--val", "0.5", "--test", "0.5"], "fractions of 0.5 and 0.5 leave nothing to train"),
        (["--val", "0.95"], "fractions of 0.95 and 0.1 leave nothing to train"),
        (["--val", "1", "--test-per-landmark", "1"], "fractions of 1 leave nothing to train"),
        (["--val", "0.1", "--val-per-landmark", "2"], "give --val or --val-per-landmark, one of them"),
        (["--val-non-landmarks", "0.6", "--test-non-landmarks", "0.6"],
         "--val-non-landmarks and --test-non-landmarks together are more than all"),
        (["--pick", "smallest"],
         "--pick smallest: is none of biggest, random and count:LOW-HIGH, as count:500-550"),
        (["--pick", "count:9-3"],
         "--pick count:9-3: is none of biggest, random and count:LOW-HIGH, as count:500-550"),
        (["--unknown-landmarks", "2.5"], "--unknown-landmarks 2.5 is a whole number, or a fraction below 1"),
        (["--unknown-landmarks", "2", "--val", "0", "--test", "0"],
         "--unknown-landmarks needs a val or a test part to go to"),
        (["--vall", "0.1"], "No such option '--vall'. (Possible options: --val, --val-per-landmark)"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_a_matter_of_usage(in_folder, arguments, message):
    make_rows({"a": 20})
    assert misused("split", "all.csv", *arguments).startswith(message.partition(" (Possible")[0])


def test_one_image_goes_to_train_and_empty_parts_are_said(in_folder):
    write_csv(Path("one.csv"), "id,landmark_id", ["a,x"])
    result = done("split", "one.csv", ALONE)
    assert {path.name for path in Path("split").iterdir()} == {"train.csv", "split.json"}
    assert result.stderr.splitlines() == [
        f"{name} has no landmark: none has pictures enough for it; ask for more, or see --at-least"
        for name in ("val", "test")
    ]


def test_a_split_cut_off_at_any_step_looks_unfinished_or_is_the_old_one(in_folder, monkeypatch):
    make_rows({"a": 20, "": 9})
    done("split", "all.csv", ALONE, "--output", "whole", "--seed", "1", "--val", "0")
    whole = {name: digest for name, digest in listing(Path("whole")).items() if name != "split.json"}
    replace, unlink = os.replace, Path.unlink
    step, stop = 0, 0

    def counted(operation):
        def stopping(*arguments, **options):
            nonlocal step
            step += 1
            if step == stop:
                raise KeyboardInterrupt
            return operation(*arguments, **options)

        return stopping

    monkeypatch.setattr(os, "replace", counted(replace))
    monkeypatch.setattr(Path, "unlink", counted(unlink))
    arguments = ("split", "all.csv", ALONE, "--output", "out", "--seed", "1", "--val", "0")
    for stop in range(1, 40):
        shutil.rmtree("out", ignore_errors=True)
        step, last = 10**6, stop
        done("split", "all.csv", ALONE, "--output", "out")
        old = listing(Path("out"))
        step, stop = 0, last
        result = run(*arguments, "--overwrite")
        if result.exit_code == 0:
            break
        record = json.loads(Path("out/split.json").read_text())
        kept = {name: digest for name, digest in listing(Path("out")).items() if not name.endswith(".partial")}
        assert record["state"] == "unfinished" or kept in (old, {**whole, "split.json": kept["split.json"]})
        if record["state"] == "unfinished":
            manifests = {name: digest for name, digest in kept.items() if name != "split.json"}
            assert manifests.items() <= old.items() or manifests.items() <= whole.items()
        step = 10**6
        done(*arguments, *([] if record["state"] == "unfinished" else ["--overwrite"]))
        left = listing(Path("out"))
        assert {name: digest for name, digest in left.items() if name != "split.json"} == whole
    assert 10 < stop < 39


def test_a_split_that_is_killed_ends_as_if_it_had_not_been(in_folder, tmp_path, monkeypatch):
    make_images()
    arguments = ["split", "all.csv", "--workers", "1"]
    killed = shutil.copytree(in_folder, tmp_path / "killed")
    done(*arguments)
    run_and_die(killed, arguments, 16)
    monkeypatch.chdir(killed)
    assert json.loads(Path("split/split.json").read_text())["state"] == "unfinished"
    done(*arguments)
    assert set(listing(Path("split"))) == set(listing(in_folder / "split"))
    for name in PARTS:
        assert ids(Path("split"), name) == ids(in_folder / "split", name)


def test_a_full_disk_is_one_line_and_the_old_split_stays(in_folder):
    make_rows({"a": 2000})
    done("split", "all.csv", ALONE)
    files = listing(in_folder)
    code, text = run_apart(in_folder, ["split", "all.csv", ALONE, "--seed", "1", "--overwrite"], file_bytes=5000)
    assert (code, text.splitlines()[-1]) == (
        1,
        "Error: split cannot be written: File too large; choose another place or make room",
    )
    assert listing(in_folder) == files


def test_class_folders_hold_a_link_for_each_image(in_folder):
    make_images()
    result = done("split", "all.csv", "--class-folders", "tree", "--workers", "1")
    assert result.stdout.splitlines()[-1] == "tree: 30 links, 30 of them new"
    links = [path for path in Path("tree").rglob("*") if path.is_symlink()]
    assert len(links) == 30
    for part in PARTS:
        for row in read_manifest_rows(part):
            link = Path("tree", part, row[1] or "_no_known_landmark", Path(row[0]).name)
            assert os.readlink(link) == row[0]
    next(iter(links)).unlink()
    result = done("split", "all.csv", "--class-folders", "tree", "--workers", "1")
    assert result.stdout.splitlines()[-2:] == [
        "split: finished already, nothing to do",
        "tree: 30 links, 1 of them new",
    ]
    files = set(map(str, Path("tree").rglob("*")))
    done("split", "all.csv", "--class-folders", "tree", "--workers", "1", "--seed", "1", "--overwrite")
    assert set(map(str, Path("tree").rglob("*"))) != files
    assert len([path for path in Path("tree").rglob("*") if path.is_symlink()]) == 30


def read_manifest_rows(part: str) -> list[tuple[str, str]]:
    """(path, label) of each row of a part; the labels of test from its solution."""
    manifest = read_manifest(Path("split") / f"{'test_solution' if part == 'test' else part}.csv")
    labels = (*manifest.landmarks, "")
    return [(path, labels[code]) for path, code in zip(manifest.path, manifest.landmark, strict=True)]


def test_class_folders_with_other_things_in_them_are_refused(in_folder):
    make_images()
    arguments = ("split", "all.csv", "--workers", "1", "--class-folders")
    Path("tree").mkdir()
    Path("tree/notes.txt").write_text("of the user")
    assert refused(*arguments, "tree") == (
        "--class-folders tree: holds notes.txt, which is of no split; give another folder"
    )
    assert not Path("split").exists()
    Path("tree/notes.txt").unlink()
    done(*arguments, "tree")
    Path("tree/train/mill/mine.png").write_text("of the user")
    assert refused(*arguments, "tree") == (
        "--class-folders tree: holds train/mill/mine.png, which is not of this split; take it out"
    )
    assert refused(*arguments, "tree", "--links", "copy") == (
        "--class-folders tree: holds another split; give another folder or --overwrite"
    )
    assert refused(*arguments, "split") == (
        "--class-folders split: is or lies in a folder that is in use; give another folder"
    )
    assert refused(*arguments, "all.csv") == "--class-folders all.csv: is a file; give another folder"


def test_class_folders_that_were_cut_off_go_on_and_a_place_without_links_is_one_line(in_folder, monkeypatch):
    make_images()
    arguments = ("split", "all.csv", "--workers", "1", "--class-folders", "tree")
    symlink_to, made = Path.symlink_to, []

    def interrupted(self, target):
        if len(made) == 10:
            raise KeyboardInterrupt
        made.append(symlink_to(self, target))

    monkeypatch.setattr(Path, "symlink_to", interrupted)
    assert refused(*arguments) == "interrupted; the same command goes on from what is saved"
    assert json.loads(Path("tree/split.json").read_text())["state"] == "unfinished"

    def impossible(self, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", impossible)
    assert refused(*arguments) == ("--class-folders tree: Operation not permitted; give --links copy or another folder")
    monkeypatch.setattr(Path, "symlink_to", symlink_to)
    assert done(*arguments).stdout.splitlines()[-1] == "tree: 30 links, 20 of them new"
    assert json.loads(Path("tree/split.json").read_text())["state"] == "finished"


def test_images_in_folders_by_the_first_characters_of_their_id_are_found(in_folder):
    for i, image_id in enumerate(("abc1", "abd2", "xyz3")):
        Path("pictures", *image_id[:3]).mkdir(parents=True)
        speckled(i).save(Path("pictures", *image_id[:3], f"{image_id}.jpg"))
    write_csv(Path("all.csv"), "id,landmark_id", ["abc1,a", "abd2,a", "xyz3,a"])
    done("split", "all.csv", "--images", "pictures", "--val", "0", "--test", "0", "--workers", "1")
    places = [row["path"] for row in read_rows(Path("split/train.csv"))]
    expected = ("a/b/c/abc1.jpg", "a/b/d/abd2.jpg", "x/y/z/xyz3.jpg")
    assert places == [str(in_folder / "pictures" / place) for place in expected]


@pytest.mark.parametrize("how", ["hard", "copy"])
def test_class_folders_of_hard_links_and_copies(in_folder, how):
    make_images()
    arguments = ("split", "all.csv", "--workers", "1", "--class-folders", "tree", "--links", how)
    done(*arguments)
    found = {path.name: path for path in Path("tree").rglob("*.*") if path.name != "split.json"}
    assert len(found) == 30
    for name, path in found.items():
        assert path.is_file()
        assert not path.is_symlink()
        assert path.read_bytes() == Path("images", name).read_bytes()
        assert path.samefile(Path("images", name)) == (how == "hard")
    assert done(*arguments).stdout.splitlines()[-1] == "tree: 30 links, 0 of them new"


@pytest.mark.parametrize("how", ["symbolic", "hard", "copy"])
def test_class_folders_of_images_in_tars_hold_copies_of_them(in_folder, how, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_folder / "cache"))
    make_images()
    images = {path.name: path.read_bytes() for path in Path("images").iterdir()}
    with tarfile.open("images.tar", "w") as tar:
        for name in images:
            tar.add(f"images/{name}", name)
    shutil.rmtree("images")
    arguments = ("split", "all.csv", "--images", "images.tar", "--workers", "1", "--class-folders", "tree")
    arguments = (*arguments, "--links", how)
    result = done(*arguments)
    said = "tree: 30 pictures are in tars, where no link can lead; they are copied\n"
    assert (said in result.stderr) == (how != "copy")
    found = {path.name: path for path in Path("tree").rglob("*.*") if path.name != "split.json"}
    assert {name: path.read_bytes() for name, path in found.items()} == images
    next(iter(found.values())).write_bytes(b"half")
    assert done(*arguments).stdout.splitlines()[-1] == "tree: 30 links, 1 of them new"
    assert {path.name: path.read_bytes() for path in found.values()} == images


def test_in_the_folder_of_a_split_every_command_runs_at_once(images):
    done("split", "train.csv", ALONE, "--val", "0.3", "--test", "0.3", "--output", "parts")
    os.chdir("parts")
    done("embed", *NETWORK, *HERE)
    done("embed", "background.csv", *HERE)
    done("build-index", "--background", "background.h5", "--device", "cpu")
    done("calibrate", "val.csv", *HERE)
    done("submit", "test.csv", *HERE)
    figures = json.loads(done("score", "submission.csv", "test_solution.csv", "--json").stdout)
    assert figures["All"]["n_queries"] == len(read_rows(Path("test.csv")))
    content = json.loads(done("evaluate", "test_solution.csv", "--json", *HERE).stdout)
    assert content["n_unreadable"] == 0
    train = ("--workers", "0", "--threads", "1", "--device", "cpu", "--epochs", "1", "--batch-size", "4")
    done("train", "train.csv", "--negatives", "background.csv", "--val", "val.csv", "--output", "m", *NETWORK, *train)


def test_a_manifest_from_a_pipe_is_split_as_its_file(images):
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text(Path("train.csv").read_text()))
    writer.start()
    done("split", "pipe", "--output", "piped")
    writer.join()
    done("split", "train.csv", "--output", "read")
    assert Path("piped/train.csv").read_text() == Path("read/train.csv").read_text()


def test_the_library_splits_as_the_command_does(in_folder):
    make_rows({"a": 20, "b": 20, "": 10})
    report = lmr.split("all.csv", output="parts", val=0, test=0.25, ignore_duplicates=True, progress=SILENT)
    assert (report.state, report.counts.parts["test"].landmarks) == ("written", 2)
    again = done("split", "all.csv", "--output", "parts", "--val", "0", "--test", "0.25", ALONE, "--json")
    assert json.loads(again.stdout) == {**report.to_json(), "state": "unchanged"}
    with pytest.raises(WordsError, match=r"^give `val` or `val_per_landmark`, one of them$"):
        lmr.split("all.csv", val=0.5, val_per_landmark=2)
