"""How near a photograph in another colour space is to the same in sRGB, as a network sees them.

Each photograph is stored anew as PNG in Adobe RGB, Display P3 and ProPhoto, with its profile, and described with its
colours as stored, which older models do, and in sRGB. Prints one JSON document: mean and least cosine to the
photograph in sRGB.
"""

import argparse
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "retrieval"))

from made_profiles import ADOBE_RGB, DISPLAY_P3, PROPHOTO, SRGB, Matrix, rgb_profile

from retrieval.embed.torch_embedder import TorchEmbedder
from retrieval.images.decode import decode
from retrieval.images.preprocess import prepare
from retrieval.images.signatures import IMAGE_SUFFIXES
from retrieval.images.spec import ImageSpec
from retrieval.models.config import ModelConfig
from retrieval.models.network import build_model

SPACES: dict[str, tuple[Matrix, float | None]] = {
    "adobe_rgb": (ADOBE_RGB, 2.19921875),
    "display_p3": (DISPLAY_P3, None),
    "prophoto": (PROPHOTO, 1.8),
}


def main() -> None:
    """Reads the photographs, describes them in every way, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/photos/originals"))
    parser.add_argument("--backbone", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, default=None, help="state dict; without it the library's weights")
    parser.add_argument("--images", type=int, default=20, help="how many (default %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the input in pixels (default %(default)s)")
    given = parser.parse_args()
    paths = sorted(path for path in given.folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        sys.exit(f"{given.folder} holds no pictures; give a folder of photographs")
    photographs = [decode(path.read_bytes(), 2 * given.size) for path in paths[: given.images]]
    config = ModelConfig(given.backbone, n_dimensions=0)
    model = build_model(config, pretrained=given.weights is None, weights_path=given.weights, image_size=given.size)
    new = ImageSpec(size=given.size, mean=model.mean, std=model.std)
    old = replace(new, colors="as-stored")
    embedder = TorchEmbedder(model, new, torch.device("cpu"))

    def describe(images: list[bytes], spec: ImageSpec) -> Any:
        return embedder.embed_batch(np.stack([prepare(data, spec) for data in images]))

    truth = describe([encoded(photograph) for photograph in photographs], new)
    summary: dict[str, object] = {"pictures": len(photographs), "backbone": given.backbone}
    for name, (primaries, gamma) in SPACES.items():
        stored = [in_space(photograph, primaries, gamma) for photograph in photographs]
        cosines = {way: (describe(stored, spec) * truth).sum(1) for way, spec in (("as_stored", old), ("srgb", new))}
        summary[name] = {way: {"mean": rounded(c.mean()), "least": rounded(c.min())} for way, c in cosines.items()}
    print(json.dumps(summary, indent=2))


def in_space(photograph: Image.Image, primaries: Matrix, gamma: float | None) -> bytes:
    """The photograph, which is in sRGB, in another space, as a PNG with its profile."""
    values = np.asarray(photograph) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    there = np.clip(linear @ np.array(SRGB) @ np.linalg.inv(np.array(primaries)), 0, 1)
    of_srgb = np.where(there <= 0.0031308, 12.92 * there, 1.055 * there ** (1 / 2.4) - 0.055)
    curved = np.rint(255 * (of_srgb if gamma is None else there ** (1 / gamma))).astype(np.uint8)
    return encoded(Image.fromarray(curved), icc_profile=rgb_profile(primaries, gamma))


def encoded(image: Image.Image, **options: Any) -> bytes:
    """As a PNG."""
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def rounded(value: float) -> float:
    """To four digits, as a plain number."""
    return round(float(value), 4)


if __name__ == "__main__":
    main()
