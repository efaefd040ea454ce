"""stderr belongs to lmr: what libraries have to say is told in one line."""

import logging
import os
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retrieval.images import noise

ROOT = Path(__file__).parents[2]


def told(work: Any) -> list[str]:
    lines: list[str] = []
    with noise.told_once(lines.append):
        work()
    return lines


def warn_of(name: str, *texts: str) -> None:
    noise.reading(name)
    with noise.decoding():
        for text in texts:
            noise.note(text)


def test_nothing_is_told_of_nothing() -> None:
    assert told(lambda: None) == []


def test_images_are_counted_once_and_the_first_is_named() -> None:
    def work() -> None:
        warn_of("a.jpg", "Corrupt EXIF data", "and more")
        warn_of("b.jpg", "Corrupt EXIF data")
        warn_of("a.jpg", "Corrupt EXIF data")

    assert told(work) == ["2 pictures gave warnings while they were decoded, the first: a.jpg: Corrupt EXIF data"]
    assert told(lambda: warn_of("c.jpg", "odd")) == [
        "1 picture gave warnings while it was decoded, the first: c.jpg: odd"
    ]


def test_other_warnings_and_log_lines_of_libraries_are_told_in_a_line_of_their_own() -> None:
    def work() -> None:
        warnings.warn("slow", UserWarning, stacklevel=1)
        logging.getLogger("PIL.some").warning("of %s", "logging")

    assert told(work) == ["2 warnings of libraries, the first: UserWarning: slow"]


def test_what_is_long_is_cut_and_told_in_one_line() -> None:
    lines = told(lambda: warn_of("a.jpg" + "x" * 999, "line\nof " + "y" * 999))
    assert lines[0].startswith("1 picture gave warnings while it was decoded, the first: a.jpgxx")
    assert "line of yy" in lines[0]
    assert len(lines[0]) < 500


def test_everything_is_put_back() -> None:
    def state() -> tuple[Any, ...]:
        handlers = list(logging.getLogger().handlers)
        return warnings.showwarning, list(warnings.filters), handlers, dict(os.environ)

    before = state()
    with pytest.raises(ValueError, match="broken off"), noise.told_once(print):
        raise ValueError("broken off")
    assert state() == before


def test_workers_that_are_started_anew_write_to_the_same_account() -> None:
    def work() -> None:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(warn_of, "w.jpg", "of a worker").result()

    assert told(work) == ["1 picture gave warnings while it was decoded, the first: w.jpg: of a worker"]


def test_importing_changes_nothing_for_the_whole_process() -> None:
    script = (
        "import logging, os, warnings; from PIL import Image, ImageFile; import numpy, h5py, click\n"
        "def state(): return (warnings.showwarning, len(warnings.filters), logging.getLogger().handlers[:], "
        "dict(os.environ), Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)\n"
        "before = state()\n"
        "import retrieval.data.image_source, retrieval.images.decode, retrieval.images.preprocess, cli.main\n"
        "assert state() == before"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def jpeg_with_tags(path: Path, n_tags: int) -> None:
    """Every tag's value lies behind the end of the EXIF, of which Pillow warns."""
    entries = b"".join((0x9000 + i % 4000).to_bytes(2, "little") + b"\2\0\x40\0\0\0\xff\xff\0\0" for i in range(n_tags))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + n_tags.to_bytes(2, "little") + entries + bytes(4)
    Image.new("RGB", (40, 40), (9, 99, 200)).save(path, exif=exif)


def png_of_a_broken_animation(path: Path) -> None:
    """Without frames; Pillow warns of it."""
    Image.new("RGB", (40, 40), (9, 99, 200)).save(path)
    data, chunk = path.read_bytes(), b"acTL" + bytes(8)
    path.write_bytes(data[:33] + struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:])


def lmr(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: what C code prints goes past Python."""
    script = "from cli.main import main; main()"
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_thousands_of_broken_tags_print_nothing_and_a_broken_animation_is_told_of_once(tmp_path: Path) -> None:
    folder = tmp_path / "p" / "A"
    folder.mkdir(parents=True)
    jpeg_with_tags(folder / "tags.jpg", 5000)
    for name in ("one.png", "two.png"):
        png_of_a_broken_animation(folder / name)
    Image.new("RGB", (40, 40), (1, 2, 3)).save(folder / "cut.tif", compression="tiff_lzw")
    whole = (folder / "cut.tif").read_bytes()
    (folder / "cut.tif").write_bytes(whole[:-40])
    output = str(tmp_path / "p.h5")
    done = lmr("embed", str(tmp_path / "p"), "--backbone", "plain-cnn", "--size", "16", "--output", output)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("gave warnings") == 1
    assert done.stderr.splitlines()[-1] == (
        "2 pictures gave warnings while they were decoded, the first: "
        f"{folder}/one.png: Invalid APNG, will use default PNG image if possible"
    )
    for word in ("Corrupt EXIF", "TIFFReadDirectory", "UserWarning"):
        assert word not in done.stderr
