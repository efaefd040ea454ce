"""A BMP whose bits of red, green and blue stand anywhere: Pillow knows a few layouts, OpenCV mistakes the others."""

import struct
from typing import Any

import numpy as np
from PIL import Image

from retrieval.arrays import UInt8Array
from retrieval.errors import UnreadableError
from retrieval.images.limits import Limits

_BITFIELDS = (3, 6)  # BI_BITFIELDS and BI_ALPHABITFIELDS
_MASKS_AT = 54
_HEADER_WITH_ALPHA = 56
_BYTES_A_PIXEL = 24


def has_bitfields(data: bytes) -> bool:
    """A BMP that says where its colours stand."""
    if not data.startswith(b"BM") or len(data) < _MASKS_AT + 16:
        return False
    bits, compression = struct.unpack_from("<HI", data, 28)
    return int.from_bytes(data[14:18], "little") >= 40 and bits in (16, 32) and compression in _BITFIELDS


def open_bitfields(data: bytes, limits: Limits) -> Image.Image:
    """The picture in RGB or RGBA. Raises UnreadableError: over a limit, cut short."""
    header, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    n_rows, start = abs(height), int.from_bytes(data[10:14], "little")
    stride = (width * bits + 31) // 32 * 4
    if width < 1 or n_rows < 1:
        raise UnreadableError("broken BMP: no picture in it")
    limits.require_size(width, n_rows)
    limits.require_memory((width, n_rows), width * n_rows * _BYTES_A_PIXEL)
    if len(data) < start + stride * n_rows:
        raise UnreadableError("broken BMP: cut short")
    rows = np.frombuffer(data, f"<u{bits // 8}", stride * n_rows * 8 // bits, start).reshape(n_rows, -1)[:, :width]
    masks = struct.unpack_from("<4I", data, _MASKS_AT)
    n_channels = 4 if (header >= _HEADER_WITH_ALPHA or compression == _BITFIELDS[1]) and masks[3] else 3
    pixels = np.stack([_channel(rows, mask) for mask in masks[:n_channels]], axis=-1)
    if n_channels == 4 and not pixels[:, :, 3].any():  # nobody means a picture of which nothing is to be seen
        pixels = pixels[:, :, :3]
    return Image.fromarray(np.ascontiguousarray(pixels if height < 0 else pixels[::-1]))


def _channel(values: Any, mask: int) -> UInt8Array:
    """uint8, its greatest value 255."""
    if not mask:
        return np.zeros(values.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    greatest = mask >> shift
    stored = (values.astype(np.uint32) & np.uint32(mask)) >> np.uint32(shift)
    scaled: UInt8Array = np.rint(stored * (255 / greatest)).astype(np.uint8)
    return scaled
