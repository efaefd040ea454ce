"""Feedback over HTTP: what is recorded, what is refused, and a table that nothing breaks."""

import hashlib
import io
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from index.serving.feedback import Feedback, FeedbackFolder, feedback_folder, read_feedback
from index.serving.service import Service
from retrieval.errors import LmrError

DIGEST = "ab" * 32


@pytest.fixture
def client(client_of: Callable[..., TestClient], tmp_path: Path) -> TestClient:
    """An app whose feedback goes to the test's own folder, which may hold a megabyte of images."""
    return client_of(feedback_folder=tmp_path / "said", keep_mb=1)


def test_a_verdict_is_recorded_once_however_often_it_is_sent(
    client: TestClient, tmp_path: Path, service: Service
) -> None:
    sent = {"verdict": "other", "landmark_id": "dome", "answered": "arch", "confidence": 0.75, "sha256": DIGEST}
    first, again = client.post("/v1/feedback", json=sent), client.post("/v1/feedback", json=sent)
    assert (first.status_code, again.status_code) == (201, 200)
    told = {"verdict": "other", "landmark_id": "dome", "answered": "arch", "image_id": None, "sha256": DIGEST}
    assert first.json() == {**told, "id": first.json()["id"], "state": "recorded", "kept": False, "note": ""}
    assert again.json() == {**first.json(), "state": "unchanged"}
    (said,) = read_feedback(tmp_path / "said")
    assert (said.verdict, said.landmark_id, said.answered, said.confidence) == ("other", "dome", "arch", 0.75)
    info = service.landmarks.folder.info
    assert (said.index, said.model) == (info.inputs_digest, info.fingerprint)
    assert said.time.endswith("+00:00")


def test_ids_tell_verdicts_apart_that_are_alike(client: TestClient, tmp_path: Path) -> None:
    sent = {"verdict": "wrong", "answered": "arch", "sha256": DIGEST}
    for name in ("one", "two", "one"):
        assert client.post("/v1/feedback", json={**sent, "id": name}).is_success
    assert [said.id for said in read_feedback(tmp_path / "said")] == ["one", "two"]
    refused = client.post("/v1/feedback", json={**sent, "verdict": "right", "id": "one"})
    assert refused.status_code == 409
    assert refused.json()["detail"] == "id one was given with another verdict; give each verdict an id of its own"


def test_a_verdict_on_a_row_tells_its_label(client: TestClient, tmp_path: Path) -> None:
    sent = {"verdict": "other", "landmark_id": "old DOME", "image_id": "train-arch-0", "answered": "bridge"}
    assert client.post("/v1/feedback", json=sent).json()["landmark_id"] == "dome"  # the one of that name
    (said,) = read_feedback(tmp_path / "said")
    assert (said.image_id, said.answered, said.landmark_id) == ("train-arch-0", "arch", "dome")
    refused = client.post("/v1/feedback", json={"verdict": "wrong", "image_id": "train-arch-99"})
    assert refused.status_code == 404
    assert refused.json()["detail"] == "landmarks has no image train-arch-99; lmr index export lists those it has"


def test_an_image_is_answered_again_and_kept_plain_where_that_is_asked(
    client: TestClient, tmp_path: Path, finished_set: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "somebody's garden"  # lies on its side
    buffer = io.BytesIO()
    with Image.open(finished_set / "images/test-arch-0.jpg") as image:
        image.resize((48, 40)).save(buffer, "JPEG", exif=exif, comment=b"secret")
    data = buffer.getvalue()
    form = {"verdict": "other", "landmark_id": "Hawa Mahal"}
    plain = client.post("/v1/feedback", data={**form, "id": "a"}, files={"image": ("x.jpg", data)})
    kept = client.post("/v1/feedback", data={**form, "id": "b", "keep": "true"}, files={"image": ("x.jpg", data)})
    digest = hashlib.sha256(data).hexdigest()
    assert [(one.json()["landmark_id"], one.json()["sha256"]) for one in (plain, kept)] == [("Hawa_Mahal", digest)] * 2
    assert (plain.json()["kept"], kept.json()["kept"]) == (False, True)
    before, said = read_feedback(tmp_path / "said")
    assert (before.image, said.image) == ("", f"images/{digest[:2]}/{digest}.jpg")
    (place,) = (tmp_path / "said" / "images").rglob("*.jpg")
    assert place == tmp_path / "said" / said.image
    content = place.read_bytes()
    assert b"garden" not in content
    assert b"secret" not in content
    with Image.open(place) as image:
        assert image.size == (40, 48)
        assert not image.getexif()


def test_an_image_of_the_index_is_a_row_and_not_kept(client: TestClient, tmp_path: Path, finished_set: Path) -> None:
    data = (finished_set / "images/train-dome-3.jpg").read_bytes()
    told = client.post("/v1/feedback", data={"verdict": "none", "keep": "1"}, files={"image": ("x.jpg", data)}).json()
    assert (told["image_id"], told["kept"], told["note"]) == ("train-dome-3", False, "the index has the image")


def test_images_are_kept_within_the_room_for_them(
    client_of: Callable[..., TestClient], tmp_path: Path, finished_set: Path
) -> None:
    data = (finished_set / "images/test-arch-0.jpg").read_bytes()
    form: dict[str, Any] = {"data": {"verdict": "right", "keep": "true"}, "files": {"image": ("x.jpg", data)}}
    none = client_of(feedback_folder=tmp_path / "none").post("/v1/feedback", **form)
    assert none.status_code == 201
    assert none.json()["note"] == "this server keeps no images; start it with --keep-mb above 0"
    full = client_of(feedback_folder=tmp_path / "full", keep_mb=0.001).post("/v1/feedback", **form)
    assert full.status_code == 201
    assert full.json()["note"] == "images: no room for an image of 0.0 MB, it may hold 0 MB in all"
    assert not [*tmp_path.rglob("*.jpg")]


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        ({"verdict": "maybe", "sha256": DIGEST}, "`verdict` must be 'right', 'wrong', 'other' or 'none', got 'maybe'"),
        ({"verdict": "right", "sha": DIGEST}, "there is no parameter sha; did you mean sha256?"),
        ({"verdict": "other", "sha256": DIGEST}, "landmark_id is missing; verdict other says which landmark it is"),
        (
            {"verdict": "right", "landmark_id": "arch", "sha256": DIGEST},
            "landmark_id goes with verdict other alone, got it with right",
        ),
        (
            {"verdict": "wrong"},
            "there is nothing that the verdict is on; send the image, its sha256 or the image_id of a row",
        ),
        (
            {"verdict": "wrong", "sha256": DIGEST},
            "answered is missing; verdict wrong needs the landmark that was answered, or none",
        ),
        ({"verdict": "none", "sha256": "../x"}, "sha256 is '../x'; give 64 small hexadecimal digits"),
        (
            {"verdict": "none", "sha256": DIGEST, "id": "a\nb"},
            "id is 'a\\nb'; give at most 100 letters, digits and . _ : -",
        ),
        (
            {"verdict": "other", "sha256": DIGEST, "landmark_id": "=cmd()"},
            "landmark_id '=cmd()' begins as a formula of a spreadsheet does; leave out '='",
        ),
        (
            {"verdict": "other", "sha256": DIGEST, "landmark_id": "N/A"},
            "landmark_id 'N/A' is a word for a blank cell; give the landmark, or verdict none",
        ),
        (
            {"verdict": "other", "sha256": DIGEST, "landmark_id": "a\x00b"},
            "landmark_id 'a\\x00b' holds a control character",
        ),
        (
            {"verdict": "wrong", "sha256": DIGEST, "answered": "a\nb,c"},
            "answered 'a\\nb,c' holds a control character",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    client: TestClient, tmp_path: Path, sent: dict[str, Any], detail: str
) -> None:
    refused = client.post("/v1/feedback", json=sent)
    assert (refused.status_code, refused.json()["detail"]) == (422, detail)
    assert not (tmp_path / "said").exists()


def test_a_form_with_two_images_or_other_fields_is_refused(client: TestClient) -> None:
    two = client.post("/v1/feedback", data={"verdict": "right"}, files=[("image", b"a"), ("image", b"b")])
    assert two.json()["detail"] == "the form holds 2 images; a verdict is on one, send one form for each"
    part = client.post("/v1/feedback", data={"verdict": "right", "box": "0,0,1,0.5"}, files={"image": b"a"})
    told = "a verdict is of a whole image, and `box` means nothing here; send the part as an image"
    assert (part.status_code, part.json()["detail"]) == (422, told)
    broken = client.post("/v1/feedback", data={"verdict": "right"}, files={"image": ("x.jpg", b"no image")})
    assert broken.status_code == 422
    assert broken.json()["detail"].startswith("the image cannot be read: ")


def test_the_table_is_beside_the_index_by_the_path_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "landmarks").symlink_to(tmp_path / "version-7")
    assert feedback_folder(tmp_path / "landmarks") == tmp_path / "landmarks.feedback"


def test_texts_are_guarded_for_spreadsheets_and_read_back_equal(tmp_path: Path) -> None:
    said = Feedback("wrong", answered="-minus", image_id='@a,"b"', sha256=DIGEST)
    FeedbackFolder(tmp_path).add(said)
    assert ",'-minus," in (tmp_path / "feedback.csv").read_text()
    (found,) = read_feedback(tmp_path)
    assert (found.answered, found.image_id) == ("-minus", '@a,"b"')


def test_a_line_that_a_killed_writer_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    one, two = Feedback("none", sha256=DIGEST), Feedback("none", sha256="cd" * 32)
    folder, table = FeedbackFolder(tmp_path), tmp_path / "feedback.csv"
    folder.add(one)
    with table.open("a") as file:
        file.write('2026-11-29T00:00:00+00:00,"half')
    assert len(read_feedback(tmp_path)) == 1
    folder.add(two)
    FeedbackFolder(tmp_path).add(one)  # another process, that finds both
    assert [said.sha256 for said in read_feedback(tmp_path)] == [DIGEST, "cd" * 32]


def test_another_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    table = tmp_path / "feedback.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(LmrError) as refused:
        FeedbackFolder(tmp_path).add(Feedback("none", sha256=DIGEST))
    assert str(refused.value) == f"{table} does not begin as lmr writes it; move it away, a new one is begun"
    assert table.read_text() == "a,b\n1,2\n"
    with pytest.raises(LmrError) as refused:
        read_feedback(tmp_path)
    assert str(refused.value) == f"{table}:1: no column time; give a table that lmr serve wrote"


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = FeedbackFolder(tmp_path)
    folder.add(Feedback("none", sha256=DIGEST))
    before = folder.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LmrError) as refused:
            folder.add(Feedback("none", sha256="cd" * 32))
    assert str(refused.value) == (
        f"{folder.path} cannot be written: No space left on device; choose another place or make room"
    )
    assert folder.path.read_bytes() == before
    assert folder.add(Feedback("none", sha256="cd" * 32))[1]


def test_a_client_is_not_told_where_feedback_is_on_disk(
    client_of: Callable[..., TestClient], tmp_path: Path, finished_set: Path
) -> None:
    place = tmp_path / "said"
    place.write_text("a file")
    form = {"image": ("x.jpg", (finished_set / "images/test-arch-0.jpg").read_bytes())}
    refused = client_of(feedback_folder=place).post("/v1/feedback", data={"verdict": "right"}, files=form)
    assert refused.status_code == 503
    detail = "said/feedback.csv cannot be written: Not a directory; choose another place or make room"
    assert refused.json()["detail"] == detail


def test_a_kill_loses_no_verdict_that_was_acknowledged(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    acknowledged: set[str] = set()
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    writers = [context.Process(target=_write_on, args=(tmp_path, str(i), pipes[i][1])) for i in range(2)]
    for writer in writers:
        writer.start()
    for receiving, _ in pipes:
        acknowledged |= {receiving.recv() for _ in range(10)}
    for writer, (receiving, sending) in zip(writers, pipes, strict=True):
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        sending.close()
        while receiving.poll():
            try:
                acknowledged.add(receiving.recv())
            except EOFError:
                break
    FeedbackFolder(tmp_path).add(Feedback("none", sha256=DIGEST, id="last"))
    found = [said.id for said in read_feedback(tmp_path)]
    assert acknowledged <= set(found)
    assert len(found) == len(set(found))
    assert (tmp_path / "feedback.csv").read_bytes().endswith(b"\n")


def _write_on(folder: Path, name: str, sending: Any) -> None:
    """Writes verdicts until it is killed; sends the id of each that is written."""
    table = FeedbackFolder(folder)
    for i in range(100_000):
        said, _ = table.add(Feedback("none", sha256=DIGEST, id=f"{name}-{i}"))
        sending.send(said.id)
