"""Maps of a pair of images beside captum's occlusion. Prints one JSON document: seconds of the processor, and ratios.

    python scripts/bench/maps.py --index landmarks --sizes 224 328

For pairs of an index, each row and the row nearest to it, with the network and whitening of the index: the similarity
map, the nine maps by gradients, and the similarity map that captum's Occlusion makes on the same grid, place by place,
with the mean colour in its stead (Zeiler and Fergus 2013). Each image of a pair has a map. Medians over the pairs,
after one that does not count. `most_off` is the largest difference between a similarity and the sum of its map with
the rest; `alike` the median correlation of our map with that of the occlusion.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import Occlusion

from index.folder.folder import IndexFolder, open_folder
from retrieval.explain.maps import Pair
from retrieval.explain.network import ExplainedNetwork
from retrieval.explain.saliency import saliency_maps
from retrieval.explain.similarity import similarity_maps
from retrieval.models.card import EmbedSettings, Member
from retrieval.models.checkpoint import load_network
from retrieval.models.folder import read_any_card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    folder = open_folder(given.index, device="cpu")
    pairs = list(pairs_of(folder, given.pairs + 1, given.seed))
    figures = {str(size): measure(network_of(folder, size, given.threads), pairs) for size in given.sizes}
    print(json.dumps({"index": str(given.index), "pairs": given.pairs, "threads": given.threads, "sizes": figures}))


def network_of(folder: IndexFolder, size: int, threads: int) -> ExplainedNetwork:
    """The network of an index for images of this size."""
    members = read_any_card(folder.model_path).members
    loaded = [
        (load_network(folder.model_path, one.card), Member(one.card.adjusted(EmbedSettings(size=size)), one.weight))
        for one in members
    ]
    return ExplainedNetwork(loaded, folder.whitening, torch.device("cpu"), threads)


def pairs_of(folder: IndexFolder, n: int, seed: int) -> Any:
    """The encoded images of n rows and of those nearest to them."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(folder.rows))[:n])
    nearest = folder.nearest(folder.index.vectors(rows), 2).rows
    for row, found in zip(rows, nearest, strict=True):
        other = next(int(one) for one in found if one != row)
        yield tuple(Path(str(folder.rows.path[one])).read_bytes() for one in (int(row), other))


def measure(network: ExplainedNetwork, pairs: list[tuple[bytes, bytes]]) -> dict[str, float]:
    """Seconds of the processor for the maps of a pair, and how they compare."""
    seconds: dict[str, list[float]] = {"similarity": [], "gradients": [], "occlusion": []}
    wall, off, alike = [], [], []
    for query, row in pairs:
        with torch.no_grad():
            vector = network.descriptors(network.features(network.inputs([row]).tensors))[0].numpy()
        pair, began = Pair(query, row, vector), time.perf_counter()
        maps = timed(seconds["similarity"], lambda pair=pair: similarity_maps(network, pair))
        timed(seconds["gradients"], lambda pair=pair: saliency_maps(network, pair))
        wall.append(time.perf_counter() - began)
        (found,) = maps.maps
        assert found.row is not None
        for values, rest in ((found.query, found.query_rest), (found.row, found.row_rest)):
            off.append(abs(float(values.sum(dtype=np.float64)) + float(rest or 0) - maps.score))
        hidden = timed(
            seconds["occlusion"], lambda query=query, row=row, to=found.query.shape: occluded(network, query, row, to)
        )
        alike.append(float(np.corrcoef(hidden.ravel(), found.query.ravel())[0, 1]))
    told = {name: statistics.median(of[1:]) for name, of in seconds.items()}
    ours = told["similarity"] + told["gradients"]
    return {
        **{f"{name}_s": round(value, 4) for name, value in told.items()},
        "all_maps_s": round(ours, 4),
        "all_maps_wall_s": round(statistics.median(wall[1:]), 4),
        "occlusion_to_similarity": round(told["occlusion"] / told["similarity"], 2),
        "most_off": max(off),
        "alike": round(statistics.median(alike), 3),
    }


def timed(into: list[float], run: Callable[[], Any]) -> Any:
    """What a function returns; the seconds of the processor that it took are noted."""
    began = time.process_time()
    found = run()
    into.append(time.process_time() - began)
    return found


def occluded(network: ExplainedNetwork, query: bytes, row: bytes, grid: tuple[int, int]) -> np.ndarray:
    """The map of the query as captum's Occlusion makes it on this grid, and that of the row, which is only timed."""
    inputs = network.inputs([query, row]).tensors
    with torch.no_grad():
        others = network.descriptors(network.features(inputs)).flip(0)

        def score(x: torch.Tensor) -> torch.Tensor:
            other = others.repeat_interleave(len(x) // len(others), dim=0) if len(x) != len(others) else others
            return (network.descriptors(network.features((x,))) * other).sum(dim=1)

        step = (inputs[0].shape[2] // grid[0], inputs[0].shape[3] // grid[1])
        found = Occlusion(score).attribute(inputs[0], sliding_window_shapes=(3, *step), strides=(3, *step))
    middle = found[0].sum(dim=0)[step[0] // 2 :: step[0], step[1] // 2 :: step[1]]
    return middle[: grid[0], : grid[1]].numpy()


if __name__ == "__main__":
    main()
