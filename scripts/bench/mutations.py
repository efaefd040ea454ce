"""What fuzz.py does to a file: bytes, values of JSON that is signed again, content of a store that gets new digests."""

import copy
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from index.folder.info import INFO, list_files
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.files.hdf5_digests import write_digests
from retrieval.models.card import parse_card

IMPOSSIBLE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**30, -0.5, 1e308, 1e-320, "", "nan", "x" * 5000, "\x1b[2J", "../..", [], [[]], [None], {},
    {"a": 1},
)  # fmt: skip


Change = Callable[[Path, Sequence[Path], random.Random], str]


def as_bytes(path: Path, files: Sequence[Path], rng: random.Random) -> str:
    """Changes the bytes of a file, which may become another of these; what was done."""
    name, data = mutate(path.read_bytes(), files, rng)
    path.write_bytes(data)
    return name


def mutate(whole: bytes, files: Sequence[Path], rng: random.Random) -> tuple[str, bytes]:
    """A name of what was done to the file, and the result."""
    swapped = rng.choice(files).read_bytes()
    mutations: dict[str, Callable[[], bytes]] = {
        "random bytes": lambda: rng.randbytes(rng.choice((0, 1, 16, 500, len(whole)))),
        "cut": lambda: whole[: rng.randrange(len(whole) + 1)],
        "bit": lambda: _flipped(whole, rng, 1),
        "bits": lambda: _flipped(whole, rng, rng.randrange(2, 60)),
        "header": lambda: _flipped(whole[:2048], rng, rng.randrange(1, 8)) + whole[2048:],
        "number": lambda: _number(whole, rng),
        "hole": lambda: _hole(whole, rng),
        "longer": lambda: whole + rng.randbytes(rng.randrange(1, 5000)),
        "swapped": lambda: swapped,
    }
    name = rng.choice(list(mutations))
    return name, mutations[name]()


def _flipped(data: bytes, rng: random.Random, n: int) -> bytes:
    changed = bytearray(data)
    for _ in range(n if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _number(data: bytes, rng: random.Random) -> bytes:
    """A length, count or digit that is far too large."""
    digits = [i for i, byte in enumerate(data[:4000]) if 48 <= byte <= 57]
    if digits and rng.random() < 0.5:
        at = rng.choice(digits)
        return data[:at] + rng.choice((b"-1", b"1e999", b"999999999999", b"NaN", b'"7"', b"[]")) + data[at + 1 :]
    huge = rng.choice((b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0\0\0\1\0\0\0\0"))
    at = rng.randrange(max(1, min(len(data), 4000)))
    return data[:at] + huge + data[at + len(huge) :]


def _hole(data: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(data) + 1)
    end = min(len(data), begin + rng.randrange(1, 4096))
    return data[:begin] + bytes(end - begin) + data[end:]


def forge_json(path: Path, files: Sequence[Path], rng: random.Random) -> str:
    """Puts an impossible value into a JSON file, and signs it anew where it was signed."""
    if path.suffix != ".json":
        told = as_bytes(path, files, rng)
        sign_index(path)
        return told
    content = json.loads(path.read_text())
    was_signed = content.pop("sha256", None) is not None
    names = [_forge_value(content, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    if "fingerprint" in content:
        content["fingerprint"] = _fingerprint(content)
    _write(path, content, was_signed)
    sign_index(path)
    return ", ".join(names)


def sign_index(path: Path) -> None:
    """Puts the digests of an index folder right of which a file was changed."""
    folder = next((place for place in path.parents if (place / INFO).is_file()), None)
    if folder is None or path == folder / INFO:
        return
    info = json.loads((folder / INFO).read_text())
    info.pop("sha256")
    info["files"] = {name: one for name, one in list_files(folder).items() if name in info["files"]}
    _write(folder / INFO, info, True)


def forge_store(path: Path, _: Sequence[Path], rng: random.Random) -> str:
    """Changes an attribute or dataset of a store, and gives it right digests of that."""
    with h5py.File(path, "r+") as file:
        room = file.userblock_size
        told = _forge_attribute(file, rng) if rng.random() < 0.4 else _forge_dataset(file, rng)
    with h5py.File(path, "r") as file:
        bulk = file.get("vectors")
        at = bulk.id.get_offset() if isinstance(bulk, h5py.Dataset) else None
        begin, end = (0, 0) if at is None else (at, at + bulk.id.get_storage_size())
    with path.open("r+b") as data:
        write_digests(data, room, begin or room, end or room)
    return told


def _write(path: Path, content: dict[str, Any], is_signed: bool) -> None:
    path.write_text(json.dumps({**content, "sha256": sha256_json(content)} if is_signed else content))


def _forge_value(content: Any, rng: random.Random) -> str:
    """Walks down to a random value and changes, removes or doubles it; its name."""
    name = ""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return f"{name} left"
        key = rng.choice(keys)
        name += f".{key}"
        child = content[key]
        if isinstance(child, dict | list) and child and rng.random() < 0.8:
            content = child
            continue
        how = rng.random()
        if how < 0.1:
            del content[key]
            return f"{name} removed"
        if how < 0.2 and isinstance(content, list):
            content.append(copy.deepcopy(child))
            return f"{name} doubled"
        if how < 0.4 and isinstance(child, int | float) and not isinstance(child, bool):
            content[key] = rng.choice((-child, child * 1000 + 1, child + 0.5, child / 1000))
        else:
            content[key] = copy.deepcopy(rng.choice(IMPOSSIBLE))
        return f"{name} = {str(content[key])[:40]}"


def _fingerprint(content: dict[str, Any]) -> str:
    """The right fingerprint of a card, where it can be told."""
    try:
        parse_card(copy.deepcopy({**content, "fingerprint": ""}), "card")
    except LmrError:
        pass
    except Exception:  # found again by who reads the file
        return str(content["fingerprint"])
    from retrieval.models import card as model_card

    try:
        given = copy.deepcopy(content)
        for key in ("format_version", "fingerprint"):
            given.pop(key, None)
        read = model_card._parse_ensemble if "members" in given else model_card._parse_model
        return read(given, "card").fingerprint
    except Exception:
        return str(content["fingerprint"])


def _forge_attribute(file: h5py.File, rng: random.Random) -> str:
    name = rng.choice([key for key in file.attrs if key != "digests"])
    value = rng.choice((-1, 0, 2**62, float("nan"), "", "x" * 300, b"\xff\xfe", [1, 2, 3], "[]", "{}", '{"a": NaN}'))
    file.attrs[name] = value
    return f"attribute {name} = {str(value)[:30]}"


def _forge_dataset(file: h5py.File, rng: random.Random) -> str:
    name = rng.choice(list(file))
    old = file[name]
    if not isinstance(old, h5py.Dataset):
        del file[name]
        return f"{name} removed"
    how = rng.choice(("removed", "empty", "shape", "type", "value", "value", "value", "group"))
    content = old[()]
    if how == "value" and old.size:
        row = rng.randrange(len(content))
        kind = content.dtype.kind
        content[row] = rng.choice(_VALUES.get(kind, (b"", b"\xff\xff", b"x" * 9000)))
        old[...] = content
        return f"{name}[{row}] = {str(content[row])[:30]}"
    del file[name]
    if how == "empty":
        file.create_dataset(name, data=content[:0])
    elif how == "shape":
        file.create_dataset(name, shape=rng.choice(((1 << 40,), (3, 1 << 33), (2, 2, 2), ())), dtype="f2", chunks=None)
    elif how == "type":
        file.create_dataset(name, data=np.arange(len(content)).astype(rng.choice(("f8", "i1", "u8", "S3"))))
    elif how == "group":
        file.create_group(name)
    return f"{name} {how}"


_VALUES: dict[str, tuple[Any, ...]] = {
    "f": (float("nan"), float("inf"), -float("inf"), 0.0, 60000.0),
    "i": (-1, -2, -7, 9, 100, 2**30),
    "u": (9, 100, 255),
}
