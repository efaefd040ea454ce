"""Facts of images, and the file that keeps them."""

import hashlib
import io
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from made_images import encoded, smooth
from PIL import Image, ImageFilter
from recorder import Recorder

from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import read_manifest
from retrieval.data.quality_cache import measure_manifest, open_cache
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.quality import measure_image, perceptual_hash
from retrieval.progress import Silent


def speckled(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """An image with structure at every scale."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        (tmp_path / "in" / f"label{i}").mkdir(parents=True)
        speckled(i).save(tmp_path / "in" / f"label{i}" / f"{i}.png")
    (tmp_path / "in" / "label0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return tmp_path / "in"


def facts_of(folder, cache=None, **options):
    manifest = read_manifest(folder)
    return measure_manifest(ImageSource(manifest, folder), cache, **options)


def test_facts_of_a_folder_whose_name_is_not_utf_8_are_kept_and_found_again(folder):
    place, todo = folder.rename(folder.with_name(os.fsdecode(b"caf\xe9"))), []
    first = facts_of(place, place.parent / "facts.db", progress=Recorder(begun=todo))
    again = facts_of(place, place.parent / "facts.db", progress=Recorder(begun=todo))
    assert (first.rows, todo) == (again.rows, [4, 1])  # the broken one is tried each time


def test_facts_of_plain_grey():
    data = encoded(Image.new("L", (40, 20), 100), "PNG")
    facts = measure_image(data)
    assert (facts.width, facts.height, facts.n_bytes) == (40, 20, len(data))
    assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert (facts.brightness, facts.contrast, facts.sharpness, facts.gradient, facts.entropy) == (100, 0, 0, 0, 0)
    assert facts.perceptual_hash == 1 << 63  # light, and nothing else


def test_facts_of_a_checkerboard():
    board = np.indices((4, 4)).sum(axis=0) % 2 * 200
    facts = measure_image(encoded(Image.fromarray(board.astype(np.uint8)), "PNG"))
    assert (facts.brightness, facts.contrast, facts.entropy) == (100, 100, 1)
    assert facts.gradient == pytest.approx(200 * 2**0.5)
    assert facts.sharpness == 800**2  # every Laplacian is 800 or -800


def test_a_single_pixel_has_facts():
    facts = measure_image(encoded(Image.new("RGB", (1, 1), "red"), "PNG"))
    assert (facts.width, facts.height, facts.sharpness, facts.gradient) == (1, 1, 0, 0)


def test_width_and_height_are_those_of_the_upright_image_before_reduction():
    image = smooth(1200, 800)
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = measure_image(encoded(image, "JPEG", exif=exif))
    assert (facts.width, facts.height) == (800, 1200)


def test_a_blurred_image_is_less_sharp():
    sharp = speckled(1).filter(ImageFilter.FIND_EDGES)
    blurred = sharp.filter(ImageFilter.GaussianBlur(2))
    assert measure_image(encoded(blurred, "PNG")).sharpness < measure_image(encoded(sharp, "PNG")).sharpness / 4


def test_copies_have_near_hashes_and_other_images_far_ones():
    for seed in range(5):
        image = speckled(seed, 600, 400)
        copy = Image.open(io.BytesIO(encoded(image.resize((300, 200)), "JPEG", quality=60)))
        assert (perceptual_hash(image) ^ perceptual_hash(copy)).bit_count() <= 4
        assert (perceptual_hash(image) ^ perceptual_hash(speckled(seed + 50))).bit_count() > 12


def test_an_unreadable_image_is_refused_with_its_reason():
    with pytest.raises(UnreadableError, match=r"^a web page, not a picture$"):
        measure_image(b"<html><body>404</body></html>")


def test_unreadable_images_are_rows_with_a_reason(folder):
    table = facts_of(folder)
    assert table.readable.tolist() == [0, 2, 3]
    assert list(table.unreadable) == [1]
    assert table.unreadable[1].startswith("broken PNG")
    assert table.column("width").tolist() == [96, 96, 96]
    assert table.hashes.dtype == np.uint64


def test_workers_change_nothing(folder, monkeypatch):
    monkeypatch.setattr("retrieval.data.quality_cache._IMAGES_A_TASK", 2)
    assert facts_of(folder, n_workers=2).rows == facts_of(folder).rows


def test_a_second_time_only_changed_images_are_measured(folder, tmp_path):
    cache = tmp_path / "facts.sqlite"
    first = facts_of(folder, cache)
    asked: list[int] = []
    assert facts_of(folder, cache, progress=Recorder(begun=asked)).rows == first.rows
    speckled(9).save(folder / "label1" / "1.png")
    changed = facts_of(folder, cache, progress=Recorder(begun=asked))
    assert asked == [1, 2]  # the broken one is tried each time
    assert [one == other for one, other in zip(changed.rows, first.rows, strict=True)] == [True, True, False, True]


def test_what_was_measured_before_a_stop_is_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval.data.quality_cache._IMAGES_A_TASK", 1)

    class Stop(Silent):
        def add(self, n):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        facts_of(folder, tmp_path / "facts.sqlite", progress=Stop())
    asked: list[int] = []
    assert facts_of(folder, tmp_path / "facts.sqlite", progress=Recorder(begun=asked)).rows == facts_of(folder).rows
    assert asked == [3]


def test_a_file_that_is_no_cache_is_refused_and_left_alone(folder, tmp_path):
    cache = tmp_path / "facts.sqlite"
    cache.write_text("holiday notes, not a database, and long enough to be looked at" * 20)
    before = cache.read_bytes()
    with pytest.raises(LmrError) as error:
        facts_of(folder, cache)
    assert str(error.value) == (f"{cache} is not a file of picture facts; move it away or name another")
    assert cache.read_bytes() == before


def test_a_cache_of_another_version_is_refused(folder, tmp_path):
    with sqlite3.connect(tmp_path / "facts.sqlite") as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(LmrError) as error:
        facts_of(folder, tmp_path / "facts.sqlite")
    assert (
        str(error.value)
        == f"{tmp_path}/facts.sqlite has format_version 7, this lmr reads 1; use the lmr that made it, or name another"
    )


def test_a_cache_in_a_missing_folder_is_one_line(folder, tmp_path):
    with pytest.raises(LmrError) as error:
        facts_of(folder, tmp_path / "nowhere" / "facts.sqlite")
    assert str(error.value) == (
        f"{tmp_path}/nowhere/facts.sqlite cannot be used: unable to open database file; "
        "make room, wait for another command, or name another"
    )


@pytest.mark.parametrize(("change", "said"), [
    ('"width": -', "width, height, n_bytes or perceptual_hash is out of its range"),
    ('"width": "x", "w": ', "Expected `int`, got `str` - at `$.width`"),
])  # fmt: skip
def test_facts_that_cannot_be_are_one_line(folder, tmp_path, change, said):
    cache = tmp_path / "facts.sqlite"
    facts_of(folder, cache)
    with closing(sqlite3.connect(cache)) as connection, connection:
        connection.execute("UPDATE facts SET facts = replace(facts, '\"width\": ', ?)", [change])
    with pytest.raises(LmrError) as error:
        facts_of(folder, cache)
    assert str(error.value).startswith(f"{cache} is damaged or of another version ({said}")
    assert str(error.value).endswith("; move it away or name another")


def test_a_image_that_could_not_be_read_is_tried_again(folder, tmp_path, monkeypatch):
    cache = tmp_path / "facts.sqlite"

    def refuse(data):
        raise UnreadableError("Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("retrieval.data.quality_cache.measure_image", refuse)
        assert facts_of(folder, cache).rows == ("Permission denied",) * 4
    assert facts_of(folder, cache).rows == facts_of(folder).rows


def test_reasons_that_an_earlier_lmr_kept_are_not_believed(folder, tmp_path):
    cache = tmp_path / "facts.sqlite"
    facts_of(folder, cache)
    with sqlite3.connect(cache) as connection:
        connection.execute("UPDATE facts SET facts = '\"Permission denied\"'")
    assert facts_of(folder, cache).rows == facts_of(folder).rows


def test_a_database_of_something_else_is_refused_and_left_alone(folder, tmp_path):
    cache = tmp_path / "download.sqlite"
    with sqlite3.connect(cache) as connection:
        connection.execute("CREATE TABLE pictures (image_id TEXT)")
    before = cache.read_bytes()
    with pytest.raises(LmrError) as error:
        facts_of(folder, cache)
    assert str(error.value) == f"{cache} is a database of something else (table pictures); name another"
    assert cache.read_bytes() == before


def test_what_would_undo_a_change_is_kept_beside_a_file_or_in_memory(tmp_path: Path) -> None:
    found = {}
    for journal in ("DELETE", "MEMORY"):
        path = tmp_path / journal
        with closing(open_cache(path, journal)) as connection:  # type: ignore[arg-type]
            connection.execute("INSERT INTO facts VALUES ('a', 'b', '{}')")
            found[journal] = {place.name for place in tmp_path.glob(f"{journal}*")}
    assert found == {"DELETE": {"DELETE", "DELETE-journal"}, "MEMORY": {"MEMORY"}}
