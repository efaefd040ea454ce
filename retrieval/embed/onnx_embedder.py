"""Embedder that computes with onnxruntime: an exported network (ONNX), without torch.

The file holds everything: it takes prepared images, uint8 (b, size, size, 3), one input for each way in which they
are prepared, and gives unit descriptors. Its metadata says what it is: the card of the model that it was made of.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.arrays import FloatArray, UInt8Array
from retrieval.device_name import parse_device
from retrieval.embed.embedder import Embedder, require_finite
from retrieval.embed.onnx_digest import require_as_written
from retrieval.errors import LmrError, NoMemoryError
from retrieval.extras import install_hint
from retrieval.files.utf8_path import utf8_path
from retrieval.models.card import Card, parse_card
from retrieval.threads import require_threads
from retrieval.words import counted

if TYPE_CHECKING:
    import onnxruntime

CARD_KEY, INPUTS_KEY = "lmr.card", "lmr.inputs"  # of the metadata: model.json, and the ImageSpec of each input
OUTPUT = "descriptors"
CPU_BATCH = 16  # images, as with torch
GPU_BATCH = 128
GPU_AHEAD = 4  # batches


def read_onnx_card(path: Path) -> Card:
    """The card of the model that an ONNX file was made of. LmrError: missing, damaged, not made by lmr export."""
    return _card_of(_session(path, ["CPUExecutionProvider"], optimised=False), path)


def providers_of(device: str) -> list[Any]:
    """Providers of onnxruntime for the first device of a name. LmrError when it is not there."""
    runtime, parsed = _runtime(), parse_device(device)
    if parsed.kind == "mps":
        raise LmrError(f"`device` {device}: an ONNX file runs on auto, cpu, cuda or cuda:N")
    has_cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
    if parsed.kind == "cpu" or (parsed.kind == "auto" and not has_cuda):
        return ["CPUExecutionProvider"]
    if not has_cuda:
        raise LmrError(f"`device` {device}: this onnxruntime has no CUDA; install onnxruntime-gpu or use `device` cpu")
    number = parsed.numbers[0] if parsed.numbers else 0
    return [("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]


class OnnxEmbedder(Embedder):
    """An ONNX file that `lmr export` wrote, ready to embed images.

    providers: from `providers_of`. threads: of the CPU, None = all cores. n_workers: decoding threads.
    LmrError: missing, damaged, or made of another model than the card's.
    """

    def __init__(self, path: Path, card: Card, providers: list[Any], threads: int | None, n_workers: int) -> None:
        self._session = _session(path, providers, threads=threads)
        made_of = _card_of(self._session, path)
        if made_of.fingerprint != card.fingerprint:
            raise LmrError(
                f"{path} was made of model {made_of.fingerprint[:8]}, not of {card.fingerprint[:8]}; "
                "run lmr export again"
            )
        self._names = [given.name for given in self._session.get_inputs()]
        on_cpu = providers[0] == "CPUExecutionProvider"
        super().__init__(
            card.specs,
            int(self._session.get_outputs()[0].shape[1]),
            batch_size=CPU_BATCH if on_cpu else GPU_BATCH,
            ahead=0 if on_cpu else GPU_AHEAD,
            n_workers=n_workers,
        )
        with_threads = f" with {counted(threads, 'thread')}" if threads else ""
        self.about = f"onnxruntime on {'cpu' if on_cpu else 'cuda'}{with_threads}"

    def embed_batch(self, *images: UInt8Array) -> FloatArray:
        """Descriptors of a batch, as the file gives them. LmrError: NaN, no memory."""
        try:
            with self.watch.at("forward"):
                (vectors,) = self._session.run([OUTPUT], dict(zip(self._names, images, strict=True)))
        except Exception as error:  # onnxruntime's errors have no common base
            if "llocate memory" not in str(error):
                raise
            raise NoMemoryError(
                f"not enough memory for batches of {counted(len(images[0]), 'picture')}; export at a lower `size`"
            ) from error
        return require_finite(np.asarray(vectors, dtype=np.float32))


def _card_of(session: "onnxruntime.InferenceSession", path: Path) -> Card:
    stated = session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
    if stated is None:
        raise LmrError(f"{path} is not an ONNX file of lmr (no {CARD_KEY} in its metadata); lmr export makes one")
    try:
        return parse_card(json.loads(stated), str(path))
    except ValueError as error:
        raise LmrError(f"{path} is damaged ({error}); run lmr export again") from error


def _session(
    path: Path, providers: list[Any], *, optimised: bool = True, threads: int | None = None
) -> "onnxruntime.InferenceSession":
    runtime = _runtime()
    if not path.is_file():
        raise LmrError(f"{path}: there is no such file; lmr export makes one")
    if threads is not None:
        require_threads(threads)
    require_as_written(path)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone; they are raised besides
    options.intra_op_num_threads = threads or 0
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        with utf8_path(path) as place:
            return runtime.InferenceSession(place, options, providers=providers)
    except LmrError:
        raise
    except Exception as error:  # onnxruntime's errors have no common base
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise LmrError(
            f"{path} cannot be opened as ONNX by onnxruntime {runtime.__version__}: {reason}; give another file, or "
            "make one with lmr export"
        ) from error


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise LmrError(f"ONNX files need onnxruntime; {install_hint('onnx')}") from error
    return onnxruntime
