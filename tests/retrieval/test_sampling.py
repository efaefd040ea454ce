from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.arrays import LongArray
from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.split.roles import without_rare
from retrieval.train.config import AugmentConfig, BalanceConfig, TrainConfig
from retrieval.train.loss_config import LossConfig
from retrieval.train.sampler import EpochPlan, Sampler, spread_seeds, systematic_sample, training_sampler


def sampler(landmark: list[int], **changes: object) -> Sampler:
    """Changes are of the sampler or of its rule."""
    values: dict[str, object] = {"batch_size": 4, "epoch_size": None, "seed": 3, "balance": 0.0} | changes
    own = {name: values.pop(name) for name in ("batch_size", "epoch_size", "seed")}
    return Sampler(np.array(landmark, dtype=np.int32), rule=BalanceConfig(**values), **own)  # type: ignore[arg-type]


def drawn(made: Sampler, epoch: int = 0) -> LongArray:
    """All rows of an epoch."""
    return np.concatenate(made.plan(epoch).rows)


def times(made: Sampler, epoch: int = 0) -> list[int]:
    """How often each row is in an epoch."""
    return np.bincount(drawn(made, epoch), minlength=len(made.landmark)).tolist()


def listed(plan: EpochPlan) -> list[list[list[int]]]:
    """Rows and seeds of each batch."""
    return [[rows.tolist(), seeds.tolist()] for rows, seeds in zip(plan.rows, plan.seeds, strict=True)]


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


def test_fewer_images_than_a_batch_make_one_batch() -> None:
    plan = sampler([0, 1, 1], batch_size=32).plan(0)
    assert [sorted(rows.tolist()) for rows in plan.rows] == [[0, 1, 2]]


def test_a_few_negatives_are_used_again() -> None:
    plan = sampler([0, 1, 0, 1, 0, 1, -1]).plan(0)
    assert [rows.tolist()[-1] for rows in plan.rows] == [6, 6]


def test_the_images_over_a_whole_number_of_batches_wait_for_another_epoch() -> None:
    plan = sampler([0, 1] * 5).plan(0)
    assert [len(rows) for rows in plan.rows] == [4, 4]
    assert len(set(np.concatenate(plan.rows).tolist())) == 8


def test_epoch_size_counts_landmark_images() -> None:
    plan = sampler([0, 1, 2] * 10 + [-1] * 10, epoch_size=12).plan(0)
    assert [len(rows) for rows in plan.rows] == [4] * 4
    assert (np.concatenate(plan.rows) < 30).sum() == 12


@pytest.mark.parametrize(("balance", "n_rare"), [(0.0, 2), (1.0, 10), (0.5, 5)])
def test_balance_draws_rare_landmarks_more_often(balance: float, n_rare: int) -> None:
    """18 images of one landmark, 2 of another; the rare one's share at 0.5: sqrt(2) / (sqrt(2) + sqrt(18)) = 1/4."""
    landmark = [0] * 18 + [1] * 2
    rows = np.concatenate(sampler(landmark, balance=balance, batch_size=20).plan(0).rows)
    assert (rows >= 18).sum() == n_rare
    assert len(rows) == 20


def test_two_appearances_of_a_image_differ_in_their_seeds() -> None:
    plan = sampler([0] * 18 + [1] * 2, balance=1.0, batch_size=20).plan(0)
    seeds = plan.seeds[0][plan.rows[0] == 19]
    assert len(seeds) == 5
    assert len(set(seeds.tolist())) == 5


def test_without_a_rule_an_epoch_draws_its_random_numbers_in_this_order() -> None:
    """The landmark images, the non-landmarks round by round, the seeds: runs of earlier versions stay the same."""
    landmark = np.array([0] * 9 + [1] * 4 + [2] * 2 + [-1] * 2, dtype=np.int32)
    made = sampler(landmark.tolist(), balance=0.5, negative_share=0.5, epoch_size=12).plan(7)
    rng = np.random.default_rng([3, 7])
    weights = np.array([9.0] * 9 + [4.0] * 4 + [2.0] * 2) ** -0.5
    known = systematic_sample(weights, 12, rng).reshape(6, 2)
    others = np.concatenate([rng.permutation([15, 16]) for _ in range(6)]).reshape(6, 2)
    seeds = [rng.integers(0, 2**62, 4).tolist() for _ in range(6)]
    expected = [[[*a, *b], c] for a, b, c in zip(known.tolist(), others.tolist(), seeds, strict=True)]
    assert listed(made) == expected


# A cap: fewer images of landmarks that have many


def test_a_cap_leaves_a_random_subset_of_each_larger_landmark() -> None:
    landmark = [0] * 10 + [1] * 3 + [2] * 2 + [-1] * 4
    made = sampler(landmark, cap=3)
    kept = made.kept()
    assert [int((np.array(landmark)[kept] == code).sum()) for code in range(3)] == [3, 3, 2]
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert set(drawn(made).tolist()) - set(range(15, 19)) <= set(kept.tolist())


def test_the_subset_of_a_member_is_the_same_in_all_epochs_and_on_all_machines() -> None:
    made = sampler([0] * 10 + [1] * 10, batch_size=8, cap=4, member=1)
    again = sampler([0] * 10 + [1] * 10, batch_size=8, cap=4, member=1)
    for epoch in range(5):
        assert sorted(drawn(made, epoch).tolist()) == made.kept().tolist() == again.kept().tolist()
        assert listed(made.plan(epoch)) == listed(again.plan(epoch))
    assert listed(made.plan(0)) != listed(made.plan(1))


def test_members_and_seeds_have_subsets_of_their_own() -> None:
    subsets = {
        tuple(sampler([0] * 40 + [1], seed=seed, cap=10, member=member).kept().tolist())
        for seed in range(3)
        for member in range(5)
    }
    assert len(subsets) == 15


def test_every_image_is_as_likely_to_be_kept() -> None:
    """10 of 40 in each of 400 subsets: 100 times each, with a standard deviation of 8.7."""
    landmark = [0] * 40
    kept = Counter(int(row) for member in range(400) for row in sampler(landmark, cap=10, member=member).kept())
    assert sum(kept.values()) == 4000
    assert all(60 < kept[row] < 140 for row in range(40))


def test_the_weights_count_what_the_cap_leaves() -> None:
    """16 images capped at 4 beside 1: shares 4 ** 0.5 to 1 of 30 draws are 20 and 10."""
    rows = drawn(sampler([0] * 16 + [1], batch_size=5, balance=0.5, epoch_size=30, cap=4))
    assert (rows == 16).sum() == 10


# A floor: more of landmarks that have few


def test_a_floor_repeats_rare_images_evenly() -> None:
    """5 = 2 + 2 + 1 from three images, 5 from one, and landmarks at or above the floor as they are."""
    landmark = [0] * 3 + [1] * 6 + [2] + [3] * 5
    for epoch in range(5):
        found = times(sampler(landmark, batch_size=7, floor=5), epoch)
        assert sorted(found[:3]) == [1, 2, 2]
        assert found[3:] == [1] * 6 + [5] + [1] * 5


def test_who_is_repeated_once_more_changes_with_the_epoch() -> None:
    made = sampler([0] * 3 + [1] * 5, batch_size=5, floor=5)
    assert {tuple(times(made, epoch)[:3]) for epoch in range(40)} == {(1, 2, 2), (2, 1, 2), (2, 2, 1)}


@given(
    counts=st.lists(st.integers(1, 12), min_size=2, max_size=6),
    cap=st.integers(0, 8),
    floor=st.integers(0, 8),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_an_epoch_has_each_landmark_as_often_as_cap_and_floor_say(
    counts: list[int], cap: int, floor: int, seed: int
) -> None:
    floor = min(floor, cap) if cap else floor
    landmark = np.repeat(np.arange(len(counts)), counts)
    expected = [max(min(n, cap) if cap else n, floor) for n in counts]
    made = sampler(landmark.tolist(), batch_size=sum(expected), seed=seed, cap=cap, floor=floor)
    found = np.array(times(made))
    assert np.bincount(landmark, weights=found).tolist() == expected
    for code in range(len(counts)):
        of_kept = found[made.kept()[landmark[made.kept()] == code]]
        assert of_kept.max() - of_kept.min() <= 1


def test_no_two_repeats_of_a_image_share_a_seed_and_single_ones_keep_theirs() -> None:
    landmark = [0] * 2 + [1] * 30 + [-1] * 3
    plan = sampler(landmark, batch_size=8, floor=20).plan(2)
    rows, seeds = np.concatenate(plan.rows), np.concatenate(plan.seeds)
    for row in range(len(landmark)):
        own = np.sort(seeds[rows == row])
        if len(own) > 1:
            assert (np.diff(own) == 1).all()
            assert own.max() < 0
        else:
            assert (own >= 0).all()
    assert max(times(sampler(landmark, batch_size=8, floor=20), 2)) == 10


def test_seeds_of_repeats_by_hand() -> None:
    rows, seeds = np.array([4, 7, 4, 9, 4]), np.array([10, 20, 30, 40, 50])
    assert spread_seeds(rows, seeds).tolist() == [-11, 20, -12, 40, -13]
    largest = spread_seeds(np.zeros(3, dtype=np.int64), np.full(3, 2**62 - 1))
    assert largest.tolist() == [-(2**62), -(2**62) - 1, -(2**62) - 2]


# P landmarks with K images each


def groups_of(made: Sampler, epoch: int = 0) -> list[list[LongArray]]:
    """The groups of each batch, without its non-landmarks."""
    k = made.rule.per_landmark
    batches = [rows[made.landmark[rows] >= 0] for rows in made.plan(epoch).rows]
    return [[rows[i : i + k] for i in range(0, len(rows), k)] for rows in batches]


def test_a_batch_is_made_of_landmarks_with_so_many_different_images() -> None:
    made = sampler([0] * 8 + [1] * 8 + [2] * 8 + [3] * 8 + [-1] * 6, batch_size=10, per_landmark=4)
    plan = made.plan(0)
    assert [len(rows) for rows in plan.rows] == [10] * 4, "8 of 10 are of landmarks: 2 groups; 32 pictures in all"
    for batch in groups_of(made):
        assert len(batch) == 2
        assert len({int(made.landmark[group[0]]) for group in batch}) == 2
        for group in batch:
            assert len(set(made.landmark[group].tolist())) == 1
            assert len(set(group.tolist())) == 4
    assert times(made)[:32] == [1] * 32, "each landmark is in two groups, which deal out all of its pictures"


def test_room_for_a_part_of_a_group_stays_empty() -> None:
    made = sampler([0] * 6 + [1] * 6 + [-1] * 6, batch_size=10, per_landmark=3)
    assert {len(rows) for rows in made.plan(0).rows} == {8}, "2 non-landmarks and 2 x 3 of the other 8"


def test_a_landmark_with_fewer_images_repeats_them_in_its_group() -> None:
    made = sampler([0] * 2 + [1] * 10, batch_size=8, per_landmark=4, epoch_size=40, balance=1.0)
    rare = [group for batch in groups_of(made) for group in batch if group[0] < 2]
    assert len(rare) == 5
    assert all(sorted(Counter(group.tolist()).values()) == [2, 2] for group in rare)


def test_a_floor_gives_rare_landmarks_more_groups() -> None:
    """12 and 2 images, the latter drawn as if they were 12: 24 in groups of 2, six groups each."""
    made = sampler([0] * 12 + [1] * 2, per_landmark=2, floor=12)
    groups = [int(made.landmark[group[0]]) for batch in groups_of(made) for group in batch]
    assert sorted(groups) == [0] * 6 + [1] * 6


@given(
    counts=st.lists(st.integers(1, 9), min_size=3, max_size=7),
    k=st.integers(2, 4),
    balance=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_landmarks_are_drawn_in_groups_as_often_as_their_images(
    counts: list[int], k: int, balance: float, seed: int
) -> None:
    landmark = np.repeat(np.arange(len(counts)), counts)
    made = sampler(landmark.tolist(), batch_size=3 * k, balance=balance, seed=seed, epoch_size=60, per_landmark=k)
    batches = groups_of(made)
    assert len(batches) == max(1, 60 // (3 * k))
    codes = np.array([[landmark[group[0]] for group in batch] for batch in batches])
    weights = np.array(counts, dtype=float) ** (1 - balance)
    expected = codes.size * weights / weights.sum()
    found = np.bincount(codes.ravel(), minlength=len(counts))
    assert (found >= np.floor(expected - 1e-9)).all()
    assert (found <= np.ceil(expected + 1e-9)).all()
    for code, n in enumerate(counts):
        in_batches = (codes == code).sum(axis=1)
        assert in_batches.max() <= -(-found[code] // len(batches)), "no more often in a batch than it must be"
        images = np.array(times(made))[landmark == code]
        assert images.max() - images.min() <= 1
        assert all(len(set(g.tolist())) == min(n, k) for b in batches for g in b if landmark[g[0]] == code)


def test_too_large_groups_are_refused() -> None:
    with pytest.raises(LmrError) as caught:
        sampler([0, 1, -1], batch_size=8, per_landmark=4)
    assert str(caught.value) == (
        "`per_landmark` 4: a batch of 8 has room for 6 landmark pictures, which is not 2 landmarks; lower it or raise "
        "`batch_size`"
    )
    sampler([0, 1], batch_size=8, per_landmark=4)


# From a configuration


def test_a_training_hands_all_of_its_options_on() -> None:
    landmark = np.array([0, 1, -1], dtype=np.int32)
    rule = BalanceConfig(balance=0.3, negative_share=0.4, cap=2)
    config = TrainConfig(batch_size=7, epoch_size=9, seed=5, sampling=rule)
    assert training_sampler(landmark, config) == Sampler(landmark, 7, rule, 9, 5)
    silent = TrainConfig(loss=LossConfig(negative_weight=0), sampling=rule)
    assert training_sampler(landmark, silent).rule == BalanceConfig(balance=0.3, negative_share=0, cap=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cap": -1}, "`cap` must be 0 or more, got -1"),
        ({"floor": -2}, "`floor` must be 0 or more, got -2"),
        ({"min_per_landmark": -1}, "`min_per_landmark` must be 0 or more, got -1"),
        ({"cap": 4, "member": -1}, "`member` must be 0 or more, got -1"),
        ({"member": 2}, "`member` 2 chooses among the subsets that `cap` leaves; give `cap` too"),
        ({"cap": 4, "floor": 5}, "`floor` 5 lies above `cap` 4; lower it"),
        ({"rare": "keep"}, "`rare` is one of non-landmark, drop, got keep"),
        ({"per_landmark": 1}, "`per_landmark` must be 0 (any number) or at least 2, got 1"),
    ],
)
def test_a_rule_that_cannot_be_is_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(LmrError) as caught:
        BalanceConfig(**change)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_repeats_that_nothing_tells_apart_are_refused() -> None:
    still = AugmentConfig(min_area=1, brightness=0, contrast=0, saturation=0, hue=0, flip=0.5, greyscale=0.1)
    with pytest.raises(LmrError) as caught:
        TrainConfig(sampling=BalanceConfig(floor=9), augment=still)
    assert str(caught.value) == (
        "`floor` repeats pictures, but the augmentation never changes them; give `min_area` below 1"
    )
    TrainConfig(augment=still)


# Landmarks with too few images


def manifest() -> Manifest:
    """Three images of a, two of b (one of them of a too), one of c, one of none."""
    ids = np.array(["a0", "a1", "ab", "b0", "b1", "c0", "n"], dtype=object)
    return Manifest("x.csv", ids, np.array([0, 0, 0, 1, 1, 2, -1], dtype=np.int32), ("a", "b", "c"), {2: (1,)})


def test_rare_landmarks_become_non_landmarks() -> None:
    made = without_rare(manifest(), 2, "non-landmark")
    assert made.image_id.tolist() == manifest().image_id.tolist()
    assert made.landmark.tolist() == [0, 0, 0, 1, 1, -1, -1]
    assert made.more_landmarks == {2: (1,)}, "the picture of two landmarks counts for both: b has three"
    assert without_rare(manifest(), 3, "non-landmark").landmark.tolist() == [0, 0, 0, 1, 1, -1, -1]


def test_or_their_images_are_left_out() -> None:
    made = without_rare(manifest(), 2, "drop")
    assert made.image_id.tolist() == ["a0", "a1", "ab", "b0", "b1", "n"]
    assert made.landmark.tolist() == [0, 0, 0, 1, 1, -1]


def test_a_minimum_that_no_landmark_has_is_refused() -> None:
    with pytest.raises(LmrError) as caught:
        without_rare(manifest(), 4, "drop")
    assert str(caught.value) == "x.csv: no landmark has 4 pictures; lower `min_per_landmark`"
