"""`lmr feedback`: verdicts settled by majority, and files that the other commands read."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, done, n_file_operations, read_rows, refused, run, run_and_die

from index.serving.feedback import Feedback, FeedbackFolder, Verdict
from retrieval.images.limits import Limits

FILES = ("held-out.csv", "images.csv", "labels.csv", "left-out.csv", "remove.csv")


class Saying:
    """Says what is right into the table of the index of the working folder; each verdict is somebody else's."""

    def __init__(self) -> None:
        self.folder, self._n = FeedbackFolder(Path("landmarks.feedback"), 10_000_000), 0

    def of_row(self, image_id: str, verdict: Verdict, landmark: str = "", answered: str = "arch") -> None:
        """Of the label of a row."""
        self._add(Feedback(verdict, landmark, answered, image_id=image_id))

    def of_image(
        self, name: str, verdict: Verdict, landmark: str = "", answered: str = "arch", *, keep: bool = True
    ) -> str:
        """Of the answer to an image of the set; the image_id that it would get."""
        data = Path(f"images/{name}.jpg").read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        said = Feedback(verdict, landmark, answered, sha256=digest)
        self._add(self.folder.keep(said, data, Limits()) if keep else said)
        return f"feedback-{digest[:16]}"

    def _add(self, said: Feedback) -> None:
        self._n += 1
        self.folder.add(Feedback(**{n: getattr(said, n) for n in said.__slots__} | {"id": f"verdict-{self._n}"}))


@pytest.fixture
def saying(tiny_set: Path) -> Saying:
    return Saying()


def labels_in(name: str) -> dict[str, str]:
    """image_id -> landmark_id of a file."""
    return {row["image_id"]: row["landmark_id"] for row in read_rows(Path("feedback", name))}


def report(*options: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(done("feedback", "--json", *options).stdout)
    return found


def test_labels_of_rows_are_settled_by_majority(saying):
    for verdict, landmark in (("other", "dome"), ("other", "dome"), ("right", "")):
        saying.of_row("train-arch-0", verdict, landmark)  # two against one
    for verdict, landmark in (("other", "dome"), ("right", "")):
        saying.of_row("train-arch-1", verdict, landmark)  # one against one
    saying.of_row("train-arch-2", "right")
    for verdict in ("wrong", "wrong", "right"):
        saying.of_row("train-arch-3", verdict)
    saying.of_row("train-arch-4", "none")
    for landmark in ("dome", "castle"):
        saying.of_row("train-arch-5", "other", landmark)  # they agree that it is no arch
    saying.of_row("train-arch-66", "wrong")  # gone from the index since
    found = report()
    assert (found["n_verdicts"], found["n_images"]) == (13, 7)
    assert (found["n_confirmed"], found["n_relabelled"], found["n_removed"]) == (1, 1, 3)
    assert labels_in("labels.csv") == {"train-arch-0": "dome"}
    assert [row["image_id"] for row in read_rows(Path("feedback/remove.csv"))] == [
        *("train-arch-3", "train-arch-4", "train-arch-5")
    ]
    assert read_rows(Path("feedback/left-out.csv")) == [
        {"image_id": "train-arch-1", "reason": "the verdicts disagree"},
        {"image_id": "train-arch-66", "reason": "wrong, and nobody says what it shows"},
    ]
    assert found["left_out"] == {"the verdicts disagree": 1, "wrong, and nobody says what it shows": 1}


def test_images_come_into_the_index_or_are_held_out(saying):
    new = saying.of_image("test-dome-0", "other", "gate")  # a landmark that the index has not is never held out
    held = saying.of_image("test-other-0", "none")
    right = saying.of_image("test-other-1", "right", answered="")  # right that there is none
    unsaid = saying.of_image("test-arch-1", "wrong")
    bare = saying.of_image("test-arch-2", "right", keep=False)
    known = {saying.of_image(f"test-arch-{i}", "right") for i in (0, 3)}
    found = report("--held-out", "1")
    assert labels_in("images.csv") == {new: "gate"}
    assert labels_in("held-out.csv") == {held: "", right: "", **dict.fromkeys(known, "arch")}
    assert (found["n_new"], found["n_held_out"], found["n_non_landmarks"]) == (1, 4, 2)
    assert {row["image_id"]: row["reason"] for row in read_rows(Path("feedback/left-out.csv"))} == {
        unsaid: "wrong, and nobody says what it shows",
        bare: "the image was not kept",
    }
    assert report("--held-out", "0", "--overwrite")["n_new"] == 3
    assert labels_in("images.csv") == {new: "gate", **dict.fromkeys(known, "arch")}
    assert all(Path(row["path"]).is_file() for row in read_rows(Path("feedback/images.csv")))


def test_as_many_verdicts_as_asked_must_agree(saying):
    saying.of_row("train-arch-0", "other", "dome")
    for _ in range(2):
        saying.of_row("train-arch-1", "other", "dome")
    assert report("--at-least", "2")["left_out"] == {"too few verdicts say the same": 1}
    assert labels_in("labels.csv") == {"train-arch-1": "dome"}


def test_an_image_that_came_into_the_index_is_a_row_from_then_on(saying):
    name = saying.of_image("test-dome-0", "other", "dome")
    report("--held-out", "0")
    done("embed", "feedback/images.csv", "--model", "landmarks/model", *HERE)
    done("index", "add", "feedback/images.h5")
    assert report("--overwrite")["n_confirmed"] == 1
    for _ in range(2):
        saying.of_image("test-dome-0", "other", "castle", keep=False)
    report("--overwrite")
    assert labels_in("labels.csv") == {name: "castle"}
    assert labels_in("images.csv") == {}


def test_with_manifests_the_files_are_those_that_the_commands_read(saying):
    saying.of_row("train-arch-0", "other", "dome")
    saying.of_row("train-arch-1", "none")
    new, held = saying.of_image("test-dome-0", "other", "gate"), saying.of_image("test-other-0", "none")
    told = run("feedback", "--manifest", "train.csv", "--queries", "val.csv")
    assert told.stdout == (
        "4 verdicts on 4 images\n"
        "       0  labels confirmed, 1 changed, 1 removed\n"
        "       1  image to add\n"
        "       1  held out, 1 of them without a landmark\n"
        "feedback: written\n"
    )
    assert told.stderr == (
        "next: lmr index relabel feedback/labels.csv --index landmarks && "
        "lmr index remove --ids-file feedback/remove.csv --index landmarks && "
        "lmr embed feedback/images.csv --model landmarks/model && "
        "lmr index add feedback/images.h5 --index landmarks && "
        "lmr calibrate feedback/held-out.csv --index landmarks --overwrite && "
        "lmr clean train.csv --review feedback/decisions.csv\n"
    )
    changed = {row["image_id"]: row for row in read_rows(Path("feedback/decisions.csv")) if row["decision"] != "keep"}
    assert {name: (row["decision"], row["suggested_landmark_id"]) for name, row in changed.items()} == {
        "train-arch-0": ("relabel", "dome"),
        "train-arch-1": ("drop", ""),
    }
    assert changed["train-arch-0"]["evidence"] == "feedback: 1 of 1 say dome"
    before = {row["id"]: row["landmark_id"] for row in read_rows(Path("train.csv"))}
    expected = {name: label for name, label in before.items() if name != "train-arch-1"} | {"train-arch-0": "dome"}
    assert labels_in("train.csv") == {**expected, new: "gate"}
    assert labels_in("held-out.csv") == {
        **{row["id"]: row["landmark_id"] for row in read_rows(Path("val.csv"))},
        held: "",
    }
    assert "1 left out, 1 with another label" in done("clean", "train.csv", "--review", "feedback/decisions.csv").stdout
    kept = {row["image_id"]: row["landmark_id"] for row in read_rows(Path("cleaned/kept.csv"))}
    assert kept == expected


def test_the_same_feedback_is_finished_already_and_other_feedback_is_refused(saying):
    saying.of_row("train-arch-0", "other", "dome")
    done("feedback")
    assert done("feedback").stdout.endswith("feedback: finished already, nothing to do\n")
    assert refused("feedback", "--at-least", "2") == (
        "feedback/images.csv was made with another at_least (1, now 2); give --overwrite or another --output"
    )
    saying.of_row("train-arch-0", "other", "castle")
    assert refused("feedback") == (
        "feedback/images.csv was made with another feedback; give --overwrite or another --output"
    )
    Path("feedback/labels.csv").write_text("mine\n")
    assert refused("feedback", "--output", "feedback").startswith("feedback/images.csv was made with another feedback")
    done("feedback", "--manifest", "train.csv", "--overwrite")
    assert sorted(path.name for path in Path("feedback").glob("*.csv")) == sorted(
        ["decisions.csv", "train.csv", *FILES]
    )
    done("feedback", "--overwrite")
    assert sorted(path.name for path in Path("feedback").glob("*.csv")) == [*FILES]


def test_without_feedback_there_is_nothing_to_turn(tiny_set):
    assert refused("feedback") == (
        f"{tiny_set}/landmarks.feedback/feedback.csv: there is no feedback yet; lmr serve writes it there"
    )
    assert not Path("feedback").exists()


def test_a_kill_at_any_moment_leaves_nothing_that_the_same_command_does_not_finish(saying, monkeypatch, tmp_path):
    saying.of_row("train-arch-0", "other", "dome")
    saying.of_image("test-dome-0", "other", "gate")
    whole = Path(shutil.copytree(tmp_path / "set", tmp_path / "whole"))
    command: list[object] = ["feedback", "--manifest", "train.csv"]
    n = n_file_operations(whole, command)
    for at in (n // 2, n - 1):
        folder = Path(shutil.copytree(tmp_path / "set", tmp_path / f"killed-{at}"))
        run_and_die(folder, command, at)
        monkeypatch.chdir(folder)
        done(*command)
        for name in (*FILES, "decisions.csv"):
            there = Path("feedback", name).read_text().replace(str(folder), "")
            assert there == (whole / "feedback" / name).read_text().replace(str(whole), "")
        assert done(*command).stdout.endswith("feedback: finished already, nothing to do\n")
