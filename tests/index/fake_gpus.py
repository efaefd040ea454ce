"""GPUs as FAISS has them, in memory of the CPU: they round to float16, cut sums off, and run out of room."""

from types import SimpleNamespace

import faiss
import numpy as np

from index.search import gpu

OUT_OF_MEMORY = (
    "Error in virtual void* faiss::gpu::StandardGpuResourcesImpl::allocMemory(const faiss::gpu::AllocRequest&) at "
    "/project/faiss/gpu/StandardGpuResources.cpp:530: Error: 'err == cudaSuccess' failed: StandardGpuResources: alloc "
    "fail type FlatData dev 0 space Device stream 0x55 size 16777216 bytes (cudaMalloc error out of memory [2])\n"
)


class FakeGpus:
    """So many GPUs with so much room each. rows: that each holds; n_searches: of all; scratch: bytes set aside."""

    def __init__(self, n=1, free_bytes=1 << 40):
        self.n, self.free_bytes = n, free_bytes
        self.rows = dict.fromkeys(range(n), 0)
        self.n_searches = 0
        self.scratch = []
        self.options = []

    def install(self, monkeypatch):
        """Puts them where FAISS looks for them."""

        def resources():
            return SimpleNamespace(setTempMemory=self.scratch.append, setPinnedMemory=lambda size: None)

        def flat(resources, d, config):
            return _HalfFlat(self, config.device, d) if config.useFloat16 else _counted_flat(self, config.device, d)

        fakes = {
            "get_num_gpus": lambda: self.n,
            "StandardGpuResources": resources,
            "GpuIndexFlatConfig": SimpleNamespace,
            "GpuMultipleClonerOptions": SimpleNamespace,
            "GpuIndexFlatIP": flat,
            "index_cpu_to_gpu_multiple_py": self._copy,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(faiss, name, fake, raising=False)
        gpu._resources.cache_clear()
        return self

    def take(self, device, n_bytes):
        """Fails as FAISS does where there is too little room."""
        self.free_bytes -= n_bytes
        if self.free_bytes < 0:
            raise RuntimeError(OUT_OF_MEMORY)

    def _copy(self, resources, index, options, devices):
        """A part of the codes on each, beside centroids whose last bits are other ones."""
        if not isinstance(index, faiss.IndexIVFScalarQuantizer):
            raise RuntimeError("This index type is not implemented on GPU.")
        assert options.shard == (len(devices) > 1)
        assert len(resources) == len(devices)
        parts = [self._part(index, len(devices), device, i) for i, device in enumerate(devices)]
        if len(parts) == 1:
            return parts[0]
        shards = faiss.IndexShards(index.d, True, False)
        for part in parts:
            shards.add_shard(part)
        return shards

    def _part(self, index, n, device, i):
        centroids = index.quantizer.reconstruct_n(0, index.nlist)
        coarse = faiss.IndexFlatIP(index.d)
        coarse.add(np.nextafter(centroids, np.float32(2)))
        part = faiss.IndexIVFScalarQuantizer(coarse, index.d, index.nlist, index.sq.qtype, index.metric_type)
        part.sq, part.is_trained, part.by_residual = index.sq, True, index.by_residual
        index.copy_subset_to(part, 1, n, i)  # those whose number leaves i when divided by n
        self.take(device, part.ntotal * index.code_size)
        self.rows[device] += part.ntotal
        return part


class _HalfFlat:
    """Rows in float16; of equal scores the last row comes first."""

    def __init__(self, gpus, device, d):
        self._gpus, self._device = gpus, device
        self._rows = np.empty((0, d), np.float16)

    def add(self, rows):
        assert len(self._rows) == 0, "FAISS copies all that is there"
        self._gpus.take(self._device, 2 * rows.size)
        self._gpus.rows[self._device] += len(rows)
        with np.errstate(over="ignore"):
            self._rows = rows.astype(np.float16)

    def search(self, queries, k):
        assert k <= min(2048, len(self._rows))
        self._gpus.take(self._device, 0)
        self._gpus.n_searches += 1
        with np.errstate(over="ignore", invalid="ignore"):
            exact = queries.astype(np.float16).astype(np.float64) @ self._rows.astype(np.float64).T
            scores = exact.astype(np.float32)
            scores = np.where(np.abs(scores) > np.abs(exact), np.nextafter(scores, np.float32(0)), scores)
        order = np.argsort(-scores[:, ::-1], axis=1, kind="stable")[:, :k]
        order = scores.shape[1] - 1 - order
        return np.take_along_axis(scores, order, axis=1), order


def _counted_flat(gpus, device, d):
    """One that centroids are found with, by a clustering that wants an index of FAISS's own."""
    gpus.take(device, 1)
    gpus.options.append(device)
    return faiss.IndexFlatIP(d)
