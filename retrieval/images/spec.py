"""Specification of a prepared image: size, fit, normalisation and colours."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from retrieval.errors import LmrError

Colors = Literal["srgb", "as-stored"]
Resampling = Literal["bilinear", "bicubic"]
MOST_PIXELS = 8192  # side of a prepared image: 200 MB


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """Preparation of an image for the network.

    size: side of the square input in pixels. fit: `squash` changes the aspect ratio, `crop` keeps the middle square,
    `pad` keeps everything on a ground of the mean colour. mean, std: per channel, of images in [0, 1]. colors: `srgb`
    follows an image's colour profile; `as-stored`, which is left out of the JSON as it was before there was a choice,
    takes the numbers as they are.
    """

    size: int = 224
    fit: Literal["squash", "crop", "pad"] = "squash"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    resample: Resampling = "bilinear"
    colors: Colors = "srgb"

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= MOST_PIXELS:
            raise ValueError(f"size must be a positive whole number up to {MOST_PIXELS}, got {self.size!r}")
        if self.fit not in ("squash", "crop", "pad"):
            raise ValueError(f"fit must be squash, crop or pad, got {self.fit!r}")
        if self.resample not in get_args(Resampling):
            raise ValueError(f"resample must be bilinear or bicubic, got {self.resample!r}")
        if self.colors not in get_args(Colors):
            raise ValueError(f"colors must be srgb or as-stored, got {self.colors!r}")
        if len(self.mean) != 3 or not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(f"mean must be three numbers in [0, 1], got {self.mean!r}")
        if len(self.std) != 3 or not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std must be three positive numbers, got {self.std!r}")

    def to_json(self) -> dict[str, Any]:
        """JSON object of it."""
        content = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        if self.colors == "as-stored":
            del content["colors"]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ImageSpec":
        """Back from `to_json`. Raises LmrError on a missing, unknown or wrong entry."""
        known = [field.name for field in fields(cls)]
        for name in content:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
                raise LmrError(f"image_spec: unknown key {name!r}; {hint}")
        content = {"colors": "as-stored", **content}
        if missing := [name for name in known if name not in content]:
            raise LmrError(f"image_spec: {', '.join(missing)} missing; it takes {', '.join(known)}")
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in content.items()}
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise LmrError(f"image_spec: {error}") from error
