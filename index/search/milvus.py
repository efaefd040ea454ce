"""Milvus as a search engine: rows in one collection and files in another, by its Python client."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from index.search.address import Address
from index.search.config import MilvusKind
from index.search.engine import VECTOR, Batch, Held, Proposed
from retrieval.arrays import FloatArray, LongArray
from retrieval.errors import LmrError, UnreachableError
from retrieval.extras import require_extra

TOKEN = "LMR_MILVUS_TOKEN"  # the environment variable
MOST = 16_384  # rows that one search gives, as Milvus limits it
CONNECT_S, ASK_S, WRITE_S = 10.0, 30.0, 120.0  # within which the client tries again what failed on the way
KEEPALIVE_MS = 300_000  # between two pings; the client's own 10 s are too many for servers with the defaults of gRPC
RECONNECT_MS = 5_000  # longest wait before a server that was gone is tried again; gRPC's own grows to two minutes
POLL_S = 0.2  # between two looks at rows that are not to be seen yet
TEXT_CHARACTERS = 65_535  # longest text of a field
ID_CHARACTERS = 4_096  # longest image_id or landmark_id

_PAD = "pad"  # a collection of Milvus needs a vector
_FIELDS: dict[Held, set[str]] = {
    "rows": {"row", VECTOR, "image_id", "landmark_id"},
    "files": {"key", "text", _PAD},
}
_REASON_CHARACTERS = 200
_REFUSED = (1400, 1401, 1100)  # codes of a token or a right that is missing, in versions of Milvus


@dataclass(frozen=True, slots=True)
class KindOfMilvus:
    """A kind of index. name: of Milvus. word: of how hard it looks, '' = it is exact. coded: scores are of codes."""

    name: str
    word: Literal["", "nprobe", "ef", "search_list"] = ""
    coded: bool = False


KINDS: Mapping[MilvusKind, KindOfMilvus] = {
    "flat": KindOfMilvus("FLAT"),
    "ivf-flat": KindOfMilvus("IVF_FLAT", "nprobe"),
    "ivf-sq8": KindOfMilvus("IVF_SQ8", "nprobe", coded=True),
    "ivf-pq": KindOfMilvus("IVF_PQ", "nprobe", coded=True),
    "hnsw": KindOfMilvus("HNSW", "ef"),
    "hnsw-sq": KindOfMilvus("HNSW_SQ", "ef", coded=True),
    "diskann": KindOfMilvus("DISKANN", "search_list"),
}
# What Milvus Lite builds as it is named. Tried with 3.2.2; those before 3 take `hnsw` and search all rows.
OF_LITE: tuple[MilvusKind, ...] = ("flat", "ivf-flat", "ivf-sq8", "hnsw", "hnsw-sq")
OF_OLD_LITE: tuple[MilvusKind, ...] = ("flat", "ivf-flat")


class MilvusEngine:
    """A connection to a server of Milvus. client: None = one is opened to the address, with the token in TOKEN.

    Raises LmrError without pymilvus, and for a token that is refused; UnreachableError where no server answers.
    """

    most = MOST

    def __init__(self, address: Address, client: Any = None) -> None:
        self._address = address
        if client is None:
            require_extra("an index on Milvus", "milvus", "pymilvus")
            from pymilvus import MilvusClient

            # It logs each error with a traceback before it raises it.
            logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
            host = f"[{address.host}]" if ":" in address.host else address.host
            uri = f"{'https' if address.scheme.endswith('+tls') else 'http'}://{host}:{address.port}"
            with self._explained("a connection"):
                client = MilvusClient(
                    uri,
                    token=os.environ.get(TOKEN, ""),
                    timeout=CONNECT_S,
                    grpc_options={
                        "grpc.keepalive_time_ms": KEEPALIVE_MS,
                        "grpc.max_reconnect_backoff_ms": RECONNECT_MS,
                    },
                )
        self._client = client
        with self._explained("a connection"):
            version = str(client.get_server_version(timeout=CONNECT_S))
        self._lite = version.partition("-")[2] if version.startswith("milvus_lite") else ""
        self._is_lite = "lite" in version.lower()
        self._told = f"Milvus Lite {self._lite or version}" if self._is_lite else f"Milvus {version.lstrip('v')}"
        self._words: dict[tuple[str, str], str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """As its address: another process has a connection of its own."""
        return MilvusEngine, (self._address,)

    def told(self) -> str:
        """Name and version of the server."""
        return self._told

    def held(self, name: str) -> Held:
        """What a collection of this name holds."""
        with self._explained(f"the collection {name}"):
            if not self._client.has_collection(name, timeout=ASK_S):
                return "nothing"
            names = {field["name"] for field in self._described(name)["fields"]}
        return next((held for held, fields in _FIELDS.items() if fields <= names), "other")

    def create(self, name: str, d: int, fields: Sequence[str]) -> None:
        """Makes a collection for rows. fields: of their vectors, none = for files."""
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        if fields:
            schema.add_field("row", DataType.INT64, is_primary=True)
            for text in ("image_id", "landmark_id"):
                schema.add_field(text, DataType.VARCHAR, max_length=ID_CHARACTERS)
        else:
            schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=100)
            schema.add_field("text", DataType.VARCHAR, max_length=TEXT_CHARACTERS)
        for field in fields or (_PAD,):
            schema.add_field(field, DataType.FLOAT_VECTOR, dim=d if fields else 2)
        with self._explained(f"the collection {name}"):
            self._client.create_collection(name, schema=schema, consistency_level="Bounded", timeout=WRITE_S)
            if not fields:
                self._index(name, (_PAD,), "FLAT", {})

    def drop(self, name: str) -> None:
        """Removes a collection, if it is there."""
        with self._explained(f"to remove {name}"):
            if self._client.has_collection(name, timeout=ASK_S):
                self._client.drop_collection(name, timeout=WRITE_S)

    def publish(self, name: str, target: str) -> None:
        """Makes a name stand for a collection, in one step."""
        with self._explained(f"the alias {name}"):
            if self._client.has_collection(name, timeout=ASK_S):
                self._client.alter_alias(target, name, timeout=WRITE_S)
            else:
                self._client.create_alias(target, name, timeout=WRITE_S)

    def write(self, name: str, batch: Batch) -> None:
        """Writes rows."""
        rows = [
            {"row": batch.first + i, "image_id": image_id, "landmark_id": landmark_id}
            | {field: vectors[i] for field, vectors in batch.vectors.items()}
            for i, (image_id, landmark_id) in enumerate(zip(batch.image_id, batch.landmark_id, strict=True))
        ]
        with self._explained(f"rows {batch.first} and after"):
            self._client.upsert(name, rows, timeout=WRITE_S)

    def count(self, name: str, level: str = "Strong") -> int:
        """Number of rows. level: of consistency."""
        with self._explained(f"the rows of {name}"):
            self._load(name)
            found = self._client.query(
                name, filter="", output_fields=["count(*)"], consistency_level=level, timeout=ASK_S
            )
        return int(found[0]["count(*)"])

    def length(self, name: str, field: str) -> int:
        """Length of the vectors of a field."""
        with self._explained(f"the collection {name}"):
            fields = {one["name"]: one for one in self._described(name)["fields"]}
        return int(fields[field]["params"]["dim"])

    def build(self, name: str, fields: Sequence[str], kind: MilvusKind, n: int) -> None:
        """Makes all n rows searchable, and waits until they are. Raises LmrError for a kind that there is not."""
        wanted = KINDS[kind]
        self.require_kind(kind)
        lists = max(1, min(65_536, round(4 * n**0.5), n))
        parameters: dict[str, Any] = {"nlist": lists} if wanted.word == "nprobe" else {}
        if wanted.word == "ef":
            parameters = {"M": 30, "efConstruction": 360} | ({"sq_type": "SQ8"} if wanted.coded else {})
        if kind == "ivf-pq":
            parameters |= {"m": _parts(self.length(name, fields[0])), "nbits": 8}
        with self._explained(f"`kind` {kind}"):
            self._client.flush(name, timeout=WRITE_S)
            self._index(name, fields, wanted.name, parameters)
            built = {str(self._client.describe_index(name, field, timeout=ASK_S)["index_type"]) for field in fields}
        if built != {wanted.name}:
            raise LmrError(
                f"{self._address}: {self._told} was asked for {wanted.name} and has made {', '.join(sorted(built))}; "
                "choose another `kind`"
            )
        until = time.monotonic() + WRITE_S
        while (seen := self.count(name, level="Bounded")) < n and time.monotonic() < until:
            time.sleep(POLL_S)
        if seen != n:
            raise LmrError(f"{self._address}: {self._told} shows {seen:,} of {n:,} rows; run the command again")

    def require_kind(self, kind: MilvusKind) -> None:
        """Raises LmrError for a kind that the server takes without having it, or has not."""
        if not self._is_lite:
            return
        has = OF_LITE if int((self._lite or "0").split(".")[0]) >= 3 else OF_OLD_LITE
        if kind not in has:
            raise LmrError(
                f"{self._address}: {self._told} has no index of `kind` {kind}; choose {', '.join(has)}, or a server of "
                "Milvus"
            )

    def propose(self, name: str, field: str, queries: FloatArray, width: int, effort: int) -> Proposed:
        """The nearest rows. effort: how hard a kind that is not exact looks, 0 = as the server has it."""
        word = self._word(name, field) if effort else ""
        parameters = {word: effort if word == "nprobe" else max(effort, width)} if word else {}
        with self._explained(f"to search {name}"):
            found = self._loaded(
                name,
                lambda: self._client.search(
                    name,
                    data=list(queries),
                    anns_field=field,
                    limit=width,
                    output_fields=[field],
                    search_params={"metric_type": "IP", "params": parameters},
                    consistency_level="Bounded",
                    timeout=ASK_S,
                ),
            )
        rows = np.full((len(queries), width), -1, dtype=np.int64)
        scores = np.full((len(queries), width), -np.inf, dtype=np.float32)
        vectors = np.zeros((len(queries), width, queries.shape[1]), dtype=np.float32)
        for i, hits in enumerate(found):
            n = len(hits)
            rows[i, :n] = [hit["row"] for hit in hits]
            scores[i, :n] = [hit["distance"] for hit in hits]
            if n:
                vectors[i, :n] = [hit["entity"][field] for hit in hits]
        return Proposed(rows, scores, vectors)

    def vectors(self, name: str, field: str, rows: LongArray) -> FloatArray:
        """The vectors of these rows, (r, d) float32; each row is there once."""
        with self._explained(f"rows of {name}"):
            found = self._loaded(
                name,
                lambda: self._client.get(
                    name, ids=rows.tolist(), output_fields=["row", field], consistency_level="Bounded", timeout=ASK_S
                ),
            )
        by_row = {int(one["row"]): one[field] for one in found}
        if missing := [row for row in rows.tolist() if row not in by_row]:
            raise LmrError(f"{self._address}: row {missing[0]} is missing; run lmr index export with `overwrite`")
        return np.array([by_row[row] for row in rows.tolist()], dtype=np.float32).reshape(len(rows), -1)

    def put(self, name: str, texts: Mapping[str, str]) -> None:
        """Writes texts of at most 60,000 characters."""
        rows = [{"key": key, "text": text, _PAD: [0.0, 1.0]} for key, text in texts.items()]
        with self._explained(f"files of {name}"):
            self._client.upsert(name, rows, timeout=WRITE_S)

    def get(self, name: str, keys: Sequence[str]) -> Mapping[str, str]:
        """Those of the texts that are there."""
        with self._explained(f"files of {name}"):
            self._load(name)
            found = self._client.get(
                name, ids=list(keys), output_fields=["key", "text"], consistency_level="Strong", timeout=ASK_S
            )
        return {str(one["key"]): str(one["text"]) for one in found}

    def there(self, name: str, keys: Sequence[str]) -> set[str]:
        """Those of the keys that have a text."""
        with self._explained(f"files of {name}"):
            found = self._client.get(
                name, ids=list(keys), output_fields=["key"], consistency_level="Strong", timeout=ASK_S
            )
        return {str(one["key"]) for one in found}

    def delete(self, name: str, keys: Iterable[str]) -> None:
        """Removes texts."""
        with self._explained(f"files of {name}"):
            self._client.delete(name, ids=list(keys), timeout=WRITE_S)

    def _described(self, name: str) -> Any:
        return self._client.describe_collection(name, timeout=ASK_S)

    def _index(self, name: str, fields: Sequence[str], kind: str, parameters: Mapping[str, Any]) -> None:
        """An index of this kind on these fields, in memory; one that is there stays if it is of this kind."""
        wanted = self._client.prepare_index_params()
        for field in fields:
            there = self._client.list_indexes(name, field_name=field)
            if there and str(self._client.describe_index(name, there[0], timeout=ASK_S)["index_type"]) == kind:
                continue
            if there:
                self._client.release_collection(name, timeout=WRITE_S)
                self._client.drop_index(name, there[0], timeout=WRITE_S)
            wanted.add_index(field, index_name=field, index_type=kind, metric_type="IP", params=dict(parameters))
        if len(wanted):
            self._client.create_index(name, wanted)
        self._client.load_collection(name)

    def _loaded(self, name: str, ask: Callable[[], Any]) -> Any:
        """The answer of the server, asked again where it failed for a collection that was not in its memory."""
        try:
            return ask()
        except Exception as error:  # of the client, which has no kind of its own for that
            if not _is_theirs(error) or not self._load(name):
                raise
        return ask()

    def _load(self, name: str) -> bool:
        """Has the server hold a collection in memory, as it does not when it began anew; whether it did not."""
        state = self._client.get_load_state(name, timeout=ASK_S)["state"]
        if getattr(state, "name", str(state)) == "Loaded":
            return False
        self._client.load_collection(name, timeout=WRITE_S)
        return True

    def _word(self, name: str, field: str) -> str:
        """The word for how hard the index of a field looks."""
        if (name, field) not in self._words:
            with self._explained(f"the index of {name}"):
                kind = str(self._client.describe_index(name, field, timeout=ASK_S)["index_type"])
            self._words[name, field] = next((one.word for one in KINDS.values() if one.name == kind), "")
        return self._words[name, field]

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Errors of the client as one line. what: was asked for."""
        try:
            yield
        except LmrError:
            raise
        except Exception as error:  # of the client, and of gRPC below it, which have no common base
            if not _is_theirs(error):
                raise
            raise _explain(self._address, what, error) from error


def _parts(d: int) -> int:
    """Parts of 4 numbers, or of as few more as divide the length."""
    return next(d // size for size in range(min(4, d), d + 1) if d % size == 0)


def _is_theirs(error: Exception) -> bool:
    """True for an error of the client, or of gRPC below it."""
    return type(error).__module__.split(".")[0] in ("pymilvus", "grpc")


def _explain(address: Address, what: str, error: Exception) -> LmrError:
    code = getattr(error, "code", None)
    code = code() if callable(code) else code
    name = str(getattr(code, "name", code))
    text = " ".join(str(getattr(error, "message", "") or getattr(error, "details", str)() or error).split())
    reason = text[:_REASON_CHARACTERS]
    server = f"{address.host}:{address.port}"
    if name in ("UNAUTHENTICATED", "PERMISSION_DENIED") or code in _REFUSED[:2] or "auth" in text.lower():
        told = "the token in" if os.environ.get(TOKEN) else "to answer without a token: set"
        return LmrError(f"{address}: {server} refuses {told} {TOKEN} (user:password, or a key): {reason}")
    if name == "DEADLINE_EXCEEDED" or "timeout" in text.lower():
        return UnreachableError(f"{address}: {server} does not answer in time ({reason}); it may be busy")
    if name == "UNAVAILABLE" or code == 2 or "Fail connecting" in text:
        return UnreachableError(f"{address}: no Milvus answers at {server} ({reason}); start it, or mend the address")
    return LmrError(f"{address}: Milvus refuses {what}: {reason}")
