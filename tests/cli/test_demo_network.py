"""Which network `lmr demo` trains."""

from pathlib import Path

import pytest

from cli.demo.command import _network

OWN = {"backbone": "resnet18", "weights": None, "pretrained": False, "size": 64, "last_layer": None}


@pytest.mark.parametrize(
    ("change", "last_layer"),
    [
        ({}, "layer3"),
        ({"size": 127}, "layer3"),
        ({"size": 128}, None),
        ({"pretrained": True}, None),
        ({"weights": Path("w.pt")}, None),
        ({"backbone": "mobilenet_v3_small"}, None),
        ({"last_layer": "layer4"}, "layer4"),
    ],
)
def test_a_small_network_from_scratch_ends_at_layer3(change, last_layer):
    assert _network(OWN | change)["last_layer"] == last_layer
