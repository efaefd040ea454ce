"""`lmr explain`: what an index knows of a landmark, as text, JSON and a page."""

import json
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_set import done, image, listing, refused, run, write_csv

import lmr
from cli.report.landmark import PAGE
from retrieval.extras import install_hint

NAMES = {"arch": "The Great Arch (arch)", "dome": "Old Dome (dome)"}
ON = ("--device", "cpu", "--threads", "1")


def test_the_text_names_images_and_landmarks(tiny_set):
    found = lmr.explain("arch", top=2, device="cpu")
    own, other = found.closest
    first, *_ = found.confused
    lines = done("explain", "arch", "--top", "2", *ON).stdout.splitlines()
    assert lines[0] == f"The Great Arch (arch): 8 images, mean similarity {found.similarity:.3f}"
    assert lines[1] == f"  left out, {found.n_right} of 8 images answered with it"
    assert lines[2] == "  most typical:"
    near = found.typical[0].nearest
    assert lines[3] == (
        f"    {found.typical[0].similarity:6.3f}  {found.typical[0].image.path}  "
        f"(nearest of another: {near.score:.3f} {NAMES.get(near.landmark_id, near.landmark_id)})"
    )
    assert lines[5] == "  most deviant:"
    assert lines[8] == "  confused with:"
    name = NAMES.get(first.landmark_id, first.landmark_id)
    assert lines[9] == (
        f"    {name}: {first.n_taken} answered with it, {first.n_given} of its 8 the other way round, "
        f"nearest for {first.n_nearest}"
    )
    assert lines[-1] == f"  most alike of the two: {own.score:.3f}  {own.path} and {other.path}"


def test_the_json_is_what_the_function_returns(tiny_set):
    told = json.loads(done("explain", "arch", "--json", *ON).stdout)
    assert told == lmr.explain("arch", device="cpu").to_json()
    assert done("explain", "The Great Arch", "--json", *ON).stdout == done("explain", "arch", "--json", *ON).stdout


def test_the_page_shows_the_images_and_what_makes_them_alike(tiny_set):
    assert done("explain", "arch", "--output", "why", *ON).stderr == f"why: written; open why/{PAGE}\n"
    assert {*listing(Path("why"))} == {PAGE, "landmark.json", "own-map.png", "other-map.png", "made-of.json"}
    page, told = Path("why", PAGE).read_text(), json.loads(Path("why/landmark.json").read_text())
    assert "<h1>The Great Arch (arch)</h1>" in page
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:|\.)', page) == []
    for one in (*told["typical"], *told["deviant"]):
        assert f"<b>{one['similarity']:.3f}</b> {one['image_id']}</figcaption>" in page
    assert '<p class="faint">Index folder landmarks</p>' in page
    maps = told["maps"]
    for side in ("own", "other"):
        total = np.sum(maps[side]["places"]) + maps[side]["rest"]
        assert total == pytest.approx(maps["similarity"], abs=1e-5)
        with Image.open(f"why/{side}-map.png") as drawn:
            assert len(drawn.convert("RGB").getcolors(1 << 24)) > 100
    assert maps["similarity"] == pytest.approx(told["closest"]["similarity"], abs=0.05)
    assert {key: told[key] for key in told if key != "maps"} == lmr.explain("arch", device="cpu").to_json()


def test_what_is_finished_is_left_and_what_is_other_is_refused(tiny_set):
    done("explain", "arch", "--output", "why", *ON)
    before = listing(Path("why"))
    assert done("explain", "arch", "--output", "why", *ON).stderr == "why: finished already, nothing to do\n"
    assert listing(Path("why")) == before
    assert refused("explain", "dome", "--output", "why", *ON) == (
        "why was made with another landmark (arch, now dome); give --overwrite or another name"
    )
    done("explain", "dome", "--output", "why", "--overwrite", *ON)
    assert json.loads(Path("why/landmark.json").read_text())["landmark_id"] == "dome"
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    result = run("explain", "arch", "--output", "mine", "--overwrite", *ON)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: mine exists and holds other things; give another name\n"
    assert Path("mine/letter.txt").read_text() == "dear"


@pytest.fixture
def of_own_images(tiny_set):
    """An index of images in the working folder, which may be changed."""
    rows = [f"train-{label}-{i},{label}" for label in ("arch", "dome") for i in range(3)]
    write_csv(Path("few.csv"), "id,landmark_id", rows)
    done("embed", "few.csv", "--output", "few.h5", "--device", "cpu", "--workers", "1")
    done("build-index", "few.h5", "--output", "few", "--device", "cpu")
    found = lmr.explain("arch", index="few", device="cpu")
    assert all(Path(one.path).is_relative_to(tiny_set) for one in found.closest)
    return found


def test_images_that_are_gone_are_shown_as_thumbnails_without_maps(of_own_images):
    shutil.rmtree("images")
    done("explain", "arch", "--index", "few", "--output", "why", *ON)
    page, told = Path("why", PAGE).read_text(), json.loads(Path("why/landmark.json").read_text())
    note = f"no similarity map of the closest pair: {of_own_images.closest[0].path} cannot be read (not found)"
    assert told["notes"] == [note]
    assert told["maps"] is None
    assert f'<p class="warn">{note}</p>' in page
    assert not Path("why/own-map.png").exists()
    assert page.count("data:image/jpeg") >= len(told["typical"]) + len(told["deviant"])


def test_without_torch_the_page_has_no_maps(of_own_images, monkeypatch):
    monkeypatch.setattr("retrieval.explain.maps.missing", lambda *names: [*names])
    monkeypatch.setitem(sys.modules, "retrieval.explain.similarity", None)
    done("explain", "arch", "--index", "few", "--output", "why", *ON)
    (note,) = json.loads(Path("why/landmark.json").read_text())["notes"]
    assert note == ("no similarity map of the closest pair: maps need torch, which is not installed; install it")


def test_an_image_that_was_replaced_since_has_no_map(of_own_images):
    image(-1, 999).save(of_own_images.closest[1].path)
    done("explain", "arch", "--index", "few", "--output", "why", *ON)
    told = json.loads(Path("why/landmark.json").read_text())
    assert told["notes"] == ["the image of the index row is not the one that was indexed, so it has no map"]
    assert told["maps"]["other"] is None
    assert not Path("why/other-map.png").exists()
    assert Path("why/own-map.png").exists()


def test_a_landmark_that_is_not_there_is_answered_with_what_is_spelt_alike(tiny_set):
    assert refused("explain", "arhc", *ON) == "landmarks has no landmark arhc; did you mean arch?"
    assert refused("explain", "<b>\x1b[31m", *ON) == (
        r"landmarks has no landmark <b>\x1b[31m; it has 4 landmarks, which lmr index export lists"
    )


def test_an_index_of_one_landmark_has_a_page_too(tiny_set):
    write_csv(Path("one.csv"), "id,landmark_id", [f"train-arch-{i},arch" for i in range(3)])
    done("embed", "one.csv", "--device", "cpu", "--workers", "1")
    done("build-index", "one.h5", "--output", "one", "--whitening-power", "0", "--device", "cpu")
    result = done("explain", "arch", "--index", "one", "--output", "why", *ON)
    assert result.stdout.splitlines()[-1] == (
        "  the index has no other landmark, so there is nothing that it could be confused with"
    )
    page = Path("why", PAGE).read_text()
    assert "Confused with" not in page
    assert "two images most alike" not in page


def test_a_page_without_jinja2_is_refused_before_the_work(tiny_set, monkeypatch):
    monkeypatch.setattr("retrieval.extras.find_spec", lambda name: None if name == "jinja2" else find_spec(name))
    assert refused("explain", "arch", "--output", "why", *ON) == f"--output why needs jinja2; {install_hint('report')}"
    assert not Path("why").exists()


def test_a_wrong_device_is_refused(tiny_set):
    assert run("explain", "arch", "--device", "tpu").exit_code == 1
