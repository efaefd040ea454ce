from tiny_world import SIZE, tiny_model

from retrieval.models.summary import Layer, summarise, to_text


def test_layers_are_told_with_shapes_and_parameters_counted_by_hand() -> None:
    model = tiny_model()
    layers = summarise(model, SIZE)
    assert layers[:2] == [
        Layer("backbone.0", "Conv2d", (6, 7, 7), 3 * 6 * 9, 3 * 6 * 9),
        Layer("backbone.1", "BatchNorm2d", (6, 7, 7), 12, 12),
    ]
    assert [(layer.name, layer.kind, layer.shape) for layer in layers[-3:]] == [
        ("gem", "GeM", (8,)),
        ("neck.0", "Linear", (8,)),
        ("neck.1", "BatchNorm1d", (8,)),
    ]
    assert not model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_the_table_says_what_is_frozen_and_sums_everything() -> None:
    model = tiny_model()
    model.backbone.requires_grad_(False)
    lines = to_text(summarise(model, SIZE), model).splitlines()
    assert lines[1].split() == ["backbone.0", "Conv2d", "6", "x", "7", "x", "7", "162", "frozen"]
    n_backbone, n_rest = 162 + 12 + 6 * 8 * 9 + 16, 1 + 64 + 16
    assert lines[-1] == f"{n_backbone + n_rest} parameters, {n_rest} of them trained"
