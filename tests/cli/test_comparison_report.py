"""The page of a comparison: what it says of the settings that ran, numbers, and links."""

from cli.report.comparison import in_words
from retrieval.train.recipes.recipe import Recipe


def recipe(**tables) -> Recipe:
    return Recipe("r", "r.toml", "EfficientNet-Lite0 at 256 pixels.", tables)


def test_the_words_are_those_of_the_settings_that_ran_and_not_the_recipes_text():
    ran = recipe(train={"backbone": "resnet18", "size": 64, "epochs": 1}, embed={"size": 82, "fit": "pad"})
    assert in_words(ran) == (
        "Trained: resnet18, from random weights, 64 px, epochs: 1. Embedded at 82 px, pad. "
        "Answered by the calibrated vote of the neighbours."
    )


def test_a_network_that_nothing_trains_is_said_to_be_untrained():
    ran = recipe(embed={"backbone": "resnet18", "flip": True}, answer={"by": "majority", "neighbours": 7})
    assert in_words(ran) == (
        "A network that was not trained here. Embedded averaged with the mirror image. "
        "Answered by the plain vote of 7 neighbours."
    )
