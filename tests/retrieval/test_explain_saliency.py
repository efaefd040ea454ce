"""Saliency and class activation, in three forms."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_explain_similarity import card, explained, one, vector, whitened
from tiny_world import CPU, LABELS, SIZE, SPEC, jpeg, tiny_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _len_torch_function_stack

from retrieval.errors import LmrError
from retrieval.explain.maps import NamedMap, Pair
from retrieval.explain.network import ExplainedNetwork
from retrieval.explain.saliency import FORMS, ExplainedClassifier, saliency_maps
from retrieval.images.preprocess import prepare
from retrieval.images.spec import ImageSpec
from retrieval.models import checkpoint
from retrieval.models.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone
from retrieval.models.card import Member, ModelCard
from retrieval.models.checkpoint import save_model
from retrieval.models.config import ModelConfig
from retrieval.models.network import DescriptorModel, build_model, to_input
from retrieval.train.classifier import save_classifier
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss

pytest.importorskip("captum", reason="the extra explain is not installed")

QUERY, ROW = jpeg(0, 3), jpeg(1, 4)
NAMES = [
    f"{kind}{'' if form == 'vanilla' else f'-{form}'}"
    for kind in ("saliency", "grad-cam", "grad-cam-saliency")
    for form in FORMS
]


@pytest.fixture(autouse=True)
def exact(in_float32: None) -> None:
    """Gradients are compared digit by digit."""


def maps_of(network: ExplainedNetwork, row: bytes | None = ROW) -> dict[str, NamedMap]:
    found = saliency_maps(network, Pair(QUERY, row, vector(network, ROW)))
    return {each.name: each for each in found}


def image(data: bytes, spec: ImageSpec = SPEC) -> Tensor:
    return to_input(torch.from_numpy(prepare(data, spec)[None]).permute(0, 3, 1, 2), spec, CPU)


class Ruled(torch.autograd.Function):
    """An activation, and the gradient that a form lets back through it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], form: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.how = function, form
        return function(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (x,), (function, form) = ctx.saved_tensors, ctx.how
        with torch.enable_grad():
            given = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(function(given.clone()).sum(), given)
        passed = {"vanilla": gradient * slope, "guided": (gradient * slope).clamp(min=0)}
        return passed.get(form, gradient.clamp(min=0)), None, None


class RuledActivation(nn.Module):
    def __init__(self, activation: nn.Module, form: str) -> None:
        super().__init__()
        self.activation, self.form = activation, form

    def forward(self, x: Tensor) -> Tensor:
        return Ruled.apply(x, self.activation, self.form)  # type: ignore[no-any-return,no-untyped-call]


def slow_saliency(model: DescriptorModel, form: str, other: Tensor, spec: ImageSpec = SPEC) -> np.ndarray:
    """By a copy of the network whose activations are replaced one by one."""
    model = copy.deepcopy(model)
    kinds = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU)
    for parent in list(model.backbone.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kinds):
                setattr(parent, name, RuledActivation(child, form))
    x = image(QUERY, spec).requires_grad_()
    ((model(x) * other).sum()).backward()
    assert x.grad is not None
    return x.grad[0].abs().amax(dim=0).numpy()


def small(activation: Callable[[], nn.Module]) -> DescriptorModel:
    """Two convolutions, with an activation of this kind behind each."""
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 6, 3, stride=2), activation(), nn.Conv2d(6, 8, 3, stride=2), activation())
    backbone = Backbone(nn.Sequential(*layers), 8, 0, ("fc",), IMAGENET_MEAN, IMAGENET_STD)
    return DescriptorModel(ModelConfig("tiny", pooling="avg", n_dimensions=0), backbone).eval()


class Functional(nn.Module):
    """A ReLU that is no module, and works in place."""

    def forward(self, x: Tensor) -> Tensor:
        F.relu(x, inplace=True)
        return x


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "relu6 in place": lambda: nn.ReLU6(inplace=True),
    "silu in place": lambda: nn.SiLU(inplace=True),
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_the_form_is_that_of_each_kind_of_activation(kind: str, form: str) -> None:
    model = small(ACTIVATIONS[kind])
    network = one(model)
    name = "saliency" if form == "vanilla" else f"saliency-{form}"
    other = torch.from_numpy(vector(network, ROW)).float()
    found = maps_of(network)[name].query
    assert found == pytest.approx(slow_saliency(model, form, other), rel=1e-4, abs=1e-8)
    assert found.max() > 0


@pytest.mark.parametrize("form", FORMS)
def test_activations_that_are_no_modules_are_met(form: str) -> None:
    name = "saliency" if form == "vanilla" else f"saliency-{form}"
    as_function, as_module = (maps_of(one(small(kind)))[name] for kind in (Functional, nn.ReLU))
    assert as_function.query == pytest.approx(as_module.query)
    assert as_function.row == pytest.approx(as_module.row)


def test_the_forms_differ() -> None:
    maps = maps_of(one(tiny_model(0)))
    assert [*maps] == NAMES
    for kind in ("saliency", "grad-cam-saliency"):
        vanilla, guided, rectified = (maps[f"{kind}{form}"].query for form in ("", "-guided", "-rectified"))
        assert not np.allclose(vanilla, guided)
        assert not np.allclose(guided, rectified)


def test_saliency_is_how_the_score_changes() -> None:
    """By the difference that a small step of one colour of one pixel makes."""
    model = tiny_model(0)
    network = one(model)
    other = torch.from_numpy(vector(network, ROW)).float()
    found = maps_of(network)["saliency"].query
    model, x, step = copy.deepcopy(model).double(), image(QUERY).double(), 1e-4
    model.gem = None
    p = 3.0

    def score(given: Tensor) -> float:
        a = model.backbone(given).clamp(min=1e-6)
        pooled = a.pow(p).mean(dim=(2, 3)).pow(1 / p)
        return (F.normalize(model.neck(pooled), dim=1)[0] * other).sum().item()

    for y, x_ in ((3, 4), (8, 8), (12, 1)):
        slopes = []
        for colour in range(3):
            ends = []
            for sign in (1, -1):
                moved = x.clone()
                moved[0, colour, y, x_] += sign * step
                ends.append(score(moved))
            slopes.append(abs(ends[0] - ends[1]) / (2 * step))
        assert found[y, x_] == pytest.approx(max(slopes), rel=1e-2, abs=1e-6)


def test_class_activation_is_the_formula() -> None:
    model = tiny_model(0, pooling="avg")
    network = one(model)
    other = torch.from_numpy(vector(network, ROW)).float()
    maps = maps_of(network)
    a = model.backbone(image(QUERY)).detach().requires_grad_()
    (F.normalize(model.neck(a.mean(dim=(2, 3))), dim=1)[0] * other).sum().backward()
    assert a.grad is not None
    rules = {"": a.grad, "-guided": a.grad.clamp(min=0) * (a > 0), "-rectified": a.grad.clamp(min=0)}
    for suffix, gradient in rules.items():
        alpha = gradient.mean(dim=(2, 3))[0]
        expected = torch.einsum("c,chw->hw", alpha, a.detach()[0]).clamp(min=0).numpy()
        assert maps[f"grad-cam{suffix}"].query == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_the_product_is_pixels_times_the_places_they_lie_in() -> None:
    maps = maps_of(one(tiny_model(0)))
    places = torch.tensor(maps["grad-cam-guided"].query)[None, None]
    wide = F.interpolate(places, size=(SIZE, SIZE), mode="bilinear")[0, 0].numpy()
    expected = wide * maps["saliency-guided"].query
    assert maps["grad-cam-saliency-guided"].query == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "plain-cnn", "timm:tf_efficientnet_lite0"])
def test_networks_of_the_libraries_are_left_as_they_were(name: str) -> None:
    torch.manual_seed(0)
    spec = ImageSpec(size=32)
    model = build_model(ModelConfig(name, pooling="avg", n_dimensions=8), image_size=32).eval()
    model.requires_grad_(True)
    network = ExplainedNetwork([(model, Member(ModelCard(model.config, spec, "0" * 64), 1.0))], None, CPU)
    other = torch.from_numpy(vector(network, ROW)).float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    filters, n_threads = list(warnings.filters), torch.get_num_threads()
    maps = maps_of(network)
    assert [*maps] == NAMES
    assert all(np.isfinite(each.query).all() for each in maps.values())
    for form in ("guided", "rectified"):
        slow = slow_saliency(model, form, other, spec)
        assert slow.max() > 0
        assert maps[f"saliency-{form}"].query == pytest.approx(slow, rel=1e-3, abs=1e-6 * float(slow.max()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert not module.training
    assert all(of.requires_grad and of.grad is None for of in model.parameters())
    assert warnings.filters == filters
    assert torch.get_num_threads() == n_threads
    assert torch.is_grad_enabled()
    assert _len_torch_function_stack() == 0


@pytest.mark.parametrize("pooling", ["cls", "gem"])
def test_a_transformer_has_all_nine(pooling: str) -> None:
    torch.manual_seed(0)
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    config = ModelConfig(
        "timm:vit_tiny_patch16_224",
        pooling=pooling,
        n_dimensions=0,
        backbone_options=options,  # type: ignore[arg-type]
    )
    model = build_model(config, image_size=SPEC.size).eval()
    maps = maps_of(one(model))
    assert [*maps] == NAMES
    assert maps["grad-cam"].query.shape == (4, 4)
    assert maps["grad-cam"].query.max() > 0
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_mirrored_views_scales_and_members_share_one_map() -> None:
    first, second = tiny_model(0, prelu=True), tiny_model(1, pooling="avg", n_dimensions=0)
    cropped = ModelCard(second.config, ImageSpec(size=24, fit="crop"), "0" * 64, flip=True)
    members = [
        (first, Member(card(first, descriptor="both", scales=(1.0, 1.5)), 0.7)),
        (second, Member(cropped, 0.3)),
    ]
    maps = maps_of(explained(members, whitened(24)))
    assert [*maps] == NAMES
    assert maps["saliency"].query.shape == (24, 24)
    assert all(each.query.max() > 0 and each.row is not None for each in maps.values())


def test_a_mirrored_view_lies_on_the_image_as_it_is() -> None:
    network = one(tiny_model(0, pooling="avg", n_dimensions=0), flip=True)
    found = maps_of(network)["grad-cam-rectified"].query
    other = torch.from_numpy(vector(network, ROW)).float()
    model, x = network.models[0], image(QUERY)
    maps = [model.backbone(view)[0].detach().requires_grad_() for view in (x, x.flip(3))]
    units = [F.normalize(of.mean(dim=(1, 2)), dim=0) for of in maps]
    (F.normalize(units[0] + units[1], dim=0) * other).sum().backward()
    expected = np.zeros((3, 3))
    for of, turn in zip(maps, (lambda v: v, lambda v: v.flip(1)), strict=True):
        assert of.grad is not None
        expected += turn(torch.einsum("c,chw->hw", of.grad.clamp(min=0).mean(dim=(1, 2)), of.detach())).numpy()
    assert found == pytest.approx(expected, rel=1e-4)


def test_without_a_second_image_there_are_maps_of_the_query() -> None:
    maps = maps_of(one(tiny_model(0)), None)
    assert [*maps] == NAMES
    assert all(each.row is None for each in maps.values())


@pytest.mark.parametrize("config", [LossConfig(), LossConfig("linear", head_hidden=4)], ids=lambda config: config.name)
def test_maps_of_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: LossConfig) -> None:
    monkeypatch.setattr(checkpoint, "build_model", lambda config, **_: tiny_model())
    model, loss = tiny_model(), LandmarkLoss(config, 8, np.array([3, 1, 2]))
    save_model(tmp_path, model, SPEC, flip=True, made_by={})
    save_classifier(tmp_path, loss, LABELS)
    head = loss.eval().head()
    assert head is not None
    x = image(QUERY).requires_grad_()
    logits = head(model.raw(x) if config.name == "linear" else model(x))[0]
    best = int(logits.argmax())
    explained = ExplainedClassifier(tmp_path, device="cpu")
    found = explained.maps(QUERY)
    assert found.label == LABELS[best]
    assert found.probability == pytest.approx(torch.softmax(logits, dim=0)[best].item(), rel=1e-4)
    assert [each.name for each in found.maps] == [f"class-{name}" for name in NAMES]
    assert all(each.row is None for each in found.maps)
    assert found.maps[1].title == "Saliency, guided, class"
    assert found.maps[1].about == (
        f"how much the score changes with each pixel; of the class {found.label}, probability {found.probability:.3f}"
    )
    other = (best + 1) % 3
    logits[other].backward()
    assert x.grad is not None
    asked = explained.maps(QUERY, LABELS[other])
    assert asked.label == LABELS[other]
    assert asked.maps[0].query == pytest.approx(x.grad[0].abs().amax(dim=0).numpy(), rel=1e-3, abs=1e-7)
    with pytest.raises(LmrError) as caught:
        explained.maps(QUERY, "tower")
    assert str(caught.value) == (f"the classifier of {tmp_path} knows no tower; name a landmark that it was trained on")


def test_a_row_whose_file_is_another_image_now_has_no_maps() -> None:
    network = one(tiny_model(0))
    other = vector(network, jpeg(1, 1))
    changed, gone = (saliency_maps(network, Pair(QUERY, row, other)) for row in (jpeg(2, 9), None))
    assert all(each.row is None for each in changed)
    for one_map, expected in zip(changed, gone, strict=True):
        assert one_map.query == pytest.approx(expected.query)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.extras.find_spec", lambda name: None if name == "captum" else object())
    with pytest.raises(LmrError) as caught:
        maps_of(one(tiny_model(0)))
    assert str(caught.value) == 'saliency needs captum; pip install -e ".[explain]"'


@pytest.mark.parametrize("row", [QUERY, None], ids=["with its image", "by its descriptor"])
def test_the_same_image_has_no_gradient_to_show(row: bytes | None) -> None:
    network = one(small(nn.ReLU))
    with pytest.raises(LmrError, match=r"^at a cosine of 1 there is no gradient$"):
        saliency_maps(network, Pair(QUERY, row, vector(network, QUERY)))
