"""The threshold for a precision: by what held-out queries make sure, or by what the confidence itself expects.

Few queries make nothing sure: 45 answers, all of them right, are needed before a precision of 0.95 is. A threshold
that waits for that turns most landmarks away, and one confident error moves it to the top. So the confidence, which is
fitted on all queries together, speaks beside the bound.
"""

import numpy as np

from index.calibration import Threshold, TradeOff
from index.confidence import logit_of
from index.thresholds import HeldOut, Sweep, precision_bound, sweep, threshold_at
from retrieval.arrays import BoolArray
from retrieval.errors import LmrError

BY_BOUND, BY_EXPECTATION, BY_CONFIDENCE = "bound", "expectation", "confidence"
ASKED = (0.8, 0.9, 0.95, 0.98, 0.99)  # precisions whose price a calibration lists
MAX_TIMES = 1000.0  # queries as many times; more are out of anyone's reach


def precision_threshold(held: HeldOut, precision: float) -> Threshold:
    """The lowest threshold at which answers have this precision, as the best of three says.

    `bound`: the lower bound of the counted precision reaches it: it is sure. `expectation`: the mean confidence of
    the answers less its standard error reaches it, the mean itself leaves room for twice as many wrong answers, and
    at most one answer more is wrong than the precision allows; with many queries the bound is lower. `confidence`:
    each answer is by itself as confident as that; where no threshold is sure of this precision.
    """
    return _threshold(held, sweep(held), precision)


def trade_offs(held: HeldOut, further: float) -> tuple[TradeOff, ...]:
    """The price of the usual precisions and of a further one, from the lowest to the highest."""
    found = sweep(held)
    rows = []
    for asked in sorted({*ASKED, further}):
        at = _threshold(held, found, asked)
        names = [name for name in TradeOff.__slots__ if name != "asked"]
        rows.append(TradeOff(asked, **{name: getattr(at, name) for name in names}))
    return tuple(rows)


def _threshold(held: HeldOut, found: Sweep, precision: float) -> Threshold:
    if not 0 < precision < 1:
        raise LmrError(f"precision {precision}: give a number between 0 and 1")
    logit, found_by = _cut(held, found, precision)
    i = _last_at(found, logit)
    reached = i >= 0 and bool(found.bound[i] >= precision)
    more = None if reached else _n_more_queries(held, found, i, precision)
    return threshold_at(held, found, logit, reached=reached, found_by=found_by, n_more_queries=more)


def _cut(held: HeldOut, found: Sweep, precision: float) -> tuple[float, str]:
    """The lowest logit of those that the three rules allow, and by which rule."""
    sure = np.flatnonzero(found.bound >= precision)
    room = found.expected >= (1 + precision) / 2
    counted = _is_not_refuted(held, found, precision)
    expected = np.flatnonzero((found.expected - found.error >= precision) & room & counted)
    cuts = [
        (float(found.logit[allowed[-1]]), by)
        for allowed, by in ((sure, BY_BOUND), (expected, BY_EXPECTATION))
        if len(allowed)
    ]
    if len(sure):
        return min(cuts)
    # Not below the threshold of the highest precision that something is sure of, so that more asked is never less.
    below = _cut(held, found, float(found.bound.max()))
    return max(min([*cuts, (logit_of(precision), BY_CONFIDENCE)]), below, key=lambda cut: cut[0])


def _is_not_refuted(held: HeldOut, found: Sweep, precision: float) -> BoolArray:
    """(t,) bool: leaving one wrong answer out of the count, no more are wrong than the precision allows."""
    one = max(1.0, 1.0 if held.weight is None else held.weight)
    allowed: BoolArray = found.n_wrong - one <= (1 - precision) * found.n_answers
    return allowed


def _last_at(found: Sweep, logit: float) -> int:
    """The place of the lowest logit that is not below this one, -1 where all are."""
    return int((found.logit >= logit).sum()) - 1


def _n_more_queries(held: HeldOut, found: Sweep, i: int, precision: float) -> int | None:
    """Number of further queries that would make the precision sure at place i, were it the one that is expected.

    None where it would not be at a thousand times as many, or where nothing is answered.
    """
    if i < 0:
        return None
    at = held.logit >= found.logit[i]
    known, false = float((at & held.known).sum()), float((at & ~held.known).sum())
    # Of weighted answers the share of right ones among landmarks is what is counted; it has no expectation of its own.
    right = found.expected[i] * (known + false) if held.weight is None else float((at & held.correct).sum())

    def is_sure(times: float) -> bool:
        bound = precision_bound(held, np.array([right]), np.array([known]), np.array([false]), times=times)
        return bool(bound[0] >= precision)

    if not is_sure(MAX_TIMES):
        return None
    low, high = 1.0, MAX_TIMES
    while high - low > 0.01 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if is_sure(middle) else (middle, high)
    return int(np.ceil((high - 1) * len(held.logit)))
