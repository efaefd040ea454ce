"""`--device` with several GPUs: each searches a part of the index, with the answers of the CPU."""

import json

import pytest
import torch
from fake_gpus import FakeGpus
from tiny_set import HERE, done, misused, refused

from index.search import flat, gpu

ON_TWO = ("--workers", "1", "--threads", "1", "--device", "cuda:1,0")


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that take an index of any size."""
    monkeypatch.setattr(flat, "ROWS_FROM", 1)
    monkeypatch.setattr(flat, "GPU_FROM_QUERIES", 1)
    yield FakeGpus(2).install(monkeypatch)
    gpu._resources.cache_clear()


def figures(result):
    """What `evaluate --json` says, but for when."""
    content = json.loads(result.stdout)
    del content["measured"]["at"]
    return content


def test_evaluate_says_on_two_gpus_what_it_says_on_the_cpu(tiny_set, gpus):
    on_cpu = done("evaluate", "--leave-one-out", "--json", *HERE)
    on_gpus = done("evaluate", "--leave-one-out", "--json", *ON_TWO)
    assert figures(on_gpus) == figures(on_cpu)
    assert gpus.rows == {0: 16, 1: 16}
    told = [line for line in on_gpus.stderr.splitlines() if "cuda" in line]
    assert told == ["32 x 43 rows are put on cuda:1,0 (2.8 kB)"]


def test_a_gpu_without_room_is_said_on_one_line_and_changes_no_answer(tiny_set, gpus):
    gpus.free_bytes = 0
    on_cpu = done("evaluate", "--leave-one-out", "--json", *HERE)
    on_gpus = done("evaluate", "--leave-one-out", "--json", *ON_TWO)
    assert figures(on_gpus) == figures(on_cpu)
    told = [line for line in on_gpus.stderr.splitlines() if "cannot be used" in line]
    assert told == ["cuda:1,0 cannot be used (it has too little free memory); the CPU searches, with the same answers"]


def test_the_first_of_several_gpus_embeds(tiny_set, gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    message = refused("query", "images", *ON_TWO)
    assert message == "--device cuda:1,0: this machine has 1 CUDA devices; use --device cpu"


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (("embed",), "give each a share of the images, as with --shard 1/2 and --shard 2/2"),
        (("train", "train.csv"), "start lmr train by torchrun, a process for each, as its help shows"),
        (("compare", "knn.toml"), "a comparison trains too, so give it one"),
        (("demo", "here"), "the demo trains too, so give it one"),
    ],
)
def test_several_gpus_are_refused_where_no_index_is_searched(tiny_set, command, remedy):
    message = f"--device cuda:0,1: several GPUs share an index only; {remedy}"
    assert refused(*command, "--device", "cuda:0,1") == message


def test_a_kind_that_the_faiss_of_the_wheels_lacks_is_refused_with_those_that_it_has(tiny_set):
    kinds = "'auto', 'flat', 'ivf-flat', 'ivf-sq8', 'ivf-pq', 'ivf-pq-small'"
    expected = f"Invalid value for '--kind': 'cagra' is not one of {kinds}."
    assert misused("build-index", "--kind", "cagra") == expected
