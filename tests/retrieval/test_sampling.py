import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.training.sampling import Sampler, systematic_sample


def sampler(landmark: list[int], **changes: object) -> Sampler:
    values: dict[str, object] = {"batch_size": 4, "balance": 0.0, "negative_share": 0.25, "epoch_size": None, "seed": 3}
    return Sampler(np.array(landmark, dtype=np.int32), **(values | changes))  # type: ignore[arg-type]


@given(
    weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=30),
    n=st.integers(1, 60),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=200, deadline=None)
def test_each_position_is_drawn_floor_or_ceil_of_its_expectation(weights: list[float], n: int, seed: int) -> None:
    values = np.array(weights)
    drawn = np.bincount(systematic_sample(values, n, np.random.default_rng(seed)), minlength=len(values))
    expected = n * values / values.sum()
    assert drawn.sum() == n
    assert (drawn >= np.floor(expected - 1e-9)).all()
    assert (drawn <= np.ceil(expected + 1e-9)).all()


def test_equal_weights_give_a_permutation() -> None:
    for seed in range(20):
        drawn = systematic_sample(np.full(17, 3**-0.5), 17, np.random.default_rng(seed))
        assert sorted(drawn.tolist()) == list(range(17))
        assert drawn.tolist() != list(range(17))


def test_the_mean_over_many_draws_is_the_expectation() -> None:
    weights = np.array([1.0, 2.0, 5.0])
    total = sum(
        np.bincount(systematic_sample(weights, 3, np.random.default_rng(seed)), minlength=3) for seed in range(2000)
    )
    assert np.asarray(total) / 2000 == pytest.approx(3 * weights / 8, abs=0.05)


def test_a_plan_depends_on_seed_and_epoch_alone() -> None:
    one, same = sampler([0, 1, 2, -1] * 5).plan(4), sampler([0, 1, 2, -1] * 5).plan(4)
    assert [r.tolist() for r in one.rows] == [r.tolist() for r in same.rows]
    assert [s.tolist() for s in one.seeds] == [s.tolist() for s in same.seeds]
    for other in (sampler([0, 1, 2, -1] * 5).plan(5), sampler([0, 1, 2, -1] * 5, seed=4).plan(4)):
        assert [r.tolist() for r in one.rows] != [r.tolist() for r in other.rows]
        assert [s.tolist() for s in one.seeds] != [s.tolist() for s in other.seeds]


def test_every_batch_has_its_share_of_negatives() -> None:
    landmark = [0, 1, 2] * 6 + [-1] * 5
    plan = sampler(landmark).plan(0)
    assert len(plan) == 6
    for rows, seeds in zip(plan.rows, plan.seeds, strict=True):
        assert (rows < 18).tolist() == [True, True, True, False]
        assert len(seeds) == 4
    used = np.concatenate(plan.rows)
    assert sorted(used[used < 18].tolist()) == list(range(18))
    assert np.bincount(used[used >= 18] - 18).tolist() in ([1] * 5, *np.where(np.eye(5), 2, 1).tolist())


def test_without_negatives_batches_are_full_of_landmarks() -> None:
    plan = sampler([0, 1] * 4).plan(0)
    assert sorted(np.concatenate(plan.rows).tolist()) == list(range(8))
    assert [len(rows) for rows in plan.rows] == [4, 4]


def test_a_share_of_zero_leaves_negatives_out() -> None:
    plan = sampler([0, 1, -1, -1] * 4, negative_share=0.0).plan(0)
    assert (np.concatenate(plan.rows) % 4 < 2).all()


def test_a_large_share_leaves_room_for_a_landmark() -> None:
    plan = sampler([0, 1, -1], batch_size=2, negative_share=0.99).plan(0)
    assert [rows.tolist()[1] for rows in plan.rows] == [2, 2]
    assert sorted(rows.tolist()[0] for rows in plan.rows) == [0, 1]


def test_fewer_pictures_than_a_batch_make_one_batch() -> None:
    plan = sampler([0, 1, 1], batch_size=32).plan(0)
    assert [sorted(rows.tolist()) for rows in plan.rows] == [[0, 1, 2]]


def test_a_few_negatives_are_used_again() -> None:
    plan = sampler([0, 1, 0, 1, 0, 1, -1]).plan(0)
    assert [rows.tolist()[-1] for rows in plan.rows] == [6, 6]


def test_the_pictures_over_a_whole_number_of_batches_wait_for_another_epoch() -> None:
    plan = sampler([0, 1] * 5).plan(0)
    assert [len(rows) for rows in plan.rows] == [4, 4]
    assert len(set(np.concatenate(plan.rows).tolist())) == 8


def test_epoch_size_counts_landmark_pictures() -> None:
    plan = sampler([0, 1, 2] * 10 + [-1] * 10, epoch_size=12).plan(0)
    assert [len(rows) for rows in plan.rows] == [4] * 4
    assert (np.concatenate(plan.rows) < 30).sum() == 12


@pytest.mark.parametrize(("balance", "n_rare"), [(0.0, 2), (1.0, 10), (0.5, 5)])
def test_balance_draws_rare_landmarks_more_often(balance: float, n_rare: int) -> None:
    """18 pictures of one landmark, 2 of another; the rare one's share at 0.5: sqrt(2) / (sqrt(2) + sqrt(18)) = 1/4."""
    landmark = [0] * 18 + [1] * 2
    rows = np.concatenate(sampler(landmark, balance=balance, batch_size=20).plan(0).rows)
    assert (rows >= 18).sum() == n_rare
    assert len(rows) == 20


def test_two_appearances_of_a_picture_differ_in_their_seeds() -> None:
    plan = sampler([0] * 18 + [1] * 2, balance=1.0, batch_size=20).plan(0)
    seeds = plan.seeds[0][plan.rows[0] == 19]
    assert len(seeds) == 5
    assert len(set(seeds.tolist())) == 5
