"""Small sets of images for the recipes of work: what each begins with, and what must be there in its end."""

import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from docs_world import LANDMARKS, save_view, write_table

import lmr

PRODUCTS = ("teapot", "mug", "vase", "bowl")


def make_archive(folder: Path) -> None:
    """archive/ and checked/ by building with others beside, and heap/ without labels."""
    rng = np.random.default_rng(2)
    for part, n in (("archive", 5), ("checked", 3)):
        for number, landmark in enumerate(LANDMARKS):
            for i in range(n):
                save_view(folder / part / landmark / f"{part}-{number}-{i}.jpg", number, rng)
        for i in range(3):
            save_view(folder / part / f"{part}-portrait-{i}.jpg", 100 + 10 * n + i, rng)
    for number in range(len(LANDMARKS)):
        save_view(folder / "heap" / f"scan-{number}.jpg", number, rng)
    save_view(folder / "heap" / "scan-9.jpg", 200, rng)


def make_shop(folder: Path) -> None:
    """products.csv, names.csv, counter.csv and counter-49.csv, and what a week brings: week-48.csv, gone-48.csv."""
    rng = np.random.default_rng(3)

    def shoot(part: str, numbers: range, n: int) -> list[tuple[str, str, str]]:
        rows = [(f"{part}-{number}-{i}", f"{4000 + number}") for number in numbers for i in range(n)]
        for image_id, number in rows:
            save_view(folder / "images" / f"{image_id}.jpg", int(number), rng)
        return [(image_id, number, f"{19 + int(number) % 7}.90") for image_id, number in rows]

    header = ("photo", "number", "price")
    sold = range(len(PRODUCTS))
    products = shoot("shop", sold, 5)
    write_table(folder / "products.csv", [header, *products])
    write_table(folder / "week-48.csv", [header, *shoot("new", range(len(PRODUCTS), len(PRODUCTS) + 2), 5)])
    write_table(folder / "gone-48.csv", [("id",), *((image_id,) for image_id, *_ in products[:5])])
    hands = [(f"hand-{i}", "") for i in range(4)]
    for i, (image_id, _) in enumerate(hands):
        save_view(folder / "images" / f"{image_id}.jpg", 300 + i, rng)
    asked = [row[:2] for row in shoot("counter", range(len(PRODUCTS) + 2), 3)]
    write_table(folder / "counter.csv", [("photo", "number"), *asked[:-6], *hands])
    write_table(folder / "counter-49.csv", [("photo", "number"), *asked[3:], *hands])
    names = [(str(4000 + i), name) for i, name in enumerate((*PRODUCTS, "jug", "plate"))]
    write_table(folder / "names.csv", [("landmark_id", "category"), *names])
    save_view(folder / "phone.jpg", 4001, rng)


def make_kaggle_tars(folder: Path) -> None:
    """Tables of Google Landmarks v2: for training, to be answered, solution and names; images in a tar of each set."""
    rng = np.random.default_rng(4)
    labels = range(9000, 9000 + len(LANDMARKS))
    images = {label: [f"{rng.integers(2**63):016x}" for _ in range(5)] for label in labels}
    asked = [(f"{rng.integers(2**63):016x}", label) for label in (*labels, *labels, 0, 0, 0, 0)]
    _pack(folder / "train" / "images_000.tar", [(name, label) for label in labels for name in images[label]], rng)
    _pack(folder / "test" / "images_000.tar", [(name, label or 500 + i) for i, (name, label) in enumerate(asked)], rng)
    write_table(
        folder / "train_clean.csv",
        [("landmark_id", "images"), *((str(label), " ".join(names)) for label, names in images.items())],
    )
    category = "http://commons.wikimedia.org/wiki/Category:"
    named = [(str(label), category + name.replace(" ", "_")) for label, name in zip(labels, LANDMARKS, strict=True)]
    write_table(folder / "train_label_to_category.csv", [("landmark_id", "category"), *named])
    write_table(folder / "test.csv", [("id",), *((name,) for name, _ in asked)])
    halves = ("Public", "Private")
    solution = [(name, str(label or ""), halves[i % 2]) for i, (name, label) in enumerate(asked)]
    write_table(folder / "recognition_solution_v2.1.csv", [("id", "landmarks", "Usage"), *solution])


def make_street(folder: Path) -> None:
    """database.csv and queries.csv with where each picture was taken, one of them far away; new.jpg."""
    rng = np.random.default_rng(5)
    rows: dict[str, list[tuple[str, str, str, str]]] = {"database": [], "queries": []}
    for place in range(len(LANDMARKS)):
        for i in range(5):
            image_id = f"view-{place}-{i}"
            save_view(folder / "images" / f"{image_id}.jpg", place, rng)
            lat = f"{48.8584 + 0.001 * place + 0.00001 * i:.6f}"
            rows["database" if i < 3 else "queries"].append((image_id, lat, "2.294500", f"street {place}"))
    save_view(folder / "images" / "far.jpg", 400, rng)
    rows["queries"].append(("far", "35.658600", "139.745400", "elsewhere"))
    for name, lines in rows.items():
        write_table(folder / f"{name}.csv", [("id", "lat", "lon", "street"), *lines])
    save_view(folder / "new.jpg", 1, rng)


def _pack(path: Path, images: Sequence[tuple[str, int]], rng: np.random.Generator) -> None:
    """A tar of images in Google's folders; their numbers say what they show."""
    path.parent.mkdir()
    with TemporaryDirectory() as place, tarfile.open(path, "w") as tar:
        for image_id, number in images:
            image = Path(place) / f"{image_id}.jpg"
            save_view(image, number, rng)
            tar.add(image, "/".join((*image_id[:3], image.name)))


def make_museum(folder: Path) -> None:
    """collection.json and acquisitions.json of works with one picture each, and what visitors photographed."""
    rng = np.random.default_rng(5)

    def catalogue(name: str, works: range) -> None:
        for work in works:
            save_view(folder / "works" / f"{work}.jpg", work, rng)
        records = [
            {
                "id": work,
                "path": f"works/{work}.jpg",
                "title": f"Study No. {work}",
                "artist": "Ann",
                "year": 1800 + work,
            }
            for work in works
        ]
        (folder / name).write_text(json.dumps(records))

    def visit(name: str, works: Sequence[int]) -> None:
        records: list[dict[str, object]] = []
        for i, work in enumerate((*works, *range(600, 604))):
            records.append({"path": f"visitors/{name}-{i}.jpg"} | ({"MET_id": work} if work < 600 else {}))
            save_view(folder / "visitors" / f"{name}-{i}.jpg", work, rng)
        (folder / f"{name}.json").write_text(json.dumps(records))

    catalogue("collection.json", range(37, 45))
    catalogue("acquisitions.json", range(45, 47))
    visit("visitors", [*range(37, 45), *range(37, 45)])
    visit("visitors-of-may", range(37, 45))
    save_view(folder / "phone.jpg", 40, rng)


def check_archive(folder: Path) -> None:
    """Every scan is in the folder of an answer, and the heap is empty."""
    assert sorted(path.name for path in (folder / "sorted").rglob("scan-*")) == [f"scan-{i}.jpg" for i in range(4)]
    assert list((folder / "heap").rglob("scan-*")) == []
    assert "scan-9" in lmr.open_index(folder / "landmarks").folder.rows.image_id


def check_shop(folder: Path) -> None:
    """The index has the products of the week and not those that are gone."""
    rows = lmr.open_index(folder / "landmarks").folder.rows
    assert set(rows.columns["price"]) == {"19.90", "20.90", "23.90", "24.90", "25.90"}
    sold = {rows.landmarks[code] for code in rows.landmark}
    assert sold == {"4001", "4002", "4003", "4004", "4005"}


def check_kaggle(folder: Path) -> None:
    """Every image was found in its tar, and each id of the test is answered in its order."""
    asked = [line.split(",")[0] for line in (folder / "test.csv").read_text().splitlines()]
    assert [line.split(",")[0] for line in (folder / "submission.csv").read_text().splitlines()] == asked
    rows = lmr.open_index(folder / "landmarks").folder.rows
    assert len(rows.image_id) == 4 * len(LANDMARKS)
    assert all("/train/images_000.tar/" in path for path in rows.path)


def check_museum(folder: Path) -> None:
    """Old and new works are in the index under their titles, each with what the catalogue says of it."""
    index = lmr.open_index(folder / "landmarks").folder
    assert sorted(index.rows.landmarks) == [str(work) for work in range(37, 47)]
    assert index.names["45"].name == "Study No. 45"
    assert set(index.rows.columns["artist"].tolist()) == {"Ann"}


def check_street(folder: Path) -> None:
    """Each place is a cell, and the index is calibrated by distance."""
    landmarks = lmr.open_index(folder / "landmarks").folder
    assert [int(n) for n in landmarks.rows.counts] == [3] * len(LANDMARKS)
    assert landmarks.calibration is not None
    assert landmarks.calibration.origin.within_m == 25
    assert landmarks.calibration.cross_validated.n_non_landmarks == 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """make: what is in the folder in the beginning. check: asserts what the walk leaves there."""

    make: Callable[[Path], None]
    check: Callable[[Path], None]


MADE: Mapping[str, Recipe] = {
    "archivist": Recipe(make_archive, check_archive),
    "kaggle": Recipe(make_kaggle_tars, check_kaggle),
    "museum": Recipe(make_museum, check_museum),
    "places": Recipe(make_street, check_street),
    "shop": Recipe(make_shop, check_shop),
}
