"""Sizes of scaled pictures, of which no side is ever 0 however long and thin the picture is."""

from PIL import Image


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Width and height times the scale, rounded, each at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def contain(picture: Image.Image, side: int, resample: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """The whole picture, made smaller or larger until its longer side is `side`."""
    return picture.resize(scaled_size(picture.size, side / max(picture.size)), resample)
