"""A server asked from Python: the same answers as of the index, one line for each thing that goes wrong."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from tiny_set import done, misused, refused

import lmr
from cli.web.app import make_app
from cli.web.settings import WebSettings
from index.serving.client import Connection
from index.serving.service import Service
from retrieval.errors import LmrError, UnreadableError

TOKEN = "a-token-of-enough-characters"


class Served:
    """An app on a free port, in a thread."""

    def __init__(self, app: Any) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error"))
        self._thread = threading.Thread(target=self._server.run, args=([self.listener],))

    def __enter__(self) -> "Served":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def server(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    folder = tmp_path_factory.mktemp("feedback")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    settings = WebSettings(token_file=folder / "token", feedback_folder=folder / "said")
    with Served(make_app(service, settings)) as served:
        yield lmr.connect(served.url, TOKEN)


@pytest.fixture(scope="module")
def images(finished_set: Path) -> list[Any]:
    """A path, bytes, a PIL image and what is no image."""
    folder = finished_set / "images"
    shown = [
        folder / "test-arch-0.jpg",
        (folder / "test-dome-0.jpg").read_bytes(),
        Image.open(folder / "test-other-1.jpg"),
    ]
    return [*shown, b"none", str(folder / "not-there.jpg")]


def test_a_server_gives_the_answers_of_its_index(server: Connection, service: Service, images: list[Any]) -> None:
    told, expected = server.query(images), service.landmarks.query(images)
    assert [answer.image for answer in told] == [answer.image for answer in expected]
    for one, other in zip(told, expected, strict=True):
        assert (one.landmark_id, one.unreadable, one.reason) == (other.landmark_id, other.unreadable, other.reason)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert [n.image_id for n in one.neighbours] == [n.image_id for n in other.neighbours]
    assert len(server.query(images[:1], n_landmarks=1)[0].landmarks) == 1
    assert server.query(images[:1], threshold=1.0)[0].landmark_id is None
    assert server.query([]) == []


def test_thumbnails_of_its_neighbours_come_from_the_server(server: Connection, images: list[Any]) -> None:
    near = server.query(images[:1])[0].neighbours[0]
    assert near.thumbnail is not None
    assert near.thumbnail.startswith(b"\xff\xd8")
    assert server.thumbnail("../nix") is None


def test_descriptors_of_a_server_are_those_of_its_model(
    server: Connection, service: Service, images: list[Any]
) -> None:
    vectors, unreadable = server.embed(images)
    expected, reasons = service.landmarks.embed(images)
    assert np.allclose(vectors, expected, atol=1e-5)
    assert unreadable == reasons


def test_a_server_is_searched_as_its_index_is(server: Connection, service: Service, images: list[Any]) -> None:
    for how in ({"image": images[0]}, {"image_id": "train-arch-0"}, {"image": images[0], "box": (0.0, 0.0, 0.75, 1.0)}):
        told, expected = server.search(**how, n=5, fold=False), service.landmarks.search(**how, n=5, fold=False)
        assert [one.neighbour.image_id for one in told.items] == [one.neighbour.image_id for one in expected.items]
        assert [one.size for one in told.items] == [one.size for one in expected.items]
        assert (told.has_more, told.n_rows_looked_at) == (expected.has_more, expected.n_rows_looked_at)
    assert server.search(images[0], n=30).to_json()["items"][0]["folded"] is not None
    with pytest.raises(UnreadableError, match="not found"):
        server.search("not-there.jpg")
    with pytest.raises(TypeError, match=r"^frst is no word of SearchJob; did you mean first\?$"):
        server.search(images[0], frst=1)  # type: ignore[call-arg]


def test_landmarks_of_a_server_are_found_by_name(server: Connection) -> None:
    found = server.landmarks("great")
    assert [(one.landmark_id, one.n_images) for one in found.items] == [("arch", 8)]
    assert server.landmarks(n=1).n_found == 4


def test_what_a_person_says_is_recorded(server: Connection, images: list[Any]) -> None:
    (answer,) = server.query(images[:1])
    said = server.feedback("right", images[0], answer=answer)
    assert (said["state"], said["verdict"], said["answered"]) == ("recorded", "right", "arch")
    row = server.feedback("other", image_id="train-arch-0", landmark_id="dome")
    assert (row["image_id"], row["landmark_id"]) == ("train-arch-0", "dome")


def test_a_refusal_is_the_line_of_the_server(server: Connection, images: list[Any]) -> None:
    with pytest.raises(LmrError) as refused:
        server.search(image_id="nix")
    assert str(refused.value) == f"{server.url}: landmarks has no image nix; lmr index export lists those it has"
    with pytest.raises(LmrError) as refused:
        lmr.connect(server.url).query(images[:1])
    assert str(refused.value) == f"{server.url}: a token is needed: send Authorization: Bearer TOKEN"
    with pytest.raises(LmrError) as refused:
        server.query(images[:1], threshold=2)
    assert str(refused.value) == f"{server.url}: `threshold` must be less than or equal to 1, got '2'"


def test_an_image_that_is_more_than_the_server_takes_is_an_answer_that_says_so(
    server: Connection, service: Service, images: list[Any]
) -> None:
    with Served(make_app(service, WebSettings(max_upload_mb=0.1))) as served:
        small = lmr.connect(served.url)
        arch, large = small.query([images[0], bytes(100_001)])
        assert (arch.landmark_id, arch.unreadable) == ("arch", None)
        assert large.unreadable == "100,001 bytes: more than the 100,000 bytes that a request may have"
        with pytest.raises(UnreadableError, match=r"^100,001 bytes: more than"):
            small.search(bytes(100_001))


def test_what_is_asked_by_nothing_is_refused_here(server: Connection) -> None:
    with pytest.raises(LmrError, match=r"^give an image or an `image_id`, one of them$"):
        server.search(n=1)


def test_a_token_is_taken_as_its_file_has_it(server: Connection) -> None:
    assert lmr.connect(server.url, f"{TOKEN}\n").landmarks(n=1).n_found == 4
    with pytest.raises(LmrError, match=r"^the token holds a character that cannot be seen; give the one line of"):
        lmr.connect(server.url, f"{TOKEN}\n{TOKEN}")


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
    with pytest.raises(
        LmrError, match=rf"^http://127.0.0.1:{free} cannot be asked: no answer: .*; is lmr serve there\?$"
    ):
        lmr.connect(f"http://127.0.0.1:{free}/").query([b"image"])
    with pytest.raises(LmrError, match=r"^landmarks is no URL of a server; give one such as http://127\.0\.0\.1:8080$"):
        lmr.connect("landmarks")


def test_the_command_line_asks_a_server(
    server: Connection, finished_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished_set)
    monkeypatch.setenv("LMR_TOKEN", TOKEN)
    asked = ("query", "images/test-arch-0.jpg", "images/test-other-1.jpg", "--json")
    here = json.loads(done(*asked, "--device", "cpu", "--threads", 1).stdout)
    told = json.loads(done(*asked, "--server", server.url).stdout)
    keys = ("image", "landmark_id", "name", "threshold", "reason", "verified")
    assert [[one[key] for key in keys] for one in told] == [[one[key] for key in keys] for one in here]
    assert done(*asked[:2], "--server", server.url, "--threshold", 1).stdout.startswith("images/test-arch-0.jpg")
    detail = "--server does not take --save, which is for an index here"
    assert misused(*asked, "--server", server.url, "--save", "sheet.jpg") == detail
    monkeypatch.delenv("LMR_TOKEN")
    assert (
        refused(*asked, "--server", server.url) == f"{server.url}: a token is needed: send Authorization: Bearer TOKEN"
    )


def test_it_works_within_the_loop_of_a_notebook(server: Connection, images: list[Any]) -> None:
    async def cell() -> list[lmr.Answer]:
        return server.query(images[:1])

    assert asyncio.run(cell())[0].landmark_id == "arch"


class Other:
    """A server that is busy at first, or another program."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def app(self) -> Starlette:
        paths = {"/busy": self.busy, "/full": self.full, "/page": self.page, "/moved": self.moved, "/none": self.none}
        return Starlette(routes=[Route(f"{path}/v1/query", of, methods=["POST"]) for path, of in paths.items()])

    async def busy(self, _: Request) -> Response:
        self.asked.append(time.monotonic())
        if len(self.asked) < 3:
            return JSONResponse({"detail": "too many"}, 503, {"Retry-After": "0.2"})
        return JSONResponse([{"image": "image"}])

    async def full(self, _: Request) -> Response:
        return JSONResponse({"detail": "too many images are waiting; try again in 90 s"}, 503, {"Retry-After": "90"})

    async def page(self, _: Request) -> Response:
        return PlainTextResponse("Bad Gateway", 502)

    async def moved(self, _: Request) -> Response:
        return RedirectResponse("https://example.org/v1/query")

    async def none(self, _: Request) -> Response:
        await asyncio.sleep(1)
        return Response()


def test_a_busy_server_is_asked_again_when_it_says(images: list[Any]) -> None:
    other = Other()
    with Served(other.app()) as served:

        def line(path: str, timeout_s: float = 60.0) -> str:
            with pytest.raises(LmrError) as refused:
                lmr.connect(f"{served.url}{path}", timeout_s=timeout_s).query(images[:1])
            return str(refused.value).replace(served.url, "URL")

        own = "does not answer as lmr serve of this version does; use the same on both sides"
        assert line("/busy") == f"URL/busy {own}"
        assert len(other.asked) == 3
        assert other.asked[1] - other.asked[0] >= 0.2
        assert line("/full") == "URL/full: too many images are waiting; try again in 90 s"
        assert line("/page") == "URL/page: it answered 502; is lmr serve there?"
        assert line("/moved") == "URL/moved: it has moved to https://example.org/v1/query; give that URL"
        assert line("/none", 0.3) == "URL/none did not answer within 0.3 s; try again later"
