"""Thumbnails of an index folder: what they show, of which rows, and when they are made anew."""

import io
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from recorder import Recorder

from index.folder import thumbnails as module
from index.folder.build import BuildOptions, build_folder
from index.folder.config import ThumbnailPlan
from index.folder.folder import open_folder
from index.folder.info import read_info, write_info
from index.folder.inputs import BuildInputs
from index.folder.thumbnails import Thumbnails, make_thumbnail, write_thumbnails
from retrieval.arrays import object_array
from retrieval.errors import LmrError

COLOURS = {"red.png": (220, 20, 30), "green.png": (10, 180, 40), "blue.png": (20, 30, 200)}


@pytest.fixture
def images(tmp_path):
    """Paths of three images of 60 x 30 pixels, each of one colour."""
    for name, colour in COLOURS.items():
        Image.new("RGB", (60, 30), colour).save(tmp_path / name)
    return [str(tmp_path / name) for name in COLOURS]


@pytest.fixture
def build(tmp_path, make_store, make_folder):
    """Builds the index of images by their paths with thumbnails of so many pixels."""
    make_folder(make_store(["a", "b"], seed=1))  # makes the model
    shutil.rmtree(tmp_path / "landmarks")

    def run(paths, side_px, **more):
        store = replace(make_store(["a", "b", "", "c"], seed=1), path=object_array(paths))
        inputs, options = BuildInputs([store], tmp_path / "model"), BuildOptions(whitening_power=None)
        plan = ThumbnailPlan(side_px)
        return build_folder(tmp_path / "landmarks", inputs, options, device="cpu", thumbnails=plan, **more)

    return run


def opened(jpeg):
    return Image.open(io.BytesIO(jpeg))


def test_a_copied_index_shows_its_rows_when_the_images_are_gone(tmp_path, images, build):
    red, green, blue = images
    report = build([red, green, red, blue], 20)
    shutil.copytree(tmp_path / "landmarks", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "landmarks")
    for image in images:
        (tmp_path / image).unlink()
    shown = open_folder(tmp_path / "elsewhere", device="cpu").thumbnails
    for row, name in enumerate(COLOURS):  # the row without a landmark is no row of the index
        image = opened(shown.read(row))
        assert (image.size, image.format) == ((20, 10), "JPEG")
        assert np.abs(np.subtract(image.getpixel((10, 5)), COLOURS[name])).max() < 6
    assert report.info.thumbnails == {"side_px": 20, "n": 3}
    assert "thumbnails.h5" in report.info.files


def test_rows_whose_image_is_not_there_or_broken_have_none_and_are_counted(tmp_path, images, build):
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    report = build(["", str(tmp_path / "broken.jpg"), "", images[0]], 20)
    shown = open_folder(tmp_path / "landmarks", device="cpu").thumbnails
    assert [shown.read(row) is None for row in range(3)] == [True, True, False]
    assert report.info.thumbnails == {"side_px": 20, "n": 1}


def test_a_small_image_is_not_made_larger_and_a_thin_one_keeps_a_pixel(tmp_path, images):
    assert opened(make_thumbnail(images[0], 500)).size == (60, 30)
    Image.new("RGB", (1, 3000), "red").save(tmp_path / "thin.png")
    assert opened(make_thumbnail(str(tmp_path / "thin.png"), 160)).size == (1, 160)


def test_the_same_thumbnails_are_unchanged_and_others_are_refused(tmp_path, images, build):
    paths = [*images, images[0]]
    assert build(paths, 20).state == "built"
    assert build(paths, 20).state == "unchanged"
    with pytest.raises(LmrError) as error:
        build(paths, 0)
    assert str(error.value) == (
        f"{tmp_path / 'landmarks'} exists and was built with thumbnails of 20 pixels, not 0; `overwrite` replaces it"
    )
    digest = read_info(tmp_path / "landmarks").inputs_digest
    assert build(paths, 0, overwrite=True).info.inputs_digest == digest, "a calibration still fits"
    assert open_folder(tmp_path / "landmarks", device="cpu").thumbnails is None
    assert not (tmp_path / "landmarks" / "thumbnails.h5").exists()


def test_a_folder_from_before_thumbnails_opens_without_and_is_unchanged(tmp_path, images, build):
    paths = [*images, images[0]]
    build(paths, 0)
    write_info(tmp_path / "landmarks", replace(read_info(tmp_path / "landmarks"), thumbnails={}))
    assert open_folder(tmp_path / "landmarks", device="cpu").thumbnails is None
    assert build(paths, 160).state == "unchanged"


def test_thumbnails_of_another_index_in_the_same_place_are_not_shown(tmp_path, images):
    path = tmp_path / "thumbnails.h5"
    write_thumbnails(path, images, ThumbnailPlan(20), "one")
    known = pickle.loads(pickle.dumps(Thumbnails(path, "one")))
    assert known.read(0) is not None
    write_thumbnails(path, images[::-1], ThumbnailPlan(20), "other")
    assert known.read(0) is None
    path.unlink()
    assert known.read(0) is None


def test_many_are_written_in_blocks_with_their_number_told(tmp_path, images, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1000)
    told = Recorder()
    assert write_thumbnails(tmp_path / "t.h5", images * 10, ThumbnailPlan(40), "one", told) == 30
    assert (told.begun, told.added) == ([30], [1] * 30)
    shown = Thumbnails(tmp_path / "t.h5", "one")
    assert [shown.read(row) for row in range(30)] == [make_thumbnail(path, 40) for path in images] * 10


def test_several_processes_make_the_same_file(tmp_path, images):
    for n_workers in (1, 2):
        write_thumbnails(tmp_path / f"{n_workers}.h5", images * 40, ThumbnailPlan(20, n_workers), "one")
    one, two = (Thumbnails(tmp_path / f"{n}.h5", "one") for n in (1, 2))
    assert [one.read(row) for row in range(120)] == [two.read(row) for row in range(120)]


def test_a_side_out_of_range_is_refused():
    with pytest.raises(LmrError) as error:
        ThumbnailPlan(5000)
    assert str(error.value) == "thumbnails must have 0 (none) to 1024 pixels, got 5000"
