"""Which settings an inverted file gets: the quickest by processor time that reach the recall."""

import numpy as np
import pytest

from index.search import choose
from index.search.base import Neighbours
from index.search.choose import CANDIDATES, TIMINGS, Sample, Taken, tune
from index.search.ivf import SearchSettings
from index.search.plan import RECALL_K

N_LISTS, N_QUERIES, N_ROWS = 64, 200, 5000
LISTS = [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64]  # that are tried


class Clock:
    """Time that passes by what the fake index does; `disturb` makes other work take some of it."""

    def __init__(self):
        self.cpu_s = self.wall_s = 0.0
        self.disturb = lambda seconds: (seconds, seconds)

    def work(self, seconds):
        cpu_s, wall_s = self.disturb(seconds)
        self.cpu_s += cpu_s
        self.wall_s += wall_s

    process_time = property(lambda self: lambda: self.cpu_s)
    perf_counter = property(lambda self: lambda: self.wall_s)


class FakeIndex:
    """An inverted file in which the j-th exact row of a query lies in the list that is read `list_at`-th.

    It is proposed at `place`, among rows that are no neighbours. Reading a list takes 1 ms, scoring a row `row_s`.
    """

    n_lists = N_LISTS

    def __init__(self, clock, row_s, settings=None, asked=None):
        rng = np.random.default_rng(0)
        self.clock, self.row_s, self.settings = clock, row_s, settings or SearchSettings()
        self.asked = [] if asked is None else asked
        self.list_at = np.minimum(rng.geometric(0.2, (N_QUERIES, RECALL_K)), N_LISTS)
        self.place = np.array([rng.permutation(300)[:RECALL_K] for _ in range(N_QUERIES)])

    def with_settings(self, settings):
        return FakeIndex(self.clock, self.row_s, settings, self.asked)

    def __len__(self):
        return N_ROWS

    def propose(self, queries, width):
        self.asked.append(self.settings.n_probe)
        self.clock.work(0.001 * self.settings.n_probe * len(queries))
        return self.proposed(queries, width)

    def proposed(self, queries, width):
        found = np.tile(np.arange(3000, 3000 + width), (len(queries), 1))
        for rows, number in zip(found, queries[:, 0].astype(int), strict=True):
            is_read = self.list_at[number] <= self.settings.n_probe
            for j in np.flatnonzero(is_read & (self.place[number] < width)):
                rows[self.place[number][j]] = number * RECALL_K + j
        return found

    def search(self, queries, k):
        width = k * self.settings.n_candidates
        self.clock.work((0.001 * self.settings.n_probe + self.row_s * width) * len(queries))
        rows = self.proposed(queries, width)
        exact_first = np.argsort(rows >= 3000, axis=1, kind="stable")[:, : k - 1]
        own = 4000 + queries[:, :1].astype(np.int64)
        rows = np.concatenate([own, np.take_along_axis(rows, exact_first, axis=1)], axis=1)
        return Neighbours(rows, np.zeros(rows.shape, np.float32))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(choose, "time", clock)
    return clock


def sample():
    numbers = np.arange(N_QUERIES)
    exact = numbers[:, None] * RECALL_K + np.arange(RECALL_K)
    return Sample(numbers[:, None].astype(np.float32), 4000 + numbers, exact, Taken(10.0, 20.0))


def recall_of(index, settings):
    """Counted one neighbour at a time."""
    width = settings.n_candidates * (RECALL_K + 1)
    places = zip(index.list_at.ravel(), index.place.ravel(), strict=True)
    return np.mean([list_at <= settings.n_probe and place < width for list_at, place in places])


def cost_of(index, settings):
    return 0.001 * settings.n_probe + index.row_s * settings.n_candidates * (RECALL_K + 1)


@pytest.mark.parametrize("row_s", [1e-7, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("target", [0.3, 0.8, 0.9, 0.97])
def test_the_settings_are_those_of_least_time_among_all_that_reach_the_recall(clock, row_s, target):
    index = FakeIndex(clock, row_s)
    every = [SearchSettings(n_probe, n) for n_probe in LISTS for n in CANDIDATES]
    reaching = [one for one in every if recall_of(index, one) >= target]
    tuned, measured = tune(index, target, sample())
    assert cost_of(index, tuned.settings) == min(cost_of(index, one) for one in reaching)
    assert measured.recall == pytest.approx(recall_of(index, tuned.settings))


def test_other_work_on_the_machine_changes_nothing(clock):
    quiet = tune(FakeIndex(clock, 1e-5), 0.9, sample())[0].settings
    rng = np.random.default_rng(1)
    clock.disturb = lambda seconds: (seconds, seconds * rng.uniform(1, 30))
    assert tune(FakeIndex(clock, 1e-5), 0.9, sample())[0].settings == quiet


def test_one_slow_timing_changes_nothing(clock):
    index, settings = FakeIndex(clock, 1e-5), [SearchSettings(8, 10), SearchSettings(16, 5)]
    quiet = choose._cpu_times(index, settings, sample())
    for slow in range(TIMINGS * len(settings)):
        turn = iter(range(100))
        clock.disturb = lambda seconds, slow=slow, turn=turn: (seconds * (9 if next(turn) == slow else 1), seconds)
        assert choose._cpu_times(index, settings, sample()) == pytest.approx(quiet)


def test_lists_that_take_longer_to_read_than_a_whole_search_are_not_tried(clock):
    index = FakeIndex(clock, 1e-7)
    assert tune(index, 0.3, sample())[0].settings.n_probe <= 4
    assert max(index.asked) <= 6
    index = FakeIndex(clock, 1e-7)
    tune(index, 1.0, sample())
    assert max(index.asked) == N_LISTS


def test_where_nothing_reaches_the_recall_all_lists_are_read_and_the_most_candidates_scored(clock, monkeypatch):
    monkeypatch.setattr(choose, "CANDIDATES", (2, 5))
    tuned, measured = tune(FakeIndex(clock, 1e-5), 0.9, sample())
    assert tuned.settings == SearchSettings(N_LISTS, 5)
    assert measured.recall < 0.9


def test_speed_is_of_the_clock_and_speedup_of_the_processors(clock):
    clock.disturb = lambda seconds: (seconds, seconds / 2)
    measured = choose.measure(FakeIndex(clock, 1e-5).with_settings(SearchSettings(8, 10)), sample())
    each = 0.008 + 1e-5 * 110
    assert measured.queries_per_s == pytest.approx(2 / each)
    assert measured.speedup == pytest.approx(20.0 / (N_QUERIES * each))


def test_rows_that_are_fewer_than_the_neighbours_count_as_found():
    class Few:
        def __len__(self):
            return 3

        def propose(self, queries, width):
            return np.array([[0, 1, 2, -1]])

    asked = Sample(np.zeros((1, 1)), np.array([0]), np.array([[2, 1, *[-1] * (RECALL_K - 2)]]), Taken(1.0, 1.0))
    assert choose._recalls(Few(), asked)[0] == [1.0] * len(CANDIDATES)
