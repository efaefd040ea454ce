"""The HTTP API: what it answers to each form of an image, and the line it has for each mistake."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from tiny_set import done

from cli.web.api import without_folders
from cli.web.problems import PROBLEM_JSON, add_problems
from index.serving.service import BusyError, Service
from retrieval.errors import LmrError, UnreachableError
from retrieval.images.limits import Limits

NO_FILE = b'Content-Disposition: form-data; name="image"; filename=""\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=X"}


@pytest.fixture(scope="module")
def arch(finished_set: Path) -> bytes:
    return (finished_set / "images/test-arch-0.jpg").read_bytes()


@pytest.fixture(scope="module")
def dome(finished_set: Path) -> bytes:
    return (finished_set / "images/test-dome-0.jpg").read_bytes()


def refused(response: Any, status: int) -> str:
    """The detail of a problem with this status."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == PROBLEM_JSON
    told = response.json()
    assert set(told) == {"type", "title", "status", "detail"}
    assert told["status"] == status
    detail: str = told["detail"]
    return detail


def encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()


def test_an_answer_is_that_of_the_command_line(
    client: TestClient, finished_set: Path, arch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished_set)
    printed = json.loads(done("query", "images/test-arch-0.jpg", "--json", "--device", "cpu", "--threads", 1).stdout)
    (told,) = client.post("/v1/query", files={"image": ("images/test-arch-0.jpg", arch)}).json()
    for near in printed[0]["neighbours"]:
        near["path"] = Path(near["path"]).name  # a server's folders concern nobody
    assert told == printed[0]


def test_every_form_of_an_image_gives_the_same_answer(client: TestClient, arch: bytes) -> None:
    raw = client.post("/v1/query", content=arch, headers={"Content-Type": "image/jpeg"}).json()
    of_form = client.post("/v1/query", files={"image": ("image", arch)}).json()
    of_json = client.post("/v1/query", json={"images": [{"data": encoded(arch)}]}).json()
    of_link = client.post("/v1/query", json={"images": [{"data": f"data:image/jpeg;base64,{encoded(arch)}"}]}).json()
    assert raw[0]["landmark_id"] == "arch"
    assert raw == of_form == of_json == of_link


def test_several_images_are_answered_in_their_order(client: TestClient, arch: bytes, dome: bytes) -> None:
    files = [("image", ("one.jpg", dome)), ("other", ("two.jpg", arch)), ("image", ("three", b"none"))]
    told = client.post("/v1/query", files=files).json()
    assert [(one["image"], one["landmark_id"]) for one in told] == [
        ("one.jpg", "dome"),
        ("two.jpg", "arch"),
        ("three", None),
    ]
    assert told[2]["unreadable"] == "not a picture in a known format"


def test_words_of_a_query_are_followed(client: TestClient, arch: bytes) -> None:
    one = client.post("/v1/query?top=1", content=arch).json()[0]
    assert len(one["landmarks"]) == 1
    unsure = client.post("/v1/query?threshold=1", content=arch).json()[0]
    assert (unsure["landmark_id"], unsure["reason"]) == (None, "below the threshold 1.000")


def test_a_part_of_an_image_is_asked_where_a_box_is_given(client: TestClient, service: Service, arch: bytes) -> None:
    image = Image.open(io.BytesIO(arch))
    half = io.BytesIO()
    image.crop((0, 0, image.width // 2, image.height)).save(half, "PNG")
    whole = {"images": [{"data": encoded(arch), "box": [0, 0, 0.5, 1]}, {"data": encoded(half.getvalue())}]}
    told = client.post("/v1/embed", json=whole).json()
    assert np.allclose(told[0]["descriptor"], told[1]["descriptor"], atol=0.05)
    of_form = client.post("/v1/embed", files={"image": arch}, data={"box": "0,0,0.5,1"}).json()
    assert of_form[0]["descriptor"] == told[0]["descriptor"]


def test_embed_gives_the_descriptors_of_the_model(client: TestClient, service: Service, arch: bytes) -> None:
    files = [("image", ("one", arch)), ("image", ("two", b"none"))]
    told = client.post("/v1/embed", files=files).json()
    expected = service.landmarks.embed([arch])[0][0]
    assert np.allclose(told[0]["descriptor"], expected, atol=1e-6)
    assert told[1] == {"image": "two", "descriptor": None, "unreadable": "not a picture in a known format"}


def test_search_gives_the_neighbours_of_an_image(client: TestClient, arch: bytes) -> None:
    page = client.post("/v1/search?n=3&fold=false", content=arch).json()
    assert [one["rank"] for one in page["items"]] == [1, 2, 3]
    assert page["has_more"]
    following = client.post("/v1/search?n=3&first=3&fold=false", content=arch).json()
    assert [one["rank"] for one in following["items"]] == [4, 5, 6]
    others = client.post("/v1/search?landmark=dome", content=arch).json()
    assert {one["landmark_id"] for one in others["items"]} == {"dome"}


def test_search_by_an_image_of_the_index_leaves_that_out(client: TestClient) -> None:
    for part in ("", "&box=0,0,1,1"):
        page = client.post(f"/v1/search?image_id=train-arch-0&n=50&fold=false{part}").json()
        found = [one["image_id"] for one in page["items"]]
        assert "train-arch-0" not in found
        assert len(found) == 31


def test_landmarks_are_listed_found_by_name_and_told(client: TestClient, service: Service) -> None:
    listed = client.get("/v1/landmarks?n=2&first=1").json()
    assert (len(listed["items"]), listed["n_found"]) == (2, 4)
    (found,) = client.get("/v1/landmarks?search=GREAT").json()["items"]
    assert (found["landmark_id"], found["name"], found["n_images"]) == ("arch", "The Great Arch", 8)
    expected = without_folders(service.landmarks.explain_landmark("arch").to_json())
    assert client.get("/v1/landmarks/arch").json() == expected


def test_thumbnails_are_sent_once(client: TestClient) -> None:
    first = client.get("/v1/images/train-arch-0")
    assert first.headers["Content-Type"] == "image/jpeg"
    assert first.headers["Cache-Control"] == "private, max-age=3600"
    assert not Image.open(io.BytesIO(first.content)).getexif()
    for known in (first.headers["ETag"], f'"other", W/{first.headers["ETag"]}', "*"):
        again = client.get("/v1/images/train-arch-0", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert client.get("/v1/images/train-arch-0", headers={"If-None-Match": '"other"'}).status_code == 200


def test_originals_are_sent_where_that_is_allowed(client: TestClient, client_of: Any) -> None:
    asked = "/v1/images/train-arch-0?size=original"
    detail = "this server sends thumbnails alone; start lmr serve with --allow-originals"
    assert refused(client.get(asked), 403) == detail
    sent = client_of(allow_originals=True).get(asked)
    assert Image.open(io.BytesIO(sent.content)).size == (48, 48)


def test_names_that_are_not_in_the_index_are_404(client: TestClient, arch: bytes) -> None:
    no_image = "landmarks has no image nix; lmr index export lists those it has"
    no_landmark = "landmarks has no landmark nix; lmr index export lists those it has"
    assert refused(client.get("/v1/images/nix"), 404) == no_image
    assert refused(client.get("/v1/images/..%2F..%2Fetc%2Fpasswd"), 404).startswith(
        "landmarks has no image ../../etc/passwd;"
    )
    assert refused(client.get("/v1/landmarks/nix"), 404) == no_landmark
    assert refused(client.post("/v1/search?image_id=nix"), 404) == no_image
    assert refused(client.post("/v1/search?landmark=nix", content=arch), 404) == no_landmark


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ("thrshold=1", "there is no parameter thrshold; did you mean threshold?"),
        ("zzz=1", "there is no parameter zzz; those that there are: threshold, top, verify"),
        ("threshold=2", "`threshold` must be less than or equal to 1, got '2'"),
        ("top=x", "`top` must be a valid integer, unable to parse string as an integer, got 'x'"),
    ],
)
def test_words_that_cannot_be_are_named(client: TestClient, arch: bytes, asked: str, detail: str) -> None:
    assert refused(client.post(f"/v1/query?{asked}", content=arch), 422) == detail


def test_a_box_that_cannot_be_is_refused(client: TestClient, arch: bytes) -> None:
    sides = "left,top,right,bottom within 0 and 1, left below right and top below bottom"
    for box in ("0.5,0,0.5,1", "0,0,2,1", "0,0,nan,1"):
        assert refused(client.post(f"/v1/search?box={box}", content=arch), 422) == f"`box` must be {sides}, got {box}"
    empty = client.post("/v1/query", json={"images": [{"data": encoded(arch), "box": [0.5, 0, 0.5, 1]}]})
    assert refused(empty, 422) == f"`box` must be {sides}, got 0.5,0,0.5,1"
    for box in ("0,0,1", "a,b,c,d"):
        told = f"`box` must be four numbers left,top,right,bottom, got {box!r}"
        assert refused(client.post(f"/v1/search?box={box}", content=arch), 422) == told


HOW = (
    "send it as the body (Content-Type: image/jpeg), as a file of a form (multipart/form-data), or in JSON "
    "(application/json)"
)


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 422, "`images` is missing; give it"),
        ({"images": []}, 422, "`images` list should have at least 1 item after validation, not 0, got []"),
        ({"images": [{"dta": "A"}]}, 422, "there is no parameter images[0].dta; did you mean data?"),
        ({"images": [{}]}, 422, "images[0] must have either data (base64) or url"),
        (
            {"images": [{"data": "!"}]},
            422,
            "images[0].data is not base64 (Only base64 data is allowed); encode the file as base64",
        ),
        ({"images": [{"data": ""}]}, 422, "images[0].data is empty; encode the file as base64"),
        ({"images": ["AAAA"]}, 422, "`images[0]` must be a JSON object, got 'AAAA'"),
        ({"images": [{"data": 7}]}, 422, "`images[0].data` must be a valid string, got 7"),
        ({"images": [{"data": "AAAA"}] * 17}, 413, "a request may hold 16 images, got 17; send them in several"),
        (
            {"images": [{"url": "http://example.org/a.jpg"}]},
            403,
            "this server fetches no URLs; send the image, or start lmr serve with --allow-urls",
        ),
        ([], 400, "the body is not a JSON object; send valid JSON"),
    ],
)
def test_json_is_read_strictly(client: TestClient, body: Any, status: int, detail: str) -> None:
    assert refused(client.post("/v1/query", json=body), status) == detail


def test_json_that_says_a_thing_twice_is_refused(client: TestClient) -> None:
    twice = client.post(
        "/v1/query", content=b'{"images": 1, "images": 2}', headers={"Content-Type": "application/json"}
    )
    assert refused(twice, 400) == "the body is not JSON (the key 'images' is there twice); send valid JSON"


def test_bodies_that_hold_no_image_are_refused(client: TestClient, arch: bytes) -> None:
    assert refused(client.post("/v1/query"), 422) == f"the request holds no image; {HOW}"
    unchosen = client.post("/v1/query", content=b"--X\r\n" + NO_FILE + b"\r\n--X--\r\n", headers=FORM)
    assert refused(unchosen, 422) == f"the request holds no image; {HOW}"
    text = client.post("/v1/query", files={"other": arch}, data={"image": "holiday.jpg"})
    assert refused(text, 422) == "the field image of the form is a text; send a file (curl -F image=@holiday.jpg)"
    as_text = client.post("/v1/query", content=arch, headers={"Content-Type": "text/plain; charset=utf-8"})
    assert refused(as_text, 415) == f"Content-Type is text/plain, which is no image; {HOW}"
    field = client.post("/v1/query", files={"image": arch}, data={"bxo": "1"})
    assert refused(field, 422) == "the form has a field bxo, which means nothing here; files, url and box do"
    boxes = client.post("/v1/query", files=[("a", arch), ("b", arch)], data={"box": "0,0,1,1"})
    assert refused(boxes, 422) == "the form has 1 `box` for 2 images; give one for each, or none"
    two = client.post("/v1/search", files=[("a", arch), ("b", arch)])
    assert refused(two, 422) == "a search is by one image, got 2; send each by itself"
    both = client.post("/v1/search?image_id=train-arch-0", content=arch)
    assert refused(both, 422) == "a search is by `image_id` or by an image that is sent, got both; leave one out"


def test_an_empty_file_has_an_answer_of_its_own_place(client: TestClient, arch: bytes) -> None:
    files = [("image", ("a.jpg", arch)), ("image", ("b.jpg", b"")), ("image", ("c.jpg", arch))]
    told = client.post("/v1/query", files=files).json()
    assert [(one["image"], one["unreadable"]) for one in told] == [
        ("a.jpg", None),
        ("b.jpg", "empty file"),
        ("c.jpg", None),
    ]
    (raw,) = client.post("/v1/query", content=b"", headers={"Content-Type": "image/jpeg"}).json()
    assert raw["unreadable"] == "empty file"


def test_a_form_that_ends_too_early_is_no_shorter_form(client: TestClient) -> None:
    part = b'--X\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nAAAA\r\n'
    for body in (part + part[:70], part, b""):
        detail = "the form ends too early: its last boundary is missing; send it again"
        assert refused(client.post("/v1/query", content=body, headers=FORM), 400) == detail
    garbage = client.post("/v1/query", content=b"garbage --X--", headers=FORM)
    assert refused(garbage, 400) == "Invalid multipart data."


def test_images_over_the_limit_are_answers_that_say_so(
    client: TestClient, service: Service, arch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "limits", Limits(max_pixels=2000))
    for body in ({"content": arch}, {"files": {"image": arch}, "data": {"box": "0,0,0.5,1"}}):
        (told,) = client.post("/v1/query", **body).json()
        assert told["unreadable"] == "48 x 48 pixels, over the limit of 2,000 pixels"
    found = client.post("/v1/search", content=arch)
    assert refused(found, 422) == "the image cannot be read: 48 x 48 pixels, over the limit of 2,000 pixels"


def test_metrics_count_requests_stages_and_batches(client_of: Any, service: Service, arch: bytes) -> None:
    client = client_of()
    client.post("/v1/query", content=arch)
    client.post("/v1/query?zzz", content=arch)
    client.get("/nix")
    told = client.get("/metrics")
    assert told.headers["Content-Type"].startswith("text/plain; version=")
    lines = told.text.splitlines()
    for line in (
        'lmr_requests_total{method="POST",route="/v1/query",status="200"} 1.0',
        'lmr_requests_total{method="POST",route="/v1/query",status="422"} 1.0',
        'lmr_requests_total{method="GET",route="none",status="404"} 1.0',
        'lmr_request_seconds_count{route="/v1/query"} 2.0',
        *(f'lmr_stage_seconds_count{{stage="{stage}"}} 1.0' for stage in ("decode", "queue", "forward", "search")),
        'lmr_batch_images_bucket{le="1.0"} 1.0',
        "lmr_open_requests 1.0",
        "lmr_waiting_images 0.0",
        "lmr_index_images 32.0",
        "lmr_index_landmarks 4.0",
    ):
        assert line in lines, told.text


def test_states_tell_whether_images_are_answered(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert [client.head(path).status_code for path in ("/healthz", "/readyz", "/v1/images/train-arch-0")] == [200] * 3
    monkeypatch.setattr(Service, "is_ready", False)
    assert refused(client.get("/readyz"), 503) == "the server is about to end; ask another one"
    assert client.get("/healthz").status_code == 200


def test_paths_and_methods_that_are_not_there_are_problems(client: TestClient) -> None:
    assert refused(client.get("/nix"), 404) == "there is nothing at /nix; /openapi.json lists what there is"
    assert refused(client.get("/v1/query"), 405) == "/v1/query does not take GET; use POST"


def test_a_service_that_is_busy_is_told_with_the_time_to_wait(
    client: TestClient, service: Service, arch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any, **__: Any) -> None:
        raise BusyError(2.4)

    monkeypatch.setattr(service, "query", busy)
    response = client.post("/v1/query", content=arch)
    assert refused(response, 503) == "too many images are waiting; try again in 3 s"
    assert response.headers["Retry-After"] == "3"


def test_a_server_of_the_index_that_does_not_answer_is_told_without_its_address(
    client: TestClient, service: Service, arch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise UnreachableError("milvus://10.0.0.5:19530/landmarks: no Milvus answers at 10.0.0.5:19530; start it")

    monkeypatch.setattr(service, "query", unreachable)
    response = client.post("/v1/query", content=arch)
    assert refused(response, 503) == "the server that holds the index does not answer; try again in 5 s"
    assert response.headers["Retry-After"] == "5"


def test_what_a_server_of_the_index_refuses_is_told_without_its_address() -> None:
    app = FastAPI()
    add_problems(app, Path("milvus://10.0.0.5:19530/landmarks"))

    @app.get("/")
    def fail() -> None:
        raise LmrError("milvus://10.0.0.5:19530/landmarks: 10.0.0.5:19530 refuses the token")

    assert refused(TestClient(app).get("/"), 422) == "landmarks: its server refuses the token"


def test_a_failure_of_the_server_is_told_without_its_inside(
    client: TestClient, service: Service, arch: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(service, "query", broken)
    assert "secret" not in refused(client.post("/v1/query", content=arch), 500)


def test_the_examples_of_the_document_run(client_of: Any, tmp_path: Path) -> None:
    client = client_of(feedback_folder=tmp_path / "said")
    document = client.get("/openapi.json").json()
    n_run = 0
    for path, operations in document["paths"].items():
        if path.startswith("/v1/pictures"):  # off here
            continue
        for method, operation in operations.items():
            given = {one["name"]: one.get("example") for one in operation.get("parameters", []) if one["in"] == "path"}
            bodies = operation.get("requestBody", {}).get("content", {})
            sent = {"json": bodies["application/json"]["example"]} if bodies else {}
            answered = client.request(method, path.format(**given), **sent)
            assert answered.status_code in (200, 201), (path, answered.text)
            n_run += 1
    assert n_run >= 9
