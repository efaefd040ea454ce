"""A submission by blocks and shards, with tasks done one after the other in this process: equal to that of one run,
whatever was done before, is gone, or is damaged."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_stores import write_store
from test_replay import INVERTED, REFINEMENTS

from index.folder.build import BuildOptions
from index.kaggle.shares import inputs_of, sets_of
from index.kaggle.submit import SubmitJob, open_index, submit
from index.search.config import SearchOptions
from index.spark.answering import Search, Work, answer_block, search_shard, store_state
from index.spark.driver import answer_by_tasks
from index.spark.planning import Asking, join
from index.spark.rounds import DamagedError, Plan, Rounds, read_plan, write_plan
from retrieval.errors import LmrError
from retrieval.progress import SILENT, Silent
from retrieval.spark.staging import staging_path
from retrieval.spark.task import Place
from retrieval.store.store import open_descriptors

HERE = Place("here", 1, (), 0)


class InTurn:
    """A cluster of this process alone. between: is called before each stage, with its number. n_tasks: then it dies."""

    def __init__(self, between=lambda i: None, n_tasks=10**6):
        self.between, self.n_left, self.stages = between, n_tasks, []

    def run(self, what, work, items, unit="tasks"):
        self.between(len(self.stages))
        self.stages.append((what, len(items)))
        return [self.task(work, item) for item in items]

    def task(self, work, item):
        self.n_left -= 1
        if self.n_left < 0:
            raise KeyboardInterrupt
        return work(item, HERE)


class Heard(Silent):
    """Keeps what it is warned of."""

    def __init__(self):
        self.lines = []

    def warn(self, text):
        self.lines.append(text)


@pytest.fixture
def asked(make_folder, make_store, tmp_path):
    """A job for an index of these options, whose store of queries is there."""

    def make(options=None, n_queries=60, n_rows=120):
        train = make_store(["rome", "oslo", "bern"] * (n_rows // 3), seed=0)
        vectors = train.vectors.copy()
        vectors[1:60:3] = vectors[0]
        background = [make_store([""] * 9, seed=2, source="none.h5")]
        make_folder(replace(train, vectors=vectors), background, options)
        queries = make_store([""] * n_queries, seed=1, source="test.h5")
        state = queries.state.copy()
        state[[2, 40, 41, 42, 43]] = 2
        queries = replace(queries, vectors=np.concatenate([vectors[:6], queries.vectors[6:]]), state=state)
        write_store(tmp_path / "test.h5", queries)
        (tmp_path / "test.csv").write_text("id\n")
        files = {name: tmp_path / file for name, file in FILES.items()}
        return SubmitJob(**files, device="cpu", threads=1, progress=SILENT)

    return make


FILES = {"test": "test.csv", "index": "landmarks", "store": "test.h5", "output": "s.csv"}


def planned(job, n_blocks, n_shards):
    """The work of a job, divided so."""
    opened, store = open_index(job, job.output, searched=False), open_descriptors(job.store)
    made_with = {**opened.made_with, **sets_of(store, None, range(len(store)))}
    plan = Plan(made_with, store.info.manifest_digest, len(store), n_blocks, n_shards)
    rounds = Rounds(staging_path(job.output), job.output, plan)
    write_plan(rounds)
    return Work(Asking(job, 1), rounds, store_state(job.store))


def answered(work, cluster=None, progress=SILENT):
    """The text of the submission, and how many are given a landmark."""
    n_answered = answer_by_tasks(cluster or InTurn(), work, progress)
    join(work, HERE)
    return work.rounds.output.read_text(), n_answered


def local(job):
    """The same of one run on this machine."""
    output = job.output.with_name("local.csv")
    report = submitted(replace(job, output=output, overwrite=True))
    return output.read_text(), report.n_answered


def submitted(job):
    """One run whose images have descriptors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("index.kaggle.submit.embed_test", lambda opened, job: (open_descriptors(job.store), None))
        return submit(job)


@pytest.mark.parametrize(("n_blocks", "n_shards"), [(1, 1), (1, 130), (3, 2), (4, 7), (60, 1)])
@pytest.mark.parametrize("name", ["plain", "all"])
def test_the_submission_of_blocks_and_shards_is_that_of_one_run(asked, name, n_blocks, n_shards):
    job = asked(BuildOptions(whitening_power=0.5, refinement=REFINEMENTS[name]))
    cluster = InTurn()
    assert answered(planned(job, n_blocks, n_shards), cluster) == local(job)
    n_rounds = {"plain": 1, "all": 3}[name]
    searches = [n for what, n in cluster.stages if what == "searching"]
    n_empty = {60: 5}.get(n_blocks, 0)  # blocks without a descriptor ask nothing
    assert searches == [(n_blocks - n_empty) * n_shards] * n_rounds


@pytest.mark.parametrize("n_shards", [1, 3])
def test_an_inverted_file_in_shards_answers_by_them_as_on_one_machine(asked, n_shards):
    options = BuildOptions(whitening_power=None, search=replace(INVERTED, n_shards=n_shards))
    job = asked(options, n_rows=300)
    assert answered(planned(job, 3, n_shards)) == local(job)


def test_a_run_that_is_killed_again_and_again_goes_on_with_what_is_finished(asked):
    job = asked(BuildOptions(whitening_power=0.5, refinement=REFINEMENTS["all"]))
    work, expected = planned(job, 3, 2), local(job)
    n_killed, seen = 0, {}
    while True:
        try:
            found = answered(work, InTurn(n_tasks=5))
        except KeyboardInterrupt:
            n_killed += 1
        else:
            break
        now = {path.name: path.stat().st_mtime_ns for path in work.rounds.folder.iterdir()}
        assert seen.items() <= now.items()  # nothing is done twice
        seen = now
    assert found == expected
    assert n_killed == 9  # three blocks and two of 18 searches in each run; the last one finishes the blocks


KINDS = ("asked-0-1", "found-0-1-0", "known-0-1", "asked-1-2", "found-2-0-1")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "another"])
def test_a_damaged_file_of_a_round_is_named_and_made_again(asked, name, damage):
    job = asked(BuildOptions(whitening_power=0.5, refinement=REFINEMENTS["all"]))
    work, expected = planned(job, 3, 2), local(job)
    path, done = work.rounds.folder / name, []

    def between(i):
        if path.exists() and not done:
            done.append(i)
            spoil(path, damage)

    heard = Heard()
    assert answered(work, InTurn(between), heard) == expected
    assert done
    assert heard.lines == [f"{path} was damaged, and is made again"]


def spoil(path, how):
    data = path.read_bytes()
    place = random.Random(0).randrange(len(data))
    made = {
        "flipped": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
        "cut": data[: len(data) // 2],
        "empty": b"",
        "another": path.with_name("asked-0-0").read_bytes(),
    }
    path.write_bytes(made[how])


def test_what_could_not_be_verified_is_not_nothing_where_its_file_is_damaged(asked):
    rounds = planned(asked(), 3, 2).rounds
    assert rounds.unverified(1) is None
    rounds.write_unverified(1, {5, 3}, 2)
    assert rounds.unverified(1) == ({3, 5}, 2)
    path = rounds.folder / "unverified-1"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError):
        rounds.unverified(1)


def test_a_damaged_share_is_named_and_made_again(asked):
    job = asked()
    work, expected = planned(job, 3, 2), local(job)
    answer_by_tasks(InTurn(), work, SILENT)
    path, _ = work.rounds.share(1)
    path.write_text(path.read_text().replace('"logit"', '"logic"', 1))
    heard = Heard()
    assert answered(work, progress=heard) == expected
    assert heard.lines == [f"{path} was damaged, and is made again"]


def test_files_that_are_damaged_for_ever_end_in_one_line(asked):
    work = planned(asked(), 2, 2)

    def between(i):
        for path in work.rounds.folder.glob("found-*"):
            path.write_bytes(b"")

    with pytest.raises(LmrError, match="are damaged again and again; look at the disk"):
        answered(work, InTurn(between))


def test_an_index_or_a_store_that_is_replaced_meanwhile_is_not_asked(asked, make_store, tmp_path):
    job = asked()
    work = planned(job, 2, 2)
    answer_block((work, 0), HERE)
    other = replace(work.rounds.plan, made_with={**work.rounds.plan.made_with, "index": "0" * 64})
    with pytest.raises(LmrError, match=r"was replaced while it was asked \(another index\)"):
        answer_block((replace(work, rounds=replace(work.rounds, plan=other)), 0), HERE)
    store = open_descriptors(job.store)
    write_store(job.store, replace(store, vectors=store.vectors[:]))
    with pytest.raises(LmrError, match=r"test\.h5 was changed while its pictures were answered"):
        answer_block((work, 1), HERE)


def test_a_file_of_another_plan_is_damaged(asked):
    work = planned(asked(), 2, 2)
    answer_block((work, 0), HERE)
    assert work.rounds.asked(0, 0).queries.shape == (31, 8)
    other = replace(work.rounds, plan=replace(work.rounds.plan, n_shards=3))
    with pytest.raises(DamagedError):
        other.asked(0, 0)


def test_a_search_that_is_done_already_is_left(asked):
    work = planned(asked(), 2, 2)
    (search, *_) = answer_block((work, 1), HERE).searches
    search_shard(search, HERE)
    path = work.rounds.folder / "found-0-1-0"
    before = path.stat()
    search_shard(search, HERE)
    search_shard(Search(work, 5, 1, 0), HERE)  # which nobody asked
    assert path.stat() == before
    assert read_plan(work.rounds.folder) == work.rounds.plan
    assert sorted(file.name for file in work.rounds.folder.iterdir()) == ["asked-0-1", "found-0-1-0", "plan.json"]


def test_a_record_that_is_joined_is_known_to_one_run(asked):
    job = asked()
    work = planned(job, 3, 2)
    answered(work)
    opened, store = open_index(job, job.output), open_descriptors(job.store)
    assert inputs_of(job.output, opened.made_with, store, None)["shares"] == 3
    assert submitted(job).state == "unchanged"


def test_staging_lies_beside_the_output(tmp_path):
    assert staging_path(Path("a/submission.csv")) == Path("a/.submission.csv.spark")
    assert SearchOptions().n_shards == 1
