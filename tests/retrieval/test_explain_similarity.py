"""Similarity maps: what each place of an image adds to a similarity."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny_world import CPU, SPEC, jpeg, tiny_model
from torch.nn import functional as F

from retrieval.embed.embedder import JoinedEmbedder
from retrieval.embed.torch_embedder import make_embedder
from retrieval.explain.maps import NamedMap, Pair, join_maps
from retrieval.explain.network import ExplainedNetwork
from retrieval.explain.similarity import similarity_maps
from retrieval.images.preprocess import prepare
from retrieval.models.card import Member, ModelCard
from retrieval.models.config import ModelConfig
from retrieval.models.network import DescriptorModel, build_model, to_input


@dataclass(frozen=True)
class Whitened:
    """The space of an index."""

    mean: np.ndarray
    matrix: np.ndarray


def card(model: DescriptorModel, **how: object) -> ModelCard:
    return ModelCard(model.config, SPEC, "0" * 64, **how)  # type: ignore[arg-type]


def whitened(d: int, seed: int = 0) -> Whitened:
    rng = np.random.default_rng(seed)
    return Whitened(rng.normal(0, 0.1, d), rng.normal(size=(d, min(d, 6))))


def explained(members: list[tuple[DescriptorModel, Member]], space: Whitened | None = None) -> ExplainedNetwork:
    return ExplainedNetwork(members, space, CPU)


def one(model: DescriptorModel, space: Whitened | None = None, **how: object) -> ExplainedNetwork:
    return explained([(model, Member(card(model, **how), 1.0))], space)


def vector(network: ExplainedNetwork, data: bytes) -> np.ndarray:
    """The descriptor as the embedder computes it, whitened as the index does."""
    embedders = [make_embedder(m, c, CPU, n_workers=1) for m, c in zip(network.models, network.cards, strict=True)]
    embedder = JoinedEmbedder(embedders, [root**2 for root in network.roots])
    x = embedder.embed_batch(*(prepare(data, spec)[None] for spec in embedder.specs))[0].astype(np.float64)
    if network.space is not None:
        x = (x - network.space.mean) @ network.space.matrix
    return x / np.linalg.norm(x)


def the_map(network: ExplainedNetwork, query: bytes, row: bytes | None) -> tuple[float, NamedMap]:
    other = vector(network, row or jpeg(1, 1))
    maps = similarity_maps(network, Pair(query, row, other))
    (found,) = maps.maps
    assert maps.notes == ()
    return maps.score, found


def require_sums(network: ExplainedNetwork) -> NamedMap:
    """The map of two images, once it is known that its parts sum to what the embedder says."""
    query, row = jpeg(0, 3), jpeg(1, 4)
    score, found = the_map(network, query, row)
    assert score == pytest.approx(float(vector(network, query) @ vector(network, row)), abs=1e-5)
    assert found.row is not None
    assert found.query_rest is not None
    assert found.row_rest is not None
    assert found.query.sum(dtype=np.float64) + found.query_rest == pytest.approx(score, abs=1e-5)
    assert found.row.sum(dtype=np.float64) + found.row_rest == pytest.approx(score, abs=1e-5)
    return found


@pytest.fixture(autouse=True)
def exact(in_float32: None) -> None:
    """Scores are compared to a hundred-thousandth."""


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("prelu", [False, True])
@pytest.mark.parametrize("pooling", ["gem", "avg", "max"])
def test_the_parts_sum_to_the_score(pooling: str, prelu: bool, seed: int) -> None:
    model = tiny_model(seed, pooling=pooling, prelu=prelu)
    assert require_sums(one(model)).query.shape == (3, 3)
    require_sums(one(model, whitened(8, seed)))


@pytest.mark.parametrize("part", ["neck", "pooled", "both"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.5)])
def test_the_parts_sum_for_every_way_of_embedding(part: str, flip: bool, scales: tuple[float, ...]) -> None:
    model = tiny_model(2, prelu=True)
    how = {"descriptor": part, "flip": flip, "scales": scales}
    require_sums(one(model, **how))
    require_sums(one(model, whitened(16 if part == "both" else 8), **how))


def test_the_parts_sum_for_an_ensemble_of_networks_that_see_images_otherwise() -> None:
    first, second = tiny_model(0, prelu=True), tiny_model(1, pooling="avg", n_dimensions=0)
    cropped = ModelCard(second.config, type(SPEC)(size=24, fit="crop"), "0" * 64, flip=True)
    members = [(first, Member(card(first, descriptor="both"), 0.7)), (second, Member(cropped, 0.3))]
    require_sums(explained(members, whitened(24)))


@pytest.mark.parametrize("name", ["plain-cnn", "mobilenet_v2", "timm:tf_efficientnet_lite0"])
@pytest.mark.parametrize("pooling", ["gem", "avg", "max"])
def test_the_parts_sum_for_networks_of_the_libraries(name: str, pooling: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(name, pooling=pooling, n_dimensions=8, prelu=True)  # type: ignore[arg-type]
    require_sums(one(build_model(config, image_size=SPEC.size).eval()))


def test_tokens_of_a_transformer_are_places() -> None:
    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
    config = ModelConfig("timm:vit_tiny_patch16_224", pooling="gem", n_dimensions=0, backbone_options=options)
    network = one(build_model(config, image_size=SPEC.size).eval())
    assert require_sums(network).query.shape == (4, 4)


def test_each_place_adds_what_is_lost_with_it() -> None:
    """The mean of a map without a neck is linear: a place that is set to 0 takes away its share and no more."""
    model = tiny_model(0, pooling="avg", n_dimensions=0)
    network, query, row = one(model), jpeg(0, 3), jpeg(1, 4)
    _, found = the_map(network, query, row)
    assert found.query_rest == 0
    with torch.inference_mode():
        features = model.backbone(to_input(torch.from_numpy(prepare(query, SPEC)[None]).permute(0, 3, 1, 2), SPEC, CPU))
        length = features.mean(dim=(2, 3)).norm()
        other = torch.from_numpy(vector(network, row)).float()
        for y, x in ((0, 0), (1, 2)):
            without = features.clone()
            without[:, :, y, x] = 0
            lost = (features.mean(dim=(2, 3)) - without.mean(dim=(2, 3)))[0] @ other / length
            assert found.query[y, x] == pytest.approx(float(lost), abs=1e-6)


def test_the_rest_is_the_shift_of_the_neck() -> None:
    model = tiny_model(0)
    network, query, row = one(model), jpeg(0, 3), jpeg(1, 4)
    _, found = the_map(network, query, row)
    norm = model.neck[1]  # type: ignore[index]
    shift = norm.bias - norm.running_mean * norm.weight / torch.sqrt(norm.running_var + norm.eps)
    raw = model.raw(to_input(torch.from_numpy(prepare(query, SPEC)[None]).permute(0, 3, 1, 2), SPEC, CPU))
    expected = float(shift.detach() @ torch.from_numpy(vector(network, row)).float() / raw.detach().norm())
    assert found.query_rest == pytest.approx(expected, abs=1e-6)
    assert abs(expected) > 1e-3


def test_a_mirrored_view_lies_on_the_image_as_it_is() -> None:
    """Of an image whose left half alone has colour, a network of the mirrored image alone shows the same half."""
    model = tiny_model(0, pooling="avg", n_dimensions=0)
    query = jpeg(0, 3)
    plain, both = the_map(one(model), query, None)[1], the_map(one(model, flip=True), query, None)[1]
    other = vector(one(model, flip=True), jpeg(1, 1))
    x = to_input(torch.from_numpy(prepare(query, SPEC)[None]).permute(0, 3, 1, 2), SPEC, CPU)
    with torch.inference_mode():
        maps = [model.backbone(x)[0], model.backbone(x.flip(3))[0]]
    units = [F.normalize(of.mean(dim=(1, 2)), dim=0) for of in maps]
    weight = torch.from_numpy(other).float() / (units[0] + units[1]).norm()
    shares = [torch.einsum("chw,c->hw", of, weight) / 9 / of.mean(dim=(1, 2)).norm() for of in maps]
    assert both.query == pytest.approx((shares[0] + shares[1].flip(1)).numpy(), abs=1e-6)
    assert plain.row is None


def test_a_row_whose_file_is_another_image_now_has_no_map() -> None:
    network = one(tiny_model(0))
    other = vector(network, jpeg(1, 1))
    maps = similarity_maps(network, Pair(jpeg(0, 3), jpeg(2, 9), other))
    assert maps.notes == ("the image of the index row is not the one that was indexed, so it has no map",)
    assert maps.maps[0].row is None
    assert maps.score == pytest.approx(float(vector(network, jpeg(0, 3)) @ other), abs=1e-5)


def test_a_class_token_has_no_map() -> None:
    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
    config = ModelConfig("timm:vit_tiny_patch16_224", pooling="cls", n_dimensions=0, backbone_options=options)
    network = one(build_model(config, image_size=SPEC.size).eval())
    query, row = jpeg(0, 3), jpeg(1, 4)
    maps = similarity_maps(network, Pair(query, row, vector(network, row)))
    assert maps.maps == ()
    assert maps.score == pytest.approx(float(vector(network, query) @ vector(network, row)), abs=1e-5)
    assert maps.notes == (
        "no similarity map: the descriptor is the class token of a transformer, which has no place in the image; the "
        "class activation maps show where it looks",
    )


def test_maps_of_other_places_are_joined_without_loss() -> None:
    coarse, fine = np.array([[1.0, 2.0]]), np.arange(12.0).reshape(3, 4)
    joined, area = join_maps([(coarse, (0.0, 0.0, 1.0, 1.0)), (fine, (0.25, 0.0, 0.75, 1.0))])
    assert area == (0.0, 0.0, 1.0, 1.0)
    assert joined.shape == (3, 8)
    assert joined.sum() == pytest.approx(coarse.sum() + fine.sum())
    expected = np.repeat(np.repeat(coarse, 4, axis=1), 3, axis=0) / 12
    expected[:, 2:6] += fine
    assert joined == pytest.approx(expected)
