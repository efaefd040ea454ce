"""`lmr submit`: every id once and in order, blank where there is no answer, for any index."""

import itertools
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, N_HELD, N_OTHERS, cut_short, done, listing, misused, read_rows, refused, write_csv

N = 4 * N_HELD + N_OTHERS


def cells(path: str = "submission.csv") -> dict[str, str]:
    """id -> cell."""
    return {row["id"]: row["landmarks"] for row in read_rows(Path(path))}


def test_every_id_is_there_once_and_in_order(tiny_set):
    ids = Path("test.csv").read_text().splitlines()[1:]
    write_csv(Path("test.csv"), "id", ids[::-1])
    done("submit", *HERE)
    lines = Path("submission.csv").read_text().splitlines()
    assert lines[0] == "id,landmarks"
    assert [line.split(",")[0] for line in lines[1:]] == ids[::-1]
    for cell in cells().values():
        label, score = cell.split() if cell else ("arch", "0.5")
        assert label in ("arch", "bridge", "castle", "dome")
        assert 0 <= float(score) <= 1


def test_unreadable_and_missing_images_are_blank_lines_and_counted(tiny_set):
    Path("images/test-arch-0.jpg").unlink()
    cut_short(Path("images/test-dome-0.jpg"))
    result = done("submit", "--threshold", "0", *HERE)
    assert [image_id for image_id, cell in cells().items() if not cell] == ["test-arch-0", "test-dome-0"]
    assert result.stdout == f"submission.csv: {N} lines, {N - 2} with a landmark, 2 blank\n"
    assert result.stderr == (
        "unreadable: test-arch-0: not found: tried images/test-arch-0.jpg and 23 other places\n"
        "unreadable: test-dome-0: broken JPEG: cut short\n"
        f"2 of {N} pictures are unreadable and have no descriptor\n"
        "2 of the blank lines are pictures that are missing or unreadable\n"
    )
    again = done("submit", "--threshold", "0", "--overwrite", *HERE)
    assert again.stderr.splitlines()[-1] == "2 of the blank lines are pictures that are missing or unreadable"


def test_a_test_set_of_which_nothing_can_be_read_is_an_error(tiny_set):
    write_csv(Path("gone.csv"), "id", ["a", "b"])
    assert refused("submit", "gone.csv", *HERE) == (
        "gone.csv: none of its 2 pictures can be found and read; "
        "check --images, and give --retry-unreadable once they can be"
    )
    assert not Path("submission.csv").exists()


def test_an_index_without_calibration_answers_everything_and_says_so_once(tiny_set):
    Path("landmarks/calibration.json").unlink()
    result = done("submit", *HERE)
    assert result.stdout == f"submission.csv: {N} lines, {N} with a landmark, 0 blank\n"
    assert result.stderr == (
        "landmarks is not calibrated: ranked by score, every picture answered; lmr calibrate sets a threshold\n"
    )
    assert refused("submit", "test.csv", "--threshold", "0.5", "--overwrite") == (
        "--threshold 0.5: landmarks is not calibrated; run lmr calibrate first"
    )


def test_without_calibration_the_score_is_less_by_three_quarters_of_the_background(tiny_set):
    import lmr
    from index.recognition import UNCALIBRATED_BACKGROUND_WEIGHT, answer

    Path("landmarks/calibration.json").unlink()
    done("submit", *HERE)
    landmarks = lmr.open_index("landmarks", device="cpu", workers=1)
    ids = list(cells())
    vectors, _ = landmarks.embed([f"images/{image_id}.jpg" for image_id in ids])
    found = answer(landmarks.folder, vectors.astype("float16").astype("float32"))
    assert UNCALIBRATED_BACKGROUND_WEIGHT == 0.75
    for image_id, score, background in zip(ids, found.score, found.background, strict=True):
        assert float(cells()[image_id].split()[1]) == pytest.approx(score - 0.75 * background, abs=1e-3)


def test_the_threshold_only_blanks_lines(tiny_set):
    counts = []
    for threshold in ("0", "0.5", "0.99", "1"):
        done("submit", "--threshold", threshold, "--overwrite", *HERE)
        counts.append(cells())
    for more, fewer in itertools.pairwise(counts):
        kept = {image_id: cell for image_id, cell in fewer.items() if cell}
        assert kept.items() <= more.items()
    assert all(counts[0].values())
    assert sum(map(bool, counts[0].values())) > sum(map(bool, counts[2].values()))
    assert misused("submit", "--threshold", "2") == "Invalid value for '--threshold': 2.0 is not in the range 0<=x<=1."
    assert misused("submit", "--threshold", "nan") == "Invalid value for '--threshold': nan is not a number"


def test_descriptors_that_are_there_are_used_and_a_finished_submission_is_left(tiny_set):
    done("submit", *HERE)
    shutil.rmtree("images")
    files = listing(tiny_set)
    assert done("submit", *HERE).stdout == f"submission.csv: finished already, nothing to do ({N} lines)\n"
    done("submit", "--overwrite", *HERE)
    assert listing(tiny_set) == files


OTHER_INPUTS = [
    ([], ["build-index", "--overwrite", "--storage", "float16", "--device", "cpu"], "another index"),
    ([], ["calibrate", "val.csv", "--precision", "0.5", "--overwrite", *HERE], "another calibration"),
    (["--threshold", "0.25"], [], "another --threshold (none, now 0.25)"),
    (["--store", "other.h5"], [], "another set of descriptors"),
]


@pytest.mark.parametrize(("further", "between", "named"), OTHER_INPUTS, ids=[named for *_, named in OTHER_INPUTS])
def test_a_submission_of_other_inputs_is_refused_by_name_and_replaced_when_asked(tiny_set, further, between, named):
    done("submit", *HERE)
    before = Path("submission.csv").read_text()
    if between:
        done(*between)
    cut_short(Path("images/test-dome-0.jpg"))  # which only another store notices
    assert refused("submit", *further, *HERE) == (
        f"submission.csv was made with {named}; give --overwrite or another --output"
    )
    assert Path("submission.csv").read_text() == before
    done("submit", *further, "--overwrite", *HERE)
    assert done("submit", *further, *HERE).stdout == f"submission.csv: finished already, nothing to do ({N} lines)\n"


def test_a_submission_that_is_not_as_it_was_written_is_refused(tiny_set):
    Path("submission.csv").write_text("id,landmarks\n")
    assert refused("submit", *HERE) == "submission.csv exists; give --overwrite or another --output"
    done("submit", "--overwrite", *HERE)
    with Path("submission.csv").open("a") as file:
        file.write("mine,\n")
    assert refused("submit", *HERE) == (
        "submission.csv was changed since it was written; give --overwrite or another --output"
    )


def test_an_index_of_one_image_gives_its_landmark_to_all(tiny_set):
    write_csv(Path("one.csv"), "id,landmark_id", ["train-arch-0,arch"])
    done("embed", "one.csv", *HERE)
    done("build-index", "one.h5", "--whitening-power", "0", "--output", "one", "--device", "cpu")
    done("submit", "--index", "one", *HERE)
    assert {cell.split()[0] for cell in cells().values()} == {"arch"}


def test_ids_that_need_quotes_keep_them(tiny_set):
    shutil.copy("images/test-arch-0.jpg", 'images/a,"b.jpg')
    Path("odd.csv").write_text('id\n"a,""b"\n')
    done("submit", "odd.csv", *HERE)
    (row,) = read_rows(Path("submission.csv"))
    assert row["id"] == 'a,"b'
    assert row["landmarks"].startswith("arch ")
