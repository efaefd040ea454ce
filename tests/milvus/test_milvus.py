"""An index on a server of Milvus Lite answers as its folder does, through kills, restarts and other indexes."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from lite_server import Lite
from tiny_set import HERE, done, read_rows, refused, run

import lmr
from index.folder.folder import open_folder
from index.search.address import address_of
from index.search.engine import ServedIndex, Table, open_engine
from index.search.milvus import KINDS, OF_LITE
from index.serving.config import ServingSettings
from index.serving.service import Service
from retrieval.errors import UnreachableError


def images() -> list[str]:
    return [str(path) for path in sorted(Path("images").glob("*"))[:5]]


def answers(*words: object) -> list[dict[str, object]]:
    return json.loads(done("query", *images(), "--json", *HERE, *words).stdout)


def test_query_submit_and_evaluate_answer_from_the_server_as_from_the_folder(lite: Lite, here: Path) -> None:
    url = lite.url("all")
    assert "on Milvus Lite 3." in done("index", "export", url).stdout
    assert "nothing to do" in done("index", "export", url).stdout
    assert answers("--index", url) == answers()
    verified = answers("--index", url, "--verify")
    assert verified == answers("--verify")
    assert any(neighbour["inliers"] is not None for one in verified for neighbour in one["neighbours"])
    done("submit", *HERE, "--index", url, "--output", "there.csv")
    done("submit", *HERE, "--output", "own.csv")
    assert Path("there.csv").read_text() == Path("own.csv").read_text()
    assert read_rows(Path("there.csv"))
    there = json.loads(done("evaluate", "val.csv", *HERE, "--index", url, "--json").stdout)
    assert there["gap"] == json.loads(done("evaluate", "val.csv", *HERE, "--json").stdout)["gap"]


def test_the_server_is_all_that_is_needed(lite: Lite, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = lite.url("alone")
    done("index", "export", url)
    expected = answers("--verify")
    Path("landmarks").rename("gone")
    assert answers("--index", url, "--verify") == expected
    assert open_folder(url, on_server=True).kept(0)() is not None  # a thumbnail


def test_rows_are_equal_bit_for_bit_also_where_they_are_tied(lite: Lite, tmp_path: Path) -> None:
    from index.search.engine import Batch
    from index.search.flat import FlatIndex

    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(900, 32)), np.tile(rng.normal(size=32), (100, 1))]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = FlatIndex.build(vectors, device="cpu")
    engine = open_engine(address_of(lite.url("ties")))
    engine.create("ties_1", 32, ("vector",))
    for first in range(0, 1000, 300):
        part = vectors[first : first + 300]
        engine.write("ties_1", Batch(first, {"vector": part}, ["i"] * len(part), ["l"] * len(part)))
    engine.write("ties_1", Batch(0, {"vector": vectors[:5]}, ["i"] * 5, ["l"] * 5))  # again, as after a lost answer
    engine.build("ties_1", ("vector",), "flat", 1000)
    there = ServedIndex(engine, Table("ties_1", 1000, 32, "float32"))
    queries = vectors[[3, 950, 999]]
    for k in (1, 20, 99, 150):
        found, expected = there.search(queries, k), flat.search(queries, k)
        assert np.array_equal(found.rows, expected.rows)
        assert np.array_equal(found.scores, expected.scores)
    rows = np.array([[7, 999], [7, 0]])
    assert np.array_equal(there.vectors(rows), vectors[rows])


@pytest.mark.parametrize("kind", sorted(set(OF_LITE) - {"flat"}))
def test_a_kind_that_is_not_exact_reaches_the_recall_and_is_the_one_that_was_asked_for(
    lite: Lite, here: Path, kind: str
) -> None:
    collection = f"kind_{kind.replace('-', '_')}"
    done_line = done("index", "export", lite.url(collection), "--kind", kind).stdout
    assert float(done_line.rsplit("recall@10 ", 1)[1]) >= 0.99
    opened = open_folder(lite.url(collection), on_server=True)
    client = opened.served.engine._client
    assert client.describe_index(opened.served.export.table, "vector")["index_type"] == KINDS[kind].name
    assert len(answers("--index", lite.url(collection))) == 5


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - set(OF_LITE)))
def test_a_kind_that_milvus_lite_does_not_build_is_refused_before_anything_is_written(
    lite: Lite, here: Path, kind: str
) -> None:
    message = refused("index", "export", lite.url("refused"), "--kind", kind)
    assert f"has no index of --kind {kind}; choose flat, ivf-flat, ivf-sq8, hnsw, hnsw-sq" in message
    assert "there is no index, or its export was not finished" in refused(
        "query", *images(), *HERE, "--index", lite.url("refused")
    )


def test_milvus_lite_builds_the_kinds_that_it_is_said_to_have_and_no_other(lite: Lite) -> None:
    """Where this fails, what Milvus Lite takes has changed, and OF_LITE with it."""
    from pymilvus import DataType, MilvusClient
    from pymilvus.exceptions import MilvusException

    client = MilvusClient(f"http://127.0.0.1:{lite.port}")
    vectors = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    builds = set()
    for kind, wanted in KINDS.items():
        name = f"tried_{wanted.name.lower()}"
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=16)
        client.create_collection(name, schema=schema)
        client.upsert(name, [{"row": row, "vector": vector} for row, vector in enumerate(vectors)])
        client.flush(name)
        parameters = client.prepare_index_params()
        words = {"nlist": 8, "m": 4, "nbits": 8, "M": 8, "efConstruction": 50, "sq_type": "SQ8"}
        parameters.add_index("vector", index_type=wanted.name, metric_type="IP", params=words)
        try:
            client.create_index(name, parameters)
            client.load_collection(name)
            client.search(name, data=[vectors[0].tolist()], limit=3, anns_field="vector")
        except MilvusException:
            continue
        builds.add(kind)
    assert builds == set(OF_LITE)


def test_an_export_that_is_killed_is_not_answered_from_and_goes_on(lite: Lite, here: Path) -> None:
    url = lite.url("killed")
    for seconds in (1.5, 2.5):
        run_and_die_after(seconds, here, ["index", "export", url])
        result = run("query", *images(), *HERE, "--index", url)
        assert result.exit_code == 0 or "its export was not finished" in result.stderr
    done("index", "export", url)
    assert answers("--index", url) == answers()


def run_and_die_after(seconds: float, folder: Path, words: list[str]) -> None:
    import subprocess
    import sys

    process = subprocess.Popen([sys.executable, "-c", "from cli.main import program; program()", *words], cwd=folder)
    time.sleep(seconds)
    process.kill()
    process.wait()


def test_another_index_takes_the_place_with_overwrite_alone(lite: Lite, here: Path) -> None:
    url = lite.url("place")
    done("index", "export", url)
    done("index", "remove", open_folder("landmarks", device="cpu").rows.image_id[0])
    assert "this one before it was changed" in refused("index", "export", url)
    done("index", "export", url, "--overwrite")
    assert answers("--index", url) == answers()
    client = open_folder(url, on_server=True).served.engine._client
    assert len([name for name in client.list_collections() if name.startswith("place_")]) == 2


def test_a_collection_that_is_not_of_lmr_is_left(lite: Lite, here: Path) -> None:
    from pymilvus import MilvusClient

    client = MilvusClient(f"http://127.0.0.1:{lite.port}")
    client.create_collection("somebodys", dimension=4)
    assert "has a collection somebodys that is not of lmr" in refused("index", "export", lite.url("somebodys"))
    assert client.has_collection("somebodys")


def test_what_changes_an_index_refuses_one_on_a_server(lite: Lite, here: Path) -> None:
    url = lite.url("all")
    for words in (
        ("index", "add", "train.h5", "--index", url),
        ("index", "remove", "x", "--index", url),
        ("index", "merge", "landmarks", "--index", url),
        ("index", "compact", "--index", url),
        ("index", "verify", url),
        ("sync", "images", "--index", url),
        ("calibrate", "val.csv", "--index", url, *HERE),
        ("build-index", "--output", url, "--device", "cpu"),
        ("serve", "--index", url, "--allow-changes"),
    ):
        message = refused(*words)
        assert message.startswith(f"{url} is an index on a server, which this does not take"), words


def test_local_features_that_were_left_out_are_missed_with_the_reason(lite: Lite, here: Path) -> None:
    url = lite.url("light")
    done("index", "export", url, "--leave-out", "local", "--leave-out", "thumbnails")
    assert answers("--index", url) == answers()
    assert "its export left them out; run lmr index export without --leave-out local" in refused(
        "query", *images(), *HERE, "--index", url, "--verify"
    )


@contextmanager
def service_of(url: str) -> Iterator[Service]:
    with closing(lmr.open_service(url, ServingSettings(), device="cpu", threads=1)) as service:
        yield service


def until(is_so: Callable[[], bool]) -> None:
    """Waits until something is so."""
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_service_goes_over_to_another_export_and_outlives_its_server(lite: Lite, here: Path) -> None:
    url = lite.url("served")
    done("index", "export", url)
    image = Path(images()[0]).read_bytes()
    with service_of(url) as service:
        first = service.query(image).result().to_json()
        n = len(service.landmarks.folder.rows)
        done("index", "remove", open_folder("landmarks", device="cpu").rows.image_id[0])
        done("index", "export", url, "--overwrite")
        until(lambda: len(service.landmarks.folder.rows) == n - 1)
        second = service.query(image).result().to_json()
        lite.end()
        with pytest.raises(UnreachableError):
            service.query(image).result()
        lite.start()
        until(lambda: not service.query(image).exception())
        assert service.query(image).result().to_json() == second
    assert first["image"] == second["image"]


def test_the_page_and_the_api_answer_from_the_server(lite: Lite, here: Path) -> None:
    testclient = pytest.importorskip("fastapi.testclient", reason="the page needs the extra web")
    from cli.web.app import make_app
    from cli.web.settings import WebSettings

    url = lite.url("page")
    done("index", "export", url)
    expected = answers()[0]
    with service_of(url) as service:
        client = testclient.TestClient(make_app(service, WebSettings()), base_url="http://127.0.0.1:8080")
        answer = client.post("/v1/query", content=Path(images()[0]).read_bytes()).json()[0]
        assert answer["neighbours"][0]["image_id"] == expected["neighbours"][0]["image_id"]
        assert client.get("/").status_code == 200
        assert client.get(f"/v1/images/{answer['neighbours'][0]['image_id']}").headers["content-type"] == "image/jpeg"
        assert client.get("/landmarks").status_code == 200


def test_similar_images_are_listed_from_the_server(lite: Lite, here: Path) -> None:
    url = lite.url("similar")
    done("index", "export", url)
    words = ("search", images()[0], "--csv", "--device", "cpu")
    for further in ((), ("--sure",), ("--landmark", "arch")):
        assert done(*words, *further, "--index", url).stdout == done(*words, *further).stdout


def test_a_server_that_is_not_there_is_one_line(here: Path) -> None:
    pytest.importorskip("pymilvus")
    message = refused("query", *images(), *HERE, "--index", "milvus://127.0.0.1:1/x")
    assert message.startswith("milvus://127.0.0.1:1/x: no Milvus answers at 127.0.0.1:1 (")
