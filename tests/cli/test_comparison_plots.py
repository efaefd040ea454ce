"""Figures of a comparison."""

from types import SimpleNamespace

from cli.report.comparison import plot_precision_recalls


def test_variants_of_one_recipe_have_different_names_in_a_figure():
    recipe = "slides:backbone=plain-cnn,pretrained=false,size=128,epochs=30"
    labels = [f"{recipe},backbone-option=pool={pool}" for pool in ("max", "avg")]
    curve = SimpleNamespace(recall=[0.0, 1.0], precision=[1.0, 0.5])
    figure = plot_precision_recalls(dict.fromkeys(enumerate(labels), curve))
    shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert shown == [f"slides:backbone=plain-c…backbone-option=pool={pool}" for pool in ("max", "avg")]
