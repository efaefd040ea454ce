"""The cluster that plans are made with: stages whose course is known by hand, and what holds of every course."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def events(load_bench: Any) -> ModuleType:
    return load_bench("events")  # type: ignore[no-any-return]


def test_tasks_that_all_go_well_take_what_the_slots_need_for_them(events: ModuleType) -> None:
    ran = events.run_stage([10.0] * 6, events.Cluster(2, n_slots=1), events.no_luck(6, 2))
    assert (ran.makespan_s, ran.n_attempts) == (30.0, 6)  # three tasks on each of two slots
    assert (ran.useful_s, ran.idle_s, ran.slot_s) == (60.0, 0.0, 60.0)
    assert ran.ends_s.tolist() == [10.0, 10.0, 20.0, 20.0, 30.0, 30.0]


def test_one_task_more_than_slots_costs_a_whole_round(events: ModuleType) -> None:
    ran = events.run_stage([10.0] * 5, events.Cluster(2, n_slots=2), events.no_luck(5, 2))
    assert (ran.makespan_s, ran.idle_s) == (20.0, 30.0)  # three of four slots have nothing in the second round


def test_an_executor_starts_and_each_of_its_processes_loads_once(events: ModuleType) -> None:
    cluster = events.Cluster(1, n_slots=2, start_s=5.0, load_s=3.0)
    ran = events.run_stage([10.0] * 4, cluster, events.no_luck(4, 1))
    assert ran.makespan_s == 5 + 3 + 10 + 10
    assert ran.useful_s == 4 * 10 + 2 * 3


def test_a_process_that_has_loaded_is_taken_before_another_one_begins(events: ModuleType) -> None:
    luck = events.no_luck(3, 1)
    luck.slow[0] = 5.0  # one slot is busy for 53 s, so that the other one does both of the others
    ran = events.run_stage([10.0] * 3, events.Cluster(1, n_slots=2, load_s=3.0), luck)
    assert ran.ends_s.tolist() == [53.0, 13.0, 23.0]


def test_the_driver_hands_tasks_out_one_after_another(events: ModuleType) -> None:
    ran = events.run_stage([4.0] * 4, events.Cluster(4, dispatch_s=1.0), events.no_luck(4, 4))
    assert ran.ends_s.tolist() == [5.0, 6.0, 7.0, 8.0]
    tiny = events.run_stage([0.5] * 100, events.Cluster(50, dispatch_s=1.0), events.no_luck(100, 50))
    assert tiny.makespan_s == 100.5  # more executors would not help: the driver is what is waited for


def test_one_straggler_is_waited_for(events: ModuleType) -> None:
    luck = events.no_luck(4, 2)
    luck.slow[3, 0] = 4.0
    ran = events.run_stage([10.0] * 4, events.Cluster(2), luck)
    assert ran.makespan_s == 10 + 40
    assert (ran.useful_s, ran.idle_s) == (70.0, 30.0)


def test_a_slow_executor_does_fewer_tasks(events: ModuleType) -> None:
    luck = replace(events.no_luck(6, 2), speed=np.array([1.0, 0.4]))
    ran = events.run_stage([10.0] * 6, events.Cluster(2), luck)
    assert ran.ends_s.tolist() == [10.0, 25.0, 20.0, 30.0, 50.0, 40.0]


def test_a_straggler_is_overtaken_by_its_copy(events: ModuleType) -> None:
    luck = events.no_luck(4, 2)
    luck.slow[3, 0] = 10.0  # of its first attempt alone
    cluster = events.Cluster(2, speculation=events.Speculation(quantile=0.75, multiplier=2.0))
    ran = events.run_stage([10.0] * 4, cluster, luck)
    assert ran.makespan_s == 40.0  # begun at 10, twice the median of 10 later a copy, which takes 10
    assert (ran.n_copies, ran.copied_s, ran.useful_s) == (1, 30.0, 40.0)


def test_no_copy_is_made_where_only_the_same_executor_has_a_free_slot(events: ModuleType) -> None:
    luck = events.no_luck(4, 1)
    luck.slow[3, 0] = 10.0
    cluster = events.Cluster(1, n_slots=2, speculation=events.Speculation(quantile=0.75, multiplier=2.0))
    ran = events.run_stage([10.0] * 4, cluster, luck)
    assert (ran.makespan_s, ran.n_copies) == (110.0, 0)


def test_a_copy_that_is_slower_is_given_up(events: ModuleType) -> None:
    luck = events.no_luck(4, 2)
    luck.slow[3] = 3.0  # of the copy, too
    cluster = events.Cluster(2, speculation=events.Speculation(quantile=0.75, multiplier=2.0))
    ran = events.run_stage([10.0] * 4, cluster, luck)
    assert (ran.makespan_s, ran.n_copies, ran.copied_s) == (40.0, 1, 10.0)


def test_a_lost_executor_repeats_only_what_it_was_doing(events: ModuleType) -> None:
    luck = events.no_luck(6, 2)
    luck.lifetimes[1, 0] = 15.0  # it has finished a task at 10, and is half through another one
    ran = events.run_stage([10.0] * 6, events.Cluster(2), luck)
    assert (ran.n_lost, ran.n_attempts) == (1, 7)
    assert (ran.lost_s, ran.useful_s) == (5.0, 60.0)
    assert ran.ends_s.tolist() == [10.0, 10.0, 20.0, 30.0, 40.0, 50.0]  # task 3 at once, before 4 and 5
    assert ran.slot_s == 50 + 15


def test_another_executor_starts_for_one_that_is_lost(events: ModuleType) -> None:
    luck = events.no_luck(6, 2)
    luck.lifetimes[1, 0] = 15.0
    cluster = events.Cluster(2, start_s=1.0, load_s=2.0, replace_s=4.0)
    ran = events.run_stage([10.0] * 6, cluster, luck)
    # Ready at 1, first tasks done at 13, task 3 lost at 16; the next life takes tasks from 21, and loads again.
    assert ran.ends_s.tolist() == [13.0, 13.0, 23.0, 33.0, 33.0, 43.0]
    assert (ran.lost_s, ran.useful_s) == (3.0, 60 + 3 * 2)


def test_a_copy_goes_on_when_the_executor_of_the_first_attempt_is_lost(events: ModuleType) -> None:
    luck = events.no_luck(4, 2)
    luck.slow[3, 0] = 10.0
    luck.lifetimes[1, 0] = 35.0  # task 3 runs there from 10 on, its copy from 30 on
    cluster = events.Cluster(2, speculation=events.Speculation(quantile=0.75, multiplier=2.0))
    ran = events.run_stage([10.0] * 4, cluster, luck)
    assert (ran.makespan_s, ran.n_attempts, ran.lost_s) == (40.0, 5, 25.0)


def test_a_task_that_fails_is_given_out_again(events: ModuleType) -> None:
    luck = events.no_luck(2, 1)
    luck.fails[0, 0] = 0.5
    ran = events.run_stage([10.0, 10.0], events.Cluster(1), luck)
    assert ran.ends_s.tolist() == [15.0, 25.0]
    assert (ran.failed_s, ran.useful_s, ran.n_attempts) == (5.0, 20.0, 3)


def test_a_task_that_fails_too_often_ends_the_stage(events: ModuleType) -> None:
    luck = events.no_luck(2, 1)
    luck.fails[1] = 0.5
    with pytest.raises(events.StageError, match=r"^task 1 failed 4 times$"):
        events.run_stage([10.0, 10.0], events.Cluster(1), luck)


def test_a_stage_without_executors_ends(events: ModuleType) -> None:
    luck = events.no_luck(2, 1)
    luck.lifetimes[0, 0] = 15.0
    with pytest.raises(events.StageError, match=r"^no executor is left, with 1 of 2 tasks done$"):
        events.run_stage([10.0, 10.0], events.Cluster(1), luck)


@pytest.mark.parametrize("seed", range(8))
def test_no_second_is_counted_twice_or_lost(events: ModuleType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_tasks, n_executors = 200, 7
    work = rng.gamma(3.0, 20.0, n_tasks)
    chances = {"stragglers": 0.05, "failures": 0.1, "losses_an_hour": 10.0, "spread": 0.2}
    luck = events.draw_luck(n_tasks, n_executors, rng, **chances)
    cluster = events.Cluster(n_executors, 3, 5.0, 2.0, 0.05, 30.0, 6, events.Speculation(0.75, 1.5))
    ran = events.run_stage(work, cluster, luck)
    assert np.isfinite(ran.ends_s).all()
    assert ran.makespan_s == ran.ends_s.max()
    assert ran.n_lost > 0
    assert ran.n_copies > 0
    assert min(ran.useful_s, ran.lost_s, ran.failed_s, ran.copied_s, ran.idle_s) > 0
    assert ran.slot_s == pytest.approx(ran.useful_s + ran.lost_s + ran.failed_s + ran.copied_s + ran.idle_s)
    assert ran.slot_s <= n_executors * 3 * ran.makespan_s
    least = work / luck.speed.max()
    assert ran.useful_s >= least.sum()
    assert ran.makespan_s >= least.sum() / (n_executors * 3)


def test_the_same_luck_gives_the_same_course(events: ModuleType) -> None:
    courses = []
    for _ in range(2):
        luck = events.draw_luck(50, 3, np.random.default_rng(5), stragglers=0.1, losses_an_hour=20.0)
        courses.append(events.run_stage([30.0] * 50, events.Cluster(3, replace_s=10.0), luck).ends_s.tolist())
    assert courses[0] == courses[1]


def test_without_chances_nothing_goes_wrong(events: ModuleType) -> None:
    drawn = events.draw_luck(5, 2, np.random.default_rng(0))
    ran = events.run_stage([1.0] * 5, events.Cluster(2), drawn)
    assert (ran.makespan_s, ran.n_lost, ran.n_attempts) == (3.0, 0, 5)


def test_a_task_that_outlasts_every_executor_ends_the_stage(events: ModuleType) -> None:
    luck = events.no_luck(1, 1)
    luck.lifetimes[:] = 9.0
    with pytest.raises(events.StageError, match=r"^executor 0 was lost 64 times; give the work in smaller tasks$"):
        events.run_stage([10.0], events.Cluster(1, replace_s=1.0), luck)
