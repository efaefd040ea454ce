"""Local features of an image: where its keypoints lie, and what they look like."""

from dataclasses import dataclass

from retrieval.arrays import FloatArray, read_only


@dataclass(frozen=True, slots=True)
class LocalFeatures:
    """Keypoints of one image with their descriptors.

    points: (f, 2) float32, pixels (x, y) of the scaled image. descriptors: (f, d) float32, unit length. size: width and
    height of the scaled image.
    """

    points: FloatArray
    descriptors: FloatArray
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.points.shape != (len(self.descriptors), 2) or self.descriptors.ndim != 2:
            raise ValueError(
                f"points {self.points.shape} and descriptors {self.descriptors.shape} must be (f, 2), (f, d)"
            )
        object.__setattr__(self, "points", read_only(self.points))
        object.__setattr__(self, "descriptors", read_only(self.descriptors))

    def __len__(self) -> int:
        return len(self.points)
