"""Changes of the served index over HTTP: images that come and go, one change at a time, told by the next query."""

import io
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tiny_set import image

from cli.web.app import make_app
from cli.web.settings import WebSettings
from index.serving.changes import ImageChanges
from index.serving.config import ServingSettings
from index.serving.service import Service
from retrieval.errors import LmrError
from retrieval.files.lock import output_lock

TOKEN = "a token that nobody guesses".replace(" ", "-")


@pytest.fixture
def landmarks(finished_set: Path, tmp_path: Path) -> Path:
    """A copy of the index that may be changed."""
    return Path(shutil.copytree(finished_set / "landmarks", tmp_path / "landmarks"))


@pytest.fixture
def client(landmarks: Path, tmp_path: Path) -> Iterator[TestClient]:
    """A client of an app that serves that copy and lets it be changed with the token."""
    with serving(landmarks, tmp_path) as client:
        yield client


@contextmanager
def serving(landmarks: Path, folder: Path, **settings: Any) -> Iterator[TestClient]:
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    service = Service(landmarks, ServingSettings(), device="cpu", threads=1)
    app = make_app(service, WebSettings(token_file=folder / "token", allow_changes=True, **settings))
    client = TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    yield client
    service.close()


def encoded(label: int, seed: int) -> bytes:
    """An image of the set's kind, that is in none of its files, with a comment."""
    buffer = io.BytesIO()
    image(label, seed).save(buffer, "JPEG", quality=92, comment=b"secret")
    return buffer.getvalue()


def add(client: TestClient, *sent: tuple[bytes, str, str]) -> Any:
    files = [("image", (f"{i}.jpg", data)) for i, (data, _, _) in enumerate(sent)]
    words = {"image_id": [image_id for _, image_id, _ in sent], "landmark_id": [label for _, _, label in sent]}
    return client.post("/v1/pictures", data=words, files=files)


def test_images_come_and_go_and_the_next_query_tells(client: TestClient, landmarks: Path) -> None:
    one, other = encoded(2, 2000), encoded(2, 2001)
    answer = add(client, (one, "mine/1", "Hawa Mahal"), (other, "mine/2", "old dome"))
    assert answer.status_code == 201, answer.json()
    told = {"state": "changed", "added": 2, "removed": 0, "there": 0, "images": 34, "served": True, "warnings": []}
    (warning,) = answer.json()["warnings"]
    assert warning.startswith("landmarks: its whitening to 43 dimensions was learnt from 44 images, and 2 came since, ")
    assert answer.json() == {**told, "warnings": [warning]}
    (asked,) = client.post("/v1/query", content=one).json()
    assert (asked["neighbours"][0]["image_id"], asked["neighbours"][0]["landmark_id"]) == ("mine/1", "Hawa_Mahal")
    (asked,) = client.post("/v1/query", content=other).json()
    assert asked["neighbours"][0]["landmark_id"] == "dome"  # the landmark of that name
    files = [*(landmarks.parent / "landmarks.pictures").rglob("*.jpg")]
    assert len(files) == 2
    assert not [path for path in files if b"secret" in path.read_bytes()]

    again = add(client, (one, "mine/1", "Hawa_Mahal"), (other, "mine/2", "dome"))
    assert (again.status_code, again.json()) == (200, {**told, "state": "unchanged", "added": 0, "there": 2})

    gone = client.delete("/v1/pictures/mine/1")
    assert (gone.status_code, gone.json()) == (200, {**told, "added": 0, "removed": 1, "images": 33})
    (asked,) = client.post("/v1/query", content=one).json()
    assert "mine/1" not in {near["image_id"] for near in asked["neighbours"]}
    assert len([*(landmarks.parent / "landmarks.pictures").rglob("*.*")]) == 1
    once_more = client.delete("/v1/pictures/mine/1")  # the answer to the first one was lost
    assert (once_more.status_code, once_more.json()["state"]) == (200, "unchanged")
    client.delete("/v1/pictures/mine/2")
    unknown = client.delete("/v1/pictures/mine/1")
    assert unknown.status_code == 404
    assert unknown.json()["detail"] == "landmarks has no image mine/1; nothing was removed"


def test_what_the_index_has_otherwise_is_a_conflict_and_leaves_nothing(client: TestClient, landmarks: Path) -> None:
    answer = add(client, (encoded(0, 2002), "train-arch-0", "dome"))
    assert answer.status_code == 409
    assert answer.json()["detail"] == (
        "the request: image_id train-arch-0 is dome, in landmarks it is arch; lmr index relabel changes that, or "
        "leave it out"
    )
    answer = add(client, (encoded(-1, 2003), "new", "dome"), (encoded(1, 2004), "train-arch-0", "arch"))
    assert answer.status_code == 409
    assert answer.json()["detail"].endswith(
        "is in landmarks already, with another descriptor; lmr index remove takes that one out first"
    )
    assert not [*(landmarks.parent / "landmarks.pictures").rglob("*.jpg")]
    assert client.get("/v1/landmarks").is_success


def test_one_change_runs_at_a_time(client: TestClient, landmarks: Path) -> None:
    held, end = threading.Event(), threading.Event()

    def hold() -> None:
        with output_lock(landmarks):
            held.set()
            end.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    answers = add(client, (encoded(0, 2005), "new", "arch")), client.delete("/v1/pictures/train-arch-0")
    end.set()
    other.join()
    for answer in answers:
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["detail"] == "landmarks is being changed; send this again in a while"
    assert add(client, (encoded(0, 2005), "new", "arch")).status_code == 201


@pytest.mark.parametrize(
    ("words", "detail"),
    [
        (
            {"image_id": ["a"]},
            "the form has 1 images, 1 of image_id and 0 of landmark_id; give one of each for each image",
        ),
        (
            {"image_id": [" a"], "landmark_id": ["arch"]},
            "image_id ' a' cannot be that of an image; give at most 300 letters",
        ),
        (
            {"image_id": ["=a"], "landmark_id": ["arch"]},
            "image_id '=a' begins as a formula of a spreadsheet does; leave out '='",
        ),
        (
            {"image_id": ["a"], "landmark_id": ["none"]},
            "landmark_id 'none' is a word for a blank cell; give the landmark, or verdict none",
        ),
        (
            {"image_id": ["a"], "landmrk_id": ["arch"]},
            "the form has a field landmrk_id, which means nothing here; files, image_id, landmark_id and url do",
        ),
        (
            {"image_id": ["a"], "landmark_id": ["arch"], "box": ["0,0,1,0.5"]},
            "a row of the index is of a whole image, and `box` means nothing here; send the part as an image",
        ),
    ],
)
def test_what_cannot_come_in_is_refused_in_a_line(client: TestClient, words: dict[str, list[str]], detail: str) -> None:
    answer = client.post("/v1/pictures", data=words, files={"image": ("x.jpg", encoded(0, 2006))})
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)


def test_images_that_cannot_be_read_or_have_no_room_change_nothing(
    client: TestClient, landmarks: Path, tmp_path: Path
) -> None:
    broken = add(client, (encoded(0, 2007), "a", "arch"), (b"no image", "b", "arch"))
    assert broken.status_code == 422
    assert broken.json()["detail"].startswith("the image cannot be read: ")
    with serving(landmarks, tmp_path, added_mb=0.001) as little:
        full = add(little, (encoded(0, 2007), "a", "arch"))
    assert full.status_code == 503
    assert full.json()["detail"].endswith("no room for an image of 0.0 MB, it may hold 0 MB in all")
    assert not [*(landmarks.parent / "landmarks.pictures").rglob("*.jpg")]


def test_changes_are_off_unless_they_are_allowed_and_need_the_token(
    client: TestClient, client_of: Callable[..., TestClient]
) -> None:
    off = client_of().delete("/v1/pictures/train-arch-0")
    assert off.status_code == 403
    assert off.json()["detail"] == "this server changes no index; start it with --allow-changes and a token"
    del client.headers["Authorization"]
    assert client.delete("/v1/pictures/train-arch-0").status_code == 401
    assert add(client, (encoded(0, 2008), "a", "arch")).status_code == 401
    with pytest.raises(LmrError) as refused:
        client_of(allow_changes=True)
    assert str(refused.value) == "`allow_changes` needs a token; give `token_file`"


def test_a_file_that_a_killed_removal_left_goes_with_the_next_change(
    client: TestClient, landmarks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(client, (encoded(2, 2009), "mine", "arch"))
    (place,) = (landmarks.parent / "landmarks.pictures").rglob("*.jpg")

    changes = ImageChanges(landmarks, 10**9)
    with monkeypatch.context() as patch:
        patch.setattr("index.serving.changes.change_folder", lambda job, plan, _: (plan_in(job, plan), killed()))
        with pytest.raises(SystemExit):
            changes.remove("mine")
    changes.remove("train-arch-0")
    assert place.exists()  # nothing had changed, and the file stays
    with monkeypatch.context() as patch:
        finished = iter([lambda: None, killed])
        patch.setattr(changes, "_end_removals", lambda: next(finished)())
        with pytest.raises(SystemExit):
            changes.remove("mine")
    assert place.exists()
    changes.remove("train-arch-1")
    assert not [*(landmarks.parent / "landmarks.pictures").rglob("*.*")]


def killed() -> None:
    """Ends a change where a kill would."""
    raise SystemExit


def plan_in(job: Any, plan: Callable[[Any], Any]) -> Any:
    """The plan of a change of the folder as it is."""
    from index.folder.folder import open_folder

    return plan(open_folder(job.index, device="cpu"))
