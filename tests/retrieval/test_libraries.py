"""One network of torchvision or timm without the others, and all of them for whoever asks afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OF_TIMM = """
import sys
from retrieval.models.backbones import build_backbone
build_backbone("timm:mobilenetv3_small_050", {})
have = [name for name in ("mobilenetv3", "resnet", "vision_transformer") if f"timm.models.{name}" in sys.modules]
import timm
import timm.models.resnet
print(*have, "/", "vision_transformer" in vars(timm.models), timm.__version__)
names = timm.list_models()
everything = {}
exec("from timm.models import *", everything)
print(len(names), timm.models.vision_transformer.__name__, "vit_tiny_patch16_224" in everything, timm.layers.__name__)
print(timm.create_model("resnet18", num_classes=0).num_features)
"""
OF_TORCHVISION = """
import sys
from retrieval.models.backbones import build_backbone
build_backbone("mobilenet_v2", {})
modules = ("torchvision.models.mobilenetv2", "torchvision.models.resnet", "torchvision.io", "torch._dynamo")
print(*(name for name in modules if name in sys.modules))
import torchvision.models.resnet
import torchvision
print(len(torchvision.models.list_models()), torchvision.ops.nms.__name__, torchvision.__version__)
everything = {}
exec("from torchvision.models import *", everything)
print("vit_b_16" in everything, torchvision.models.get_model("resnet18").fc.in_features)
"""


def lines_of(program: str) -> list[str]:
    """What a program prints in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return said.stdout.splitlines()


def test_a_network_needs_its_own_module_of_torchvision_and_leaves_all_of_torchvision_to_others() -> None:
    import torchvision

    assert lines_of(OF_TORCHVISION) == [
        "torchvision.models.mobilenetv2",
        f"{len(torchvision.models.list_models())} nms {torchvision.__version__}",
        "True 512",
    ]


def test_a_network_needs_its_own_module_of_timm_and_leaves_all_of_timm_to_others() -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    assert lines_of(OF_TIMM) == [
        f"mobilenetv3 / False {timm.__version__}",
        f"{len(timm.list_models())} timm.models.vision_transformer True timm.layers",
        "512",
    ]
