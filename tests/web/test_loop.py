"""The loop of feedback, by the documented commands: a wrong answer becomes a label, and then a right answer."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from documents import lmr_commands, marked
from fastapi.testclient import TestClient
from tiny_set import HERE, done, image

from cli.web.app import make_app
from cli.web.settings import WebSettings
from index.serving.config import ServingSettings
from index.serving.service import Service

SERVING = Path(__file__).parents[2] / "docs" / "serving.md"
SWAPPED_S = 20.0  # longest wait for the service to notice another index


@pytest.fixture
def served(finished_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Service, TestClient]]:
    """A service over an index of the test's own, which may change, and a client of an app over it."""
    folder = Path(shutil.copytree(finished_set, tmp_path / "set"))
    monkeypatch.chdir(folder)
    service = Service(folder / "landmarks", ServingSettings(), device="cpu", threads=1)
    app = make_app(service, WebSettings(keep_mb=10))
    yield service, TestClient(app, base_url="http://127.0.0.1:8080")
    service.close()


def wait_until(is_so: Callable[[], Any]) -> None:
    """Waits until something is so, and fails when that takes too long."""
    end = time.monotonic() + SWAPPED_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_wrong_answer_becomes_a_label_and_a_right_answer_of_the_running_server(served, tmp_path):
    service, client = served
    images = [image(2, 1000 + i).rotate(90) for i in range(3)]  # of a landmark that the index does not have
    files = []
    for i, one in enumerate(images):
        one.save(tmp_path / f"{i}.png")
        files.append({"image": (f"{i}.png", (tmp_path / f"{i}.png").read_bytes())})
    before = [client.post("/v1/query", files=one).json()[0] for one in files]
    assert "gate" not in {one["landmark_id"] for one in before}
    for one, told in zip(files[:2], before, strict=False):
        said = {"verdict": "other", "landmark_id": "Gate", "answered": told["landmark_id"] or "", "keep": "true"}
        assert client.post("/v1/feedback", data=said, files=one).json()["kept"]
    client.post("/v1/feedback", json={"verdict": "other", "landmark_id": "dome", "image_id": "train-arch-0"})

    old = service.landmarks
    for words in documented("loop"):
        done(*words, *(HERE if words[0] in ("embed", "calibrate") else ()))
    wait_until(lambda: service.landmarks is not old and service.landmarks.is_calibrated)
    wait_until(lambda: len(service.landmarks.folder.rows) == len(old.folder.rows) + 2)
    (after,) = client.post("/v1/query", files=files[2]).json()
    assert after["landmarks"][0]["landmark_id"] == "Gate"
    assert {near["landmark_id"] for near in after["neighbours"] if near["image_id"].startswith("feedback-")} == {"Gate"}
    rows = service.landmarks.folder.rows
    assert rows.landmarks[rows.landmark[rows.image_id.tolist().index("train-arch-0")]] == "dome"


def documented(name: str) -> list[list[str]]:
    """The commands of a walk in docs/serving.md."""
    commands = list(lmr_commands(marked(SERVING, "run", name)))
    assert [words[0] for words in commands] == ["feedback", "index", "embed", "index", "calibrate"]
    return commands
