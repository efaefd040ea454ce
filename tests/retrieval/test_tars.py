"""Images in tars: found, read, and indexed once."""

import os
import pickle
import resource
import signal
import sqlite3
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from made_tars import add, make_tar
from recorder import Recorder
from tiny_world import jpeg

from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.data.quality_cache import measure_manifest
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.given import image_exists, list_images, read_image
from retrieval.images.limits import Limits
from retrieval.images.tars.archive import TarSet, list_tars, open_tar
from retrieval.images.tars.build_index import INDEX_NAME


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images of three tars."""
    folder = tmp_path / "images"
    make_tar(folder / "images_000.tar", [("0/0/0/000aa.jpg", b"first"), ("./0/0/1/001bb.jpg", b"second")])
    make_tar(folder / "images_001.tar", [("abcd.JPG", b"third"), ("deep/er/wxyz.png", b"fourth")])
    make_tar(folder / "images_002.tar", [("Hawa_Mahal/1.jpg", b"fifth"), ("arch/1.jpg", b"sixth")])
    return folder


def manifest_of(*ids: str, paths: list[str] | None = None) -> Manifest:
    path = None if paths is None else np.array(paths, dtype=object)
    ids_array = np.array(ids, dtype=object)
    return Manifest("nowhere/train.csv", ids_array, np.full(len(ids), -1, dtype=np.int32), (), path=path)


def reason(source: ImageSource, row: int = 0) -> str:
    with pytest.raises(UnreadableError) as caught:
        source.read(row)
    return str(caught.value)


def why_unreadable(path: object) -> str:
    with pytest.raises(UnreadableError) as caught:
        read_image(str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("image_id", "place", "content"),
    [
        ("000aa", "images_000.tar/0/0/0/000aa.jpg", b"first"),
        ("001bb", "images_000.tar/0/0/1/001bb.jpg", b"second"),
        ("abcd", "images_001.tar/abcd.JPG", b"third"),
        ("abcd.JPG", "images_001.tar/abcd.JPG", b"third"),
        ("wxyz", "images_001.tar/deep/er/wxyz.png", b"fourth"),
        ("Hawa_Mahal/1", "images_002.tar/Hawa_Mahal/1.jpg", b"fifth"),
        ("arch/1.jpg", "images_002.tar/arch/1.jpg", b"sixth"),
    ],
)
def test_a_image_in_a_tar_is_found_by_its_id(images: Path, image_id: str, place: str, content: bytes) -> None:
    source = ImageSource(manifest_of(image_id), images)
    assert source.read(0) == content
    assert source.where(0) == f"{images}/{place}"
    assert read_image(source.where(0)) == content
    assert image_exists(source.where(0))


def test_one_tar_may_be_the_images_folder(images: Path) -> None:
    source = ImageSource(manifest_of("000aa", "abcd"), images / "images_000.tar")
    assert source.read(0) == b"first"
    tar = images / "images_000.tar"
    assert reason(source, 1) == f"not found: tried {tar}/abcd.jpg and 23 other places, and looked into 1 tar"


def test_tars_beside_the_manifest_or_in_its_images_folder_are_used(images: Path) -> None:
    for source in ("train.csv", "images/train.csv"):
        manifest = Manifest(str(images.parent / source), *_one("000aa"))
        assert ImageSource(manifest, None).read(0) == b"first"


def _one(image_id: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    return np.array([image_id], dtype=object), np.array([-1], dtype=np.int32), ()


def test_plain_files_and_tars_mix_and_a_plain_file_goes_first(images: Path) -> None:
    (images / "plain.jpg").write_bytes(b"plain")
    (images / "0/0/0").mkdir(parents=True)
    (images / "0/0/0/000aa.jpg").write_bytes(b"repaired")
    source = ImageSource(manifest_of("plain", "000aa", "001bb"), images)
    assert [source.read(i) for i in range(3)] == [b"plain", b"repaired", b"second"]


def test_a_path_leads_into_tars_as_if_they_were_unpacked_or_by_the_tar_s_name(images: Path) -> None:
    paths = ["0/0/1/001bb.jpg", "images_001.tar/abcd.JPG", str(images / "images_002.tar/arch/1.jpg"), "1.jpg", "0/0/x"]
    source = ImageSource(manifest_of(*"abcde", paths=paths), images)
    assert [source.read(i) for i in range(3)] == [b"second", b"third", b"sixth"]
    assert source.where(0) == f"{images}/images_000.tar/0/0/1/001bb.jpg"
    tried = [f"not found: tried {images}/1.jpg, and looked into 3 tars"]
    tried.append(f"not found: tried {images}/0/0/x and 12 other places, and looked into 3 tars")
    assert [reason(source, i) for i in (3, 4)] == tried


def test_an_id_that_several_images_have_is_unreadable_and_names_them(images: Path) -> None:
    make_tar(images / "copy.tar", [("0/0/0/000aa.jpg", b"other")])
    source = ImageSource(manifest_of("000aa", "1"), images)
    assert [source.where(i) for i in range(2)] == ["", ""]
    assert reason(source, 0) == (
        f"it is there more than once: {images}/copy.tar/0/0/0/000aa.jpg, {images}/images_000.tar/0/0/0/000aa.jpg; "
        "keep one, or give a path column"
    )
    assert reason(source, 1) == (
        f"it is there more than once: {images}/images_002.tar/Hawa_Mahal/1.jpg, {images}/images_002.tar/arch/1.jpg; "
        "keep one, or give a path column"
    )


def test_a_image_at_the_top_goes_before_one_deeper_in(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", [("small/abcd.jpg", b"small"), ("a/b/c/abcd.jpg", b"large")])
    assert ImageSource(manifest_of("abcd"), tmp_path).read(0) == b"large"


def test_of_one_name_twice_in_a_tar_the_last_counts(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", [("a/b/c/abcd.jpg", b"old"), ("x.jpg", b"x"), ("./a/b/c/abcd.jpg", b"new")])
    assert ImageSource(manifest_of("abcd"), tmp_path).read(0) == b"new"
    assert [image.read() for image in list_images([str(tar)])] == [b"new", b"x"]


def test_ids_never_lead_out_of_a_tar(images: Path) -> None:
    (images.parent / "secret.jpg").write_bytes(b"secret")
    for image_id in ("../secret", "a/../../secret", "/etc/passwd"):
        assert reason(ImageSource(manifest_of(image_id), images)) == (
            f"image_id {image_id!r} leads out of the images folder"
        )
    assert why_unreadable(images / "images_000.tar/../../secret.jpg") == "not found"


def test_limits_hold_in_tars(images: Path) -> None:
    source = ImageSource(manifest_of("000aa", "001bb"), images, Limits(max_bytes=5))
    assert (source.read(0), reason(source, 1)) == (b"first", "6 bytes, over the limit of 5")


def test_what_is_not_in_a_tar_is_not_found(images: Path) -> None:
    (images / "list.csv").write_text("id\n1\n")
    for path in ("images_000.tar/no.jpg", "images_000.tar/0", "no.tar/a.jpg", "list.csv/a.jpg", "images_000.tar/a\0b"):
        assert why_unreadable(images / path) in ("not found", "embedded null byte"), path
        assert not image_exists(str(images / path))


def test_a_image_that_is_cut_short_is_unreadable_and_those_before_it_are_not(images: Path) -> None:
    tar = images / "images_001.tar"
    tar.write_bytes(tar.read_bytes()[: 3 * 512 + 3])
    tars = TarSet(list_tars(images))
    assert tars.warnings() == [f"{tar} is cut short in 'deep/er/wxyz.png'; of its pictures the 2 up to there are used"]
    source = ImageSource(manifest_of("abcd", "wxyz"), images)
    assert (source.read(0), reason(source, 1)) == (b"third", f"{tar} ends within it")


def test_unusable_tars_in_a_folder_are_passed_over_with_a_word_and_refused_by_name(images: Path) -> None:
    (images / "weights.pth.tar").write_bytes(b"PK" + bytes(2000))
    tars = TarSet(list_tars(images))
    told = f"{images}/weights.pth.tar is no tar; fetch or pack it again"
    assert tars.warnings() == [f"{told}; it is passed over"]
    assert ImageSource(manifest_of("000aa"), images).read(0) == b"first"
    with pytest.raises(LmrError) as caught:
        open_tar(images / "weights.pth.tar")
    assert str(caught.value) == told
    assert why_unreadable(images / "weights.pth.tar/a.jpg") == told


def test_the_warnings_about_tars_are_counted_after_the_first_ten(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i:02}.tar").write_bytes(b"")
    warnings = TarSet(list_tars(tmp_path)).warnings()
    assert warnings[0] == f"{tmp_path}/00.tar is empty; of its pictures the 0 up to there are used"
    assert warnings[10:] == ["and 2 more such lines about tars"]


def test_links_and_unsafe_names_are_counted_in_a_warning(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "a.jpg", b"1")
        add(tar, "l.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "../b.jpg", b"2")
    tars = TarSet(list_tars(tmp_path))
    told = f"{tmp_path}/a.tar: 2 links, devices and names that lead out of it were passed over"
    assert tars.warnings() == [told]
    assert tars.n_pictures == 1


def test_tars_are_indexed_once_and_a_replaced_one_anew(images: Path) -> None:
    first, again, third = Recorder(), Recorder(), Recorder()
    TarSet(list_tars(images), first)
    TarSet(list_tars(images), again)
    assert (first.begun, again.begun) == ([sum(tar.stat().st_size for tar in list_tars(images))], [])
    make_tar(images / "images_001.tar", [("abcd.jpg", b"new"), ("a.jpg", b"1"), ("b.jpg", b"2")])
    tars = TarSet(list_tars(images), third)
    assert third.begun == [(images / "images_001.tar").stat().st_size]
    assert tars.n_pictures == 7
    source = ImageSource(manifest_of("abcd", "wxyz", "000aa"), images)
    assert (source.read(0), source.where(1), source.read(2)) == (b"new", "", b"first")


def test_a_tar_that_changes_while_it_is_used_is_never_misread(images: Path) -> None:
    source = ImageSource(manifest_of("abcd"), images)
    assert source.read(0) == b"third"
    tar = make_tar(images / "images_001.tar", [("abcd.jpg", b"longer content")])
    assert reason(source) == f"{tar} was changed meanwhile; run the same command again"
    aside = tar.rename(tar.parent.parent / "aside.tar")
    assert reason(source) == f"{tar}: No such file or directory"
    assert why_unreadable(f"{tar}/abcd.jpg") == "not found"
    aside.rename(tar)
    assert read_image(f"{tar}/abcd.jpg") == b"longer content"


def test_a_tar_that_went_away_is_forgotten(images: Path) -> None:
    TarSet(list_tars(images))
    (images / "images_000.tar").unlink()
    make_tar(images / "later.tar", [("z.jpg", b"z")])
    assert TarSet(list_tars(images)).n_pictures == 5
    with sqlite3.connect(images / INDEX_NAME) as connection:
        names = [name for (name,) in connection.execute("SELECT path FROM tars ORDER BY path")]
        (n_rows,) = connection.execute("SELECT count(*) FROM members").fetchone()
    assert (names, n_rows) == (["images_001.tar", "images_002.tar", "later.tar"], 5)


def test_the_folder_may_be_moved_without_indexing_again(images: Path) -> None:
    TarSet(list_tars(images))
    moved = images.rename(images.parent / "moved")
    told = Recorder()
    assert TarSet(list_tars(moved), told).find_id("abcd").path == f"{moved}/images_001.tar/abcd.JPG"
    assert told.begun == []


def test_an_index_that_cannot_be_beside_the_tars_is_in_the_user_s_cache(images: Path, tmp_path: Path) -> None:
    (images / INDEX_NAME).mkdir()
    told, again = Recorder(), Recorder()
    TarSet(list_tars(images), told)
    (kept,) = (tmp_path / "cache/lmr/tars").iterdir()
    reason = f"{images}/{INDEX_NAME} cannot be written: unable to open database file"
    assert told.warnings == [f"{reason}; the index of the tars is kept in {kept}"]
    assert TarSet(list_tars(images), again).find_id("abcd").read() == b"third"
    assert (again.begun, again.warnings) == ([], [])


def test_without_any_place_to_keep_it_the_index_is_temporary(images: Path, tmp_path: Path) -> None:
    (images / INDEX_NAME).mkdir()
    (tmp_path / "cache").write_bytes(b"a file")
    told = Recorder()
    tars = TarSet(list_tars(images), told)
    assert tars.find_id("abcd").read() == b"third"
    assert len(told.warnings) == 1
    assert f"; the index of the tars is kept in {tempfile.gettempdir()}/lmr-tars-" in told.warnings[0]


@pytest.mark.parametrize("damage", ["garbage", "truncated", "version", "unfinished"])
def test_an_index_that_is_not_usable_is_made_anew(images: Path, damage: str) -> None:
    TarSet(list_tars(images))
    place = images / INDEX_NAME
    if damage == "garbage":
        place.write_bytes(b"no database" * 1000)
    elif damage == "truncated":
        place.write_bytes(place.read_bytes()[:5000])
    else:
        with sqlite3.connect(place) as connection:
            connection.execute("PRAGMA user_version = 9" if damage == "version" else "DROP INDEX by_key")
    told = Recorder()
    tars = TarSet(list_tars(images), told)
    assert tars.n_pictures == 6
    assert tars.find_id("abcd").read() == b"third"
    assert told.warnings == []
    again = Recorder()
    TarSet(list_tars(images), again)
    assert again.begun == []


def test_an_index_that_is_damaged_while_it_is_used_is_named(images: Path) -> None:
    tars = pickle.loads(pickle.dumps(TarSet(list_tars(images))))
    (images / INDEX_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(LmrError) as caught:
        tars.find_id("abcd")
    assert str(caught.value) == (
        f"{images / INDEX_NAME} is damaged (file is not a database); remove it and run the same command again, which "
        "makes it anew"
    )


@pytest.mark.parametrize(
    "change",
    ["key = key + 1 WHERE name = 'abcd.JPG'", "name = 'abce.JPG', key = key + 1 WHERE name = 'abcd.JPG'"],
)
def test_a_image_that_a_damaged_index_would_miss_is_not_missed_without_a_word(images: Path, change: str) -> None:
    TarSet(list_tars(images))
    with sqlite3.connect(images / INDEX_NAME) as connection:
        connection.execute(f"UPDATE members SET {change}")
    tars = TarSet(list_tars(images))
    message = (
        f"{images / INDEX_NAME} is damaged (the rows of images_001.tar were changed); remove it and run the same "
        "command again, which makes it anew"
    )
    for look in (lambda: tars.find_id("abcd"), lambda: tars.names(str(images / "images_001.tar"))):
        with pytest.raises(LmrError) as caught:
            look()
        assert str(caught.value) == message


def test_no_flipped_byte_of_the_index_hides_a_image_without_a_word(images: Path) -> None:
    TarSet(list_tars(images))
    whole = (images / INDEX_NAME).read_bytes()
    for at in range(0, len(whole), 61):
        (images / INDEX_NAME).write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        try:
            assert TarSet(list_tars(images)).find_id("abcd") is not None, f"byte {at}"
        except LmrError as error:
            assert "is damaged" in str(error) or "cannot be read" in str(error), f"byte {at}"  # noqa: PT017


def _index_and_die(folder: str, at: int) -> None:
    """Target of a process that is killed when it has gone through so many tars."""
    seen: list[int] = []

    def on_bytes(n: int) -> None:
        seen.append(n)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    progress = Recorder()
    progress.add = on_bytes  # type: ignore[method-assign]
    TarSet(list_tars(folder), progress)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 6])
def test_a_kill_while_indexing_loses_nothing(images: Path, at: int) -> None:
    process = get_context("fork").Process(target=_index_and_die, args=(str(images), at))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    told = Recorder()
    tars = TarSet(list_tars(images), told)
    assert [tars.find_id(i).read() for i in ("000aa", "abcd", "arch/1")] == [b"first", b"third", b"sixth"]
    assert tars.n_pictures == 6
    n_done = (at - 1) // 2  # each tar is told of twice
    assert told.begun == [sum(tar.stat().st_size for tar in list_tars(images)[n_done:])]


def test_several_may_index_at_once(images: Path) -> None:
    for i in range(20):
        make_tar(images / f"more_{i}.tar", [(f"m{i}_{j}.jpg", b"%d" % j) for j in range(50)])
    barrier = threading.Barrier(4)

    def index(_: int) -> int:
        barrier.wait()
        return TarSet(list_tars(images)).n_pictures

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(index, range(4))) == [1006] * 4
    with sqlite3.connect(images / INDEX_NAME) as connection:
        assert connection.execute("SELECT count(*) FROM members").fetchone() == (1006,)


def _read_there(source: ImageSource, queue: object) -> None:
    queue.put(source.read(0))  # type: ignore[attr-defined]


def test_a_source_is_used_by_threads_and_goes_to_other_processes(images: Path) -> None:
    source = ImageSource(manifest_of("000aa", "abcd"), images)
    assert source.read(0) == b"first"
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(source.read, [0, 1] * 100)) == {b"first", b"third"}
    assert pickle.loads(pickle.dumps(source)).read(1) == b"third"
    context = get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_read_there, args=(source, queue))
    process.start()
    assert queue.get(timeout=60) == b"first"
    process.join(60)
    assert process.exitcode == 0
    assert source.read(0) == b"first"


def test_many_tars_take_few_file_descriptors(tmp_path: Path) -> None:
    ids = [f"p{i}" for i in range(100)]
    for image_id in ids:
        make_tar(tmp_path / "images" / f"{image_id}.tar", [(f"{image_id}.jpg", image_id.encode())])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 40, hard))
    try:
        source = ImageSource(manifest_of(*ids), tmp_path / "images")
        assert [source.read(i).decode() for i in range(100)] == ids
        assert [read_image(source.where(i)).decode() for i in range(100)] == ids
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_tars_in_many_folders_take_few_file_descriptors(tmp_path: Path) -> None:
    tars = [make_tar(tmp_path / f"f{i}/a.tar", [("a.jpg", b"%d" % i)]) for i in range(60)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 50, hard))
    try:
        assert [int(read_image(f"{tar}/a.jpg")) for tar in tars * 2] == list(range(60)) * 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_paths_of_tars_name_all_their_images(images: Path) -> None:
    (images / "plain.jpg").write_bytes(b"plain")
    shown = [image.where for image in list_images([str(images / "images_002.tar"), str(images)])]
    names = ["images_002.tar/Hawa_Mahal/1.jpg", "images_002.tar/arch/1.jpg"]
    more = ["images_000.tar/0/0/0/000aa.jpg", "images_000.tar/0/0/1/001bb.jpg", "images_001.tar/abcd.JPG"]
    expected = [*names, *more, "images_001.tar/deep/er/wxyz.png", *names, "plain.jpg"]
    assert shown == [f"{images}/{name}" for name in expected]
    inside = f"{images}/images_001.tar/abcd.JPG"
    assert [image.read() for image in list_images([inside])] == [b"third"]


def test_a_tar_without_images_is_refused(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", [("notes.txt", b"1")])
    with pytest.raises(LmrError) as caught:
        list_images([str(tar)])
    assert str(caught.value) == f"{tar}: no pictures in this tar; give a picture or a tar that holds some"
    with pytest.raises(LmrError) as caught:
        read_manifest(tar)
    assert str(caught.value) == f"{tar}: no pictures in this tar; give one that holds <landmark>/<picture>"


PHOTOS = [("b c/x.jpg", b"1"), ("arch/sub/y.jpg", b"2"), ("arch/x.jpg", b"3"), ("lone.png", b"4"), ("a.txt", b"5")]


def test_a_tar_is_the_manifest_that_its_folder_would_be(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "photos.tar", PHOTOS)
    for name, content in PHOTOS:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    of_tar, of_folder = read_manifest(tar), read_manifest(tmp_path / "photos")
    assert (
        of_tar.image_id.tolist()
        == of_folder.image_id.tolist()
        == ["arch/sub/y.jpg", "arch/x.jpg", "b c/x.jpg", "lone.png"]
    )
    assert of_tar.landmark.tolist() == of_folder.landmark.tolist() == [0, 0, 1, -1]
    assert of_tar.landmarks == of_folder.landmarks == ("arch", "b_c")
    assert of_tar.digest == of_folder.digest
    source = ImageSource(of_tar, tar)
    assert [source.read(i) for i in range(4)] == [b"2", b"3", b"1", b"4"]
    moved = tar.rename(tmp_path / "moved.tar")
    assert read_manifest(moved).digest == of_folder.digest


def test_tars_in_a_folder_count_as_unpacked_there(tmp_path: Path) -> None:
    make_tar(tmp_path / "in/one.tar", [("arch/x.jpg", b"1"), ("lone.jpg", b"2"), ("b.txt", b"")])
    make_tar(tmp_path / "in/dome/two.tar", [("z.jpg", b"3"), ("deep/w.jpg", b"4")])
    warnings: list[str] = []
    manifest = read_manifest(tmp_path / "in", Recorder(warnings))
    assert manifest.image_id.tolist() == ["w", "z", "x", "lone"]
    assert [manifest.truths(i) for i in range(4)] == [(1,), (1,), (0,), ()]
    assert manifest.landmarks == ("arch", "dome")
    assert warnings == [f"{tmp_path}/in: 1 file that is not a picture by its suffix was passed over: 1 in tars"]
    source = ImageSource(manifest, tmp_path / "in")
    assert [source.read(i) for i in range(4)] == [b"4", b"3", b"1", b"2"]


def test_one_folder_around_all_landmarks_of_a_tar_is_passed_over(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", [("photos/arch/x.jpg", b"1"), ("photos/dome/y.jpg", b"2")])
    warnings: list[str] = []
    manifest = read_manifest(tar, Recorder(warnings))
    assert manifest.landmarks == ("arch", "dome")
    assert ImageSource(manifest, tar).read(1) == b"2"
    assert warnings == [f"{tar}: all pictures are below photos/; the folders in that are taken for the landmarks"]


def test_a_image_that_two_tars_of_a_folder_hold_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_tar(tmp_path / f"{name}.tar", [("arch/x.jpg", b"1")])
    with pytest.raises(LmrError) as caught:
        read_manifest(tmp_path)
    told = "one.tar/arch/x.jpg and two.tar/arch/x.jpg are both arch/x.jpg; keep one of them"
    assert str(caught.value) == f"{tmp_path}: {told}"


def test_facts_of_images_in_tars_are_kept_until_the_tar_changes(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", [("arch/x.jpg", jpeg(0, 0)), ("arch/y.jpg", b"broken")])
    n_measured: list[int] = []

    def measure() -> list[str]:
        source = ImageSource(read_manifest(tar), tar)
        table = measure_manifest(source, tmp_path / "facts.sqlite", progress=Recorder(begun=n_measured))
        return [getattr(row, "sha256", row)[:8] for row in table.rows]

    first = measure()
    assert measure() == first
    make_tar(tar, [("arch/x.jpg", jpeg(1, 1)), ("arch/y.jpg", b"broken")])
    assert measure()[0] != first[0]
    assert n_measured == [2, 1, 2]  # what is broken is tried each time
