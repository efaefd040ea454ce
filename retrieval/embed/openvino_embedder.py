"""Embedder that computes with OpenVINO: the network of a model folder, traced by torch, on the CPU.

It computes in the number format that torch would take, and from the same weights; measured by scripts/bench/engines.py.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval.arrays import FloatArray, UInt8Array
from retrieval.device_name import parse_device
from retrieval.embed.embedder import Embedder, require_finite
from retrieval.embed.onnx_export import CHECKED_BATCHES, WholeNetwork, made_images, whole_network
from retrieval.embed.torch_embedder import CPU_BATCH
from retrieval.errors import LmrError
from retrieval.models.card import Card
from retrieval.models.device import fast_dtype
from retrieval.parallel import count_cores
from retrieval.threads import require_threads
from retrieval.words import counted

LEAST_COSINE = 0.999  # of a descriptor with torch's in float32; bfloat16 of either gave 0.9999 and more
_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


class OpenVinoEmbedder(Embedder):
    """A model folder's network or ensemble, compiled by OpenVINO and compared with torch.

    threads: of the CPU, None = all cores.
    LmrError: another device than the CPU, weights missing or damaged, a network that cannot be traced or
    then gives other descriptors.
    """

    def __init__(self, folder: Path, card: Card, *, device: str, threads: int | None, n_workers: int) -> None:
        if parse_device(device).kind not in ("auto", "cpu"):
            raise LmrError(f"`engine` openvino computes on the CPU, not on `device` {device}; leave one of them out")
        n_threads, dtype = threads or count_cores(), fast_dtype(torch.device("cpu"))
        require_threads(n_threads)
        whole = whole_network(folder, card)
        self._network = _compiled(whole, n_threads, _PRECISIONS[dtype])
        d = int(self._network.output(0).partial_shape[1].get_length())
        super().__init__(card.specs, d, batch_size=CPU_BATCH, n_workers=n_workers)
        _require_alike(self, whole)
        name = str(dtype).removeprefix("torch.")
        self.about = f"{name} by OpenVINO on cpu with {counted(n_threads, 'thread')}"

    def embed_batch(self, *images: UInt8Array) -> FloatArray:
        """(b, size, size, 3) uint8 for each spec -> (b, d) float32 unit descriptors. LmrError: NaN."""
        with self.watch.at("forward"):
            vectors = np.array(self._network(list(images))[0], dtype=np.float32)
        return require_finite(vectors)


def _compiled(whole: WholeNetwork, n_threads: int, precision: str) -> Any:
    """OpenVINO's network for any number of images at once. LmrError where it cannot be made."""
    import openvino

    given = tuple(map(torch.from_numpy, made_images(whole.specs, 2)))
    shapes = [openvino.PartialShape([-1, spec.size, spec.size, 3]) for spec in whole.specs]
    settings = {
        "INFERENCE_NUM_THREADS": n_threads,
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # threads that decode share the cores
    }
    before = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # what tracing says of sizes that are fixed here
            traced = torch.jit.trace(whole, given, check_trace=False)  # type: ignore[no-untyped-call]
            network = openvino.convert_model(traced, example_input=given, input=shapes)
        return openvino.Core().compile_model(network, "CPU", settings)
    except Exception as error:  # of the tracer and of OpenVINO, without a common base
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:160]
        raise LmrError(f"`engine` openvino cannot compute this network: {reason}; use `engine` torch") from error
    finally:
        logging.disable(before)


def _require_alike(embedder: OpenVinoEmbedder, whole: WholeNetwork) -> None:
    """LmrError where descriptors of made images are not torch's, for any number of images at once."""
    for n in CHECKED_BATCHES:
        images = made_images(whole.specs, n)
        with torch.inference_mode():
            expected = whole(*map(torch.from_numpy, images)).numpy()
        least = float((embedder.embed_batch(*images) * expected).sum(axis=1).min())
        if not least >= LEAST_COSINE:
            raise LmrError(
                f"`engine` openvino gives other descriptors than torch (cosine {least:.4f} for batches of {n}); use "
                "`engine` torch"
            )
