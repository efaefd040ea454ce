"""Coordinates in the names of images of a folder."""

from pathlib import Path

import pytest
from recorder import Recorder

from retrieval.data.header.place_names import columns_of_names
from retrieval.data.manifest import read_manifest
from retrieval.data.overview import doubts
from retrieval.own_columns import OwnColumns

TOKYO = "@0381456.12@3946231.70@54@S@035.65861@0139.74543@pano-7@03@090@@@@202411@@.jpg"
NEAR = "@0381460.00@3946240.00@54@S@-35.6587@0139.74548@@@@@@@@@.jpg"


def told(columns: OwnColumns) -> dict[str, list[str]]:
    return {name: texts.tolist() for name, texts in columns.items()}


def test_degrees_are_read_and_names_without_a_place_are_blank() -> None:
    progress = Recorder()
    found = columns_of_names([TOKYO, "a.jpg", NEAR], "photos", progress)
    assert told(found) == {"lat": ["035.65861", "", "-35.6587"], "lon": ["0139.74543", "", "0139.74548"]}
    assert progress.warnings == ["photos: names of 2 of 3 images say where they were taken; read as lat and lon"]


def test_metres_are_read_where_a_name_has_no_degrees() -> None:
    found = columns_of_names([TOKYO, "@381460.5@3946240@54@@@@x@.jpg"], "photos", Recorder())
    assert told(found) == {"utm_east": ["0381456.12", "381460.5"], "utm_north": ["3946231.70", "3946240"]}


def test_what_lies_beyond_its_range_is_no_place() -> None:
    found = columns_of_names([TOKYO, "@1@2@54@S@35@539@.jpg", "@30000000@2@54@S@35@139@.jpg"], "photos", Recorder())
    assert told(found) == {"utm_east": ["0381456.12", "1", ""], "utm_north": ["3946231.70", "2", ""]}


@pytest.mark.parametrize("other", ["@381460.5@3946240@55@S@@@.jpg", "@381460.5@3946240@54@H@@@.jpg"])
def test_metres_of_two_zones_are_left_out_with_a_word(other: str) -> None:
    progress = Recorder()
    assert columns_of_names([TOKYO, other], "photos", progress) == {}
    assert "common metres: left out" in progress.warnings[0]


@pytest.mark.parametrize("name", ["a.jpg", "@home@.jpg", "@1@2.jpg", "I@1@2@54@S@35@139@.jpg", "@a@2@54@S@35@139@"])
def test_other_names_say_nothing(name: str) -> None:
    progress = Recorder()
    assert columns_of_names([name], "photos", progress) == {}
    assert progress.warnings == []


def test_a_folder_of_such_images_has_the_columns(tmp_path: Path) -> None:
    for name in (TOKYO, NEAR):
        (tmp_path / name).write_bytes(b"")
    found = read_manifest(tmp_path)
    assert found.columns["lat"].tolist() == ["-35.6587" if "381460" in one else "035.65861" for one in found.image_id]
    assert doubts(found, is_folder=True) == []
