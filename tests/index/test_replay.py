"""Answers by replay: the searches are done elsewhere, shard by shard, and the answers are those of one machine."""

from dataclasses import replace

import numpy as np
import pytest
from test_opened_shards import CPU
from verified_world import Calibrated, Named, Table, verification

from index.folder.build import BuildOptions
from index.folder.folder import open_folder
from index.folder.searching import open_shard
from index.folder.verified import Verifying
from index.recognition import answer, answer_store
from index.rerank.config import Refinement
from index.search.base import Neighbours
from index.search.config import SearchOptions
from index.search.shards import merge_neighbours
from index.spark.replay import Asks, Question, ReplayedFolder, Replies

INVERTED = SearchOptions(kind="ivf-flat", n_lists=4, recall=0.5)
REFINEMENTS = {
    "plain": Refinement(),
    "expanded": Refinement(n_expand=3),
    "augmented": Refinement(n_augment=3),
    "scored again": Refinement(n_rerank=100),
    "all": Refinement(n_augment=2, n_expand=3, n_rerank=100),
}
N_SEARCHES = {"plain": 1, "expanded": 3, "augmented": 2, "scored again": 2, "all": 3}


def replayed(folder, n_shards, work):
    """What work makes of the folder as it answers by what shards find, and how often they were asked."""
    closed, known = open_folder(folder.path, device="cpu", searched=False), []
    while True:
        try:
            return work(ReplayedFolder.of(replace(closed, calibration=folder.calibration), known)), len(known)
        except Asks as asks:
            asked, own = asks.question, asks.question.where == "own"
            shards = [open_shard(folder.path, i, n_shards, CPU, own=own)[1] for i in range(n_shards)]
            known.append(merge_neighbours([shard.search(asked.queries, asked.k) for shard in shards], asked.k))


def same(one, other):
    """Tells whether answers are equal to the last bit."""
    arrays = ("landmark", "score", "logit", "vote_logit", "same_picture", "background")
    pairs = [(getattr(one, name), getattr(other, name)) for name in arrays]
    pairs += [(getattr(one.neighbours, name), getattr(other.neighbours, name)) for name in ("rows", "scores")]
    if one.evidence is not None:
        pairs += [(getattr(one.evidence, name), getattr(other.evidence, name)) for name in ("inliers", "surprise")]
    return all(a is b is None or np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.fixture
def train(make_store):
    """Rows of which many are equal, so that their order decides at the borders of shards."""
    store = make_store(["rome", "oslo", "bern"] * 40, seed=0)
    vectors = store.vectors.copy()
    vectors[1::3] = vectors[0]
    vectors[50:60] = vectors[49]
    return replace(store, vectors=vectors)


@pytest.fixture
def queries(make_store, train):
    """Queries, of which some are equal to rows, and some have no descriptor."""
    store = make_store([""] * 30, seed=1, source="test.h5")
    vectors, state = store.vectors.copy(), store.state.copy()
    vectors[:5] = train.vectors[[0, 1, 49, 55, 119]]
    state[[3, 7, 29]] = 2
    return replace(store, vectors=vectors, state=state)


@pytest.mark.parametrize("name", REFINEMENTS)
@pytest.mark.parametrize("n_shards", [1, 2, 3, 7, 150])
def test_answers_of_shards_are_those_of_one_machine_to_the_last_bit(
    make_folder, make_store, train, queries, name, n_shards
):
    options = BuildOptions(whitening_power=0.5, refinement=REFINEMENTS[name])
    folder = make_folder(train, [make_store([""] * 9, seed=2, source="none.h5")], options)
    found, n_searches = replayed(folder, n_shards, lambda one: answer_store(one, queries))
    assert same(found, answer_store(folder, queries))
    assert n_searches == N_SEARCHES[name]
    assert (found.landmark >= 0).sum() == 27


@pytest.mark.parametrize("name", REFINEMENTS)
def test_an_inverted_file_answers_by_replay_as_on_one_machine(make_folder, make_store, queries, name):
    options = BuildOptions(whitening_power=None, refinement=REFINEMENTS[name], search=INVERTED)
    folder = make_folder(make_store(["rome", "oslo", "bern"] * 100, seed=0), options=options)
    assert folder.ivf is not None
    found, _ = replayed(folder, 1, lambda one: answer_store(one, queries))
    assert same(found, answer_store(folder, queries))


@pytest.mark.parametrize("name", ["plain", "all"])
def test_verified_answers_by_replay_are_those_of_one_machine(make_folder, train, queries, name):
    folder = make_folder(train, options=BuildOptions(whitening_power=None, refinement=REFINEMENTS[name]))
    folder = replace(folder, calibration=Calibrated)
    inliers = np.random.default_rng(3).integers(0, 60, (27, 120))
    asked, tables = queries.vectors[queries.done], []

    def work(one):
        tables.append(Table(inliers))
        how = verification(tables[-1], top=12, rule=Calibrated.evidence)
        return answer(one, asked, verifying=Verifying(how, Named))

    found, _ = replayed(folder, 3, work)
    assert [bool(table.asked) for table in tables[:-1]] == [False] * (len(tables) - 1)  # compared once, at the end
    assert same(found, work(folder))
    assert found.evidence.inliers.max() > 0


def test_queries_without_descriptors_ask_nothing(make_folder, make_store):
    folder = make_folder(make_store(["rome", "oslo"] * 5, seed=0))
    store = make_store([""] * 4, seed=1)
    store = replace(store, state=np.full(4, 2, np.uint8))
    found, n_searches = replayed(folder, 2, lambda one: answer_store(one, store))
    assert (n_searches, found.landmark.tolist()) == (0, [-1] * 4)


def test_more_neighbours_than_rows_are_padded(make_folder, make_store):
    folder = make_folder(make_store(["rome", "oslo"] * 5, seed=0))
    store = make_store([""] * 4, seed=1)
    found, _ = replayed(folder, 4, lambda one: answer_store(one, store, n_neighbours=25))
    assert same(found, answer_store(folder, store, n_neighbours=25))
    assert (found.neighbours.rows >= 0).sum(axis=1).tolist() == [10] * 4


def test_a_reply_to_other_queries_is_refused():
    found = Neighbours(np.zeros((2, 3), np.int64), np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"search 0 found \(2, 3\), \(1, 3\) is asked for"):
        Replies([found]).find(Question("own", np.zeros((1, 8), np.float32), 3))
