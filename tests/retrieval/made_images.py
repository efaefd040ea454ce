"""Images that tests draw and encode."""

import io
from typing import Any

import numpy as np
from PIL import Image


def smooth(width: int, height: int) -> Image.Image:
    """An image that lossy formats keep within a few grey levels, different in all corners."""
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, None]
    red, green, blue = 40 + 170 * x + 0 * y, 60 + 120 * y + 0 * x, 200 - 120 * x * y
    return Image.fromarray(np.stack([red, green, blue], axis=-1).round().astype(np.uint8))


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """The image as a file of this format."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()
