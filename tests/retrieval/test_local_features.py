"""Local features on a made texture, seen from two sides; without the extra only its error is tested."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import install_hint
from retrieval.local.config import LocalOptions
from retrieval.local.extractor import open_extractor
from retrieval.local.features import LocalFeatures, pack_frames, unpack_frames
from retrieval.local.rootsift import require_opencv
from retrieval.local.verifier import NearestMatcher, Verifier


def local_features(data):
    extractor = open_extractor(LocalOptions(kind="rootsift"))
    return extractor.extract(extractor.decode(data))


def texture(seed, side=320):
    """Blobs of several sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n), dtype=np.uint8)).resize((side, side)), dtype=float)
        for n in (10, 24, 60)
    ]
    return Image.fromarray(np.mean(layers, axis=0).clip(0, 255).astype(np.uint8))


def encoded(image, quality=90):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def from_the_side(image):
    """Another view: the quadrilateral of the image that becomes its frame."""
    w, h = image.size
    corners = (0.05 * w, 0.1 * h, 0.0, 0.95 * h, 0.9 * w, 0.85 * h, w, 0.0)
    return image.transform(image.size, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)


def n_inliers(one, other):
    (match,) = Verifier().verify(one, [other])
    return match.n_inliers


def test_two_views_of_a_place_have_many_inliers_and_another_place_few():
    pytest.importorskip("cv2", reason="needs the extra local")
    one = local_features(encoded(texture(0)))
    assert n_inliers(one, one) > 100
    assert n_inliers(one, local_features(encoded(from_the_side(texture(0)), quality=60))) >= 30
    assert n_inliers(one, local_features(encoded(texture(1)))) < 15


def test_the_same_images_always_have_the_same_inliers():
    pytest.importorskip("cv2", reason="needs the extra local")
    one, other = (local_features(encoded(image)) for image in (texture(2), from_the_side(texture(2))))
    counts = {n_inliers(one, other) for _ in range(3)}
    assert len(counts) == 1


@pytest.mark.parametrize("side", [1, 3, 64])
def test_images_without_features_match_nothing(side):
    pytest.importorskip("cv2", reason="needs the extra local")
    plain = local_features(encoded(Image.new("L", (side, side), 90)))
    assert len(plain) == 0
    assert n_inliers(plain, plain) == 0
    assert n_inliers(plain, local_features(encoded(texture(0)))) == 0


def test_points_on_one_spot_match_nothing():
    pytest.importorskip("cv2", reason="needs the extra local")
    descriptors = np.eye(20, 128, dtype=np.float32)
    spot = LocalFeatures(np.ones((20, 2), dtype=np.float32), descriptors, (64, 64))
    assert n_inliers(spot, spot) in (0, 20)


def test_a_broken_image_is_unreadable():
    pytest.importorskip("cv2", reason="needs the extra local")
    with pytest.raises(UnreadableError):
        local_features(encoded(texture(0))[:400])


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(LmrError) as error:
        require_opencv()
    assert str(error.value) == (
        f"geometric verification needs OpenCV (import of cv2 halted; None in sys.modules); {install_hint('local')}"
    )


def test_points_and_descriptors_have_to_fit():
    with pytest.raises(ValueError, match=r"points \(3, 2\) and descriptors \(2, 128\) must be"):
        LocalFeatures(np.zeros((3, 2), dtype=np.float32), np.zeros((2, 128), dtype=np.float32), (8, 8))


def test_frames_have_to_fit_the_points():
    points, descriptors = np.zeros((3, 2), dtype=np.float32), np.zeros((3, 8), dtype=np.float32)
    with pytest.raises(ValueError, match=r"^frames \(2, 2\) must be \(3, 2\), as the points$"):
        LocalFeatures(points, descriptors, (8, 8), np.zeros((2, 2), dtype=np.float32))


def test_frames_survive_packing():
    frames = np.array([[1.6, 0.0], [33.25, 3.0], [900.0, 2 * np.pi - 1e-3], [5000.0, -1.0]], dtype=np.float32)
    unpacked = unpack_frames(pack_frames(frames))
    assert unpacked[:, 0] == pytest.approx([1.6, 33.25, 900.0, 65_535 / 64], abs=1 / 128)
    assert unpacked[:, 1] == pytest.approx([0.0, 3.0, 2 * np.pi - 1e-3, 2 * np.pi - 1], abs=1e-4)


def test_a_keypoint_turns_and_grows_with_its_image():
    pytest.importorskip("cv2", reason="needs the extra local")
    image = texture(0).crop((40, 40, 280, 280))
    turned = local_features(encoded(image.resize((480, 480)).transpose(Image.Transpose.ROTATE_270)))
    plain = local_features(encoded(image))
    (pairs,) = NearestMatcher().match_many(plain, [turned])
    here, there = plain.frames[pairs[:, 0]], turned.frames[pairs[:, 1]]
    assert np.median(there[:, 0] / here[:, 0]) == pytest.approx(2, rel=0.1)
    assert np.median((there[:, 1] - here[:, 1]) % (2 * np.pi)) == pytest.approx(np.pi / 2, abs=0.1)
