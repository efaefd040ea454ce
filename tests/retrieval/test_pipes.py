"""Tables through a pipe, and files that unpack to more than they should."""

import gzip
import io
import os
import sys
import threading
from pathlib import Path

import pytest

from retrieval.data.csv_table import CsvTable
from retrieval.data.manifest import read_manifest
from retrieval.data.pipes import pipes_read_once
from retrieval.errors import LmrError

TEXT = "id,landmark_id\n" + "".join(f"{i:016x},{i % 7}\n" for i in range(20_000))


def test_a_named_pipe_is_read_once_and_whole(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(TEXT,))
    writer.start()
    with pipes_read_once():
        assert len(read_manifest(pipe)) == 20_000
        assert len(read_manifest(pipe)) == 20_000
    writer.join()


def test_standard_input_is_a_minus_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(TEXT.encode()))))
    manifest = read_manifest("-")
    assert (manifest.source, len(manifest), manifest.landmarks[6]) == ("-", 20_000, "6")


def test_an_empty_pipe_and_a_device_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(LmrError) as caught:
        read_manifest("-")
    assert str(caught.value) == "- is empty; a manifest begins with a header such as id,landmark_id"
    with pytest.raises(LmrError) as caught:
        read_manifest("/dev/zero")
    assert str(caught.value) == "/dev/zero is a device; give a file, a pipe or -"


def test_a_closed_standard_input_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(LmrError) as caught:
        read_manifest("-")
    assert str(caught.value) == "-: standard input is closed here; give a file"


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"id,landmark_id\n" + b"a,1\n" * (1 << 23), 6))
    with pytest.raises(LmrError) as caught:
        read_manifest(path)
    assert str(caught.value) == (
        f"{path} unpacks to more than 40 times its size; if it really is a table, unpack it and give that"
    )


def test_a_line_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "line.csv"
    path.write_bytes(b"id,landmark_id\n" + b"x" * (70 << 20))
    with pytest.raises(LmrError) as caught:
        list(CsvTable(path).batches())
    assert str(caught.value) == f"{path} has a line of more than 64 MiB; it is no table"
