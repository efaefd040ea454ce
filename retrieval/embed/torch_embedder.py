"""Embedders that compute a model folder's network: with torch in its fastest form, or traced, with OpenVINO."""

import copy
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock, get_ident
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.optimization import fuse

from retrieval.arrays import FloatArray, UInt8Array
from retrieval.device_name import parse_device
from retrieval.embed.embedder import LEAST_GAIN, Embedder, JoinedEmbedder, require_finite
from retrieval.embed.onnx_export import CHECKED_BATCHES, WholeNetwork, made_images, whole_network
from retrieval.errors import LmrError
from retrieval.images.spec import ImageSpec
from retrieval.models.card import Card, ModelCard
from retrieval.models.checkpoint import load_network
from retrieval.models.config import DescriptorPart
from retrieval.models.device import explained, fast_dtype, keep_freed_memory, limit_threads, place
from retrieval.models.network import DescriptorModel, mean_descriptor, to_input
from retrieval.parallel import count_cores
from retrieval.stopwatch import OFF
from retrieval.threads import require_threads
from retrieval.words import counted

_tracing = Lock()

CPU_BATCH = 16  # images; measured: ResNet-50 in bf16 on 2 cores gains nothing in batches of 32 and more (cache)
GPU_BATCH = 128
REMEDY = "lower `size` or `scales`"  # for too little memory
GPU_AHEAD = 4  # batches decoded while the accelerator computes; on a CPU decoding and computing share the cores
LEAST_COSINE = 0.999  # of a compiled network's descriptor with that of torch; bfloat16 of either gave 0.9999 and more
COMPILING_S = 10.0  # about what torch.compile takes, and its gain: scripts/bench/engines.py
COMPILED_GAIN = 1.2
_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


class TorchEmbedder(Embedder):
    """A network made ready to embed images on one device.

    spec: preparation of an image, or several, over which descriptors are averaged as over scales. flip: also over the
    image and its mirror image. part: of the network. threads: of the CPU, None = as torch has them.
    LmrError: a network for images of another size.
    """

    def __init__(
        self,
        model: DescriptorModel,
        spec: ImageSpec | Sequence[ImageSpec],
        device: torch.device,
        *,
        flip: bool = False,
        part: DescriptorPart = "neck",
        n_workers: int = 2,
        threads: int | None = None,
    ) -> None:
        specs = [spec] if isinstance(spec, ImageSpec) else spec
        for each in specs:
            model.require_size(each.size)
        on_cpu = device.type == "cpu"
        if on_cpu:
            keep_freed_memory()
        batch_size, ahead = (CPU_BATCH, 0) if on_cpu else (GPU_BATCH, GPU_AHEAD)
        super().__init__(specs, model.length(part), batch_size=batch_size, ahead=ahead, n_workers=n_workers)
        self.device, self.flip, self.part, self.threads = device, flip, part, threads
        self.dtype = fast_dtype(device)
        self._copies_from_pinned = device.type == "cuda"
        n_threads = threads or torch.get_num_threads()
        with_threads = f" with {counted(n_threads, 'thread')}" if on_cpu else ""
        self.about = f"{str(self.dtype).removeprefix('torch.')} on {device}{with_threads}"
        self._model = _ready(model, device, self.dtype)
        self._adapted = self._model.adapted  # which is not compiled
        self._at_once: int | None = None  # images that a compiled network takes, no more and no fewer

    def compile(self, n_images: int) -> str:
        """Compiles the network by torch.compile where that pays for so many images; what came of it, for people.

        Its descriptors of made images are compared with those of the network as it is, which goes on where they
        differ, where it is not slower, and where the compiler fails.
        """
        made, eager_model = self._made_images(self.batch_size), self._model
        expected, eager_s = self._timed(made)
        if n_images * eager_s * (1 - 1 / COMPILED_GAIN) < COMPILING_S:
            return f"not compiled, which takes longer than it gains for {counted(n_images, 'image')}"
        began = time.perf_counter()
        self._model, self._at_once = torch.compile(eager_model, dynamic=False), self.batch_size  # type: ignore[assignment]
        try:
            with _silenced():
                vectors, image_s = self._timed(made)
            least = float((vectors * expected).sum(axis=1).min())
            gain = eager_s / image_s
            why = "" if gain >= LEAST_GAIN else f"it is {gain:.2f} times as fast"
            why = why if least >= LEAST_COSINE else f"it gives other descriptors, cosine {least:.4f}"
        except Exception as error:  # of the compiler, without a common base
            why = (str(error) or type(error).__name__).strip().splitlines()[0][:160]
        seconds = time.perf_counter() - began
        if why:
            self._model, self._at_once = eager_model, None
            return f"not compiled after a trial of {seconds:.1f} s: {why}"
        return f"compiled in {seconds:.1f} s, {gain:.2f} times as fast"

    def stacked(self, images: Sequence[UInt8Array]) -> UInt8Array:
        """Images as one batch; for CUDA in pinned memory, from which it copies without a stop."""
        place = self._pinned((len(images), *images[0].shape)) if self._copies_from_pinned else None
        return np.stack(images, out=None if place is None else place.numpy())

    @staticmethod
    def _pinned(shape: tuple[int, ...]) -> Tensor | None:
        """Memory of uint8 that the system leaves in its place; None where it gives none."""
        try:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        except RuntimeError:
            return None

    def embed_batch(self, *images: UInt8Array) -> FloatArray:
        """(b, size, size, 3) uint8 for each spec -> (b, d) float32 unit descriptors. LmrError: NaN, no memory."""
        largest = max(spec.size for spec in self.specs)
        with limit_threads(self.threads), torch.inference_mode():
            with self.watch.at("transfer"), explained(self.device, len(images[0]), largest, REMEDY):
                views = [
                    to_input(torch.from_numpy(given).permute(0, 3, 1, 2), spec, self.device)
                    for given, spec in zip(images, self.specs, strict=True)
                ]
                self._settle()
            with self.watch.at("forward"):
                described = self._adapted(mean_descriptor(self._compute, views, flip=self.flip))
                self._settle()
            with self.watch.at("transfer"):
                vectors = described.float().cpu().numpy()
        return require_finite(vectors)

    def _settle(self) -> None:
        """Waits for the device where its stages are measured; otherwise it goes on by itself."""
        if self.watch is not OFF and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _compute(self, x: Tensor) -> Tensor:
        with explained(self.device, len(x), x.shape[2], REMEDY):
            at_once = self._most or self._at_once
            if self._at_once is None or at_once is None or len(x) >= at_once:
                return self._forward(x)
            repeated = x[-1:].expand(at_once - len(x), *x.shape[1:])
            return self._forward(torch.cat([x, repeated]))[: len(x)]

    def _forward(self, x: Tensor) -> Tensor:
        autocast: Any = nullcontext()
        if self.dtype != torch.float32:
            autocast = torch.autocast(self.device.type, self.dtype)
        with autocast:
            descriptors: Tensor = self._model(x, self.part)
        return descriptors


def load_embedder(
    folder: Path, card: Card, device: torch.device, *, n_workers: int, threads: int | None = None
) -> Embedder:
    """The embedder of a card, with the weights in that folder. LmrError: missing or damaged."""
    members = [
        make_embedder(load_network(folder, member.card), member.card, device, n_workers=n_workers, threads=threads)
        for member in card.members
    ]
    if isinstance(card, ModelCard):
        return members[0]
    return JoinedEmbedder(members, [member.weight for member in card.members], n_workers=n_workers)


def make_embedder(
    model: DescriptorModel, card: ModelCard, device: torch.device, *, n_workers: int, threads: int | None = None
) -> TorchEmbedder:
    """The embedder of a network and its card."""
    how: dict[str, Any] = {"flip": card.flip, "part": card.descriptor, "n_workers": n_workers, "threads": threads}
    return TorchEmbedder(model, card.specs, device, **how)


def _ready(model: DescriptorModel, device: torch.device, dtype: torch.dtype) -> DescriptorModel:
    """A frozen copy for inference: batch norms folded into convolutions, where the network can be traced."""
    ready = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        ready.backbone = fuse(_traced(ready.backbone), no_trace=True)
    except (torch.fx.proxy.TraceError, TypeError, ValueError, NotImplementedError, RuntimeError):
        ready.backbone = copy.deepcopy(model.backbone).eval().requires_grad_(False)
    if dtype != torch.float32:
        ready.backbone.to(dtype)
    place(ready, device)
    return ready


class _Tracer(torch.fx.Tracer):
    """Traces what its own thread calls: torch has a tracer see the modules of all threads, which may be computing."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = get_ident()

    def call_module(
        self, m: torch.nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Does as torch, in the thread that traces."""
        if get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Does as torch, in the thread that traces."""
        if get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _traced(network: torch.nn.Module) -> torch.fx.GraphModule:
    """A network as a graph; one thread at a time, as torch does not put back what two of them patch."""
    with _tracing:
        return torch.fx.GraphModule(network, _Tracer().trace(network))


class OpenVinoEmbedder(Embedder):
    """A model folder's network or ensemble, compiled by OpenVINO and compared with torch.

    It computes on the CPU in the number format that torch would take; measured by scripts/bench/engines.py.
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
    try:
        with _silenced(), torch.inference_mode():
            traced = torch.jit.trace(whole, given, check_trace=False)  # type: ignore[no-untyped-call]
            network = openvino.convert_model(traced, example_input=given, input=shapes)
        return openvino.Core().compile_model(network, "CPU", settings)
    except Exception as error:  # of the tracer and of OpenVINO, without a common base
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:160]
        raise LmrError(f"`engine` openvino cannot compute this network: {reason}; use `engine` torch") from error


@contextmanager
def _silenced() -> Iterator[None]:
    """Without what tracers and compilers log and warn of: sizes that are fixed here, devices that are not there."""
    before = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
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
