"""Verification of 20 images for a query from cached local features: time and right decisions, on one core.

Ours beside what hloc's matcher does (float32 inner products in torch, the two nearest of each side, ratio test,
mutual), followed by plain cv2.findHomography(RANSAC), on the same RootSIFT features in the same run. Queries are drawn
from train.csv with as many images of their landmark as of others; a threshold on the number of inliers is chosen on
half of the queries and judged on the other half, and the other way round: the one with most right decisions, and the
lowest that at most 1 % of the images of other landmarks reach. Ours a second time without the diameters and directions
of keypoints. Processor time. Prints JSON.

    python scripts/bench/verify_speed.py --data ../shared/photos
"""

import argparse
import csv
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from retrieval.local.config import LocalOptions
from retrieval.local.extractor import Extractor, open_extractor
from retrieval.local.features import LocalFeatures, PackedFeatures
from retrieval.local.geometry import verify
from retrieval.local.packing import unpack
from retrieval.local.verifier import NearestMatcher

N_CANDIDATES = 20
HLOC_RATIO = 0.8  # of hloc's configuration NN-ratio
HLOC_THRESHOLD_PX = 3.0  # the default of cv2.findHomography
KEYPOINTS = 1000
WAYS = ("ours", "ours_without_frames", "hloc_style")


class Stopwatch:
    """Processor time by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of work, whose time is added to the name."""
        start = time.process_time()
        result = work()
        self.seconds[name] += time.process_time() - start
        return result


def main() -> None:
    """Draws the pairs, runs both, and prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--timed", type=int, default=25, help="Queries among images with all keypoints.")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not (args.data / "train.csv").exists():
        sys.exit(f"{args.data}: the photographs are not there; give --data")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with threadpool_limits(1):
        print(json.dumps(measure(args.data, args.queries, args.timed, args.seed), indent=1))


def measure(data: Path, n_queries: int, n_timed: int, seed: int) -> dict[str, Any]:
    """The whole run."""
    rng = np.random.default_rng(seed)
    with (data / "train.csv").open() as file:
        landmark = {row["id"]: row["landmark_id"] for row in csv.DictReader(file)}
    queries = draw(rng, landmark, n_queries)
    extractor = open_extractor(LocalOptions(kind="rootsift", n_keypoints=KEYPOINTS))
    watch = Stopwatch()
    packed = extract(watch, extractor, data, sorted({name for query, others in queries for name in (query, *others)}))
    decided = compare(Stopwatch(), extractor, packed, queries)
    same = np.array([[landmark[other] == landmark[query] for other in others] for query, others in queries])
    full = [name for name, features in packed.items() if len(features) >= KEYPOINTS]
    timed = [(one, rng.choice(full, N_CANDIDATES, replace=False).tolist()) for one in rng.choice(full, n_timed)]
    at_full = Stopwatch()
    compare(at_full, extractor, packed, timed)
    ways = {way: {**times(at_full, way, n_timed), **decisions(decided[way], same)} for way in WAYS}
    first, last = ways["ours"], ways["hloc_style"]
    return {
        "opencv": cv2.__version__,
        "torch": torch.__version__,
        "images": len(packed),
        "extract_ms_per_image": 1000 * watch.seconds["extract"] / len(packed),
        "keypoints_per_image": float(np.mean([len(features) for features in packed.values()])),
        "pairs": same.size,
        "pairs_of_one_landmark": int(same.sum()),
        "timed": f"{n_timed} queries x {N_CANDIDATES} images, {KEYPOINTS:,} keypoints each",
        **ways,
        "times_as_fast": last["total_ms_per_query"] / first["total_ms_per_query"],
        "more_right_decisions": first["most_right"]["right_decisions"] - last["most_right"]["right_decisions"],
    }


def times(watch: Stopwatch, way: str, n_queries: int) -> dict[str, Any]:
    """Milliseconds of a query, of each step and together."""
    steps = {name.split()[1]: 1000 * s / n_queries for name, s in watch.seconds.items() if name.split()[0] == way}
    return {"ms_per_query": steps, "total_ms_per_query": sum(steps.values())}


def draw(rng: np.random.Generator, landmark: dict[str, str], n: int) -> list[tuple[str, list[str]]]:
    """Queries, each with half of the candidates from its own landmark and half from others."""
    names, half = sorted(landmark), N_CANDIDATES // 2
    large = [name for name in names if sum(other == landmark[name] for other in landmark.values()) > half]
    queries = []
    for query in rng.choice(large, n, replace=False).tolist():
        same = [name for name in names if landmark[name] == landmark[query] and name != query]
        others = [name for name in names if landmark[name] != landmark[query]]
        drawn = [rng.choice(side, half, replace=False).tolist() for side in (same, others)]
        queries.append((query, [*drawn[0], *drawn[1]]))
    return queries


def extract(watch: Stopwatch, extractor: Extractor, data: Path, names: list[str]) -> dict[str, PackedFeatures]:
    """Local features as a store keeps them."""
    packed = {}
    for name in names:
        image = extractor.decode((data / "images" / f"{name}.jpg").read_bytes())
        packed[name] = watch.run("extract", lambda image=image: extractor.pack(image))
    return packed


def compare(
    watch: Stopwatch, extractor: Extractor, packed: dict[str, PackedFeatures], queries: list[tuple[str, list[str]]]
) -> dict[str, Any]:
    """Inliers of each way, (q, N_CANDIDATES)."""
    inliers = []
    for query, others in queries:
        features = [packed[name] for name in (query, *others)]
        one, *rest = watch.run("ours read", partial(unpack_all, extractor, features))
        plain, *others_plain = (replace(features, frames=None) for features in (one, *rest))
        inliers.append(
            {
                "ours": ours(watch, "ours", one, rest),
                "ours_without_frames": ours(watch, "ours_without_frames", plain, others_plain),
                "hloc_style": hloc_style(watch, one, rest),
            }
        )
    return {name: np.array([found[name] for found in inliers]) for name in WAYS}


def unpack_all(extractor: Extractor, packed: list[PackedFeatures]) -> list[LocalFeatures]:
    """From the bytes of a store to float32."""
    return [unpack(extractor.card, features) for features in packed]


def ours(watch: Stopwatch, name: str, one: LocalFeatures, rest: list[LocalFeatures]) -> list[int]:
    """Inliers by the program's own matching and geometry."""
    pairs = watch.run(f"{name} match", lambda: NearestMatcher().match_many(one, rest))
    found = watch.run(f"{name} geometry", lambda: [verify(one, *item) for item in zip(rest, pairs, strict=True)])
    return [match.n_inliers for match in found]


def hloc_style(watch: Stopwatch, one: LocalFeatures, rest: list[LocalFeatures]) -> list[int]:
    """Inliers by the other way, whose features are ready in float32."""
    query, *others = (torch.from_numpy(np.array(features.descriptors)) for features in (one, *rest))
    pairs = watch.run("hloc_style match", lambda: [mutual(query, other) for other in others])
    return watch.run("hloc_style geometry", lambda: [ransac(one, *item) for item in zip(rest, pairs, strict=True)])


def mutual(one: torch.Tensor, other: torch.Tensor) -> Any:
    """(m, 2): nearest of both sides that pass the ratio test, as hloc's NearestNeighbor finds them."""
    if len(one) < 2 or len(other) < 2:
        return np.zeros((0, 2), np.int64)
    similarity = torch.einsum("nd,md->nm", one, other)
    forward, backward = nearest(similarity), nearest(similarity.T)
    back = torch.where(forward >= 0, backward[forward.clamp(min=0)], -1)
    kept = torch.nonzero(back == torch.arange(len(one)))[:, 0]
    return torch.stack([kept, forward[kept]], dim=1).numpy()


def nearest(similarity: torch.Tensor) -> torch.Tensor:
    """The nearest column of each row, -1 where the second is about as near."""
    values, at = similarity.topk(2, dim=1)
    distance = 2 * (1 - values)
    return torch.where(distance[:, 0] <= HLOC_RATIO**2 * distance[:, 1], at[:, 0], -1)


def ransac(one: LocalFeatures, other: LocalFeatures, pairs: Any) -> int:
    """Inliers of one homography."""
    if len(pairs) < 4:
        return 0
    _, mask = cv2.findHomography(one.points[pairs[:, 0]], other.points[pairs[:, 1]], cv2.RANSAC, HLOC_THRESHOLD_PX)
    return 0 if mask is None else int(mask.sum())


def decisions(inliers: Any, same: Any) -> dict[str, Any]:
    """Both halves together, each by the thresholds that are best on the other."""
    halves = [np.arange(len(same)) % 2 == side for side in (0, 1)]
    told = {"most_right": most_right, "at_most_1_percent_false": few_false}
    return {name: judged(inliers, same, halves, choose) for name, choose in told.items()}


def judged(inliers: Any, same: Any, halves: list[Any], choose: Callable[[Any, Any], int]) -> dict[str, Any]:
    """The decisions by thresholds that are chosen in one way."""
    thresholds = [choose(inliers[half], same[half]) for half in halves]
    of_query = np.where(halves[0], thresholds[1], thresholds[0])[:, None]
    accepted = inliers >= of_query
    return {
        "threshold_inliers": thresholds,
        "right_decisions": int((accepted == same).sum()),
        "share_right": float((accepted == same).mean()),
        "found": float(accepted[same].mean()),
        "false": float(accepted[~same].mean()),
    }


def most_right(inliers: Any, same: Any) -> int:
    """The lowest number of inliers from which most decisions are right."""
    return max(range(1, 200), key=lambda threshold: ((inliers >= threshold) == same).sum())


def few_false(inliers: Any, same: Any) -> int:
    """The lowest number of inliers that at most 1 % of the images of other landmarks have."""
    return next(threshold for threshold in range(1, 10_000) if (inliers[~same] >= threshold).mean() <= 0.01)


if __name__ == "__main__":
    main()
