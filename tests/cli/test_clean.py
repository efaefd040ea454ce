"""`lmr clean` as a user runs it: what it leaves out, what a person changes, what it refuses."""

import csv
import html
import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_stores import write_store
from PIL import Image
from tiny_set import (
    HERE,
    LABELS,
    cut_short,
    done,
    drop_digests,
    image,
    listing,
    misused,
    n_file_operations,
    read_rows,
    refused,
    run_and_die,
    run_apart,
    write_csv,
)

import lmr
from retrieval.progress import SILENT
from retrieval.store.store import read_store

CLEAN = ["clean", "dirty.csv", "--store", "train.h5", "--workers", "1", "--device", "cpu", "--checks", "labels"]
WRONG = {"train-arch-3": "dome", "train-castle-5": "bridge"}
FILES = ["clean.json", "decisions.csv", "gallery.html", "kept.csv"]


def make_dirty(folder: Path) -> None:
    """train.csv with two wrong labels."""
    rows = [(row["id"], WRONG.get(row["id"], row["landmark_id"])) for row in read_rows(folder / "train.csv")]
    write_csv(folder / "dirty.csv", "id,landmark_id", [f"{image_id},{label}" for image_id, label in rows])


def make_descriptors(seed: int = 0) -> None:
    """train.h5 with descriptors around one direction for each landmark, and one for the others."""
    store = read_store("train.h5")
    rng = np.random.default_rng(seed)
    landmark = np.array(
        [
            LABELS.index(label) if label in LABELS else -1
            for label in (image_id.split("-")[1] for image_id in store.image_id)
        ]
    )
    centres = rng.normal(size=(len(LABELS) + 1, store.info.d))  # -1 finds the last one
    vectors = centres[landmark] + 0.5 * rng.normal(size=store.vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    Path("train.h5").unlink()
    write_store(Path("train.h5"), replace(store, vectors=vectors.astype(np.float16)))


@pytest.fixture
def dirty(tiny_set):
    make_dirty(tiny_set)
    make_descriptors()
    return tiny_set


def not_kept(path="cleaned/decisions.csv"):
    return {row["image_id"]: row["reason"] for row in read_rows(Path(path)) if row["decision"] != "keep"}


def edit(**decisions):
    """Changes decisions.csv by image_id, `train_arch_3=("drop", "")`, as a person would."""
    text = Path("cleaned/decisions.csv").read_text().splitlines()
    for name, (decision, suggested) in decisions.items():
        image_id = name.replace("_", "-")
        for i, line in enumerate(text):
            cells = line.split(",")
            if cells[0] == image_id:
                cells[2], cells[3] = decision, suggested
                text[i] = ",".join(cells)
    Path("cleaned/decisions.csv").write_text("\n".join(text) + "\n")


def test_wrong_labels_are_left_out_and_the_rest_is_a_manifest(dirty):
    result = done(*CLEAN)
    assert result.stdout == (
        "44 pictures: 42 kept, 2 left out, 0 with another label\n"
        "       2  mislabelled: its neighbours say another landmark\n"
        "cleaned: written\n"
    )
    assert sorted(path.name for path in Path("cleaned").iterdir()) == FILES
    rows = {row["image_id"]: row for row in read_rows(Path("cleaned/decisions.csv"))}
    assert len(rows) == 44
    assert not_kept() == dict.fromkeys(WRONG, "mislabelled")
    assert rows["train-arch-3"]["landmark_id"] == "dome"
    assert rows["train-arch-3"]["suggested_landmark_id"] == "arch"
    assert rows["train-arch-3"]["neighbours"].split("|")[0].startswith("train-arch-")
    kept = read_rows(Path("cleaned/kept.csv"))
    assert {row["image_id"] for row in kept} == set(rows) - set(WRONG)
    assert {row["image_id"]: row["landmark_id"] for row in kept} == {
        row["id"]: row["landmark_id"] for row in read_rows(Path("dirty.csv")) if row["id"] not in WRONG
    }
    assert Path(kept[0]["path"]).is_file()
    gallery = Path("cleaned/gallery.html").read_text()
    assert gallery.count("data:image/jpeg;base64,") == 2 * 5
    assert "mislabelled: 2" in gallery
    assert "http://" not in gallery
    assert "https://" not in gallery


def test_json_is_one_document_with_the_documented_keys(dirty):
    content = json.loads(done(*CLEAN, "--json").stdout)
    assert content == {
        "output": "cleaned",
        "state": "written",
        "n_pictures": 44,
        "n_kept": 42,
        "n_dropped": 2,
        "n_relabelled": 0,
        "n_unreadable": 0,
        "n_quality": 0,
        "n_duplicate": 0,
        "n_non_landmark": 0,
        "n_mislabelled": 2,
        "n_apart": 0,
        "n_unverified": 0,
        "n_few": 0,
    }


def test_relabel_takes_the_suggestion(dirty):
    done(*CLEAN, "--relabel", "--gallery", "0")
    labels = {row["image_id"]: row["landmark_id"] for row in read_rows(Path("cleaned/kept.csv"))}
    assert labels["train-arch-3"] == "arch"
    assert labels["train-castle-5"] == "castle"
    assert len(labels) == 44
    assert not Path("cleaned/gallery.html").exists()


def test_a_second_run_has_nothing_to_do_and_other_inputs_are_refused(dirty):
    done(*CLEAN)
    before = listing(Path("cleaned"))
    assert done(*CLEAN).stdout.splitlines()[-1] == "cleaned: finished already, nothing to do"
    assert refused(*CLEAN, "--odds", "50") == (
        "cleaned holds a cleaning of other inputs (odds was 200.0, is 50.0); give --overwrite or another --output"
    )
    write_csv(Path("dirty.csv"), "id,landmark_id", [f"train-arch-{i},arch" for i in range(8)])
    assert refused(*CLEAN).startswith("cleaned holds a cleaning of other inputs (manifest was ")
    assert listing(Path("cleaned")) == before
    assert done(*CLEAN, "--overwrite").stdout.splitlines()[-1] == "cleaned: written"
    assert len(read_rows(Path("cleaned/decisions.csv"))) == 8


def test_a_store_of_other_descriptors_is_other_inputs(dirty):
    done(*CLEAN)
    make_descriptors(seed=1)
    assert refused(*CLEAN).startswith("cleaned holds a cleaning of other inputs (store was ")


def test_a_dry_run_writes_nothing(dirty):
    before = listing(dirty)
    result = done(*CLEAN[:-1], "labels,quality,duplicates", "--dry-run")
    assert result.stdout.splitlines()[-1] == "cleaned: dry run, nothing written"
    assert "2  mislabelled" in result.stdout
    assert listing(dirty) == before


def test_a_person_has_the_last_word(dirty):
    done(*CLEAN)
    edit(train_arch_3=("keep", ""), train_castle_5=("relabel", "castle"), train_dome_0=("drop", ""))
    result = done("clean", "dirty.csv", "--review", "cleaned/decisions.csv")
    assert result.stdout.splitlines()[0] == "44 pictures: 42 kept, 1 left out, 1 with another label"
    assert result.stdout.splitlines()[-1] == "cleaned: reviewed decisions applied"
    labels = {row["image_id"]: row["landmark_id"] for row in read_rows(Path("cleaned/kept.csv"))}
    assert labels["train-arch-3"] == "dome"
    assert labels["train-castle-5"] == "castle"
    assert "train-dome-0" not in labels
    again = done("clean", "dirty.csv", "--review", "cleaned/decisions.csv")
    assert again.stdout.splitlines()[-1] == "cleaned: finished already, nothing to do"


def test_a_landmark_that_is_new_can_be_given(dirty):
    done(*CLEAN)
    edit(train_arch_0=("relabel", "minaret"))
    done("clean", "dirty.csv", "--review", "cleaned/decisions.csv", "--output", "mine")
    labels = {row["image_id"]: row["landmark_id"] for row in read_rows(Path("mine/kept.csv"))}
    assert labels["train-arch-0"] == "minaret"


def test_changes_by_a_person_are_not_lost(dirty):
    done(*CLEAN)
    edit(train_arch_3=("keep", ""))
    before = listing(Path("cleaned"))
    assert refused(*CLEAN, "--overwrite") == (
        "cleaned/decisions.csv was changed since it was written; apply it with --review cleaned/decisions.csv, "
        "or move it away to clean anew"
    )
    again = done(*CLEAN)
    assert again.stdout.splitlines()[-1] == "cleaned: finished already, nothing to do"
    assert again.stderr.splitlines()[0] == (
        "cleaned/decisions.csv was changed since it was written and is not applied; "
        "apply it with --review cleaned/decisions.csv"
    )
    assert listing(Path("cleaned")) == before
    Path("cleaned/kept.csv").unlink()
    assert refused(*CLEAN).startswith("cleaned/decisions.csv was changed since it was written; apply it with --review")
    Path("cleaned/decisions.csv").unlink()
    done(*CLEAN, "--overwrite")
    assert not_kept() == dict.fromkeys(WRONG, "mislabelled")


def test_a_review_names_its_bad_lines_and_writes_nothing(dirty):
    done(*CLEAN)
    lines = Path("cleaned/decisions.csv").read_text().splitlines()
    header, row, rest = lines[0], lines[1].split(","), lines[2:]
    bad = [
        ",".join([row[0], row[1], "dorp", *row[3:]]),
        ",".join(["nobody", *row[1:]]),
        ",".join([row[0], "tower", *row[2:]]),
        ",".join([row[0], row[1], "relabel", "", *row[4:]]),
        rest[0],
        rest[0],
    ]
    before = listing(dirty)
    Path("bad.csv").write_text("\n".join([header, *bad]) + "\n")
    assert run_error("clean", "dirty.csv", "--review", "bad.csv") == [
        "Error: bad.csv: 5 bad rows; correct or remove, nothing of the file was used",
        "bad.csv:2: decision 'dorp' is not keep, drop or relabel",
        "bad.csv:3: image_id 'nobody' is not in dirty.csv",
        f"bad.csv:4: landmark_id of {row[0]} is 'tower', in dirty.csv it is '{row[1]}'",
        "bad.csv:5: relabel needs suggested_landmark_id without white space, got ''",
        f"bad.csv:7: image_id {rest[0].split(',')[0]} is also on line 6",
    ]
    Path("bad.csv").write_text("\n".join([header, *rest]) + "\n")
    assert refused("clean", "dirty.csv", "--review", "bad.csv") == (
        f"bad.csv: 1 of 44 pictures of dirty.csv is not in it, the first one {row[0]}; "
        "give the table that was made from this manifest"
    )
    Path("bad.csv").write_text("image_id,landmark_id,decison,suggested_landmark_id\n")
    assert refused("clean", "dirty.csv", "--review", "bad.csv") == (
        "bad.csv:1: no column decision; give a decisions.csv that lmr clean wrote"
    )
    Path("bad.csv").unlink()
    assert listing(dirty) == before


def run_error(*arguments):
    from tiny_set import run

    result = run(*arguments)
    assert result.exit_code == 1
    return [line for line in result.stderr.splitlines() if line]


def test_a_review_of_another_manifest_is_refused(dirty):
    done(*CLEAN)
    shutil.copy("cleaned/decisions.csv", "mine.csv")
    done("clean", "train.csv", *CLEAN[2:], "--output", "other")
    write_csv(Path("dirty.csv"), "id,landmark_id", [f"train-arch-{i},arch" for i in range(8)])
    write_csv(
        Path("mine.csv"),
        "image_id,landmark_id,decision,suggested_landmark_id",
        [f"train-arch-{i},arch,keep," for i in range(8)],
    )
    assert refused("clean", "dirty.csv", "--review", "mine.csv", "--output", "other") == (
        "other was made from another manifest than dirty.csv; give another --output"
    )


def test_copies_broken_images_and_dark_ones_are_left_out(dirty):
    images = dirty / "images"
    shutil.copy(images / "train-dome-0.jpg", images / "train-dome-1.jpg")
    shutil.copy(images / "train-arch-1.jpg", images / "train-other-0.jpg")
    Image.new("RGB", (48, 48), (2, 2, 2)).save(images / "train-arch-2.jpg")
    cut_short(images / "train-bridge-4.jpg")
    shown = [
        "dome-0,dome",
        "dome-1,dome",
        "arch-1,arch",
        "other-0,",
        "arch-2,arch",
        "bridge-4,bridge",
        "castle-0,castle",
    ]
    write_csv(Path("dirty.csv"), "id,landmark_id", [f"train-{row}" for row in shown])
    result = done(*CLEAN[:-2], "--checks", "duplicates,quality", "--near-bits", "0")
    rows = {row["image_id"]: row for row in read_rows(Path("cleaned/decisions.csv")) if row["decision"] == "drop"}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "train-dome-1": "duplicate",
        "train-other-0": "duplicate",
        "train-arch-2": "quality",
        "train-bridge-4": "unreadable",
    }
    assert rows["train-arch-2"]["evidence"].startswith("too dark: brightness 2.0 under 8")
    assert rows["train-dome-1"]["evidence"] == "copy of train-dome-0"
    assert rows["train-other-0"]["evidence"] == "copy of train-arch-1, which is labelled arch"
    assert result.stdout.splitlines()[0] == "7 pictures: 3 kept, 4 left out, 0 with another label"


def test_images_outside_a_range_of_pixels_per_inch_are_left_out(dirty):
    image(0, 0, side=224).save("images/train-arch-0.jpg")
    arguments = [*CLEAN[:-1], "quality", "--ppi-range", "18,"]
    done(*arguments)
    assert [row["image_id"] for row in read_rows(Path("cleaned/kept.csv"))] == ["train-arch-0"]
    assert read_rows(Path("cleaned/decisions.csv"))[-1]["evidence"] == "3.9 pixels per inch, not at least 18"
    done(*arguments, "--diagonal-in", "3.77", "--output", "phone")
    assert len(read_rows(Path("phone/kept.csv"))) == 44


def test_landmarks_with_few_images_left_are_left_out(dirty):
    rows = [row for row in read_rows(Path("dirty.csv")) if row["id"] not in ("train-dome-0", "train-dome-1")]
    write_csv(Path("dirty.csv"), "id,landmark_id", [f"{row['id']},{row['landmark_id']}" for row in rows])
    done(*CLEAN, "--min-per-landmark", "7")
    few = [name for name, reason in not_kept().items() if reason == "few"]
    assert few == [f"train-dome-{i}" for i in range(2, 8)]
    evidence = {row["image_id"]: row["evidence"] for row in read_rows(Path("cleaned/decisions.csv"))}
    assert evidence["train-dome-2"] == "6 pictures left, 7 are asked"


def test_a_background_finds_labelled_images_of_no_landmark(dirty):
    rows = read_rows(Path("train.csv"))
    rows = [(row["id"], "arch" if row["id"] == "train-other-0" else row["landmark_id"]) for row in rows]
    write_csv(Path("dirty.csv"), "id,landmark_id", [f"{image_id},{label}" for image_id, label in rows])
    done(*CLEAN[:-1], "background,labels")
    assert not_kept() == {"train-other-0": "non-landmark"}
    labelled = [f"{image_id},{label}" for image_id, label in rows if label]
    write_csv(Path("dirty.csv"), "id,landmark_id", labelled)
    result = done(*CLEAN[:-1], "background", "--output", "alone")
    assert result.stderr.splitlines() == [
        "non-landmarks were not looked for: there is no background; give --background, or rows without a label",
        "look at alone/gallery.html; after changes in alone/decisions.csv: "
        "lmr clean dirty.csv --review alone/decisions.csv",
    ]
    assert len(read_rows(Path("alone/kept.csv"))) == 33


def test_the_gallery_names_files_and_links_to_one_that_cannot_be_shown(dirty):
    Path("images/train-arch-3.jpg").write_bytes(b"")
    done(*CLEAN)
    gallery = Path("cleaned/gallery.html").read_text()
    assert '<a href="./../images/train-arch-3.jpg">picture cannot be shown</a>' in gallery
    assert ">train-castle-5.jpg</figcaption>" in gallery


def test_the_command_that_reviews_has_quotes_where_paths_need_them(dirty):
    shutil.copy("dirty.csv", "my photos.csv")
    said = done("clean", "my photos.csv", *CLEAN[2:], "--output", "my cleaning").stderr
    command = "lmr clean 'my photos.csv' --review 'my cleaning/decisions.csv'"
    assert said.splitlines()[-1].endswith(f"; after changes in my cleaning/decisions.csv: {command}")
    assert command in html.unescape(Path("my cleaning/gallery.html").read_text())


def test_verification_keeps_what_enough_neighbours_match(dirty, monkeypatch):
    pytest.importorskip("cv2", reason="needs the extra local")
    rng = np.random.default_rng(0)
    scene = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).resize((400, 400))
    for i in range(4):
        scene.crop((8 * i, 5 * i, 350 + 8 * i, 350 + 5 * i)).save(f"images/train-arch-{i}.jpg")
    rows = [f"train-arch-{i},arch" for i in range(6)]
    write_csv(Path("dirty.csv"), "id,landmark_id", rows)
    said = done(*CLEAN, "--verify").stdout.splitlines()
    assert said[1:3] == [
        "       2  unverified: too few neighbours of its landmark that show the same place",
        "          --verify is strict; with a lower --min-verified or --min-inliers more stay",
    ]
    assert not_kept() == {"train-arch-4": "unverified", "train-arch-5": "unverified"}
    evidence = read_rows(Path("cleaned/decisions.csv"))[4]["evidence"]
    assert evidence == "0 neighbours of its landmark with 30 inliers, 3 are asked"


def test_verification_takes_the_local_features_that_are_there(dirty, monkeypatch):
    pytest.importorskip("cv2", reason="needs the extra local")
    rng = np.random.default_rng(0)
    scene = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).resize((400, 400))
    for i in range(4):
        scene.crop((8 * i, 5 * i, 350 + 8 * i, 350 + 5 * i)).save(f"images/train-arch-{i}.jpg")
    write_csv(Path("dirty.csv"), "id,landmark_id", [f"train-arch-{i},arch" for i in range(6)])
    done("embed", "train.csv", "--local", "rootsift", *HERE)
    Path("train.local.h5").rename("elsewhere.h5")
    done(*CLEAN, "--verify", "--output", "extracted")
    Path("elsewhere.h5").rename("train.local.h5")
    with monkeypatch.context() as without:
        without.setattr("retrieval.local.extractor.Extractor.extract", None)
        told = done(*CLEAN, "--verify", "--output", "taken")
    assert "local features are those of train.local.h5" in told.stderr.splitlines()
    assert Path("taken/decisions.csv").read_text() == Path("extracted/decisions.csv").read_text()

    Path("train.local.h5").unlink()
    done("embed", "train.csv", "--local", "rootsift", "--keypoints", "50", *HERE)
    told = done(*CLEAN, "--verify", "--output", "again")
    assert (
        "local features are extracted anew: train.local.h5 was made with another number of keypoints (50, now 1000)"
    ) in told.stderr.splitlines()
    assert Path("again/decisions.csv").read_text() == Path("extracted/decisions.csv").read_text()


def test_without_images_labels_are_still_judged(dirty):
    shutil.rmtree("images")
    result = done(*CLEAN[:-1], "labels,quality,duplicates")
    assert result.stderr.splitlines() == [
        "quality and copies were not looked at in the pictures, which were not found; give --images",
        "look at cleaned/gallery.html; after changes in cleaned/decisions.csv: "
        "lmr clean dirty.csv --review cleaned/decisions.csv",
    ]
    assert not_kept() == dict.fromkeys(WRONG, "mislabelled")
    assert refused(*CLEAN, "--verify", "--output", "x") == (
        "--verify needs the pictures, which were not found; give --images"
    )


def test_what_cannot_be_used_is_one_line(dirty):
    assert refused("clean", "no.csv", "--store", "train.h5") == "no.csv: there is no such file or folder"
    assert refused("clean", "dirty.csv", "--store", "no.h5") == (
        "no.h5: there is no such descriptor store; lmr embed makes one"
    )
    assert refused("clean", "test.csv", "--store", "train.h5") == (
        "test.csv names no landmark; cleaning needs a manifest with landmark_id"
    )
    assert refused("clean", "val.csv", "--store", "train.h5") == (
        "train.h5: 22 of 22 pictures of val.csv are not in it, the first one val-other-0; "
        "give the store that lmr embed made of this manifest"
    )
    assert misused("clean", "dirty.csv") == (
        "give --store to look for pictures to leave out, or --review to apply decisions"
    )
    assert misused(*CLEAN[:-1], "labls").endswith(
        "'labls' is not a check; did you mean labels? They are quality, duplicates, background, labels, components."
    )
    assert (
        misused(*CLEAN, "--ppi-range", "1,2") == "--ppi-range is part of the check quality, which --checks leaves out"
    )
    assert misused(*CLEAN, "--odds", "0") == "--odds must be at least 1, not 0.0"
    assert misused(*CLEAN, "--od", "3").startswith("No such option")
    Path("cleaned").mkdir()
    Path("cleaned/kept.csv").write_text("mine")
    assert refused(*CLEAN) == (
        "cleaned/kept.csv exists and is of no finished cleaning; give --overwrite or another --output"
    )
    assert Path("cleaned/kept.csv").read_text() == "mine"


def test_options_come_from_a_file_whose_typos_are_named(dirty):
    Path("clean.toml").write_text('odds = 1e6\nchecks = "labels"\noutput = "mild"\n')
    arguments = ["clean", "dirty.csv", "--store", "train.h5", "--device", "cpu", "--config", "clean.toml"]
    done(*arguments)
    assert json.loads(Path("mild/clean.json").read_text())["inputs"]["odds"] == 1e6
    for text, message in (
        ("odd = 3", "odd is not an option of clean; did you mean odds?"),
        ("near_bit = 3", "near_bit is not an option of clean; did you mean near-bits?"),
        ("relabel = 1", "relabel is true or false, got 1"),
    ):
        Path("clean.toml").write_text(f"{text}\n")
        assert refused(*arguments) == f"--config clean.toml: {message}"
    Path("clean.toml").write_text('checks = "labls"\n')
    assert "'labls' is not a check; did you mean labels?" in misused(*arguments)
    assert not Path("cleaned").exists()


def test_damaged_unfinished_and_other_stores_are_one_line_and_nothing_is_written(dirty):
    mend = "copy it again if it is a copy, else make it again with lmr embed --overwrite"
    whole = Path("train.h5").read_bytes()
    half = whole[: len(whole) // 2]
    cut = f"it is cut short: {len(half):,} of {len(whole):,} bytes"
    for content, message in (
        (half, f"bad.h5 is damaged ({cut}); {mend}"),
        (b"hello", "bad.h5 is not a descriptor store (no HDF5 file); give the right file"),
        (b"", "bad.h5 is not a descriptor store (no HDF5 file); give the right file"),
    ):
        Path("bad.h5").write_bytes(content)
        assert refused("clean", "dirty.csv", "--store", "bad.h5") == message
        assert refused(*CLEAN, "--background", "bad.h5") == message
    shutil.copy("train.h5", "new.h5.partial")
    assert refused("clean", "dirty.csv", "--store", "new.h5") == (
        "new.h5 is unfinished (new.h5.partial is there); run the same lmr embed again"
    )
    for name, change in (
        ("vectors", lambda file: file["vectors"].__setitem__(3, np.nan)),
        ("state", lambda file: file.__delitem__("state")),
    ):
        shutil.copy("train.h5", "bad.h5")
        with h5py.File("bad.h5", "r+") as file:
            change(file)
        message = refused("clean", "dirty.csv", "--store", "bad.h5")
        assert message.startswith("bad.h5 is damaged (")
        assert message.endswith(f"not as it was written); {mend}" if name == "state" else f"were written); {mend}")
        drop_digests(Path("bad.h5"))
        message = refused("clean", "dirty.csv", "--store", "bad.h5")
        assert message.startswith("bad.h5: the descriptor of " if name == "vectors" else "bad.h5 is damaged (")
        assert message.endswith(
            "; embed it again" if name == "vectors" else "; make it again with lmr embed --overwrite"
        )
    assert not Path("cleaned").exists()


def test_ids_and_labels_with_commas_and_quotes_come_back_from_a_review(dirty):
    renamed = {"train-arch-0": 'arch, "old"', "train-dome-0": "'dome', 0"}
    store = read_store("train.h5")
    ids = [renamed.get(image_id, image_id) for image_id in store.image_id.tolist()]
    Path("train.h5").unlink()
    write_store(Path("train.h5"), replace(store, image_id=np.array(ids, dtype=object)))
    rows = [(renamed.get(row["id"], row["id"]), row["landmark_id"]) for row in read_rows(Path("dirty.csv"))]
    with Path("dirty.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "landmark_id"), *rows])
    done(*CLEAN, "--gallery", "10")
    table = read_rows(Path("cleaned/decisions.csv"))
    assert [row["image_id"] for row in table] == [image_id for image_id, _ in rows]
    by_id = {row["image_id"]: row for row in table}
    by_id['arch, "old"']["decision"] = "drop"
    by_id["'dome', 0"] |= {"decision": "relabel", "suggested_landmark_id": 'the"dome",2'}
    with Path("mine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    done("clean", "dirty.csv", "--review", "mine.csv", "--output", "mine")
    kept = {row["image_id"]: row["landmark_id"] for row in read_rows(Path("mine/kept.csv"))}
    assert 'arch, "old"' not in kept
    assert kept["'dome', 0"] == 'the"dome",2'
    by_id["'dome', 0"] |= {"decision": "kepe"}
    with Path("mine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    line = 2 + [image_id for image_id, _ in rows].index("'dome', 0")
    assert run_error("clean", "dirty.csv", "--review", "mine.csv", "--output", "mine") == [
        "Error: mine.csv: 1 bad row; correct or remove, nothing of the file was used",
        f"mine.csv:{line}: decision 'kepe' is not keep, drop or relabel",
    ]


def test_another_version_and_a_damaged_state_are_refused(dirty):
    done(*CLEAN)
    state = Path("cleaned/clean.json")
    text = state.read_text()
    state.write_text(text.replace('"format_version": 1', '"format_version": 9'))
    assert refused(*CLEAN) == (
        "cleaned/clean.json has format_version 9, this program reads 1; use the lmr that made it"
    )
    state.write_text(text[:30])
    assert refused(*CLEAN).startswith("cleaned/clean.json is not JSON (")
    state.write_text('{"format_version": 1, "inputs": {}}')
    assert refused(*CLEAN) == (
        "cleaned/clean.json is damaged or of another version (Object missing required field `counts`); "
        "remove it and run lmr clean again"
    )
    state.write_text(text.replace('"format_version": 1', '"format_version": 9'))
    assert done(*CLEAN, "--overwrite").stdout.splitlines()[-1] == "cleaned: written"


def test_one_image_and_one_landmark_are_kept(dirty):
    write_csv(Path("dirty.csv"), "id,landmark_id", ["train-arch-0,arch"])
    assert done(*CLEAN).stdout.splitlines()[0] == "1 picture: 1 kept, 0 left out, 0 with another label"
    write_csv(Path("dirty.csv"), "id,landmark_id", [f"train-{label}-0,arch" for label in LABELS])
    done(*CLEAN, "--output", "one")
    assert not_kept("one/decisions.csv") == {}


def test_killed_at_any_file_operation_the_same_command_ends_alike(dirty, monkeypatch):
    done(*CLEAN)
    whole = read_rows(Path("cleaned/decisions.csv"))
    shutil.rmtree("cleaned")
    fresh = dirty
    n = n_file_operations(Path(shutil.copytree(fresh, fresh.parent / "counted")), CLEAN)
    for at in (1, n // 2, n):
        folder = Path(shutil.copytree(fresh, fresh.parent / f"killed-{at}"))
        run_and_die(folder, CLEAN, at)
        monkeypatch.chdir(folder)
        done(*CLEAN)
        assert sorted(path.name for path in Path("cleaned").iterdir()) == FILES
        assert read_rows(Path("cleaned/decisions.csv")) == whole
        assert len(read_rows(Path("cleaned/kept.csv"))) == 42


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(dirty):
    code, text = run_apart(dirty, CLEAN, file_bytes=2000)
    assert code == 1, text
    assert text.splitlines()[-1].startswith("Error: cleaned/unfinished/rows.faiss cannot be written: ")
    assert refused(*CLEAN, "--odds", "50") == (
        "cleaned holds an unfinished cleaning of other inputs (odds was 200.0, is 50.0); "
        "give --overwrite or another --output"
    )
    done(*CLEAN)
    assert sorted(path.name for path in Path("cleaned").iterdir()) == FILES


def test_the_library_cleans_as_the_command_does_and_draws_no_gallery(dirty):
    report = lmr.clean("dirty.csv", store="train.h5", checks="labels", device="cpu", workers=1, progress=SILENT)
    assert report.to_json() == {**json.loads(done(*CLEAN, "--json").stdout), "state": "written"}
    assert not Path("cleaned/gallery.html").exists()
    assert lmr.clean("dirty.csv", review="cleaned/decisions.csv", progress=SILENT).state == "reviewed"
