"""`lmr query`: what it prints, writes and links, of any image from anywhere."""

import csv
import io
import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_set import HERE, LABELS, done, image, listing, misused, refused

import lmr
from cli.report.text import CSV_COLUMNS
from index.sort_into import group_names
from retrieval.data.names import Name, shown_name

ARCH = "images/test-arch-0.jpg"
OTHER = "images/test-other-5.jpg"
NOT_ONE = "not a picture in a known format"


def asked(*arguments: object) -> list[dict]:
    """The answers of `--json`."""
    return json.loads(done("query", *arguments, "--json", *HERE).stdout)


def test_json_has_the_documented_keys(tiny_set):
    known, unknown = asked(ARCH, OTHER)
    keys = ["image", "landmark_id", "name", "address", "confidence", "threshold", "landmarks", "neighbours"]
    assert list(known) == list(unknown) == [*keys, "verified", "in_index", "unreadable", "reason"]
    assert (known["reason"], unknown["reason"]) == ("", f"below the threshold {unknown['threshold']:.3f}")
    assert (known["image"], known["landmark_id"], known["name"]) == (ARCH, "arch", "The Great Arch")
    assert (
        known["threshold"]
        == json.loads(Path("landmarks/calibration.json").read_text())["threshold_precision"]["confidence"]
    )
    assert known["confidence"] >= known["threshold"] > unknown["confidence"]
    assert known["landmarks"][0]["confidence"] == known["confidence"]
    assert list(known["landmarks"][0]) == ["landmark_id", "name", "confidence", "score"]
    assert list(known["neighbours"][0]) == ["image_id", "landmark_id", "score", "path", "name", "inliers", "columns"]
    assert known["verified"] is None
    assert {neighbour["inliers"] for neighbour in known["neighbours"]} == {None}
    scores = [neighbour["score"] for neighbour in known["neighbours"]]
    assert scores == sorted(scores, reverse=True)
    assert Path(known["neighbours"][0]["path"]).is_file()
    assert unknown["landmark_id"] is None
    assert unknown["name"] == ""
    assert known["in_index"] is known["unreadable"] is None


def test_the_text_says_label_confidence_and_voters(tiny_set):
    (answer,) = asked(ARCH)
    lines = done("query", ARCH, *HERE).stdout.splitlines()
    assert lines[0] == ARCH
    assert lines[1] == f"  The Great Arch (arch), confidence {answer['confidence']:.3f}"
    assert {n["name"] for n in answer["neighbours"] if n["landmark_id"] == "arch"} == {"The Great Arch"}
    names = [shown_name(n["landmark_id"], n["name"]) for n in answer["neighbours"][:5]]
    paths = [f"{n['score']:6.3f}  {{}}  {n['path']}" for n in answer["neighbours"][:5]]
    voters = [f"  {path.format(name)}" for path, name in zip(paths, names, strict=True)]
    assert lines[-len(voters) :] == voters


def test_below_the_threshold_there_is_no_known_landmark(tiny_set):
    (answer,) = asked(OTHER)
    best = answer["landmarks"][0]
    name, sure = shown_name(best["landmark_id"], best["name"]), f"confidence {best['confidence']:.3f}"
    assert done("query", OTHER, *HERE).stdout.splitlines()[1] == (
        f"  no known landmark; nearest was {name}, {sure}, below {answer['threshold']:.3f}"
    )
    assert asked(OTHER, "--threshold", "0")[0]["landmark_id"] == answer["landmarks"][0]["landmark_id"]
    assert asked(ARCH, "--threshold", "1")[0]["landmark_id"] is None


def test_a_image_of_the_index_itself_is_reported(tiny_set):
    shutil.copy("images/train-dome-1.jpg", "copy.jpg")
    assert [answer["in_index"] for answer in asked("copy.jpg", ARCH)] == ["train-dome-1", None]
    assert "  this very picture is in the index: train-dome-1\n" in done("query", "copy.jpg", *HERE).stdout


def test_csv_has_a_line_for_each_image(tiny_set):
    Path("broken.jpg").write_bytes(b"nothing")
    result = done("query", ARCH, "broken.jpg", OTHER, "--csv", *HERE)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [list(row) for row in rows] == [list(CSV_COLUMNS)] * 3
    known, broken, unknown = rows
    assert (known["image"], known["landmark_id"], known["name"]) == (ARCH, "arch", "The Great Arch")
    assert float(known["confidence"]) == asked(ARCH)[0]["confidence"]
    assert (broken["landmark_id"], broken["confidence"]) == ("", "")
    assert unknown["landmark_id"] == ""
    assert unknown["confidence"] == unknown["best_confidence"] != ""
    (answer,) = asked(OTHER)
    assert unknown["best_landmark_id"] == answer["landmarks"][0]["landmark_id"]
    assert float(unknown["best_score"]) == answer["landmarks"][0]["score"]
    assert {(row["verified"], row["inliers"]) for row in rows} == {("", "")}
    assert [row["reason"] for row in rows] == ["", f"unreadable: {NOT_ONE}", answer["reason"]]
    assert result.stderr == "1 of 3 pictures is unreadable\n"


def test_top_bounds_the_landmarks_listed(tiny_set):
    Path("landmarks/calibration.json").unlink()  # the default vote is that of 20 neighbours
    assert [len(asked(OTHER, "--top", n)[0]["landmarks"]) for n in (1, 2, 3)] == [1, 2, 3]
    assert misused("query", OTHER, "--top", "0") == "Invalid value for '--top': 0 is not in the range x>=1."


def test_an_index_without_calibration_gives_scores_and_names_lmr_calibrate(tiny_set):
    Path("landmarks/calibration.json").unlink()
    known, unknown = asked(ARCH, OTHER)
    for answer in (known, unknown):
        assert answer["confidence"] is answer["threshold"] is None
        assert answer["landmarks"][0]["confidence"] is None
        assert answer["landmark_id"] == answer["landmarks"][0]["landmark_id"]
    result = done("query", ARCH, *HERE)
    assert result.stdout.splitlines()[1] == f"  The Great Arch (arch), score {known['landmarks'][0]['score']:.3f}"
    assert result.stderr == (
        "landmarks is not calibrated: scores instead of confidences, no threshold; lmr calibrate makes one\n"
    )
    assert refused("query", ARCH, "--threshold", "0.5", *HERE) == (
        "landmarks is not calibrated, so a threshold has no meaning; run lmr calibrate"
    )


def variants() -> dict[str, tuple[Image.Image, str, dict]]:
    """One image of an arch in many forms: file name -> image, format, how it is saved."""
    arch = image(LABELS.index("arch"), 200)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "cmyk.jpg": (arch.convert("CMYK"), "JPEG", {"quality": 95}),
        "progressive.jpg": (arch, "JPEG", {"progressive": True, "quality": 95}),
        "alpha.png": (arch.convert("RGBA"), "PNG", {}),
        "palette.png": (arch.quantize(64), "PNG", {}),
        "turned.jpg": (arch.transpose(Image.Transpose.ROTATE_90), "JPEG", {"exif": turned, "quality": 95}),
        "animated.gif": (arch, "GIF", {"save_all": True, "append_images": [image(-1, 1)]}),
        "flat.webp": (arch, "WEBP", {"lossless": True}),
        "scan.tiff": (arch, "TIFF", {}),
        "plain.bmp": (arch, "BMP", {}),
        "named.wrong": (arch, "PNG", {}),
    }


@pytest.mark.parametrize("name", variants())
def test_a_image_is_known_in_every_form(tiny_set, name):
    shown, form, how = variants()[name]
    shown.save(name, form, **how)
    assert asked(name)[0]["landmark_id"] == "arch"


def test_grey_and_sixteen_bit_images_get_the_same_answer(tiny_set):
    grey = image(LABELS.index("arch"), 200).convert("L")
    grey.save("grey.png")
    grey.convert("RGB").save("rgb.png")
    Image.fromarray(np.asarray(grey).astype("uint16") * 257).save("deep.png")
    answers = asked("grey.png", "rgb.png", "deep.png")
    assert len({json.dumps(answer["landmarks"]) for answer in answers}) == 1


def test_broken_images_are_told_why_and_do_not_stop_the_others(tiny_set):
    whole = Path(ARCH).read_bytes()
    bomb = bytearray(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0")
    bomb += zlib.crc32(bytes(bomb[12:])).to_bytes(4, "big") + b"\0\0\0\0IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
    for name, content in {
        "cut.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><p>not found",
        "bomb.png": bytes(bomb),
        "text.jpg": b"hello",
    }.items():
        Path(name).write_bytes(content)
    answers = asked("cut.jpg", "empty.jpg", ARCH, "page.jpg", "bomb.png", "text.jpg")
    assert [answer["unreadable"] for answer in answers] == [
        "broken JPEG: cut short",
        "empty file",
        None,
        "a web page, not a picture",
        "60000 x 60000 pixels, over the limit of 178,956,970 pixels",
        "not a picture in a known format",
    ]
    assert [answer["landmark_id"] for answer in answers] == [None, None, "arch", None, None, None]
    assert all(answer["landmarks"] == answer["neighbours"] == [] for answer in answers if answer["unreadable"])
    assert refused("query", "empty.jpg", "text.jpg", *HERE) == (
        "none of the 2 pictures can be read: empty.jpg: empty file"
    )


def test_answers_do_not_depend_on_order_or_company(tiny_set):
    paths = sorted(str(path) for path in Path("images").glob("test-*"))
    together = {answer["image"]: answer for answer in asked(*paths)}
    backwards = {answer["image"]: answer for answer in asked(*reversed(paths))}
    alone = {path: asked(path)[0] for path in paths[::5]}
    for path in paths:
        for other in (backwards.get(path), alone.get(path, together[path])):
            assert other["landmark_id"] == together[path]["landmark_id"]
            assert other["confidence"] == pytest.approx(together[path]["confidence"], abs=1e-3)
            scores = [[neighbour["score"] for neighbour in one["neighbours"]] for one in (other, together[path])]
            assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    assert [answer["image"] for answer in asked(*reversed(paths))] == paths[::-1]


def test_a_folder_is_all_images_below_it(tiny_set):
    os.makedirs("trip/day 1")
    shutil.copy(ARCH, "trip/day 1/a.JPG")
    shutil.copy(OTHER, "trip/b.jpg")
    Path("trip/notes.txt").write_text("hello")
    assert [answer["image"] for answer in asked("trip")] == ["trip/b.jpg", "trip/day 1/a.JPG"]
    assert [answer["image"] for answer in asked(ARCH, ARCH)] == [ARCH, ARCH]


def test_a_name_that_is_no_utf8_is_escaped_for_people_and_exact_for_programs(tiny_set):
    name = os.fsdecode(b"ar\xffch.jpg")
    shutil.copy(ARCH, name)
    assert done("query", name, *HERE).stdout_bytes.splitlines()[0] == rb"ar\xffch.jpg"
    assert done("query", name, "--csv", *HERE).stdout_bytes.splitlines()[1].startswith(b"ar\xffch.jpg,arch,")
    assert asked(name)[0]["image"] == name


@pytest.fixture
def server(tiny_set) -> Iterator[str]:
    """Address of a web server of the set, on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tiny_set)) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def test_a_url_is_fetched(server):
    got, gone = asked(f"{server}/{ARCH}", f"{server}/images/no.jpg", "--allow-private")
    (local,) = asked(ARCH)
    assert (got["image"], got["landmarks"]) == (f"{server}/{ARCH}", local["landmarks"])
    assert gone["unreadable"] == "HTTP 404: File not found"
    assert refused("query", "ftp://localhost/a.jpg", *HERE) == (
        "ftp://localhost/a.jpg: only http and https are fetched; give such a URL or a file"
    )


def test_a_url_at_a_private_address_is_fetched_only_when_asked_for(server):
    url = f"{server}/{ARCH}"
    reason = "private address: 127.0.0.1; --allow-private (allow_private=True) lets it pass"
    assert refused("query", url, *HERE) == f"the only picture cannot be read: {url}: {reason}"
    landmarks = lmr.open_index("landmarks", device="cpu", threads=1, workers=1)
    assert landmarks.query([url])[0].unreadable == reason
    assert landmarks.query([url], allow_private=True)[0].unreadable is None
    assert landmarks.embed([url])[1] == {0: reason}
    assert landmarks.embed([url], allow_private=True)[1] == {}


def test_the_sheet_is_written_and_not_replaced_unasked(tiny_set):
    result = done("query", ARCH, OTHER, "--save", "sheet.png", *HERE)
    assert result.stderr == "sheet.png: 2 pictures beside their neighbours\n"
    with Image.open("sheet.png") as sheet:
        assert sheet.width > sheet.height > 400
    files = listing(tiny_set)
    assert refused("query", ARCH, "--save", "sheet.png", *HERE) == (
        "sheet.png was made with another set of pictures; give --overwrite or another name"
    )
    assert refused("query", ARCH, "--save", "sheet.doc") == (
        "sheet.doc: a sheet cannot have the suffix .doc; use .jpg, .png or .webp"
    )
    assert listing(tiny_set) == files
    done("query", OTHER, "--save", "sheet.png", "--overwrite", *HERE)
    assert listing(tiny_set)["sheet.png"] != files["sheet.png"]


@pytest.mark.parametrize("name", ["sheet.png", "answers.html"])
def test_the_same_answers_are_saved_once(tiny_set, name):
    asked = ["query", ARCH, OTHER, "--save", name, *HERE]
    first = done(*asked)
    files = listing(tiny_set)
    again = done(*asked)
    assert again.stderr == f"{name}: finished already, nothing to do\n"
    assert again.stdout == first.stdout
    assert listing(tiny_set) == files
    assert refused(*asked, "--top", "1") == (
        f"{name} was made with another --top (5, now 1); give --overwrite or another name"
    )
    Path(name).write_bytes(b"mine")
    assert refused(*asked) == f"{name} was changed since it was written; give --overwrite or another name"
    Path(f".{name}.made-of.json").unlink()
    assert refused(*asked) == f"{name} exists; give --overwrite or another name"
    assert Path(name).read_bytes() == b"mine"


def links(folder: str) -> dict[str, str]:
    """Link -> what it leads to."""
    return {
        str(path.relative_to(folder)): os.path.relpath(os.readlink(path))
        for path in Path(folder).rglob("*")
        if path.is_symlink()
    }


def test_sorting_links_images_by_landmark_once(tiny_set):
    for place in ("a", "b"):
        Path(place).mkdir()
    shutil.copy("images/test-arch-0.jpg", "a/p.jpg")
    shutil.copy("images/test-arch-1.jpg", "b/p.jpg")
    shutil.copy(OTHER, "b/q.jpg")
    Path("b/r.jpg").write_bytes(b"nothing")
    expected = {"arch/p.jpg": "a/p.jpg", "arch/p-2.jpg": "b/p.jpg", "_no_known_landmark/q.jpg": "b/q.jpg"}
    for _ in range(2):
        assert "sorted: 3 links\n" in done("query", "a", "b", "--sort-into", "sorted", *HERE).stderr
        assert links("sorted") == expected


def test_sorting_a_folder_into_itself_again_makes_no_doubles(tiny_set):
    Path("trip").mkdir()
    shutil.copy("images/test-arch-0.jpg", "trip/p.jpg")
    for _ in range(3):
        done("query", "trip", "--sort-into", "trip/sorted", *HERE)
        assert links("trip/sorted") == {"arch/p.jpg": "trip/p.jpg"}


def test_images_are_copied_or_moved_and_moves_are_undone(tiny_set):
    Path("trip").mkdir()
    for name in ("p.jpg", "q.jpg"):
        shutil.copy("images/test-arch-0.jpg" if name == "p.jpg" else OTHER, f"trip/{name}")
    before = {path.name: path.read_bytes() for path in Path("trip").iterdir()}
    assert "copied: 2 copies\n" in done("query", "trip", "--sort-into", "copied", "--mode", "copy", *HERE).stderr
    assert {path.name: path.read_bytes() for path in Path("trip").iterdir()} == before
    assert Path("copied/arch/p.jpg").read_bytes() == before["p.jpg"]
    assert "sorted: 2 moved\n" in done("query", "trip", "--sort-into", "sorted", "--mode", "move", *HERE).stderr
    assert not list(Path("trip").iterdir())
    assert Path("sorted/_no_known_landmark/q.jpg").read_bytes() == before["q.jpg"]
    again = ("query", "trip", "--sort-into", "sorted", "--mode", "move", *HERE)
    assert done(*again).stdout == "sorted: 2 pictures moved already, nothing to do\n"
    assert refused(*again, "--save", "a.html") == (
        "sorted: 2 pictures moved already, a.html is not there; give sorted as the pictures, or --undo-moves first"
    )
    assert done("query", "--undo-moves", "sorted").stdout == "sorted: 2 pictures moved back\n"
    assert {path.name: path.read_bytes() for path in Path("trip").iterdir()} == before
    assert refused("query", "--undo-moves", "sorted") == "sorted: nothing was moved there (no .lmr-moves.jsonl)"


def test_folders_have_the_names_that_people_gave_theirs():
    names = {"Hawa_Mahal": Name("Hawa  Mahal"), "9633": Name("Old Mill"), "a/b_c": Name("a/b c")}
    folder = SimpleNamespace(rows=SimpleNamespace(landmarks=("9633", "Hawa_Mahal", "a/b_c", "x")), names=names)
    assert group_names(folder) == {
        "9633": "9633", "Hawa_Mahal": "Hawa  Mahal", "a/b_c": "a%2Fb c", "x": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("label", "folder"),
    [("..", "%2E%2E"), (".", "%2E"), ("a/b", "a%2Fb"), ("../up", "%2E.%2Fup"), ("a_b", "a_b"), ("ok.1", "ok.1")],
)
def test_a_landmark_id_never_leads_out_of_the_sorted_folder(tmp_path, label, folder):
    from index.sort_into import Sorted, sort_into
    from lmr import Answer
    from retrieval.files.folder_names import folder_name

    shown = tmp_path / "p.jpg"
    shown.write_bytes(b"x")
    answer = Answer(str(shown), label, label, "", 1.0, 0.5, (), ())
    assert sort_into(tmp_path / "sorted", [answer], {label: folder_name(label)}) == Sorted(1, 0, 0, 0)
    assert os.readlink(tmp_path / "sorted" / folder / "p.jpg") == str(shown)


def test_json_and_csv_exclude_each_other(tiny_set):
    assert misused("query", ARCH, "--json", "--csv") == "--json and --csv exclude each other"
    assert misused("query") == "Missing argument 'PICTURES...'."
