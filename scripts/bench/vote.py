"""Vote and GAP at the size of Google Landmarks: seconds and memory, beside two other ways to vote. Prints JSON.

    python scripts/bench/vote.py

117,703 queries x 10 neighbours over 203,094 landmarks with 4.1 million rows, made up with a seed. The others are a
loop with a dict per query (on a part of the queries, scaled up) and pandas' groupby (on all); all give the same votes.
"""

import json
import math
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from index.metrics import gap
from index.search.base import Neighbours
from index.vote import best, vote
from index.vote_rule import VoteRule

N_QUERIES, K, N_LANDMARKS, N_ROWS = 117_703, 10, 203_094, 4_132_914
N_LANDMARK_QUERIES = 1_972  # of GLDv2's test set
LOOP_PART = 5_000
N_REPEATS = 5


def main() -> None:
    found, landmark, truth, image_id = made_up()
    rule = VoteRule(k=K)
    counts = np.bincount(landmark, minlength=N_LANDMARKS)
    base_mb = resident_mb()
    peak = PeakMemory()
    seconds, (answer, value) = timed(lambda: answers(found, landmark, rule, counts, truth, image_id))
    peak_mb = peak.stop()
    voting, _ = timed(lambda: vote(found, landmark, rule, counts=counts))
    counted, _ = timed(lambda: answers(found, landmark, rule, None, truth, image_id))
    grouped, by_pandas = timed(lambda: pandas_vote(found, landmark, rule, counts))
    loop, by_loop = timed(lambda: loop_vote(found, landmark, rule, counts, LOOP_PART), 1)
    same = bool((by_pandas == answer).all() and (by_loop == answer[:LOOP_PART]).all())
    report = {
        "n_queries": N_QUERIES,
        "k": K,
        "n_landmarks": N_LANDMARKS,
        "n_rows": N_ROWS,
        "vote_and_gap_s": round(seconds, 3),
        "vote_s": round(voting, 3),
        "vote_and_gap_with_counting_rows_s": round(counted, 3),
        "memory_above_inputs_mb": round(peak_mb - base_mb, 1),
        "peak_of_the_process_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "gap": value,
        "pandas_groupby_vote_s": round(grouped, 3),
        "dict_loop_vote_s_scaled_up": round(loop * N_QUERIES / LOOP_PART, 3),
        "vote_ratio_to_pandas": round(grouped / voting, 2),
        "vote_ratio_to_dict_loop": round(loop * N_QUERIES / LOOP_PART / voting, 2),
        "same_answers": same,
    }
    print(json.dumps(report, indent=1))


def made_up() -> tuple[Neighbours, Any, Any, Any]:
    """Neighbours that name few landmarks per query, as a real search does, row labels, truths and names."""
    rng = np.random.default_rng(0)
    landmark = np.sort(rng.integers(0, N_LANDMARKS, N_ROWS)).astype(np.int32)
    centre = rng.integers(0, N_ROWS, N_QUERIES)
    rows = (centre[:, None] + rng.integers(0, 100, (N_QUERIES, K))) % N_ROWS
    scores = -np.sort(-rng.uniform(0.2, 0.9, (N_QUERIES, K)).astype(np.float32), axis=1)
    truth = np.full(N_QUERIES, -1, dtype=np.int32)
    shown = rng.choice(N_QUERIES, N_LANDMARK_QUERIES, replace=False)
    truth[shown] = landmark[centre[shown]]
    image_id = np.array([f"{i:016x}" for i in rng.permutation(N_QUERIES)], dtype=object)
    return Neighbours(rows, scores), landmark, truth, image_id


def answers(found: Neighbours, landmark: Any, rule: VoteRule, counts: Any, truth: Any, image_id: Any) -> Any:
    answer, score = best(vote(found, landmark, rule, counts=counts), found.n_queries)
    return answer, gap(score, (answer == truth) & (truth >= 0), int((truth >= 0).sum()), image_id)


def pandas_vote(found: Neighbours, landmark: Any, rule: VoteRule, counts: Any) -> Any:
    table = pd.DataFrame(
        {
            "query": np.repeat(np.arange(found.n_queries), K),
            "landmark": landmark[found.rows.ravel()],
            "weight": np.exp(found.scores.ravel().astype(np.float64) / rule.tau),
        }
    )
    total = table.groupby(["query", "landmark"])["weight"].sum().reset_index()
    total["score"] = rule.tau * np.log(total["weight"] / counts[total["landmark"]] ** rule.r)
    total = total.sort_values(["query", "score", "landmark"], ascending=[True, False, True])
    return total.drop_duplicates("query")["landmark"].to_numpy()


def loop_vote(found: Neighbours, landmark: Any, rule: VoteRule, counts: Any, n_queries: int) -> Any:
    answer = []
    for rows, scores in zip(found.rows[:n_queries].tolist(), found.scores[:n_queries].tolist(), strict=True):
        sums: dict[int, float] = {}
        for row, score in zip(rows, scores, strict=True):
            label = int(landmark[row])
            sums[label] = sums.get(label, 0.0) + math.exp(score / rule.tau)
        soft = {label: rule.tau * math.log(s / int(counts[label]) ** rule.r) for label, s in sums.items()}
        answer.append(min(soft, key=lambda label: (-soft[label], label)))
    return np.array(answer)


def timed(work: Callable[[], Any], n_repeats: int = N_REPEATS) -> tuple[float, Any]:
    """Best seconds of some repeats, and the last result."""
    seconds = float("inf")
    for _ in range(n_repeats):
        start = time.perf_counter()
        result = work()
        seconds = min(seconds, time.perf_counter() - start)
    return seconds, result


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


class PeakMemory:
    """Largest resident memory while it runs, looked at every 2 ms."""

    def __init__(self) -> None:
        self._running, self._peak_mb = True, 0.0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> float:
        self._running = False
        self._thread.join()
        return self._peak_mb

    def _watch(self) -> None:
        while self._running:
            self._peak_mb = max(self._peak_mb, resident_mb())
            time.sleep(0.002)


if __name__ == "__main__":
    main()
