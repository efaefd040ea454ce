from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_world import SIZE, tiny_model
from torch import Tensor, nn

from retrieval.errors import LmrError
from retrieval.models.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone
from retrieval.models.config import ModelConfig
from retrieval.models.network import DescriptorModel, GeM, build_model, load_backbone_weights, read_state_dict


class Tokens(nn.Module):
    """A transformer of one class token and four places."""

    def forward(self, images: Tensor) -> Tensor:
        """(b, 5, 2)."""
        return torch.tensor([[9.0, 9.0], [1, 2], [3, 4], [5, 6], [7, 8]]).expand(len(images), -1, -1)


NOT_OF_TORCH = "torch.save did not write it, it is cut short, or it holds more than tensors (no code in it is run)"


def images(n: int = 3, seed: int = 0) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, 3, SIZE, SIZE)), dtype=torch.float32)


def message(call: object, *arguments: object) -> str:
    with pytest.raises(LmrError) as caught:
        call(*arguments)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Pooling


@given(seed=st.integers(0, 1000), p=st.floats(1, 20), scale=st.sampled_from([1e-3, 1.0, 1e4]))
@settings(max_examples=30, deadline=None)
def test_gem_is_the_literal_formula(seed: int, p: float, scale: float) -> None:
    x = np.random.default_rng(seed).normal(size=(2, 3, 4, 5)) * scale
    expected = np.mean(np.maximum(x, 1e-6) ** p, axis=(2, 3)) ** (1 / p)
    assert GeM(p)(torch.tensor(x)).detach().numpy() == pytest.approx(expected, rel=1e-4)


def test_gem_is_the_mean_at_one_and_tends_to_the_maximum() -> None:
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    assert GeM(1.0)(x).detach().numpy() == pytest.approx(x.mean(dim=(2, 3)).numpy(), rel=1e-5)
    assert GeM(500.0)(x).detach().numpy() == pytest.approx(x.amax(dim=(2, 3)).numpy(), rel=0.01)


def test_gem_computes_in_float32_under_autocast() -> None:
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16() * 1000
    with torch.autocast("cpu", torch.bfloat16):
        pooled = GeM(3.0)(x)
    assert pooled.dtype == torch.float32
    expected = np.mean(x.double().numpy() ** 3, axis=(2, 3)) ** (1 / 3)
    assert pooled.detach().numpy() == pytest.approx(expected, rel=1e-5)


def test_the_gem_exponent_is_trained() -> None:
    model = tiny_model()
    model(images())[:, 0].sum().backward()
    assert model.gem is not None
    assert model.gem.p.item() == 3.0
    assert model.gem.p.grad is not None
    assert torch.isfinite(model.gem.p.grad)
    assert model.gem.p.grad != 0


def test_a_whole_number_is_an_exponent_too() -> None:
    assert GeM(3).p.dtype == torch.float32


def test_features_of_zeros_have_a_gradient() -> None:
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    gem = GeM(3.0)
    gem(x).sum().backward()
    assert gem.p.grad is not None
    assert torch.isfinite(gem.p.grad)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("cls", [9.0, 9.0]),
        ("avg", [4.0, 5.0]),
        ("max", [7.0, 8.0]),
        ("gem", [(496 / 4) ** (1 / 3), (800 / 4) ** (1 / 3)]),
    ],
)
def test_tokens_are_pooled_without_the_class_token(pooling: str, expected: list[float]) -> None:
    backbone = Backbone(Tokens(), 2, 1, (), IMAGENET_MEAN, IMAGENET_STD)
    model = DescriptorModel(ModelConfig("tokens", pooling=pooling, n_dimensions=0), backbone)  # type: ignore[arg-type]
    unit = np.array(expected) / np.linalg.norm(expected)
    assert model(images(1)).detach().numpy() == pytest.approx(unit[None], rel=1e-5)


def test_cls_pooling_needs_a_class_token() -> None:
    config = ModelConfig("squeezenet1_1", pooling="cls", n_dimensions=0)
    assert message(lambda: build_model(config, image_size=32)) == (
        "`pooling` cls: squeezenet1_1 has no class token; use gem, avg or max"
    )


# Neck and descriptor


@pytest.mark.parametrize("prelu", [False, True])
def test_a_descriptor_is_the_neck_of_the_pooled_features_at_length_one(prelu: bool) -> None:
    model = tiny_model(prelu=prelu)
    x = images()
    linear, norm = model.neck[0], model.neck[1]  # type: ignore[index]
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        pooled = model.gem(model.backbone(x))  # type: ignore[misc]
        expected = (pooled @ linear.weight.T - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight
        if prelu:
            expected = torch.where(expected > 0, expected, 0.25 * expected)
        given = model(x)
    assert given.numpy() == pytest.approx((expected / expected.norm(dim=1, keepdim=True)).numpy(), abs=1e-5)
    assert given.norm(dim=1).numpy() == pytest.approx(np.ones(3), abs=1e-6)
    assert given.shape == (3, 8)


def test_without_a_neck_the_descriptor_is_the_pooled_features() -> None:
    model = tiny_model(n_dimensions=0, pooling="avg")
    pooled = model.backbone(images()).mean(dim=(2, 3)).detach()
    assert model.d == 8
    assert not list(model.neck.parameters())
    assert model(images()).detach().numpy() == pytest.approx(nn.functional.normalize(pooled).numpy(), abs=1e-6)


def test_descriptors_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        given = tiny_model()(images())
    assert given.dtype == torch.float32
    assert given.detach().norm(dim=1).numpy() == pytest.approx(np.ones(3), abs=1e-6)


# Weights


def state() -> dict[str, Tensor]:
    """Of another tiny backbone."""
    return dict(tiny_model(seed=5).backbone.state_dict())


def assert_loaded(model: DescriptorModel) -> None:
    for name, value in state().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
def test_weights_are_loaded_from_both_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state(), path)
    else:
        torch.save(state(), path)
    model = tiny_model()
    load_backbone_weights(model, path)
    assert_loaded(model)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_a_training_checkpoint_of_several_gpus_is_unwrapped(tmp_path: Path, key: str) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"epoch": 3, key: {f"module.{name}": value for name, value in state().items()}}, path)
    model = tiny_model()
    load_backbone_weights(model, path)
    assert_loaded(model)


def test_the_heads_of_the_backbone_are_ignored_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    head = {"fc.weight": torch.zeros(1000, 8), "fc.bias": torch.zeros(1000)}
    torch.save(state() | head, path)
    model = tiny_model()
    load_backbone_weights(model, path)
    assert_loaded(model)
    torch.save(state() | head | {"fcx.weight": torch.zeros(2)}, path)
    assert message(load_backbone_weights, tiny_model(), path) == (
        f"{path} does not fit `backbone` tiny: fcx.weight is not known; name the network that the weights belong to"
    )


def test_a_head_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(state() | {"head.fc.weight": torch.zeros(1000, 8)}, path)
    model = tiny_model()
    model.heads = ("head.fc",)
    load_backbone_weights(model, path)
    assert_loaded(model)
    torch.save(state() | {"head.norm.weight": torch.zeros(8)}, path)
    assert "head.norm.weight is not known" in message(load_backbone_weights, model, path)


def test_weights_that_do_not_fit_are_listed_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    given = state()
    del given["4.bias"]
    given |= {"0.weight": torch.zeros(6, 3, 5, 5), "extra": torch.zeros(()), "1.bias": torch.zeros(())}
    torch.save(given, path)
    model = tiny_model()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    assert message(load_backbone_weights, model, path) == (
        f"{path} does not fit `backbone` tiny: 4.bias is missing; extra is not known; 0.weight is 6x3x5x5, "
        "expected 6x3x3x3; 1.bias is a scalar, expected 6; name the network that the weights belong to"
    )
    assert all(torch.equal(before[name], value) for name, value in model.backbone.state_dict().items())


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (torch.full((6, 3, 3, 3), torch.nan), "holds values that are not finite"),
        (torch.zeros(6, 3, 3, 3).index_fill(0, torch.tensor(1), torch.inf), "holds values that are not finite"),
        (torch.zeros(6, 3, 3, 3, dtype=torch.complex64), "is no plain tensor of real numbers"),
        (torch.zeros(6, 3, 3, 3).to_sparse(), "is no plain tensor of real numbers"),
    ],
    ids=["nan", "one infinite", "complex", "sparse"],
)
def test_weights_that_cannot_be_are_named(tmp_path: Path, broken: Tensor, fault: str) -> None:
    path = tmp_path / "weights.pt"
    torch.save(state() | {"0.weight": broken}, path)
    told = message(load_backbone_weights, tiny_model(), path)
    assert told == f"{path}: 0.weight {fault}; give weights that are whole"


def test_further_weights_that_cannot_be_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    nan = {name: torch.full_like(state()[name], torch.nan) for name in ("0.weight", "1.weight", "1.bias")}
    torch.save(state() | nan, path)
    told = message(load_backbone_weights, tiny_model(), path)
    assert told == f"{path}: 0.weight holds values that are not finite, as 2 others; give weights that are whole"


def test_a_long_list_of_misfits_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({}, path)
    assert message(load_backbone_weights, tiny_model(), path) == (
        f"{path} does not fit `backbone` tiny: 0.weight is missing; 1.weight is missing; 1.bias is missing; "
        "1.running_mean is missing; 1.running_var is missing and 5 more; name the network that the weights belong to"
    )


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({name: value for name, value in state().items() if "num_batches" not in name}, path)
    model = tiny_model()
    load_backbone_weights(model, path)
    assert_loaded(model)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.pt"
    assert message(read_state_dict, path) == f"{path}: there is no such weights file; check `weights`"


@pytest.mark.parametrize("content", [b"", b"garbage that is no pickle", b"<html>"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_garbage_is_not_a_weights_file(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    found = message(read_state_dict, path)
    assert found.startswith(f"{path} is not a weights file: ")
    if suffix == "pt":
        assert found.endswith(NOT_OF_TORCH)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1: torch.zeros(1)}, torch.zeros(3)])
def test_a_file_of_something_else_holds_no_state_dict(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    assert message(read_state_dict, path) == (
        f"{path} holds no state dict (tensors by name); save model.state_dict() with torch.save"
    )


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": Path("/")}, path)  # any class of which torch does not know that it is harmless
    assert message(read_state_dict, path) == f"{path} is not a weights file: {NOT_OF_TORCH}"


def test_a_weights_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    assert message(read_state_dict, path) == f"{path} is not a weights file: {NOT_OF_TORCH}"
