"""Images that crash the decoder end one run at most; the next one names them and does all the others."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from tiny_set import HERE, NETWORK, another_process, done

ROOT = Path(__file__).parents[2]
CRASHING = (37, 40)  # pixels
# A fake decoder: for certain sizes it ends its process, as a fault in native code does.
DECODER = """
import os, signal
from PIL import JpegImagePlugin
load = JpegImagePlugin.JpegImageFile.load
def crashing(image):
    if image.size == (37, 40):
        signal.raise_signal(signal.SIGSEGV)
    if image.size == (40, 37):
        os.abort()
    return load(image)
JpegImagePlugin.JpegImageFile.load = crashing
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals that end a process")


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH, by which every process has the fake decoder."""
    folder = tmp_path / "decoder"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(DECODER)
    return folder


def spoil(path: Path, size: tuple[int, int] = CRASHING) -> None:
    """Puts an image in the place of another that is sound, but crashes the fake decoder."""
    Image.open(path).resize(size).save(path)


@dataclass(frozen=True)
class Said:
    """Exit code of a process, the signal that ended it below 0, and what it printed."""

    code: int | None
    stdout: str
    stderr: str


def lmr(decoder: Path, *words: object) -> Said:
    """`lmr` in a process that has the fake decoder, as all have that it starts."""
    with another_process(lmr_there, os.getcwd(), str(decoder), [str(word) for word in words]) as process:
        process.join(120)
        return Said(process.exitcode, (decoder / "stdout").read_text(), (decoder / "stderr").read_text())


def lmr_there(folder: str, decoder: str, words: list[str]) -> None:
    """Target of `another_process`: `lmr` in a folder, which prints to files beside the decoder."""
    import torch

    from cli.main import main

    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{decoder}/{name}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    os.environ["PYTHONPATH"] = os.pathsep.join([decoder, str(ROOT)])
    sys.path.insert(0, decoder)  # of which processes that decode apart are told
    exec(Path(decoder, "sitecustomize.py").read_text(), {})
    torch.set_num_threads(1)
    os.chdir(folder)
    main(words, prog_name="lmr")


def told(said: Said) -> list[str]:
    assert said.code == 0, said.stderr
    return [line for line in said.stderr.splitlines() if "crash" in line or "died" in line]


def rows_of(store: str) -> dict[str, list[float]]:
    with h5py.File(store) as file:
        vectors = np.asarray(file["vectors"], np.float32).tolist()
        return dict(zip([name.decode() for name in file["image_id"]], vectors, strict=True))


def test_embedding_is_gone_on_with_without_the_images_that_crash(images: Path, decoder: Path) -> None:
    done("embed", "train.csv", *NETWORK, *HERE, "--output", "whole.h5")
    names = sorted(rows_of("whole.h5"))
    crashing = {names[9]: CRASHING, names[10]: (40, 37), names[25]: CRASHING}
    for name, size in crashing.items():
        spoil(next(Path("images").rglob(f"{name}.jpg")), size)
    words = ("embed", "train.csv", *HERE, "--workers", 2)
    assert lmr(decoder, *words).code in (-11, -6)
    heard = told(lmr(decoder, *words))
    assert [line for line in heard if line.startswith("unreadable: ")] == [
        f"unreadable: {name}: its decoder crashed (signal {6 if size == (40, 37) else 11})"
        for name, size in sorted(crashing.items())
    ]
    assert not list(Path().glob(".*decoding"))
    found, whole = rows_of("train.h5"), rows_of("whole.h5")
    for name in whole.keys() - crashing.keys():
        assert np.allclose(found[name], whole[name], atol=1e-3), name
    assert told(lmr(decoder, *words)) == []
    again = told(lmr(decoder, *words, "--retry-unreadable"))
    assert again[0].startswith("3 pictures known to crash: ")


def test_an_embedding_that_a_person_kills_loses_no_image(images: Path, decoder: Path) -> None:
    """What was under way is tried first, decodes well, and has its descriptor."""
    done("embed", "train.csv", *NETWORK, *HERE, "--output", "whole.h5")
    (decoder / "sitecustomize.py").write_text(DECODER.replace("os.abort()", "os.kill(os.getpid(), signal.SIGKILL)"))
    for path in Path("images").rglob("*.jpg"):
        if path.stem == sorted(rows_of("whole.h5"))[9]:
            spoil(path, (40, 37))
    assert lmr(decoder, "embed", "train.csv", *HERE).code == -9
    (decoder / "sitecustomize.py").write_text("")
    said = lmr(decoder, "embed", "train.csv", *HERE)
    (line,) = told(said)
    assert line.endswith("other processes try first")
    assert "unreadable" not in said.stderr
    with h5py.File("train.h5") as file:
        assert (file["state"][:] == 1).all()


def test_local_features_are_gone_on_with_without_the_images_that_crash(images: Path, decoder: Path) -> None:
    pytest.importorskip("cv2", reason="needs the extra local")
    done("embed", "train.csv", *NETWORK, *HERE)
    spoil(Path("images/train-dome-3.jpg"))
    words = ("embed", "train.csv", *HERE, "--local", "rootsift")
    codes = [lmr(decoder, *words).code for _ in range(2)]
    assert codes == [-11, -11]  # the first ended the embedding of what had changed
    heard = lmr(decoder, *words, "--json")
    assert json.loads(heard.stdout)["local"]["unreadable"] == 1, heard.stderr


@pytest.mark.parametrize("n_workers", [1, 2])
def test_statistics_name_the_images_that_crash(images: Path, decoder: Path, n_workers: int) -> None:
    """With workers in one run, as it is they that die."""
    paths = sorted(Path("images").rglob("train*.jpg"))
    for path in paths:  # more than one task has
        shutil.copy(path, path.with_stem(f"{path.stem}-copy"))
    for path in (paths[3], paths[20]):
        spoil(path)
    n_all = len(list(Path("images").iterdir()))
    words = ("stats", "images", "--workers", n_workers, "--json")
    if n_workers == 1:
        assert lmr(decoder, *words).code == -11
    for _ in range(2):
        said = lmr(decoder, *words)
        assert said.code == 0, said.stderr
        found = json.loads(said.stdout)["measured"]
        assert set(found["reasons"].values()) == {"its decoder crashed (signal 11)"}
        assert (found["unreadable"], found["readable"]) == (2, n_all - 2)
        assert not list(Path().glob(".*decoding"))


def test_a_submission_answers_all_but_the_images_that_crash(tiny_set: Path, decoder: Path) -> None:
    crashing = sorted(Path("images").rglob("test*.jpg"))[4]
    spoil(crashing)
    words = ("submit", "test.csv", *HERE, "--output", "crashing.csv", "--store", "crashing.h5")
    assert lmr(decoder, *words).code == -11
    heard = told(lmr(decoder, *words))
    assert f"unreadable: {crashing.stem}: its decoder crashed (signal 11)" in heard
    lines = Path("crashing.csv").read_text().splitlines()
    assert len(lines) == len(Path("test.csv").read_text().splitlines())
