"""Names of devices: auto, cpu, mps, cuda, cuda:1, and of several GPUs cuda:0,1."""

import re
from dataclasses import dataclass

from retrieval.errors import LmrError

FORM = "auto|cpu|cuda[:N[,N]]|mps"
_NAME = re.compile(r"(auto|cpu|mps|cuda)(?::([0-9]+(?:,[0-9]+)*))?")


@dataclass(frozen=True, slots=True)
class DeviceName:
    """What a name says. kind: auto, cpu, mps or cuda. numbers: of the GPUs it lists, () = the first or whichever."""

    kind: str
    numbers: tuple[int, ...] = ()

    @property
    def first(self) -> str:
        """The name of the first GPU, or the name as it is: what a network runs on."""
        return f"{self.kind}:{self.numbers[0]}" if self.numbers else self.kind


def parse_device(name: str) -> DeviceName:
    """The parts of a device's name. Raises LmrError for what cannot be one, and for a GPU that is listed twice."""
    found = _NAME.fullmatch(name)
    if found is None or (found[2] and found[1] != "cuda"):
        raise LmrError(f"`device` {name}: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps")
    numbers = tuple(map(int, found[2].split(","))) if found[2] else ()
    if len(set(numbers)) < len(numbers):
        raise LmrError(f"`device` {name} lists a GPU twice; give each once")
    return DeviceName(found[1], numbers)


def require_one_device(name: str, remedy: str) -> None:
    """Raises LmrError, with what to do instead, for a list of several GPUs where only one can be used."""
    if len(parse_device(name).numbers) > 1:
        raise LmrError(f"`device` {name}: several GPUs share an index only; {remedy}")
