"""The app over a service: what every part of it rests on."""

from pathlib import Path

from fastapi.testclient import TestClient

from cli.web.api import without_folders
from index.serving.service import Service


def test_the_app_answers_as_the_index_does(client: TestClient, finished_set: Path, service: Service) -> None:
    image = (finished_set / "images/test-arch-0.jpg").read_bytes()
    answered = client.post("/v1/query", content=image)
    assert answered.status_code == 200
    (told,) = answered.json()
    (expected,) = service.landmarks.query([image])
    assert told == without_folders({**expected.to_json(), "image": "image"})
    assert {near["path"] for near in told["neighbours"]} >= {"train-arch-7.jpg"}
