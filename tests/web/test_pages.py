"""The pages of `lmr serve`: what they say, without scripts too, and that nothing in data becomes part of them."""

import hashlib
import html
import io
import os
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from tiny_set import HERE, done, image, write_csv

from cli.web.app import make_app
from cli.web.settings import WebSettings
from cli.web.views import breakable, in_words, sure, views
from index.serving.config import ServingSettings
from index.serving.service import Service
from retrieval.errors import UnreadableError
from retrieval.images import given

LABELS = (
    "<img_src=x_onerror=alert(1)>",
    '"><svg_onload=alert(2)>',
    "'{{7*7}}'",
    "\u202egnp.exe",
    "javascript:alert(3)",
)
NAMES = ("<script>alert(4)</script>", '" onclick="alert(5)', "{{7*7}}", "\u2066name", "javascript:alert(6)")
PART = {"X-Fragment": "1"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Parsed(HTMLParser):
    """A page as a browser takes it: its elements and the texts between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data: str) -> None:
        """Notes a text."""
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All that is read, on one line."""
        return " ".join(" ".join(self.texts).split())

    def of(self, tag: str, **having: str) -> list[dict[str, str]]:
        """The attributes of all elements of a kind that have these."""
        return [told for name, told in self.elements if name == tag and having.items() <= told.items()]


def form_of(*files: tuple[str, bytes], **fields: str) -> dict[str, object]:
    """The body of a form as a browser sends it: a file that nobody chose has no name and no content."""
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts += [f'name="image"; filename="{name}"\r\n\r\n'.encode() + data for name, data in files]
    body = b"".join(b"--part\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--part--\r\n"
    return {"content": body, "headers": {"Content-Type": "multipart/form-data; boundary=part"}}


def shown(response: object) -> Parsed:
    """The page of a response, which must be one."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    return Parsed(response.text)


def picture(folder: Path, name: str = "test-arch-0") -> tuple[str, tuple[str, bytes, str]]:
    """A file of a form."""
    return "image", (f"{name}.jpg", (folder / f"images/{name}.jpg").read_bytes(), "image/jpeg")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An app over an index whose labels, names, addresses and image_ids try to be HTML."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = []
    for number, label in enumerate(LABELS):
        for k in range(3):
            image_id = f"p{number}{k}<b>'&\u202e{{{{"
            image(number % 4, k + 10 * number).save(folder / f"{image_id}.png")
            rows.append(f'"{image_id}","{label.replace(chr(34), chr(34) * 2)}"')
    write_csv(folder / "train.csv", "id,landmark_id", rows)
    quoted = [f'"{label.replace(chr(34), chr(34) * 2)}"' for label in LABELS]
    named = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in NAMES]
    pairs = zip(quoted, named, strict=True)
    write_csv(folder / "names.csv", "landmark_id,name,address", [f"{a},{b},javascript:alert(7)" for a, b in pairs])
    before = os.getcwd()
    os.chdir(folder)
    try:
        network = ("--backbone", "plain-cnn", "--size", "16")
        done("embed", "train.csv", "--images", ".", *network, *HERE)
        done("build-index", "--names", "names.csv", "--device", "cpu")
        service = Service(folder / "landmarks", ServingSettings(), device="cpu", threads=1)
    finally:
        os.chdir(before)
    client = TestClient(make_app(service, WebSettings()), base_url="http://127.0.0.1:8080")
    client.service = service  # type: ignore[attr-defined]
    yield client
    service.close()


def pages_of(client: TestClient, label: str, image_id: str, sent: bytes) -> dict[str, str]:
    """Every page there is, whole and as a part."""
    name = "q<b>\u202e'\"&.png"
    asked = {"files": [("image", (name, sent, "image/png"))]}
    ids = quote(image_id, safe=""), quote(label, safe="")
    found = {
        "start": client.get("/"),
        "answer": client.post("/ask", **asked),
        "answer, a part": client.post("/ask", headers=PART, **asked),
        "unreadable": client.post("/ask", files=[("image", (name, b"no image", "image/png"))]),
        "similar": client.get(f"/similar/{ids[0]}"),
        "similar by a part": client.get(f"/similar/{ids[0]}", params={"box": "0,0,.9,.9"}),
        "similar, of a landmark": client.get(f"/similar/{ids[0]}", params={"landmark": label, "apart": "1"}),
        "landmarks": client.get("/landmarks", params={"search": "<b>\u202e"}),
        "landmark": client.get(f"/landmarks/{ids[1]}"),
        "reports": client.get("/reports"),
        "error": client.get(f"/similar/{quote('<b>' + chr(0x202E), safe='')}"),
    }
    found["compared"] = client.get("/compare", params={"row": image_id, "image_id": image_id})
    descriptor = Parsed(found["answer"].text).of("input", name="descriptor")[0]["value"]
    found["more"] = client.post("/neighbours", data={"descriptor": descriptor, "first": 3, "landmark": label})
    for kind, response in found.items():
        assert response.status_code == (404 if kind == "error" else 200), (kind, response.text)
    return {kind: response.text for kind, response in found.items()}


@pytest.fixture(scope="module")
def pages(hostile: TestClient) -> dict[str, str]:
    """All pages of the hostile index."""
    image_id = next(iter(hostile.service.landmarks.folder.rows.image_id))  # type: ignore[attr-defined]
    content = io.BytesIO()
    image(1, 3).save(content, "PNG")
    return pages_of(hostile, LABELS[0], str(image_id), content.getvalue())


def test_nothing_in_data_becomes_an_element_or_a_script_or_turns_a_page(pages: dict[str, str]) -> None:
    for kind, page in pages.items():
        parsed = Parsed(page)
        for tag, told in parsed.elements:
            assert tag not in ("b>'&", "img_src=x_onerror", "svg_onload", "style", "iframe", "object", "base"), kind
            assert not [name for name in told if name.startswith("on") or name == "style"], (kind, told)
            assert tag != "script" or re.fullmatch(r"/static/[0-9a-f]{16}/page\.js", told["src"]), (kind, told)
            assert not re.match(r"\s*javascript:", told.get("href", "") + told.get("src", "")), (kind, told)
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", page), kind
        assert ">49<" not in page, kind
        assert "'49'" not in html.unescape(page), kind
    assert "<script>alert(4)</script>" in Parsed(pages["landmark"]).text
    assert "q<b>\\u202e'" in Parsed(pages["answer"]).text


def test_pages_load_from_their_own_server_alone(pages: dict[str, str]) -> None:
    for kind, page in pages.items():
        for _, told in Parsed(page).elements:
            for name in ("src", "action", "srcset", "poster"):
                assert told.get(name, "/").startswith(("/", "data:image/")), (kind, told)


def test_ids_reach_forms_and_scripts_as_they_are(hostile: TestClient, pages: dict[str, str]) -> None:
    rows = hostile.service.landmarks.folder.rows  # type: ignore[attr-defined]
    parsed = Parsed(pages["similar"])
    assert {told["data-image"] for told in parsed.of("a", **{"class": "pic"})} <= set(map(str, rows.image_id))
    assert {told["value"] for told in parsed.of("option")} & set(LABELS)
    for label in rows.landmarks:
        assert hostile.get(f"/landmarks/{quote(label, safe='')}").status_code == 200


def test_every_image_has_its_size_and_a_text(pages: dict[str, str]) -> None:
    for kind, page in pages.items():
        for told in Parsed(page).of("img"):
            assert "alt" in told, (kind, told)
            assert told.get("class") == "own" or {"width", "height"} <= told.keys(), (kind, told)


def test_the_first_page_is_light_and_strict(client: TestClient, service: Service) -> None:
    response = client.get("/")
    parsed = shown(response)
    assert response.headers["Content-Security-Policy"] == POLICY
    assert "40 pictures" not in parsed.text
    assert f"{len(service.landmarks.folder.rows)} pictures of 4 landmarks" in parsed.text
    assert "Which landmark is this?" in parsed.text
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert [told["accept"] for told in parsed.of("input", type="file")] == ["image/*,.heic,.heif", "image/*"]
    assert not parsed.of("input", type="url")
    assert len(response.content) + sum(map(len, views().files.values())) < 100_000


def test_an_address_may_be_given_where_the_settings_say_so(client_of: Callable[..., TestClient]) -> None:
    assert len(shown(client_of(allow_urls=True).get("/")).of("input", type="url")) == 1


def test_a_form_without_scripts_is_answered_with_a_page(
    client: TestClient, finished_set: Path, service: Service
) -> None:
    name, data, _ = picture(finished_set)[1]
    parsed = shown(client.post("/ask", **form_of((name, data), ("", b""), url="")))
    (answer,) = service.landmarks.query([picture(finished_set)[1][1]])
    (article,) = parsed.of("article")
    assert article["aria-label"] == "Answer to test-arch-0.jpg"
    assert article["data-confidence"] == str(answer.confidence)
    assert ("It would have been" in parsed.text) == (answer.landmark_id is None)
    assert "over 99.9% sure: as good as certain." in parsed.text
    assert re.search(r"Of answers this sure, about \d+ of 100 are right \(", parsed.text)
    assert parsed.of("img", **{"class": "own"})[0]["src"].startswith("data:image/jpeg;base64,")
    shown_ids = [told["data-image"] for told in parsed.of("a", **{"class": "pic"})]
    assert shown_ids[0] == answer.neighbours[0].image_id


@pytest.mark.parametrize(
    ("confidence", "share", "words"),
    [
        (1.0, "over 99.9%", "as good as certain"),
        (0.98, "98.0%", "very likely"),
        (0.7, "70.0%", "likely"),
        (0.5, "50.0%", "a guess"),
        (0.0, "under 0.1%", "unlikely"),
    ],
)
def test_a_confidence_is_told_as_neither_all_nor_nothing(confidence: float, share: str, words: str) -> None:
    assert (sure(confidence), in_words(confidence)) == (share, words)


def test_a_name_may_be_broken_where_its_words_end() -> None:
    assert breakable("a_b<i>_\u202ec") == "a_<wbr>b&lt;i&gt;_<wbr>\\u202ec"


def test_a_verdict_is_sent_by_a_form_with_what_it_is_on(client: TestClient, finished_set: Path) -> None:
    name, data, _ = picture(finished_set)[1]
    parsed = shown(client.post("/ask", **form_of((name, data))))
    assert parsed.of("form", action="/v1/feedback", method="post")
    assert parsed.of("input", name="sha256")[0]["value"] == hashlib.sha256(data).hexdigest()
    assert [told["value"] for told in parsed.of("button", name="verdict")] == ["right", "wrong", "none", "other"]
    row = shown(client.get("/similar/train-dome-0"))
    assert row.of("input", name="image_id")[0]["value"] == "train-dome-0"
    assert row.of("input", name="answered")[0]["value"] == "dome"


def test_several_pictures_are_answered_on_one_page_and_one_that_cannot_be_read_says_why(
    client: TestClient, finished_set: Path
) -> None:
    files = [picture(finished_set), ("image", ("broken.jpg", b"\xff\xd8broken", "image/jpeg"))]
    parsed = shown(client.post("/ask", files=files))
    assert len(parsed.of("article")) == 2
    assert "This picture cannot be read" in parsed.text


def test_a_script_gets_a_part_of_a_page_without_the_picture_that_it_has(client: TestClient, finished_set: Path) -> None:
    response = client.post("/ask", files=[picture(finished_set)], headers=PART)
    parsed = shown(response)
    assert parsed.elements[0][0] == "article"
    assert "src" not in parsed.of("img", **{"class": "own"})[0]
    assert not parsed.of("html")


def test_a_part_of_a_picture_is_answered_as_that_part(client: TestClient, finished_set: Path) -> None:
    parsed = shown(client.post("/ask", files=[picture(finished_set)], data={"box": "0.1,0.1,0.9,0.9"}, headers=PART))
    assert parsed.of("img", **{"class": "own"})[0]["src"].startswith("data:image/jpeg;base64,")
    refused = client.post("/ask", files=[picture(finished_set)], data={"box": "0.1,0.1,0.11,0.11"}, headers=PART)
    assert refused.status_code == 422
    assert refused.json()["detail"] == "`box` holds 0 x 0 pixels, fewer than 16 x 16; draw a larger one"


def gallery_of(client: TestClient, folder: Path) -> str:
    """The descriptor of a picture in the form of its gallery."""
    return shown(client.post("/ask", files=[picture(folder)])).of("input", name="descriptor")[0]["value"]


def image_ids(parsed: Parsed) -> list[str]:
    """The images of a gallery, those that are folded too."""
    return [told["data-image"] for told in parsed.of("a", **{"class": "pic"})]


def test_the_pages_of_a_gallery_hold_every_image_once(client: TestClient, finished_set: Path, service: Service) -> None:
    asked = {"descriptor": gallery_of(client, finished_set), "apart": "1"}
    found: list[str] = []
    first = "0"
    while True:
        parsed = shown(client.post("/neighbours", data={**asked, "first": first}))
        found += image_ids(parsed)
        more = [told for told in parsed.of("button", name="first") if told["value"] != "0"]
        if not more:
            break
        first = more[0]["value"]
    assert sorted(found) == sorted(map(str, service.landmarks.folder.rows.image_id))


def test_a_gallery_is_filtered_by_landmark(client: TestClient, finished_set: Path) -> None:
    asked = {"descriptor": gallery_of(client, finished_set), "landmark": "dome", "apart": "1"}
    assert sorted(image_ids(shown(client.post("/neighbours", data=asked, headers=PART)))) == [
        f"train-dome-{i}" for i in range(8)
    ]


@pytest.mark.parametrize(
    ("descriptor", "status", "detail"),
    [
        ("0000.AAAA", 409, "the index has another model by now; ask with the picture again"),
        ("{model}.AAAA", 422, "the descriptor is damaged; ask with the picture again"),
        ("{model}.???", 422, "the descriptor is damaged; ask with the picture again"),
    ],
)
def test_a_descriptor_that_is_none_is_refused(
    client: TestClient, service: Service, descriptor: str, status: int, detail: str
) -> None:
    asked = {"descriptor": descriptor.format(model=service.landmarks.folder.fingerprint[:16])}
    refused = client.post("/neighbours", data=asked, headers=PART)
    assert (refused.status_code, refused.json()["detail"]) == (status, detail)


def test_errors_are_pages_for_people_and_problems_for_scripts(client: TestClient, finished_set: Path) -> None:
    nothing = form_of(("", b""), url="")
    for_people = client.post("/ask", **nothing)
    for_scripts = client.post("/ask", **{**nothing, "headers": {**nothing["headers"], **PART}})
    assert for_people.status_code == for_scripts.status_code == 422
    assert for_scripts.headers["Content-Type"] == "application/problem+json"
    assert Parsed(for_people.text).of("p", role="alert")
    assert for_scripts.json()["detail"] == "there is no picture to look at; choose one"
    assert for_scripts.json()["detail"] in Parsed(for_people.text).text
    unknown = client.get("/similar/nowhere")
    assert "has no image nowhere" in Parsed(unknown.text).text
    assert Parsed(client.get("/landmarks/nowhere").text).of("p", role="alert")


def test_an_image_of_the_index_is_shown_with_those_that_are_like_it(client: TestClient) -> None:
    parsed = shown(client.get("/similar/train-arch-0", params={"apart": "1"}))
    assert parsed.of("article", **{"data-row": "train-arch-0"})
    assert "The Great Arch" in parsed.text
    assert "train-arch-0" not in image_ids(parsed)
    part = shown(client.get("/similar/train-arch-0", params={"box": "0,0,0.9,0.9"}))
    assert "By a part of it" in part.text


def test_pictures_are_shown_side_by_side(client: TestClient, finished_set: Path) -> None:
    one, two = {"image_id": "train-arch-0"}, {"row": "train-arch-1", "image_id": "train-arch-0"}
    sent = {"files": [picture(finished_set)], "data": {"box": "0,0,0.9,0.9"}}
    part = shown(client.post("/compare", params=one, headers=PART, **sent))
    rows = shown(client.get("/compare", params=two, headers=PART))
    page = shown(client.get("/compare", params=two))
    for parsed in (part, rows, page):
        assert parsed.of("img")
        assert all(told["src"].startswith("data:image/webp;base64,") for told in parsed.of("img"))
        assert "The Great Arch , similarity" in parsed.text
    assert part.elements[0] == ("div", {"class": "pair"})
    refused = client.get("/compare", params={**two, "image_id": "nothing"}, headers=PART)
    assert refused.status_code == 404


def test_an_answer_is_explained_on_a_page_that_runs_no_script_and_tells_no_place_on_disk(
    client: TestClient, finished_set: Path
) -> None:
    data = (finished_set / "images" / "val-dome-0.jpg").read_bytes()
    got = client.post("/explain", **form_of(("a dome.jpg", data)))
    assert got.headers["content-security-policy"] == (
        "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    )
    read = Parsed(got.text)
    assert read.of("script") == []
    assert "The votes" in read.text
    assert "What adds up to the logit of the confidence" in read.text
    assert "Why: a dome.jpg" in read.text
    assert str(finished_set) not in got.text
    assert read.of("a") == []


def test_an_image_that_has_gone_is_told_without_its_place_on_disk(
    client: TestClient, service: Service, finished_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: str) -> bytes:
        raise UnreadableError("not found")

    monkeypatch.setattr(given, "read_image", gone)
    data = (finished_set / "images" / "val-dome-0.jpg").read_bytes()
    first = str(service.landmarks.folder.rows.image_id[0])
    for address in ("/explain", f"/compare?image_id={quote(first)}"):
        told = client.post(address, **form_of(("a.jpg", data)))
        assert "cannot be shown: not found" in told.text
        assert str(finished_set) not in told.text


def test_landmarks_are_found_by_name(client: TestClient) -> None:
    everyone = shown(client.get("/landmarks"))
    assert [told["href"] for told in everyone.of("a", **{"class": "pic"})] == [
        f"/landmarks/{label}" for label in ("bridge", "castle", "dome", "arch")
    ]
    some = shown(client.get("/landmarks", params={"search": "OLD"}))
    assert [told["href"] for told in some.of("a", **{"class": "pic"})] == ["/landmarks/dome"]
    assert "1 landmark with “OLD” in the name" in some.text


def test_a_landmark_tells_its_typical_images_and_what_it_is_confused_with(client: TestClient) -> None:
    parsed = shown(client.get("/landmarks/dome"))
    assert {"Most typical", "Most deviant", "Confused with"} <= set(parsed.texts)
    assert all(image_id.startswith("train-dome-") for image_id in image_ids(parsed))


def test_reports_beside_the_index_are_served_by_name_and_apart(
    client: TestClient, finished_set: Path, service: Service
) -> None:
    assert "Files beside the index" not in shown(client.get("/reports")).text
    assert "Reliability" in shown(client.get("/reports")).text
    refused = client.get("/reports/train.csv")
    assert refused.status_code == 404
    assert "there is no report train.csv; /reports lists those that there are" in html.unescape(refused.text)
    report = finished_set / "report.html"
    report.write_text("<!DOCTYPE html><title>r</title>")
    try:
        assert shown(client.get("/reports")).of("a", href="/reports/report.html")
        served = client.get("/reports/report.html")
        assert served.text == "<!DOCTYPE html><title>r</title>"
        assert served.headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'none';")
    finally:
        report.unlink()


def test_static_files_stay_in_the_cache_under_an_address_that_changes_with_them(client: TestClient) -> None:
    address = shown(client.get("/")).of("link", rel="stylesheet")[0]["href"]
    response = client.get(address)
    assert response.headers["Content-Type"] == "text/css; charset=utf-8"
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert client.get("/static/old/app.css").headers["Cache-Control"] == "no-cache"
    for name in ("pages.py", "..%2fpages.py", "%2e%2e%2fpages.py"):
        assert client.get(f"/static/old/{name}").status_code == 404


def test_static_files_are_packed_for_those_that_can_unpack_them(client: TestClient) -> None:
    plain = client.get("/static/old/app.css", headers={"Accept-Encoding": "identity"})
    packed = client.get("/static/old/app.css", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["Content-Length"]) < len(plain.content) / 2
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"


def test_no_file_of_the_page_asks_for_another_server() -> None:
    for file in (Path(__file__).parents[2] / "cli/web/static").iterdir():
        text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|@import|eval\(|new Function|innerHTML \+=", text), file
