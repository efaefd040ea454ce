"""Procedural buildings: a family gives the silhouette, a look the walls, windows and roofs."""

from collections.abc import Callable
from dataclasses import dataclass

from cli.demo import houses, monuments
from cli.demo.kit import Built, Kit, make_kit
from cli.demo.raster import Solid
from cli.demo.windows import Look


@dataclass(frozen=True, slots=True, eq=False)
class Building:
    """A solid, its height and the width of its front in metres."""

    solid: Solid
    height: float
    width: float


def build(family: str, look: Look) -> Building:
    """The building of a family with a look."""
    parts, height, width = FAMILIES[family](make_kit(look))
    return Building(parts.solid(), height, width)


FAMILIES: dict[str, Callable[[Kit], Built]] = {
    "cathedral": monuments.cathedral,
    "temple": monuments.temple,
    "campanile": houses.campanile,
    "lighthouse": houses.lighthouse,
    "palace": houses.palace,
    "castle": houses.castle,
    "gate": monuments.gate,
    "monument": monuments.monument,
    "hall": houses.hall,
    "pagoda": monuments.pagoda,
    "viaduct": monuments.viaduct,
    "modern": houses.modern,
}
