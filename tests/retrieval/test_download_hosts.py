"""Which image is fetched next."""

from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.download.hosts import SILENT_ROUNDS, HostQueue, Job


def job(host: str, number: int = 0) -> Job:
    return Job(f"{host}{number}", f"http://{host}/{number}", host)


def taken(queue: HostQueue, now_s: float = 0.0) -> list[str]:
    found = []
    while (one := queue.take(now_s)) is not None:
        found.append(one.image_id)
    return found


def test_hosts_take_turns_and_none_has_more_than_its_share():
    queue = HostQueue(2)
    for host, n in (("a", 4), ("b", 3)):
        for number in range(n):
            queue.add(job(host, number))
    assert taken(queue) == ["a0", "b0", "a1", "b1"]
    assert len(queue) == 3
    queue.release("b")
    assert taken(queue) == ["b2"]
    queue.release("a")
    queue.release("a")
    assert taken(queue) == ["a2", "a3"]


def test_a_job_for_later_comes_out_when_its_time_has_come():
    queue = HostQueue(1)
    queue.add(job("a"), 5.0)
    assert queue.wait_s(2.0) == 3.0
    assert taken(queue, 4.9) == []
    assert len(queue) == 1
    assert taken(queue, 5.0) == ["a0"]
    assert queue.wait_s(5.0) is None


def test_nothing_of_a_resting_host_comes_out_and_others_go_on():
    queue = HostQueue(2)
    for number in range(2):
        queue.add(job("a", number))
    queue.add(job("b"))
    assert queue.take(0.0) == job("a")
    queue.rest("a", 10.0)
    queue.rest("a", 3.0)  # the longer rest holds
    queue.release("a")
    assert taken(queue, 1.0) == ["b0"]
    assert taken(queue, 3.0) == []
    assert queue.wait_s(4.0) == 6.0
    assert taken(queue, 10.0) == ["a1"]


def test_a_host_that_never_answers_is_closed_and_an_answer_counts_anew():
    queue = HostQueue(2)
    queue.add(job("a"))
    queue.take(0.0)
    last = 2 * SILENT_ROUNDS - 1
    assert [queue.heard("a", is_silent=True) for _ in range(last)] == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert queue.heard("a", is_silent=False) == 0
    assert [queue.heard("a", is_silent=True) for _ in range(last)][-1] == 4
    assert queue.closed == {}
    queue.heard("a", is_silent=True)
    assert queue.closed == {"a": "no answer 10 times in a row"}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 1.0, 2.5])), max_size=30),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_every_job_comes_out_once_and_no_host_is_asked_too_often(jobs, n_per_host, random):
    queue = HostQueue(n_per_host)
    for number, (host, not_before_s) in enumerate(jobs):
        queue.add(job(host, number), not_before_s)
    running: list[str] = []
    out: list[str] = []
    for now_s in (0.0, 1.0, 2.5):
        while True:
            one = queue.take(now_s)
            if one is not None:
                running.append(one.host)
                out.append(one.image_id)
                assert jobs[int(one.image_id[1:])][1] <= now_s
                assert running.count(one.host) <= n_per_host
            elif running:
                queue.release(running.pop(random.randrange(len(running))))
            else:
                break
    assert sorted(out) == sorted(f"{host}{number}" for number, (host, _) in enumerate(jobs))
    assert len(queue) == 0
