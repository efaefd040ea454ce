"""Verified answers from images to submissions, with RootSIFT on made-up façades."""

import csv
import io
import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_set import HERE, NETWORK, done, listing, n_file_operations, read_rows, refused, run, run_and_die, write_csv

import lmr
from index.serving.config import ServingSettings

LABELS = ("abbey", "bank", "castle", "dock")
SIDE = 160


def facade(label: int, seed: int) -> Image.Image:
    """Part of the label's own pattern of blocks, seen from another place and in another light; -1: of no label's."""
    pattern = np.random.default_rng([7, label + 1, 0 if label >= 0 else seed])
    blocks = np.kron(pattern.integers(0, 256, (30, 30, 3)), np.ones((8, 8, 1)))
    rng = np.random.default_rng([label + 1, seed])
    left, top = rng.integers(0, 216 - SIDE, 2)
    pixels = blocks[top : top + SIDE, left : left + SIDE] * rng.uniform(0.7, 1.0) + rng.normal(0, 6, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def make_part(name: str, n: int, n_others: int, first: int) -> None:
    rows = []
    for label in range(-1, len(LABELS)):
        for i in range(n_others if label < 0 else n):
            image_id = f"{name}-{LABELS[label] if label >= 0 else 'other'}-{i}"
            facade(label, first + i).save(f"images/{image_id}.png")
            rows.append(f"{image_id},{LABELS[label] if label >= 0 else ''}")
    write_csv(Path(f"{name}.csv"), "id,landmark_id", rows)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, stores, an index with local features, calibrated with verification; not to be changed."""
    pytest.importorskip("cv2", reason="geometric verification needs the extra local")
    folder, before = tmp_path_factory.mktemp("facades"), Path.cwd()
    os.chdir(folder)
    try:
        Path("images").mkdir()
        make_part("train", 4, 0, 0)
        make_part("val", 5, 14, 100)
        make_part("test", 2, 4, 200)
        done("embed", *NETWORK, *HERE, "--local", "rootsift", "--keypoints", "300")
        done("build-index", "--local", "--device", "cpu")
        done("calibrate", "val.csv", *HERE)
        shutil.copy("landmarks/calibration.json", "plain.json")
        done("calibrate", "val.csv", "--verify", *HERE)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def facades(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that is the working folder."""
    folder = tmp_path / "facades"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def calibration() -> dict:
    return json.loads(Path("landmarks/calibration.json").read_text())


def asked(*arguments: object) -> list[dict]:
    return json.loads(done("query", *arguments, "--json", *HERE).stdout)


def test_descriptors_that_were_made_before_are_verified_by_their_images(facades):
    landmarks = lmr.open_index("landmarks", device="cpu", threads=1, workers=1)
    images = [Path(f"images/test-{label}-0.png").read_bytes() for label in ("abbey", "other")]
    descriptors, _ = landmarks.embed(images)
    assert landmarks.answer_descriptors(descriptors, ["bytes", "bytes"], images, verify=True) == landmarks.query(
        images, verify=True
    )
    with pytest.raises(ValueError, match=r"^0 images do not fit 2 descriptors$"):
        landmarks.answer_descriptors(descriptors, ["bytes", "bytes"], verify=True)


def test_a_service_verifies_as_the_index_does(facades):
    image = Path("images/test-abbey-0.png").read_bytes()
    with closing(lmr.open_service("landmarks", ServingSettings(verify=True), device="cpu", threads=1)) as service:
        verified, plain = (service.query(image, "bytes", verify=verify).result(60) for verify in (None, False))
        assert [verified] == service.landmarks.query([image], verify=True)
        assert [plain] == service.landmarks.query([image])


def test_calibrating_with_verification_says_what_it_gains_and_keeps_the_plain_part(facades):
    again = done("calibrate", "val.csv", "--verify", *HERE)
    assert "landmarks: calibrated already, nothing to do" in again.stderr
    verified = calibration()["verified"]
    gain = verified["cross_validated"]["gap"] - calibration()["cross_validated"]["gap"]
    assert gain == pytest.approx(verified["choice"]["from_plain"])
    assert gain > 0.1  # an untrained network against blocks in their own places
    lines = again.stdout[again.stdout.index("with the best") :].splitlines()
    assert lines[0] == "with the best 20 neighbours verified (--verify):"
    assert lines[2] == f"  a neighbour counts as verified from {verified['n_inliers']} inliers on"
    seen, choice = verified["cross_validated"], verified["choice"]
    assert lines[3].startswith(f"  cross-validated: GAP {seen['gap']:.3f}, {choice['plain_gap']:.3f} without (")
    row = verified["gain"][0]
    assert lines[4] == (
        f"  at a precision of 95%: {row['recall']:.1%} of landmark queries are named rightly, "
        f"{row['plain_recall']:.1%} without; {row['turned_away']:.1%} of non-landmarks are turned away, "
        f"{row['plain_turned_away']:.1%} without"
    )
    plain, whole = json.loads(Path("plain.json").read_text()), calibration()
    del whole["verified"]
    for content in (plain, whole):
        del content["sha256"]
    assert plain == whole
    before = listing(facades)
    assert "landmarks: calibrated already, nothing to do" in done("calibrate", "val.csv", *HERE).stderr
    assert listing(facades) == before


def test_a_query_is_answered_by_verified_neighbours_and_says_so(facades):
    where = "images/test-castle-0.png"
    (answer,) = asked(where, "--verify")
    enough = calibration()["verified"]["n_inliers"]
    assert (answer["landmark_id"], answer["verified"]) == ("castle", True)
    assert answer["threshold"] == calibration()["verified"]["threshold_precision"]["confidence"]
    first = answer["neighbours"][0]
    assert first["landmark_id"] == "castle"
    assert first["inliers"] >= enough
    lines = done("query", where, "--verify", *HERE).stdout.splitlines()
    best = max(n["inliers"] or 0 for n in answer["neighbours"] if n["landmark_id"] == "castle")
    assert f"  verified: {best} inliers" in lines
    assert lines[-5] == f"  {first['score']:6.3f}  castle  {first['path']}  {first['inliers']} inliers"
    (row,) = csv.DictReader(io.StringIO(done("query", where, "--verify", "--csv", *HERE).stdout))
    assert (row["landmark_id"], row["verified"], row["inliers"]) == ("castle", "true", str(best))
    (other,) = asked("images/test-other-1.png", "--verify")
    assert (other["landmark_id"], other["verified"]) == (None, False)


def test_a_query_without_verification_is_answered_as_before(facades):
    where = "images/test-castle-0.png"
    plain = asked(where)
    shutil.copy("plain.json", "landmarks/calibration.json")
    assert asked(where) == plain
    assert plain[0]["verified"] is None


def test_an_index_calibrated_without_verification_shows_inliers_and_says_so(facades):
    shutil.copy("plain.json", "landmarks/calibration.json")
    where = "images/test-castle-0.png"
    told = run("query", where, "--verify", "--json", *HERE)
    (answer,), (plain,) = json.loads(told.stdout), asked(where)
    assert told.stderr == (
        "landmarks is not calibrated for verified answers: inliers are shown, and change no answer; "
        "lmr calibrate --verify makes them count\n"
    )
    assert (answer["confidence"], answer["landmark_id"]) == (plain["confidence"], plain["landmark_id"])
    verified, nearest = ([n["image_id"] for n in found["neighbours"]] for found in (answer, plain))
    assert verified[: len(nearest)] == nearest
    assert max(n["inliers"] for n in answer["neighbours"]) > 20
    for command in (("submit", "test.csv"), ("evaluate", "val.csv")):
        assert refused(*command, "--verify", *HERE) == (
            "landmarks is not calibrated for verified answers; run lmr calibrate --index landmarks --verify"
        )


def test_an_index_without_local_features_is_refused_with_what_makes_them(facades):
    done("build-index", "--overwrite", "--device", "cpu")
    message = (
        "landmarks has no local features to verify by; make some with lmr embed --local, then run "
        "lmr build-index --local"
    )
    for command in (
        ("query", "images/test-castle-0.png"),
        ("calibrate", "val.csv"),
        ("submit", "test.csv"),
        ("evaluate", "val.csv"),
    ):
        assert refused(*command, "--verify", *HERE) == message


def test_images_that_leave_nothing_to_compare_are_not_verified(facades):
    Image.new("RGB", (64, 64), (90, 90, 90)).save("blank.png")
    Image.new("RGB", (3, 2), (9, 200, 90)).save("tiny.png")
    Image.new("RGB", (900, 9), (9, 200, 90)).save("wide.png")
    for answer in asked("blank.png", "tiny.png", "wide.png", "--verify"):
        assert answer["verified"] is False
        assert {n["inliers"] for n in answer["neighbours"]} <= {0, None}


def test_a_copy_of_a_row_is_verified_by_nearly_all_of_its_keypoints(facades):
    (answer,) = asked("images/train-dock-2.png", "--verify")
    assert (answer["in_index"], answer["verified"]) == ("train-dock-2", True)
    assert answer["neighbours"][0]["image_id"] == "train-dock-2"
    assert answer["neighbours"][0]["inliers"] > 60


def test_a_submission_of_verified_answers_is_told_from_a_plain_one_and_made_by_shares(facades):
    whole = done("submit", "test.csv", "--verify", "--output", "whole.csv", *HERE).stdout
    assert whole.startswith("whole.csv: 12 lines, ")
    named = {row["id"]: row["landmarks"] for row in read_rows(Path("whole.csv"))}
    right = [named[f"test-{label}-{i}"].startswith(f"{label} ") for label in LABELS for i in range(2)]
    assert sum(right) >= 7  # one of them shares little with any row
    assert done("submit", "test.csv", "--verify", "--output", "whole.csv", *HERE).stdout == (
        "whole.csv: finished already, nothing to do (12 lines)\n"
    )
    assert refused("submit", "test.csv", "--output", "whole.csv", *HERE) == (
        "whole.csv was made with another verification; give --overwrite or another --output"
    )
    done("submit", "test.csv", "--output", "plain.csv", *HERE)
    assert refused("submit", "test.csv", "--verify", "--output", "plain.csv", *HERE) == (
        "plain.csv was made with another verification; give --overwrite or another --output"
    )
    for share in ("1/2", "2/2"):
        done("submit", "test.csv", "--verify", "--output", "parts.csv", "--shard", share, *HERE)
    done("join", "parts-1-of-2.json", "parts-2-of-2.json", "--output", "parts.csv")
    assert Path("parts.csv").read_text() == Path("whole.csv").read_text()
    again = done("submit", "test.csv", "--verify", "--output", "parts.csv", *HERE)
    assert again.stdout == "parts.csv: finished already, nothing to do (12 lines)\n"


def test_a_submission_that_was_killed_goes_on_to_the_same_one(facades):
    arguments = ["submit", "test.csv", "--verify", "--output", "killed.csv", *HERE]
    before = facades.parent / "before"
    shutil.copytree(facades, before)
    n = n_file_operations(facades, arguments)
    whole = Path("killed.csv").read_text()
    os.chdir(before)
    run_and_die(before, arguments, n // 2)
    done(*arguments)
    assert Path("killed.csv").read_text() == whole


def test_an_evaluation_measures_verified_answers_beside_plain_ones(facades):
    rows = [f"{row['id']},{row['id'].split('-')[1].replace('other', '')}" for row in read_rows(Path("test.csv"))]
    write_csv(Path("asked.csv"), "id,landmark_id", rows)
    plain = json.loads(done("evaluate", "asked.csv", "--json", *HERE).stdout)
    found = json.loads(done("evaluate", "asked.csv", "--verify", "--json", *HERE).stdout)
    without = found["without_verification"]
    assert (without["gap"], without["top1"], found["baselines"]) == (plain["gap"], plain["top1"], plain["baselines"])
    assert found["gap"] > 0.8 > 0.6 > without["gap"]
    assert [row["precision"] for row in found["verification_at_precision"]] == [0.95, 0.99]
    assert found["verification_at_precision"][0]["turned_away"] == 1.0
    assert "without_verification" not in plain
    lines = done("evaluate", "asked.csv", "--verify", *HERE).stdout.splitlines()
    assert lines[2].split() == [
        "without",
        "verification",
        *(f"{without[key]:.3f}" for key in ("gap", "top1", "top5", "top10")),
    ]
    for share in ("1/2", "2/2"):
        done("evaluate", "asked.csv", "--verify", "--shard", share, *HERE)
    done(
        "join",
        "asked.verified-1-of-2.outcomes",
        "asked.verified-2-of-2.outcomes",
        "--output",
        "asked.verified.outcomes",
    )
    joined = run("evaluate", "asked.csv", "--verify", "--json", *HERE)
    assert "all are asked again" not in joined.stderr
    joined = json.loads(joined.stdout)
    del joined["measured"], found["measured"]
    assert joined == found


def test_outcomes_of_other_local_features_are_not_taken_for_these(facades):
    rows = ["test-bank-0,bank", "test-dock-1,dock", "test-abbey-0,abbey", "test-other-0,"]
    for name, n in (("asked", 4), ("fewer", 3)):
        write_csv(Path(f"{name}.csv"), "id,landmark_id", rows[:n])
        done("embed", f"{name}.csv", *HERE, "--local", "rootsift", "--keypoints", "300")
    for share in ("1/2", "2/2"):
        done("evaluate", "asked.h5", "--verify", "--shard", share, *HERE)
    parts = ["asked.verified-1-of-2.outcomes", "asked.verified-2-of-2.outcomes"]
    done("join", *parts, "--output", "asked.verified.outcomes")
    assert "asked again" not in done("evaluate", "asked.h5", "--verify", *HERE).stderr
    shutil.copy("fewer.local.h5", "asked.local.h5")
    assert "finished already" in done("evaluate", "asked.h5", "--verify", "--shard", "1/2", *HERE).stdout
    assert refused("evaluate", "asked.h5", "--verify", "--shard", "2/2", *HERE) == (
        f"{parts[1]} was made with another set of local features; give --overwrite or another name"
    )
    told = done("evaluate", "asked.h5", "--verify", *HERE).stderr
    assert "asked.verified.outcomes is not of these queries and this index as they are: all are asked again" in told


def test_leaving_one_out_cannot_be_verified(facades):
    assert refused("evaluate", "--leave-one-out", "--verify", *HERE) == (
        "--verify needs --queries; images of the index are left out by their descriptors alone"
    )
    assert refused("query", "images/test-castle-0.png", "--verify-top", "5", *HERE) == "--verify-top needs --verify"


def test_a_store_of_queries_needs_its_local_store_beside_it(facades):
    shutil.copy("val.h5", "held.h5")
    assert refused("calibrate", "held.h5", "--verify", "--overwrite", *HERE) == (
        "held.local.h5: there is no such store of local features; lmr embed --local makes one"
    )
    shutil.copy("val.local.h5", "held.local.h5")
    done("calibrate", "held.h5", "--verify", "--overwrite", *HERE)


def change_image(name: str) -> None:
    facade(0, 999).save(f"images/{name}.png")


def test_local_features_of_other_files_than_the_descriptors_are_refused(facades):
    change_image("val-bank-1")
    done("embed", "val.csv", *HERE)
    for command in ("calibrate", "evaluate"):
        assert refused(command, "val.h5", "--verify", *HERE) == (
            "val.local.h5 was made of other images than val.h5: val-bank-1; lmr embed makes what is behind anew"
        )


def test_local_features_of_other_settings_are_refused_before_anything_is_embedded(facades):
    write_csv(Path("asked.csv"), "id,landmark_id", ["test-bank-0,bank", "test-dock-1,dock"])
    done("embed", "asked.csv", *HERE, "--local", "rootsift", "--keypoints", "20")
    Path("asked.h5").unlink()
    for command in ("calibrate", "evaluate", "submit"):
        assert refused(command, "asked.csv", "--verify", *HERE) == (
            "asked.local.h5 was made with another number of keypoints (20, now 300); give --overwrite or another "
            "file name"
        )
        assert not Path("asked.h5").exists()


def test_calibrating_without_verification_says_that_the_verified_part_goes(facades):
    told = done("calibrate", "val.csv", "--precision", "0.9", "--overwrite", *HERE)
    line = "warning: landmarks is not calibrated for verified answers any more; lmr calibrate --verify does that\n"
    assert line in told.stderr
    assert "verified" not in calibration()
    assert line not in done("calibrate", "val.csv", "--precision", "0.8", "--overwrite", *HERE).stderr


def test_rows_whose_local_features_are_gone_stay_unverified_and_are_counted(facades):
    make_part("more", 2, 0, 300)
    done("embed", "more.csv", *HERE)
    done("index", "add", "more.h5", "--workers", "1")
    told = run("query", "images/more-castle-0.png", "--verify", "--json", *HERE)
    (answer,) = json.loads(told.stdout)
    own = next(n for n in answer["neighbours"] if n["image_id"] == "more-castle-0")
    assert own["inliers"] is None
    assert "of the index could not be compared: it has no local features of" in told.stderr


def test_sheets_and_pages_show_the_inliers(facades):
    pytest.importorskip("jinja2")
    done("query", "images/test-castle-0.png", "--verify", "--save", "sheet.png", *HERE)
    done("query", "images/test-castle-0.png", "--save", "plain.png", *HERE)
    heights = [Image.open(name).height for name in ("sheet.png", "plain.png")]
    assert heights[0] >= heights[1]
    done("query", "images/test-castle-0.png", "--verify", "--save", "page.html", *HERE)
    page = Path("page.html").read_text()
    (answer,) = asked("images/test-castle-0.png", "--verify")
    assert f"verified: {max(n['inliers'] or 0 for n in answer['neighbours'])} inliers" in page
    assert f"castle, train-castle-{answer['neighbours'][0]['image_id'][-1]}.png, " in page
