"""Local features of an image, as they are matched and as they are stored."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.arrays import FloatArray, read_only

STEPS_A_PIXEL = 16  # of a stored coordinate; a keypoint is then at most 1/32 pixel off
MOST_PIXELS = 4096  # of a side: 65,536 steps
STEPS_A_DIAMETER = 64  # of a stored pixel of a diameter, up to 1,024 pixels
STEPS_A_TURN = 65_536


@dataclass(frozen=True, slots=True)
class LocalFeatures:
    """points: (f, 2) float32, pixels (x, y) of the scaled image. descriptors: (f, d) float32 of unit length.

    size: width and height of the scaled image. frames: (f, 2) float32, each keypoint's diameter in pixels and direction
    in radians, clockwise from the right; None where the detector tells none. The strongest keypoints come first.
    """

    points: FloatArray
    descriptors: FloatArray
    size: tuple[int, int]
    frames: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.points.shape != (len(self.descriptors), 2) or self.descriptors.ndim != 2:
            raise ValueError(
                f"points {self.points.shape} and descriptors {self.descriptors.shape} must be (f, 2), (f, d)"
            )
        if self.frames is not None:
            if self.frames.shape != self.points.shape:
                raise ValueError(f"frames {self.frames.shape} must be {self.points.shape}, as the points")
            object.__setattr__(self, "frames", read_only(self.frames))
        if not (np.isfinite(self.points).all() and np.isfinite(self.descriptors).all()):
            raise ValueError("points and descriptors must be finite")
        object.__setattr__(self, "points", read_only(self.points))
        object.__setattr__(self, "descriptors", read_only(self.descriptors))

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, slots=True)
class PackedFeatures:
    """points: (f, 2) uint16, sixteenths of a pixel. descriptors: (f, d) uint8 or float16, as the card says.

    size, frames: as of LocalFeatures; frames in 1/64 pixel and 1/65,536 turn, uint16.
    """

    points: NDArray[np.uint16]
    descriptors: NDArray[Any]
    size: tuple[int, int]
    frames: NDArray[np.uint16] | None = None

    def __post_init__(self) -> None:
        if self.points.shape != (len(self.descriptors), 2) or self.descriptors.ndim != 2:
            raise ValueError(
                f"points {self.points.shape} and descriptors {self.descriptors.shape} must be (f, 2), (f, d)"
            )
        if self.frames is not None:
            if self.frames.shape != self.points.shape:
                raise ValueError(f"frames {self.frames.shape} must be {self.points.shape}, as the points")
            object.__setattr__(self, "frames", read_only(self.frames))
        object.__setattr__(self, "points", read_only(self.points))
        object.__setattr__(self, "descriptors", read_only(self.descriptors))

    def __len__(self) -> int:
        return len(self.points)


def pack_points(points: FloatArray) -> NDArray[np.uint16]:
    """Pixels (f, 2) as they are stored."""
    return np.rint(np.clip(points * STEPS_A_PIXEL, 0, STEPS_A_PIXEL * MOST_PIXELS - 1)).astype(np.uint16)


def unpack_points(points: NDArray[np.uint16]) -> FloatArray:
    """Stored points (f, 2) in pixels, float32."""
    return points.astype(np.float32) / STEPS_A_PIXEL


def pack_frames(frames: FloatArray) -> NDArray[np.uint16]:
    """Diameters and directions (f, 2) as they are stored."""
    diameter = np.rint(np.clip(frames[:, 0] * STEPS_A_DIAMETER, 1, 65_535))
    direction = np.rint(frames[:, 1] * (STEPS_A_TURN / (2 * np.pi))) % STEPS_A_TURN
    return np.stack([diameter, direction], axis=1).astype(np.uint16)


def unpack_frames(frames: NDArray[np.uint16]) -> FloatArray:
    """Stored frames (f, 2) in pixels and radians, float32."""
    return frames.astype(np.float32) * np.array([1 / STEPS_A_DIAMETER, 2 * np.pi / STEPS_A_TURN], np.float32)
