"""Engines that compute descriptors of queries: onnxruntime or torch, and which of them an index folder is asked by.

An exported network lies beside the weights only where its descriptors were compared with torch's. It starts in a
fraction of the time, and computes in float32 on the CPU.
"""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from retrieval.errors import LmrError
from retrieval.extras import missing, require_extra
from retrieval.jobs import Job, option
from retrieval.models.config import PRECISION_VARIABLE

Engine = Literal["auto", "onnx", "torch"]
ENGINE_VARIABLE = "LMR_ENGINE"  # of the environment: what `auto` means
ONNX_NAME = "model.onnx"  # of an exported network in a model folder, in place of weights or beside them


@dataclass(frozen=True, kw_only=True)
class EngineJob(Job):
    """A job that embeds images by the network of an index folder."""

    engine: Engine = option(
        "auto",
        default_text="what starts fastest",
        help="What computes descriptors: onnx (the exported network beside the weights), or torch.",
    )


def asked_engine(engine: Engine | None) -> Engine:
    """The engine that was asked for, by the word or by LMR_ENGINE. LmrError for what is none."""
    word, asked = "`engine`", engine or "auto"
    if asked == "auto":
        word, asked = ENGINE_VARIABLE, cast(Engine, os.environ.get(ENGINE_VARIABLE) or "auto")
    if asked not in get_args(Engine):
        raise LmrError(f"{word} {asked}: not an engine; use {', '.join(get_args(Engine))}")
    return asked


def exported_beside(model: Path, engine: Engine | None, device: str) -> Path | None:
    """The exported network beside the weights of a model folder, where it computes; None where torch does.

    auto: it does where it is there, onnxruntime is installed, and torch would compute on the CPU in a format of its own
    choice. LmrError for `engine` onnx where there is none.
    """
    path, asked = model / ONNX_NAME, asked_engine(engine)
    if asked == "onnx":
        require_extra("`engine` onnx", "onnx", "onnxruntime")
        if not path.is_file():
            raise LmrError(
                f"`engine` onnx: {model} has no exported network; run the same lmr build-index again, which adds it "
                "or says why it cannot be"
            )
        return path
    if asked == "torch" or not path.is_file() or missing("onnxruntime"):
        return None
    is_free = os.environ.get(PRECISION_VARIABLE, "auto") in ("auto", "fp32")
    on_cpu = device.startswith("cpu") or (device == "auto" and not may_have_accelerator())
    return path if is_free and on_cpu else None


def may_have_accelerator() -> bool:
    """Tells, without torch, whether torch may find a device other than the CPU."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    if os.name == "nt":
        return shutil.which("nvidia-smi") is not None
    return any(any(Path("/dev").glob(name)) for name in ("nvidia[0-9]*", "dxg", "kfd"))
