"""JSON files, read strictly."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from retrieval.errors import LmrError
from retrieval.files import json_file
from retrieval.files.digest import sha256_file, sha256_json
from retrieval.files.json_file import convert, parse_json, read_json, read_signed_json, write_json, write_signed_json

REMEDY = "make it again"


@dataclass(frozen=True)
class Point:
    x: int
    name: str


def refusal(function, *arguments: object) -> str:
    with pytest.raises(LmrError) as caught:
        function(*arguments)
    return str(caught.value)


def test_an_object_comes_back_as_it_was_written(tmp_path):
    content = {"b": [1, 2.5, None, True], "a": {"é": "\x1b"}}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json", REMEDY) == content


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON (Expecting value: line 1 column 1 (char 0))"),
        ('{"a": 1, "a": 1}', "is not JSON (the key 'a' is there twice)"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "is not JSON (the key 'b' is there twice)"),
        ('{"a": NaN}', "is not JSON (NaN is no number of JSON)"),
        ('{"a": -Infinity}', "is not JSON (-Infinity is no number of JSON)"),
        ('{"a": 1e999}', "is not JSON (1e999 is too large a number)"),
        ("[" * 100_000, "is not JSON (nested too deep)"),
        ("[]", "is not a JSON object"),
        ("null", "is not a JSON object"),
    ],
)
def test_what_is_no_strict_json_object_is_one_line(text, problem):
    assert refusal(parse_json, text, "x.json", REMEDY) == f"x.json {problem}; {REMEDY}"


def test_bytes_that_are_no_text_are_one_line(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"a": "\xff"}')
    told = refusal(read_json, tmp_path / "x.json", REMEDY)
    assert told.startswith(f"{tmp_path / 'x.json'} is not JSON ('utf-8' codec can't decode byte 0xff")
    assert told.endswith(f"; {REMEDY}")


def test_a_file_that_is_missing_a_folder_or_too_large_is_one_line(tmp_path, monkeypatch):
    assert refusal(read_json, tmp_path / "x.json", REMEDY) == f"{tmp_path / 'x.json'} is missing; {REMEDY}"
    assert refusal(read_json, tmp_path, REMEDY) == f"{tmp_path} cannot be read: Is a directory"
    (tmp_path / "x.json").write_text('{"a": 1}')
    monkeypatch.setattr(json_file, "MAX_BYTES", 5)
    assert refusal(read_json, tmp_path / "x.json", REMEDY) == (
        f"{tmp_path / 'x.json'} has 8 bytes, over the 5 that a JSON file may have; {REMEDY}"
    )


def test_not_a_number_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_content_of_another_type_is_named(tmp_path):
    assert convert({"x": 1, "name": "a"}, Point, "x.json", REMEDY) == Point(1, "a")
    assert refusal(convert, {"x": "1", "name": "a"}, Point, "x.json", REMEDY) == (
        f"x.json is damaged or of another version (Expected `int`, got `str` - at `$.x`); {REMEDY}"
    )


def test_a_signed_object_tells_every_change(tmp_path):
    path = tmp_path / "x.json"
    write_signed_json(path, {"format_version": 2, "a": [1]})
    assert read_signed_json(path, 2, REMEDY) == {"format_version": 2, "a": [1]}
    assert refusal(read_signed_json, path, 3, REMEDY) == (
        f"{path} has format_version 2, this program reads 3; use the lmr that made it"
    )
    content = json.loads(path.read_text())
    for changed in ({**content, "a": [2]}, {**content, "b": 1}, {"format_version": 2, "a": [1]}):
        path.write_text(json.dumps(changed))
        assert refusal(read_signed_json, path, 2, REMEDY) == (
            f"{path} was changed or damaged: its sha256 differs; {REMEDY}"
        )


def test_the_digest_of_an_object_does_not_depend_on_the_order_of_its_keys():
    assert sha256_json({"a": 1, "b": (2,)}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})


def test_the_digest_of_a_file(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
