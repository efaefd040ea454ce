"""The same commands on the same files give the same in every locale and time zone, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from tiny_set import HERE, image

PROGRAM = "import sys; from cli.main import program; sys.argv[0] = 'lmr'; program()"
NAMED = ("image_id", "path", "mtime_ns", "landmarks", "landmark", "state", "vectors")
NO_HELP = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LOCALES = {
    "C": {"LC_ALL": "C", "TZ": "Pacific/Kiritimati"},
    "POSIX": {"LC_ALL": "POSIX", "TZ": "America/Caracas", **NO_HELP},
}


PHOTOS = "Fotos\N{EM DASH}é"


def lmr(locale: dict[str, str], folder: Path, *arguments: str) -> str:
    """stdout of the program."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, env={**environment, **locale}, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


def outcome(locale: dict[str, str], folder: Path) -> tuple[dict[str, object], object]:
    """What has a name in a store of folders whose names are UTF-8, and the answer to a query with such a name."""
    made = f"für {locale['LC_ALL']}"
    store, model, index = f"{made}/Übersicht.h5", f"{made}/Modell", f"{made}/Verzeichnis"
    (folder / made).mkdir()
    lmr(locale, folder, "embed", PHOTOS, "--backbone", "plain-cnn", "--size", "32", "--workers", "2", "--device", "cpu",
        "--output", store, "--model", model)  # fmt: skip
    lmr(locale, folder, "build-index", store, "--model", model, "--output", index, "--device", "cpu")
    answer = lmr(locale, folder, "query", f"{PHOTOS}/東京タワー/Größe 0.png", "--index", index, "--json", *HERE)
    with h5py.File(folder / store) as file:
        return {name: file[name][:].tolist() for name in NAMED}, json.loads(answer)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds photos by landmark."""
    folder = tmp_path_factory.mktemp("locales")
    for label, name in enumerate(("Café", "東京タワー")):
        place = folder / PHOTOS / name
        place.mkdir(parents=True)
        for i in range(3):
            image(label, i).save(place / f"Größe {i}.png")
    return folder


@pytest.fixture(scope="module")
def expected(photos: Path) -> tuple[dict[str, object], object]:
    """In UTF-8."""
    return outcome({"LC_ALL": "C.UTF-8", "TZ": "UTC"}, photos)


@pytest.mark.parametrize("locale", LOCALES.values(), ids=list(LOCALES))
def test_ids_labels_and_answers_are_equal_in_every_locale(expected, photos, locale):
    assert outcome(locale, photos) == expected
    store, answer = expected
    assert store["image_id"][0] == "Café/Größe 0.png".encode()
    assert store["landmarks"] == ["Café".encode(), "東京タワー".encode()]
    assert [one["landmark_id"] for one in answer] == ["東京タワー"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_an_encoding_of_the_terminal_is_kept_and_the_exit_code_too(tmp_path, encoding):
    environment = {**os.environ, "LC_ALL": "POSIX", **NO_HELP, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", PROGRAM, "info", "fehlt-é"]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.decode(encoding) == "Error: fehlt-é: there is no such file or folder\n"
