"""Invented names and addresses for the rendered landmarks."""

import numpy as np

NOUNS = {
    "cathedral": ("Cathedral", "Minster", "Church"),
    "temple": ("Exchange", "Museum", "Library"),
    "campanile": ("Tower", "Clock Tower", "Campanile"),
    "lighthouse": ("Lighthouse", "Beacon", "Light"),
    "palace": ("Palace", "Residence", "Academy"),
    "castle": ("Castle", "Fort", "Keep"),
    "gate": ("Gate", "Arch", "Triumphal Arch"),
    "monument": ("Monument", "Memorial", "Column"),
    "hall": ("Town Hall", "Guildhall", "Corn Hall"),
    "pagoda": ("Pagoda", "Temple", "Shrine"),
    "viaduct": ("Viaduct", "Aqueduct", "Bridge"),
    "modern": ("House", "Centre", "Forum"),
}
_FIRST = ("Al", "Bel", "Cor", "Dor", "El", "Fen", "Gar", "Hal", "Is", "Jor", "Kel", "Lor", "Mar", "Nor", "Or", "Pel")
_LAST = ("bury", "dale", "vik", "mont", "stead", "ora", "wick", "ander", "una", "ford", "este", "heim", "ino", "ley")
_STREETS = ("Mill Street", "Harbour Road", "Long Lane", "Market Square", "Castle Hill", "Canal Quay", "Station Road")


def landmark_names(families: list[str], rng: np.random.Generator) -> list[tuple[str, str]]:
    """A name, unlike every other, and an address for each building."""
    towns = [first + last for first in _FIRST for last in _LAST]
    order = rng.permutation(len(towns))
    out = []
    for i, family in enumerate(families):
        nouns = NOUNS[family]
        name = f"{towns[order[i % len(towns)]]} {nouns[int(rng.integers(len(nouns)))]}"
        street = _STREETS[int(rng.integers(len(_STREETS)))]
        out.append((name, f"{int(rng.integers(1, 140))} {street}, {towns[order[-1 - i % 7]]}"))
    return out
