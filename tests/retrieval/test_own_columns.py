"""A user's own columns: kept from the table to the store, whatever lmr makes of the others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_stores import write_store
from recorder import Recorder

from retrieval.data.manifest import Manifest, read_manifest
from retrieval.errors import LmrError
from retrieval.own_columns import OwnColumns, digest_of_columns, join_columns, row_columns, same_columns
from retrieval.progress import SILENT
from retrieval.shard import Shard
from retrieval.store.join import join_stores, renew_columns
from retrieval.store.layout import ImageFacts
from retrieval.store.store import (
    DONE,
    TODO,
    UNREADABLE,
    Descriptors,
    StoreInfo,
    create_store,
    open_descriptors,
    partial_path,
    resume_store,
)
from retrieval.texts import Texts

TABLE = 'id,landmark_id,Photographer,latitude,lng\na,1,"Ågot, of Oslo",59.9139,10.7522\nb,,,,\nc,2,Tu,-33.8,151\n'


def read(folder: Path, text: str) -> tuple[Manifest, list[str]]:
    said: list[str] = []
    path = folder / "t.csv"
    path.write_text(text)
    return read_manifest(path, Recorder(said)), [line.replace(str(path), "t.csv") for line in said]


def plain(columns: OwnColumns) -> dict[str, list[str]]:
    return {name: texts.tolist() for name, texts in columns.items()}


def stored(manifest: Manifest) -> Descriptors:
    n = len(manifest)
    return Descriptors(
        vectors=np.eye(n, 4, dtype=np.float32),
        image_id=manifest.image_id,
        landmark=manifest.landmark,
        landmarks=manifest.landmarks,
        state=np.full(n, DONE, np.uint8),
        path=Texts.of([""] * n),
        kind=None,
        info=StoreInfo("ab" * 32, {}, {}, "0", "m", "float32", 4),
        source="t.h5",
        columns=manifest.columns,
    )


def test_columns_that_lmr_has_no_use_for_are_kept_and_coordinates_have_one_name(tmp_path: Path) -> None:
    manifest, said = read(tmp_path, TABLE)
    assert plain(manifest.columns) == {
        "Photographer": ["Ågot, of Oslo", "", "Tu"],
        "lat": ["59.9139", "", "-33.8"],
        "lon": ["10.7522", "", "151"],
    }
    assert said == ["t.csv: kept for the answers: Photographer, lat, lon"]
    assert plain(manifest.select(np.array([2, 0])).columns)["lon"] == ["151", "10.7522"]


def test_of_very_many_columns_the_first_are_kept_and_the_others_are_counted(tmp_path: Path) -> None:
    names = [f"x{i}" for i in range(80)]
    manifest, said = read(tmp_path, f"id,landmark_id,{','.join(names)}\na,1,{','.join(map(str, range(80)))}\n")
    assert list(manifest.columns) == names[:64]
    assert said == [
        f"t.csv: kept for the answers: {', '.join(names[:10])} and 54 more",
        f"t.csv: not used: {', '.join(names[64:74])} and 6 more",
    ]


def test_a_store_keeps_them_and_a_join_of_shares_has_them_all(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, TABLE)
    whole, parts = stored(manifest), []
    for i in (1, 2):
        own = whole.select(np.array(Shard(i, 2).rows(len(whole))))
        parts.append(tmp_path / f"{i}.h5")
        write_store(parts[-1], replace(own, info=replace(own.info, shard=Shard(i, 2))))
    join_stores(parts, tmp_path / "all.h5", overwrite=False, progress=SILENT)
    assert plain(open_descriptors(tmp_path / "all.h5").columns) == plain(manifest.columns)


def test_columns_that_a_part_does_not_have_are_blank_there() -> None:
    one, other = {"year": Texts.of(["1", "2"])}, {"city": Texts.of(["Rome"]), "year": Texts.of(["3"])}
    joined = join_columns([(one, 2), ({}, 1), (other, 1)])
    assert plain(joined) == {"year": ["1", "2", "", "3"], "city": ["", "", "", "Rome"]}
    assert row_columns(joined, 2) == {"year": "", "city": ""}
    assert row_columns(joined, 3) == {"year": "3", "city": "Rome"}
    assert same_columns(one, dict(one))
    assert not same_columns(one, joined)


def test_an_unfinished_store_gets_other_columns_with_what_is_done_of_it(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, TABLE)
    path, facts = tmp_path / "t.h5", ImageFacts(np.arange(3), np.arange(3), np.ones((3, 32), np.uint8))
    with create_store(path, manifest, ["p", "q", "r"], stored(manifest).info) as writer:
        writer.write(np.array([2]), np.full((1, 4), 0.5, np.float32), facts.select(np.array([2])))
        writer.write_unreadable(0, "gone", facts.select(np.array([0])))
    other = {"year": Texts.of(["1", "2", "3"])}
    assert renew_columns(partial_path(path), other, SILENT)
    assert not renew_columns(partial_path(path), other, SILENT)
    with resume_store(path) as writer:
        assert (writer.state.tolist(), writer.damaged.tolist()) == ([UNREADABLE, TODO, DONE], [])
        writer.write(np.array([1]), np.eye(1, 4, dtype=np.float32), facts.select(np.array([1])))
        writer.finish()
    store = open_descriptors(path)
    assert (plain(store.columns), store.path.tolist(), store.landmarks) == (plain(other), ["p", "q", "r"], ("1", "2"))
    assert store.facts is not None
    assert store.reason is not None
    assert (store.facts.size.tolist(), store.reason.tolist()) == ([0, 1, 2], ["gone", "", ""])
    assert store.vectors[2].tolist() == [0.5] * 4
    assert sorted(place.name for place in tmp_path.iterdir()) == ["t.csv", "t.h5"]


def test_lists_of_numbers_in_parquet_are_nobody_s_words(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    given = {"id": ["a"], "landmark_id": ["1"], "year": [1900], "tags": [["x", "y"]], "vector": [[0.5, 0.25]]}
    parquet.write_table(pa.table(given), tmp_path / "t.parquet")
    said: list[str] = []
    manifest = read_manifest(tmp_path / "t.parquet", Recorder(said))
    assert plain(manifest.columns) == {"year": ["1900"], "tags": ["x y"]}
    assert said == [
        f"{tmp_path}/t.parquet: kept for the answers: year, tags",
        f"{tmp_path}/t.parquet: not used: vector",
    ]


def test_a_digest_tells_columns_and_their_texts_apart() -> None:
    one, other = {"year": Texts.of(["1", "2"])}, {"city": Texts.of(["1", "2"])}
    assert len({digest_of_columns(given) for given in ({}, one, other, {"year": Texts.of(["12", ""])})}) == 4


def test_a_column_of_another_length_is_refused(tmp_path: Path) -> None:
    manifest, _ = read(tmp_path, TABLE)
    with pytest.raises(ValueError, match=r"^column year must have 3 rows, got 1$"):
        replace(manifest, columns={"year": Texts.of(["1"])})


@pytest.mark.parametrize(
    ("header", "kept"),
    [("latitude,lat,lng", ["latitude", "lat", "lon"]), ("lat_,LAT,long", ["lat_", "lat", "lon"])],
)
def test_a_column_that_is_called_as_coordinates_are_goes_before_others(
    tmp_path: Path, header: str, kept: list[str]
) -> None:
    manifest, _ = read(tmp_path, f"id,{header}\na,1,2,3\n")
    assert plain(manifest.columns) == dict(zip(kept, [["1"], ["2"], ["3"]], strict=True))


def test_two_columns_that_may_be_one_coordinate_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("id,lat,lng,longitude\na,1,2,3\n")
    with pytest.raises(LmrError) as error:
        read_manifest(table, SILENT)
    assert str(error.value) == (
        f"{table}: the columns lng and longitude may both be the lon; name the right one lon, or give `column` lon=lng"
    )
