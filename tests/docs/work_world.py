"""Small sets of images for the recipes of work: what each begins with, and what must be there in its end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

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

    header = ("id", "landmark_id", "price")
    sold = range(len(PRODUCTS))
    products = shoot("shop", sold, 5)
    write_table(folder / "products.csv", [header, *products])
    write_table(folder / "week-48.csv", [header, *shoot("new", range(len(PRODUCTS), len(PRODUCTS) + 2), 5)])
    write_table(folder / "gone-48.csv", [("id",), *((image_id,) for image_id, *_ in products[:5])])
    hands = [(f"hand-{i}", "") for i in range(4)]
    for i, (image_id, _) in enumerate(hands):
        save_view(folder / "images" / f"{image_id}.jpg", 300 + i, rng)
    asked = [row[:2] for row in shoot("counter", range(len(PRODUCTS) + 2), 3)]
    write_table(folder / "counter.csv", [("id", "landmark_id"), *asked[:-6], *hands])
    write_table(folder / "counter-49.csv", [("id", "landmark_id"), *asked[3:], *hands])
    names = [(str(4000 + i), name) for i, name in enumerate((*PRODUCTS, "jug", "plate"))]
    write_table(folder / "names.csv", [("landmark_id", "category"), *names])
    save_view(folder / "phone.jpg", 4001, rng)


def check_archive(folder: Path) -> None:
    """Every scan is in the folder of an answer, and the heap is empty."""
    assert sorted(path.name for path in (folder / "sorted").rglob("scan-*")) == [f"scan-{i}.jpg" for i in range(4)]
    assert list((folder / "heap").rglob("scan-*")) == []
    assert "scan-9" in lmr.open_index(folder / "landmarks").folder.rows.image_id


def check_shop(folder: Path) -> None:
    """The index has the products of the week and not those that are gone."""
    rows = lmr.open_index(folder / "landmarks").folder.rows
    sold = {rows.landmarks[code] for code in rows.landmark}
    assert sold == {"4001", "4002", "4003", "4004", "4005"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """make: what is in the folder in the beginning. check: asserts what the walk leaves there."""

    make: Callable[[Path], None]
    check: Callable[[Path], None]


MADE: Mapping[str, Recipe] = {
    "archivist": Recipe(make_archive, check_archive),
    "shop": Recipe(make_shop, check_shop),
}
