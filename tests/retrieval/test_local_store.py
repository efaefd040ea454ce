"""Stores of local features: what comes back, and every way in which they can be broken."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_features import CARD, NAMES, made, write_made

from retrieval.errors import LmrError
from retrieval.local.config import LocalCard, LocalOptions
from retrieval.local.features import pack_points, unpack_points
from retrieval.local.journal import Journal, JournalHead, journal_path, open_journal, read_head
from retrieval.local.packing import learn_projection, pack, parse_projection, projected, unpack
from retrieval.local.store import LocalColumns, LocalInfo, open_local, unknown_facts
from retrieval.local.writer import write_local
from retrieval.shard import Shard
from retrieval.store.layout import DONE, TODO, UNREADABLE
from retrieval.texts import Texts

REMEDY = "copy it again if it is a copy, else make it again with lmr embed `local` `overwrite`"


def refused(path: Path) -> str:
    with pytest.raises(LmrError) as caught:
        open_local(path)
    return str(caught.value)


def change(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_store_gives_back_the_features_of_each_image(tmp_path):
    info = LocalInfo(CARD, "m" * 64, Shard(2, 3))
    written = write_made(tmp_path / "x.local.h5", info)
    store = open_local(tmp_path / "x.local.h5")
    assert (store.info, len(store), store.image_id.tolist()) == (info, 4, list(NAMES))
    assert store.columns.state.tolist() == [DONE, DONE, UNREADABLE, DONE]
    assert store.columns.reason.tolist() == ["", "", "no picture", ""]
    assert store.offsets.tolist() == [0, 3, 3, 3, 5]
    assert store.features(2) is None
    for row in (0, 1, 3):
        features, packed = store.features(row), written[row]
        assert features is not None
        assert packed is not None
        assert features.size == packed.size
        np.testing.assert_array_equal(features.points, packed.points / np.float32(16))
        lengths = np.linalg.norm(packed.descriptors.astype(np.float32), axis=1, keepdims=True)
        np.testing.assert_allclose(features.descriptors, packed.descriptors / lengths, rtol=1e-6)
    assert store.find(["d", "nobody", "a"]).tolist() == [3, -1, 0]


def test_the_features_are_one_matrix_that_other_programs_read(tmp_path):
    written = write_made(tmp_path / "x.local.h5")
    with h5py.File(tmp_path / "x.local.h5") as file:
        begin, end = file["offsets"][3:5]
        rows = file["features"][begin:end]
        assert file.attrs["fingerprint"] == CARD.fingerprint
        assert file["features"].dtype.itemsize == 4 + 2 * CARD.d
    np.testing.assert_array_equal(rows["point"], written[3].points)
    np.testing.assert_array_equal(rows["descriptor"], written[3].descriptors)


def test_a_store_of_no_features_at_all_is_one(tmp_path):
    columns = LocalColumns(
        Texts.of(["a"]),
        np.array([DONE], np.uint8),
        np.zeros(1, np.int64),
        np.array([[1, 640]], np.int32),
        Texts.of([""]),
    )
    write_local(tmp_path / "x.local.h5", LocalInfo(CARD), columns, [made(0)])
    store = open_local(tmp_path / "x.local.h5")
    features = store.features(0)
    assert features is not None
    assert (len(features), features.descriptors.shape, features.size) == (0, (0, CARD.d), (1, 640))
    store.require_whole()


def test_the_same_features_are_the_same_bytes(tmp_path):
    for name in ("x.local.h5", "y.local.h5"):
        write_made(tmp_path / name)
    assert (tmp_path / "x.local.h5").read_bytes() == (tmp_path / "y.local.h5").read_bytes()
    one, other = (open_local(tmp_path / name) for name in ("x.local.h5", "y.local.h5"))
    assert one.identity == other.identity


def test_columns_that_say_too_many_features_are_no_store(tmp_path):
    columns = LocalColumns(
        Texts.of(["a"]), np.array([DONE], np.uint8), np.array([2]), np.array([[9, 9]], np.int32), Texts.of([""])
    )
    with pytest.raises(ValueError, match=r"^1 features, the columns say 2$"):
        write_local(tmp_path / "x.local.h5", LocalInfo(CARD), columns, [made(1)])
    assert list(tmp_path.iterdir()) == []


def test_a_changed_byte_is_named_where_it_is_read(tmp_path):
    path = tmp_path / "x.local.h5"
    write_made(path)
    with h5py.File(path) as file:
        place = file["features"].id.get_offset()
        n_bytes = 5 * file["features"].dtype.itemsize
    change(path, place + 4)
    store = open_local(path)
    told = f"{path} is damaged (its bytes {place:,} to {place + n_bytes:,} are not those that were written); {REMEDY}"
    for read in (lambda: store.features(0), store.require_whole):
        with pytest.raises(LmrError) as caught:
            read()
        assert str(caught.value) == told
    change(path, place + 4)
    change(path, place - 9)
    assert refused(path) == (
        f"{path} is damaged (what it says of its pictures, or its structure, is not as it was written); {REMEDY}"
    )


def test_a_store_that_is_cut_short_is_told(tmp_path):
    path = tmp_path / "x.local.h5"
    write_made(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert refused(path) == (
        f"{path} is damaged (it is cut short: {len(whole) - 3:,} of {len(whole):,} bytes); {REMEDY}"
    )


def test_a_store_that_is_replaced_while_it_is_read_is_told(tmp_path):
    path = tmp_path / "x.local.h5"
    write_made(path)
    store = open_local(path)
    write_made(path)
    for n in range(2):
        with pytest.raises(LmrError) as caught:
            store.features(0)
        told = "was changed while it was read; run the command again"
        assert str(caught.value).startswith(f"{path} {told if n == 0 else 'cannot be read: No such file'}")
        path.unlink(missing_ok=True)


def test_a_store_without_its_digests_is_damaged(tmp_path):
    path = tmp_path / "x.local.h5"
    write_made(path)
    path.write_bytes(bytes(512) + path.read_bytes()[512:])
    assert (
        refused(path)
        == f"{path} is damaged (its digests are missing); make it again with lmr embed `local` `overwrite`"
    )


def test_other_files_are_no_local_stores(tmp_path):
    missing = tmp_path / "x.local.h5"
    assert refused(missing) == f"{missing}: there is no such store of local features; lmr embed `local` makes one"
    missing.write_text("text" * 300)
    assert refused(missing) == f"{missing} is not a store of local features (no HDF5 file); give the right file"
    with h5py.File(missing, "w") as file:
        file["vectors"] = np.zeros((2, 3))
    assert refused(missing) == (
        f"{missing} is no store of local features but a descriptor store; lmr embed `local` makes one"
    )
    with h5py.File(missing, "w") as file:
        file.attrs["local_format_version"] = 9
    assert refused(missing) == (
        f"{missing} has local_format_version 9, this program reads 1; use the lmr that made it, or make it again into "
        "another file"
    )


def test_a_card_differs_in_what_changes_features(tmp_path):
    assert CARD.fingerprint == replace(CARD, program_version="9").fingerprint
    changes = {
        "another kind of local features (xfeat, now aliked)": {"kind": "aliked"},
        "another number of keypoints (9, now 8)": {"n_keypoints": 8},
        "another long side (640, now 320)": {"long_side": 320},
        "another length of local descriptors (4, now 5)": {"d": 5},
        "other weights": {"weights_sha256": "cd" * 32},
        "another projection (, now abc)": {"projection": "abc"},
    }
    for told, change in changes.items():
        other = replace(CARD, **change)
        assert other.fingerprint != CARD.fingerprint
        assert CARD.difference(other) == told
    assert CARD.difference(replace(CARD, program_version="9")) == ""


def test_a_card_is_read_as_it_was_written():
    assert LocalCard.from_json(CARD.to_json()) == CARD
    with pytest.raises(ValueError, match=r"^a card of local features has kind, n_keypoints"):
        LocalCard.from_json({"kind": "xfeat"})
    with pytest.raises(ValueError, match=r"^d of a card of local features is true$"):
        LocalCard.from_json({**CARD.to_json(), "d": True})
    with pytest.raises(ValueError, match=r"^kind surf of dtype uint8 is not known$"):
        LocalCard("surf", 1, 1, 1, "uint8")


def test_options_without_a_kind_name_it():
    with pytest.raises(LmrError, match=r"^`local` is missing; give rootsift, aliked or xfeat$"):
        LocalOptions(n_keypoints=5).require_kind()


def test_a_keypoint_is_stored_to_a_sixteenth_of_a_pixel():
    points = np.array([[0.0, 0.03], [639.97, 0.032], [-1.0, 5000.0]], np.float32)
    assert unpack_points(pack_points(points)).tolist() == [[0, 0], [640, 0.0625], [0, 65_535 / 16]]


ROOTSIFT = LocalCard("rootsift", 1000, 640, 128, "uint8")


def sift_like(n: int, seed: int = 0):
    """Descriptors that vary in few directions, in whole numbers."""
    rng = np.random.default_rng(seed)
    return np.rint(np.abs(rng.normal(0, 1, (n, 6)) @ rng.normal(0, 40, (6, 128)))).clip(0, 255).astype(np.float32)


def test_rootsift_is_the_root_of_descriptors_of_sum_1_and_loses_nothing():
    descriptors = sift_like(5)
    packed = pack(ROOTSIFT, np.ones((5, 4), np.float32), descriptors, (9, 9))
    assert packed.descriptors.tolist() == descriptors.tolist()
    expected = np.sqrt(descriptors / descriptors.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(unpack(ROOTSIFT, packed).descriptors, expected, rtol=1e-6)


def test_descriptors_without_a_direction_are_left_out():
    descriptors = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [np.nan, 1, 0, 0], [0, 2, 0, 0]], np.float32)
    packed = pack(CARD, np.arange(8, dtype=np.float32).reshape(4, 2), descriptors, (9, 9))
    assert unpack(CARD, packed).points.tolist() == [[0, 1], [6, 7]]
    assert unpack(CARD, packed).descriptors.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("card", [ROOTSIFT, LocalCard("aliked", 9, 640, 128, "float16")])
def test_a_projection_keeps_what_varies(card):
    descriptors = sift_like(300)
    points = np.zeros((300, 4), np.float32)
    roots = unpack(card, pack(card, points, descriptors, (9, 9))).descriptors
    found = projected(card, learn_projection(roots, 12))
    assert (found.d, found.dtype) == (12, card.dtype)
    assert LocalCard.from_json(found.to_json()) == found
    packed = pack(found, points, descriptors, (9, 9))
    assert packed.descriptors.shape == (300, 12)
    projection = parse_projection(found.projection, 12)
    np.testing.assert_allclose(projection.matrix @ projection.matrix.T, np.eye(12), atol=1e-5)
    given = roots if card.kind == "rootsift" else descriptors
    expected = (given - projection.mean) @ projection.matrix.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosine = (unpack(found, packed).descriptors * expected).sum(axis=1)
    assert cosine.min() > 0.999


def test_a_projection_needs_more_descriptors_than_dimensions():
    with pytest.raises(LmrError) as caught:
        learn_projection(np.zeros((12, 128), np.float32), 12)
    assert str(caught.value) == (
        "`local_dimensions` 12 cannot be learnt from 12 local descriptors; give more images, or 0"
    )


def journal_of(path: Path, n: int = 3) -> Journal:
    return Journal(journal_path(path), JournalHead(LocalInfo(CARD, "m" * 64), n))


def test_a_journal_keeps_features_block_by_block(tmp_path):
    path = tmp_path / "x.local.h5"
    assert read_head(journal_path(path)) is None
    journal = journal_of(path)
    journal.append(np.array([0, 2]), [made(2), "no picture"], unknown_facts(2))
    journal.append(np.array([1]), [made(1, 1)], unknown_facts(1))
    again = open_journal(journal_path(path))
    assert again.head == journal.head
    assert again.state.tolist() == [DONE, DONE, UNREADABLE]
    assert again.columns(Texts.of(["a", "b", "c"])).reason.tolist() == ["", "", "no picture"]
    found = again.packed(1)
    assert found is not None
    np.testing.assert_array_equal(found.descriptors, made(1, 1).descriptors)
    assert again.packed(2) is None


def test_what_a_kill_left_at_the_end_of_a_journal_counts_for_nothing(tmp_path):
    path = tmp_path / "x.local.h5"
    journal_of(path).append(np.array([0]), [made(2)], unknown_facts(1))
    whole = journal_path(path).read_bytes()
    second = journal_of(path)
    second.append(np.array([1]), [made(3, 1)], unknown_facts(1))
    both = journal_path(path).read_bytes()
    for n_bytes in (len(whole), len(whole) + 1, len(whole) + 40, len(both) - 1):
        journal_path(path).write_bytes(both[:n_bytes])
        again = journal_of(path)
        assert again.state.tolist() == [DONE, TODO, TODO]
        assert again.n_torn == n_bytes - len(whole)
        again.append(np.array([1]), [made(3, 1)], unknown_facts(1))
        assert journal_path(path).read_bytes() == both


def test_a_journal_whose_head_was_not_written_is_none(tmp_path):
    path = journal_path(tmp_path / "x.local.h5")
    head = JournalHead(LocalInfo(CARD, "m" * 64), 3).to_bytes()
    for n_bytes in (0, 5, len(head) - 1):
        path.write_bytes(head[:n_bytes])
        assert read_head(path) is None
    path.write_bytes(b"something else" * 9)
    with pytest.raises(LmrError) as caught:
        read_head(path)
    assert str(caught.value) == (
        f"{path} is no unfinished store of local features; remove it and run lmr embed `local` again"
    )
