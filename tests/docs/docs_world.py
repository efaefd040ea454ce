"""Tiny sets of images for the walks of the documentation, and its commands made small enough for a test.

What is changed in a command, and nothing else:
    --pretrained               left out: it needs the internet
    --backbone NAME            becomes shufflenet_v2_x0_5, the smallest of torchvision; also where train names none, and
                               where embed finds no model
    --size, --epochs, --workers   are added: 32 pixels, 1 epoch, no worker processes, which would import all anew
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from cli.main import main

LANDMARKS = ("Hawa Mahal", "Notre-Dame", "Old Mill", "Tower")
SIDE = 64

_BACKBONE = ["--backbone", "shufflenet_v2_x0_5", "--size", "32"]
_TRAINING = ["--epochs", "1", "--workers", "0"]
_BY_PROCESSES = (["build-index"], ["index", "add"], ["stats"], ["split"])


def run(arguments: Sequence[str]) -> Result:
    """Runs one command of the documentation, made small, in the working folder."""
    return CliRunner().invoke(main, made_small(arguments), catch_exceptions=False)


def made_small(arguments: Sequence[str]) -> list[str]:
    """The command with the changes above."""
    trains = arguments[0] in ("train", "demo")
    embeds_anew = arguments[0] == "embed" and "--model" not in arguments and not Path("model").exists()
    makes_network = trains or embeds_anew or "--backbone" in arguments
    if any(list(arguments[: len(start)]) == start for start in _BY_PROCESSES):
        return [*arguments, "--workers", "1"]
    if not makes_network:
        return list(arguments)
    words = _without(arguments, {"--pretrained": 0, "--backbone": 1, "--size": 1, "--epochs": 1})
    return words + _BACKBONE + (_TRAINING if trains else [])


def make_photos(folder: Path) -> None:
    """photos/ and held-out/ by landmark with streets beside, inbox/ and new-picture.jpg without labels."""
    rng = np.random.default_rng(0)
    for part, n in (("photos", 5), ("held-out", 3)):
        for number, landmark in enumerate(LANDMARKS):
            for i in range(n):
                save_view(folder / part / landmark / f"{part}-{number}-{i}.jpg", number, rng)
        for i in range(4):
            save_view(folder / part / f"{part}-street-{i}.jpg", 100 + 10 * n + i, rng)
    for number in range(len(LANDMARKS)):
        save_view(folder / "inbox" / f"IMG_{number}.jpg", number, rng)
    save_view(folder / "new-picture.jpg", 0, rng)


def make_kaggle(folder: Path) -> None:
    """train.csv, test.csv, test_solution.csv and images/ as Kaggle's files are."""
    rng = np.random.default_rng(1)
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for part, n in (("train", 5), ("test", 2)):
        for number in range(len(LANDMARKS)):
            for _ in range(n):
                rows[part].append((f"{rng.integers(2**63):016x}", str(9000 + number)))
                save_view(folder / "images" / f"{rows[part][-1][0]}.jpg", number, rng)
    rows["test"].append((f"{rng.integers(2**63):016x}", ""))
    save_view(folder / "images" / f"{rows['test'][-1][0]}.jpg", 500, rng)
    solution = [(name, label, ("Public", "Private")[i % 2]) for i, (name, label) in enumerate(rows["test"])]
    write_table(folder / "train.csv", [("id", "landmark_id"), *rows["train"]])
    write_table(folder / "test.csv", [("id",), *((name,) for name, _ in rows["test"])])
    write_table(folder / "test_solution.csv", [("id", "landmarks", "Usage"), *solution])


def save_view(path: Path, seed: int, rng: np.random.Generator) -> None:
    """A patchwork of the seed's colours, from a place and with noise of its own."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    left, top = (int(value) for value in rng.integers(0, 16, 2))
    view = Image.fromarray(patches).resize((SIDE + 16, SIDE + 16)).crop((left, top, left + SIDE, top + SIDE))
    noisy = np.asarray(view).astype(np.int64) + rng.integers(-15, 16, (SIDE, SIDE, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)


def write_table(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    """A CSV file. rows: its header first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _without(arguments: Sequence[str], options: dict[str, int]) -> list[str]:
    """The arguments less these options and as many words after each."""
    kept: list[str] = []
    skip = 0
    for word in arguments:
        if skip:
            skip -= 1
        elif word in options:
            skip = options[word]
        else:
            kept.append(word)
    return kept
