"""One network of timm without the others, and all of timm for whoever asks afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
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


def test_a_network_needs_its_own_module_of_timm_and_leaves_all_of_timm_to_others() -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert said.splitlines() == [
        f"mobilenetv3 / False {timm.__version__}",
        f"{len(timm.list_models())} timm.models.vision_transformer True timm.layers",
        "512",
    ]
