"""An index on a server: it answers as the folder does, is whole or not there, and says what is wrong."""

import base64
import hashlib
import json
import os
import time

import numpy as np
import pytest
from fake_engine import FakeEngine, KilledError

from index.folder import served
from index.folder.build import BuildOptions
from index.folder.folder import open_folder
from index.kaggle.submit import SubmitJob
from index.rerank.config import Refinement
from index.search.address import Address, address_of
from index.search.engine import ServedIndex, Table
from index.search.flat import FlatIndex
from index.search.milvus import MilvusEngine
from index.update import export
from index.update.inspect import IndexExportJob
from index.update.inspect import export as run_export
from retrieval.errors import LmrError, UnreachableError
from retrieval.progress import SILENT

URL = "milvus://127.0.0.1:19530/landmarks"
ADDRESS = Address("milvus", "127.0.0.1", 19530, "landmarks")
LABELS = ["a", "a", "b", "b", "b", "c", "", ""]


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Puts an empty server in memory at every address."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def start():
        made = FakeEngine()
        for place in (served, export):
            monkeypatch.setattr(place, "open_engine", lambda _: made)
        monkeypatch.setattr(served, "_engines", {})
        return made

    return start


@pytest.fixture
def engine(start, monkeypatch):
    """A server in memory at every address, to which rows and files go in several parts."""
    monkeypatch.setattr(export, "BATCH_BYTES", 4 * 8 * 2)  # two rows
    monkeypatch.setattr(export, "PART_BYTES", 700)
    monkeypatch.setattr(served, "PART_BYTES", 700)
    return start()


@pytest.fixture
def folder(make_folder, make_store):
    """An index folder with a background."""
    return make_folder(make_store(LABELS, seed=1), [make_store([""] * 5, seed=2, source="background.h5")])


def send(folder, **words):
    return run_export(IndexExportJob(URL, index=folder.path, progress=SILENT, **words))


def open_there(**words):
    return open_folder(URL, on_server=True, **words)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("milvus://h/c", Address("milvus", "h", 19530, "c")),
        ("milvus:/h:1/c", Address("milvus", "h", 1, "c")),
        ("milvus+tls://[::1]:2/c", Address("milvus+tls", "::1", 2, "c")),
        ("landmarks", None),
        ("s3://h/c", None),
    ],
)
def test_an_address_is_read_from_text_and_from_a_path(text, address):
    assert address_of(text) == address
    assert address is None or address_of(str(address)) == address


@pytest.mark.parametrize(
    "text", ["milvus://h", "milvus://h/", "milvus://h/a/b", "milvus://h/c_files", "milvus://h/c?x=1"]
)
def test_an_address_without_a_collection_is_refused_with_its_form(text):
    with pytest.raises(LmrError, match=r"the address of an index on a server is milvus://HOST\[:PORT\]/COLLECTION"):
        address_of(text)


def test_an_address_with_a_token_is_refused_without_saying_it():
    with pytest.raises(LmrError, match="LMR_MILVUS_TOKEN") as caught:
        address_of("milvus://me:secret@h/c")
    assert "secret" not in str(caught.value)


def test_an_index_on_a_server_answers_as_its_folder_does(engine, folder):
    assert send(folder).state == "written"
    there = open_there()
    queries = np.random.default_rng(5).normal(size=(7, 8)).astype(np.float32)
    for k in (1, 3, 6, 9):
        found, expected = there.search(queries, k)[0], folder.search(queries, k)[0]
        assert np.array_equal(found.rows, expected.rows)
        assert np.array_equal(found.scores, expected.scores)
    rows = np.array([[3, 0], [3, 5]])
    assert np.array_equal(there.index.vectors(rows), folder.index.vectors(rows))
    proposed = np.array([[4, -1, 1]] * 7)
    assert np.array_equal(there.index.choose(queries, proposed, 3).rows, folder.index.choose(queries, proposed, 3).rows)
    assert there.rows.landmarks == folder.rows.landmarks
    assert np.array_equal(there.background.vectors, folder.background.vectors)
    assert there.made_of == folder.made_of
    assert str(there) == URL


def test_augmented_rows_answer_and_own_ones_tell_copies(engine, make_folder, make_store):
    options = BuildOptions(whitening_power=None, refinement=Refinement(n_augment=2, n_expand=2, n_rerank=100))
    folder = make_folder(make_store(LABELS, seed=1), options=options)
    send(folder)
    there = open_there()
    queries = np.random.default_rng(5).normal(size=(4, 8)).astype(np.float32)
    assert np.array_equal(there.search(queries, 4)[0].rows, folder.search(queries, 4)[0].rows)
    assert np.array_equal(there.nearest(queries, 4).rows, folder.nearest(queries, 4).rows)


def test_ties_at_the_end_are_ordered_by_lower_row_however_many_there_are(engine):
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(5, 8)), np.tile(rng.normal(size=8), (200, 1))]).astype(np.float32)
    flat = FlatIndex.build(vectors, device="cpu")
    engine.rows["t"] = {row: ({"vector": vector},) for row, vector in enumerate(vectors)}
    engine.built["t"] = "flat"
    there = ServedIndex(engine, Table("t", len(vectors), 8, "float32", largest_norm=flat.largest_norm))
    found, expected = there.search(vectors[[0, 9]], 30), flat.search(vectors[[0, 9]], 30)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.scores, expected.scores)


def test_more_neighbours_than_a_server_gives_are_refused(engine):
    there = ServedIndex(engine, Table("t", 5000, 8, "float32"))
    with pytest.raises(LmrError, match="1,001 nearest rows were asked for, Fake 1 gives at most 1,000 at once"):
        there.search(np.zeros((1, 8), np.float32), 1001)


def send_and_die(engine, lives, folder, **words):
    """An export that dies before so many changes; whether it did."""
    engine.lives = lives
    try:
        send(folder, **words)
    except KilledError:
        return True
    finally:
        engine.lives = None
    return False


def test_an_export_that_was_killed_anywhere_is_not_answered_from_and_goes_on(engine, start, folder):
    send(folder)
    whole, lives = engine, 0
    while send_and_die(engine := start(), lives, folder):
        if "export" not in engine.texts.get("landmarks_files", {}):
            with pytest.raises(LmrError, match="there is no index, or its export was not finished"):
                open_there()
        written = [*engine.rows.values()]
        n_before = len(written[0]) if written else 0
        send_and_die(engine, 3, folder)
        assert not written or len(next(iter(engine.rows.values()))) >= n_before
        send(folder)
        assert (engine.texts, engine.alias, engine.built) == (whole.texts, whole.alias, whole.built)
        assert [sorted(rows) for rows in engine.rows.values()] == [sorted(rows) for rows in whole.rows.values()]
        lives += 1
    assert lives > 10


def test_of_an_export_that_takes_the_place_of_another_the_old_or_the_new_one_answers(
    engine, start, make_folder, make_store, tmp_path
):
    first = make_folder(make_store(LABELS, seed=1))
    (tmp_path / "landmarks").rename(tmp_path / "before")
    first = open_folder(tmp_path / "before", device="cpu")
    second = make_folder(make_store(["a", "b", "b", "d"], seed=3))
    send(second)
    whole, lives, seen = engine, 0, []
    while True:
        engine = start()
        send(first)
        if not send_and_die(engine, lives, second, overwrite=True):
            break
        seen.append(open_there().info.inputs_digest)
        send(second, overwrite=True)
        assert engine.texts == whole.texts  # nothing of the first one is left
        assert engine.rows.keys() == whole.rows.keys()
        assert engine.alias == whole.alias
        lives += 1
    n_old = seen.count(first.info.inputs_digest)
    assert seen == [first.info.inputs_digest] * n_old + [second.info.inputs_digest] * (len(seen) - n_old)
    assert 0 < n_old < len(seen)


def test_rows_of_an_export_that_was_given_up_are_removed_by_the_next_one(engine, make_folder, make_store, tmp_path):
    make_folder(make_store(LABELS, seed=1))
    (tmp_path / "landmarks").rename(tmp_path / "before")
    assert send_and_die(engine, 4, open_folder(tmp_path / "before", device="cpu"))
    assert len(engine.rows) == 1
    send(make_folder(make_store(["a", "b"], seed=4)))
    assert [len(rows) for rows in engine.rows.values()] == [2]


def test_the_same_export_again_changes_nothing(engine, folder):
    send(folder)
    before = json.dumps(engine.texts)
    assert send(folder).state == "unchanged"
    assert json.dumps(engine.texts) == before


def test_another_index_at_the_address_is_refused_by_name(engine, make_folder, make_store, tmp_path):
    send(make_folder(make_store(LABELS, seed=1)))
    (tmp_path / "landmarks").rename(tmp_path / "before")
    changed = make_folder(make_store(LABELS, seed=2))
    with pytest.raises(
        LmrError, match=r"holds another index of this model, or this one before it was changed \(6 imag"
    ):
        send(changed)
    with pytest.raises(LmrError, match=r"holds another index.*`overwrite` replaces it"):
        send(changed, kind="hnsw")
    content = json.loads(engine.texts["landmarks_files"]["export"])
    listing = served.read_export(engine, ADDRESS, content)
    assert listing.fingerprint == "ab" * 32


def test_a_collection_that_is_not_of_lmr_is_removed_with_overwrite_alone(engine, folder):
    engine.rows["landmarks"], engine.fields["landmarks"] = {}, "other"
    with pytest.raises(LmrError, match="Fake 1 has a collection landmarks that is not of lmr; choose another name, or"):
        send(folder)
    assert "landmarks" in engine.rows
    send(folder, overwrite=True)
    assert "landmarks" not in engine.rows
    assert len(open_there().rows) == 6


def test_rows_that_are_not_those_of_the_export_are_refused(engine, folder):
    send(folder)
    (table,) = engine.rows
    engine.rows[table].pop(2)
    with pytest.raises(LmrError, match=r"has 5 rows, the export says 6; run lmr index export with `overwrite`"):
        open_there()
    with pytest.raises(LmrError, match="lacks rows of its collection"):
        send(folder)
    send(folder, overwrite=True)
    assert len(open_there().rows) == 6
    engine.lengths[table] = 9
    with pytest.raises(LmrError, match=r"vectors of landmarks_.* have 9 numbers, the export says 8"):
        open_there()
    engine.rows.clear()
    with pytest.raises(LmrError, match=r"the collection landmarks_.* of its rows is gone"):
        open_there()


def test_a_file_that_was_changed_on_the_server_is_refused(engine, folder):
    send(folder)
    texts = engine.texts["landmarks_files"]
    key = next(key for key, text in texts.items() if "/" in key and text.startswith("iUhE"))  # of HDF5
    texts[key] = "AAAA"
    with pytest.raises(LmrError, match="a file is not the one that was sent: its sha256 differs"):
        open_there()
    texts[key] = "no base64!"
    with pytest.raises(LmrError, match="of its files is damaged; run lmr index export with `overwrite`"):
        open_there()
    del texts[key]
    with pytest.raises(LmrError, match="of its files is gone: another export took its place, or it is damaged"):
        open_there()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"../../outside": {"sha256": "ab" * 32, "size": 3}},
            "files lists '../../outside', which is not in the folder",
        ),
        ({"/outside": {"sha256": "ab" * 32, "size": 3}}, "files lists '/outside', which is not in the folder"),
        ({"names.json": {"sha256": "../" * 21 + "a", "size": 3}}, "of 3 bytes is no digest"),
        ({"names.json": {"sha256": "ab" * 32, "size": -3}}, "of -3 bytes is no digest"),
    ],
)
def test_files_that_a_server_would_have_outside_of_the_cache_are_refused(engine, folder, tmp_path, change, message):
    send(folder)
    texts = engine.texts["landmarks_files"]
    listed = json.loads(texts[served.MARKER])
    content = json.loads(b"".join(base64.b64decode(texts[key]) for key in served.part_keys(listed)))
    content = json.dumps(content | {"files": content["files"] | change}).encode()
    listed = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    keys = served.part_keys(listed)
    texts |= {key: base64.b64encode(content[700 * i : 700 * (i + 1)]).decode() for i, key in enumerate(keys)}
    texts[served.MARKER] = json.dumps(listed)
    with pytest.raises(LmrError, match=message):
        open_there()
    assert [path.name for path in (tmp_path / "cache" / "lmr").rglob("outside")] == []


def test_a_digest_that_would_name_a_folder_outside_of_the_cache_is_refused(engine, folder):
    send(folder)
    engine.texts["landmarks_files"][served.MARKER] = json.dumps({"sha256": "../" * 21 + "a", "size": 0})
    with pytest.raises(LmrError, match="export is damaged"):
        open_there()


def test_files_are_fetched_once_and_those_that_stay_are_not_fetched_for_the_next_export(
    engine, make_folder, make_store, tmp_path
):
    send(make_folder(make_store(LABELS, seed=1)))
    open_there()
    engine.asked.clear()
    open_there()
    n_again = len([key for key in engine.asked if "/" in key])
    (tmp_path / "landmarks").rename(tmp_path / "before")
    send(make_folder(make_store(["a", "b"], seed=4)), overwrite=True)
    engine.asked.clear()
    there = open_there()
    model = served.part_keys(there.info.files["model/model.json"])
    assert n_again < 10
    assert not set(model) & set(engine.asked)


def test_the_cache_keeps_what_is_served_and_nothing_that_nobody_used_for_long(engine, folder, tmp_path):
    send(folder)
    open_there()
    cache = tmp_path / "cache" / "lmr" / "indexes"
    (held,) = [path for path in cache.iterdir() if path.is_dir()]
    (unused := cache / ("a" * 32)).mkdir()
    long_ago = time.time() - served.KEPT_S - 1
    for path in (held, unused):
        os.utime(path, (long_ago, long_ago))
    served.state_at(ADDRESS)
    served._make_room(cache / "another")
    assert (held.is_dir(), unused.exists()) == (True, False)


def test_a_kind_that_is_not_exact_is_asked_harder_until_it_finds_enough(engine, make_folder, make_store):
    folder = make_folder(make_store(["a", "b"] * 40, seed=1))
    done = send(folder, kind="hnsw")
    assert (done.kind, done.recall) == ("hnsw", 1.0)
    assert open_there().index.table.effort == 64


def test_a_kind_that_the_server_has_not_is_refused_before_anything_is_written(engine, folder):
    with pytest.raises(LmrError, match="no diskann"):
        send(folder, kind="diskann")
    assert not engine.texts


def test_words_of_a_server_are_refused_for_a_manifest(folder, tmp_path):
    with pytest.raises(LmrError, match="`kind` is for an index on a server"):
        run_export(IndexExportJob(tmp_path / "rows.csv", index=folder.path, kind="hnsw"))


def test_what_needs_the_folder_refuses_an_index_on_a_server(engine, folder):
    send(folder)
    with pytest.raises(LmrError, match="is an index on a server, which this does not take; give the index folder that"):
        open_folder(URL)
    with pytest.raises(LmrError, match="its rows are on a server, and this needs them in the folder"):
        _ = open_there().own_flat


def test_a_submission_on_a_cluster_reads_a_folder():
    with pytest.raises(LmrError, match="is an index on a server, which this does not take"):
        SubmitJob(index=URL, engine="spark")


class FakeClient:
    """A client of Milvus as far as a connection goes. error: what every further call raises."""

    def __init__(self, version="2.6.1", error=None, made="FLAT"):
        self.version, self.error, self.made = version, error, made

    def get_server_version(self, timeout):
        return self.version

    def has_collection(self, name, timeout):
        if self.error:
            raise self.error
        return False

    def flush(self, name, timeout):
        pass

    def list_indexes(self, name, field_name):
        return [field_name]

    def describe_index(self, name, field, timeout):
        return {"index_type": self.made}

    def prepare_index_params(self):
        return []

    def load_collection(self, name, timeout=None):
        pass


class ClientError(Exception):
    """As pymilvus raises it."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


ClientError.__module__ = "pymilvus.exceptions"


@pytest.mark.parametrize(
    ("code", "message", "kind", "told"),
    [
        (2, "Fail connecting to server on h:1", UnreachableError, "no Milvus answers at 127.0.0.1:19530"),
        (1, "Retry timeout: 30s", UnreachableError, "does not answer in time"),
        (1400, "auth check failure", LmrError, "refuses to answer without a token: set LMR_MILVUS_TOKEN"),
        (65535, "no\n  room", LmrError, "Milvus refuses the collection c: no room"),
    ],
)
def test_errors_of_the_client_are_one_line(monkeypatch, code, message, kind, told):
    monkeypatch.delenv("LMR_MILVUS_TOKEN", raising=False)
    engine = MilvusEngine(ADDRESS, FakeClient(error=ClientError(code, message)))
    with pytest.raises(LmrError, match=told) as caught:
        engine.held("c")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_a_mistake_of_ours_is_not_taken_for_one_of_the_server():
    engine = MilvusEngine(ADDRESS, FakeClient(error=KeyError("x")))
    with pytest.raises(KeyError):
        engine.held("c")


def test_a_token_that_is_refused_is_not_said(monkeypatch):
    monkeypatch.setenv("LMR_MILVUS_TOKEN", "root:secret")
    engine = MilvusEngine(ADDRESS, FakeClient(error=ClientError(1400, "auth check failure")))
    with pytest.raises(LmrError, match="refuses the token in LMR_MILVUS_TOKEN") as caught:
        engine.held("c")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "kind", "told"),
    [
        ("milvus_lite-3.2.2", "ivf-pq", "Milvus Lite 3.2.2 has no index of `kind` ivf-pq"),
        ("milvus_lite-3.2.2", "diskann", "Milvus Lite 3.2.2 has no index of `kind` diskann"),
        ("2.5-lite", "hnsw", "Milvus Lite 2.5-lite has no index of `kind` hnsw; choose flat, ivf-flat, or"),
    ],
)
def test_a_kind_that_milvus_lite_has_not_is_refused(version, kind, told):
    with pytest.raises(LmrError, match=told):
        MilvusEngine(ADDRESS, FakeClient(version)).require_kind(kind)


def test_a_server_has_every_kind_and_lite_those_that_it_builds():
    MilvusEngine(ADDRESS, FakeClient("2.6.1")).require_kind("diskann")
    MilvusEngine(ADDRESS, FakeClient("milvus_lite-3.2.2")).require_kind("hnsw")


def test_a_kind_that_becomes_another_one_is_refused():
    engine = MilvusEngine(ADDRESS, FakeClient(made="AUTOINDEX"))
    engine._client.list_indexes = lambda name, field_name: []
    engine._client.prepare_index_params = FakeParameters
    engine._client.create_index = lambda name, wanted: None
    with pytest.raises(
        LmrError, match=r"Milvus 2\.6\.1 was asked for HNSW and has made AUTOINDEX; choose another `kind`"
    ):
        engine.build("t", ("vector",), "hnsw", 5)


class FakeParameters(list):
    """Parameters of indexes."""

    def add_index(self, field, **words):
        self.append((field, words))
