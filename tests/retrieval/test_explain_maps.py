"""Maps over images, and what of an image they cover."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import LmrError
from retrieval.explain.maps import NamedMap, covered_area, open_explainer
from retrieval.images.spec import ImageSpec


def test_a_map_that_is_no_table_of_float32_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^query must be \(h, w\) float32, got \(3,\) float64$"):
        NamedMap("similarity", "Similarity", np.zeros(3))
    with pytest.raises(ValueError, match=r"^row must be \(h, w\) float32, got \(0, 2\) float32$"):
        NamedMap("similarity", "Similarity", np.zeros((1, 1), np.float32), np.zeros((0, 2), np.float32))


@pytest.mark.parametrize(
    ("fit", "area"),
    [("squash", (0, 0, 1, 1)), ("crop", (0.25, 0, 0.75, 1)), ("pad", (0, -0.5, 1, 1.5))],
)
def test_what_a_prepared_image_shows_of_a_wide_one(fit: str, area: tuple[float, ...]) -> None:
    assert covered_area((400, 200), ImageSpec(size=64, fit=fit)) == area  # type: ignore[arg-type]


def test_an_exported_network_cannot_be_looked_into(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    with pytest.raises(LmrError) as caught:
        open_explainer(tmp_path, device="cpu")
    assert str(caught.value) == f"{tmp_path} has no weights, it is of lmr export, whose network cannot be looked into"
