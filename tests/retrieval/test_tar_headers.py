"""The pass over the headers of a tar, against tarfile and against tars that somebody broke."""

import gzip
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_tars import add, make_tar

from retrieval.errors import LmrError
from retrieval.images.tars.headers import BLOCK_BYTES, Member, RefusedTarError, TarScan, is_tar

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LONG = "/".join(f"{'folder' * 7}{i}" for i in range(8)) + "/picture.jpg"


def scanned(path: Path) -> tuple[list[Member], TarScan]:
    scan = TarScan(path)
    return list(scan), scan


def contents(path: Path) -> dict[str, bytes]:
    """What the members' places hold."""
    data = path.read_bytes()
    return {member.name: data[member.offset : member.offset + member.size] for member in scanned(path)[0]}


def refusal(path: Path) -> str:
    with pytest.raises(RefusedTarError) as caught:
        list(TarScan(path))
    return str(caught.value)


@pytest.mark.parametrize("tar_format", FORMATS)
def test_members_are_where_their_content_is(tmp_path: Path, tar_format: int) -> None:
    files = {"0/0/0/000a.jpg": b"x" * 511, "b.PNG": b"y" * 512, "c.webp": b"z" * 513, "empty.jpg": b"", "d.jpg": b"q"}
    assert contents(make_tar(tmp_path / "a.tar", files.items(), tar_format)) == files


@pytest.mark.parametrize("tar_format", FORMATS[1:])
def test_long_names_and_names_in_any_script_are_read(tmp_path: Path, tar_format: int) -> None:
    files = {LONG: b"1", "塔/ö.jpg": b"2", "塔" * 60 + ".jpg": b"3", "last.jpg": b"4"}
    assert contents(make_tar(tmp_path / "a.tar", files.items(), tar_format)) == files


def test_a_ustar_prefix_is_part_of_the_name(tmp_path: Path) -> None:
    name = "a" * 90 + "/" + "b" * 90 + ".jpg"
    assert contents(make_tar(tmp_path / "a.tar", [(name, b"1")], tarfile.USTAR_FORMAT)) == {name: b"1"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from("aé塔 ./"), max_size=130).map(lambda name: f"n{name}.jpg"),
            st.binary(max_size=1100),
        ),
        max_size=6,
    ),
    st.sampled_from(FORMATS[1:]),
)
def test_the_pass_finds_what_tarfile_finds(tmp_path: Path, files: list[tuple[str, bytes]], tar_format: int) -> None:
    path = make_tar(tmp_path / "a.tar", files, tar_format)
    with tarfile.open(path) as tar:
        infos = [(info, info.name.split("/")) for info in tar]
    expected = [
        Member("/".join(part for part in parts if part not in ("", ".")), info.offset_data, info.size)
        for info, parts in infos
        if ".." not in parts and not any(part.startswith(".") and part != "." for part in parts)
    ]
    members, scan = scanned(path)
    assert members == expected
    assert scan.n_unsafe == sum(".." in parts for _, parts in infos)
    assert scan.problem == ""


def test_the_system_s_tar_is_read_in_each_of_its_formats(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/one.jpg").write_bytes(b"1" * 700)
    (folder / "two.jpg").write_bytes(b"2")
    for name in ("v7", "ustar", "gnu", "oldgnu", "posix"):
        path = tmp_path / f"{name}.tar"
        subprocess.run(["tar", f"--format={name}", "-C", str(folder), "-cf", str(path), "."], check=True)
        assert contents(path) == {"a/b/one.jpg": b"1" * 700, "two.jpg": b"2"}, name


def test_what_is_no_image_or_not_safe_is_counted_and_never_yielded(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "folder", type=tarfile.DIRTYPE)
        add(tar, "good.jpg", b"1")
        add(tar, "notes.txt", b"2")
        add(tar, ".hidden/x.jpg", b"3")
        add(tar, "a/._x.jpg", b"3")
        add(tar, "/etc/x.jpg", b"4")
        add(tar, "../x.jpg", b"5")
        add(tar, "a/../../x.jpg", b"6")
        add(tar, "link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.jpg", type=tarfile.LNKTYPE, linkname="good.jpg")
        add(tar, "pipe.jpg", type=tarfile.FIFOTYPE)
        add(tar, "disk.jpg", type=tarfile.BLKTYPE)
        add(tar, "two\nlines.jpg", b"7")
        add(tar, "no\udcff.jpg", b"8")
    members, scan = scanned(path)
    assert [member.name for member in members] == ["good.jpg"]
    assert (scan.n_other, scan.n_unsafe, scan.problem) == (1, 9, "")


def test_a_tar_that_is_cut_short_yields_what_is_there(tmp_path: Path) -> None:
    whole = make_tar(tmp_path / "a.tar", [("a.jpg", b"1" * 600), ("b.jpg", b"2" * 600)]).read_bytes()
    start_of_b = BLOCK_BYTES + 2 * BLOCK_BYTES
    problems = {
        start_of_b + BLOCK_BYTES + 599: (2, "is cut short in 'b.jpg'"),
        start_of_b + BLOCK_BYTES: (2, "is cut short in 'b.jpg'"),
        start_of_b + 100: (1, "is cut short after 1,536 bytes"),
        start_of_b: (1, "is cut short after 1,536 bytes"),
        0: (0, "is empty"),
    }
    for length, (n, problem) in problems.items():
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:length])
        members, scan = scanned(path)
        assert (len(members), scan.problem) == (n, problem), length


def test_an_empty_tar_has_no_members_and_nothing_wrong(tmp_path: Path) -> None:
    members, scan = scanned(make_tar(tmp_path / "a.tar", []))
    assert (members, scan.problem) == ([], "")


def test_a_damaged_header_ends_the_pass(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", [("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")])
    data = bytearray(path.read_bytes())
    data[2 * BLOCK_BYTES + 5] ^= 1  # in the name of b.jpg, which the checksum covers
    path.write_bytes(data)
    members, scan = scanned(path)
    assert [member.name for member in members] == ["a.jpg"]
    assert scan.problem == "is damaged after 1,024 bytes"


@pytest.mark.parametrize("size", [-1024, -(2**62), 2**62])
def test_sizes_that_lead_backwards_or_nowhere_end_the_pass(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.tar"
    one, two = tarfile.TarInfo("a.jpg"), tarfile.TarInfo("b.jpg")
    two.size = 0
    header = bytearray(two.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (
        b"\xff" * 4 + size.to_bytes(8, "big", signed=True) if size < 0 else b"\x80\0\0\0" + size.to_bytes(8, "big")
    )
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(one.tobuf() + bytes(header) + bytes(1024))
    members, scan = scanned(path)
    assert [member.name for member in members][:1] == ["a.jpg"]
    assert scan.problem == ("is cut short in 'b.jpg'" if size > 0 else "is damaged after 512 bytes")


def test_a_header_that_claims_to_be_huge_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    first = tarfile.TarInfo("a.jpg")
    path.write_bytes(first.tobuf() + header.tobuf())
    with path.open("r+b") as file:
        file.truncate(1 << 31)
    members, scan = scanned(path)
    assert ([member.name for member in members], scan.problem) == (["a.jpg"], "is damaged after 512 bytes")


def test_headers_nested_without_end_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 0
    path.write_bytes(tarfile.TarInfo("a.jpg").tobuf() + header.tobuf() * 5000 + bytes(1024))
    members, scan = scanned(path)
    assert ([member.name for member in members], scan.problem) == (["a.jpg"], "is damaged after 512 bytes")


def test_compressed_files_and_other_files_are_refused(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", [("a.jpg", b"1")]).read_bytes()
    path = tmp_path / "b.tar"
    refusals = {
        gzip.compress(tar): "is compressed (gzip), and only plain tars are read in place; use gunzip first",
        b"BZh9": "is compressed (bzip2), and only plain tars are read in place; use bunzip2 first",
        b"\xfd7zXZ\0": "is compressed (xz), and only plain tars are read in place; use unxz first",
        b"\x28\xb5\x2f\xfd": "is compressed (zstd), and only plain tars are read in place; use unzstd first",
        b"<html>gone</html>": "is no tar; fetch or pack it again",
        b"<html>gone</html>" * 100: "is no tar; fetch or pack it again",
    }
    for content, reason in refusals.items():
        path.write_bytes(content)
        assert refusal(path) == reason


def test_a_sparse_image_is_refused_and_another_sparse_file_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "disk.img"):
        with (folder / name).open("wb") as file:
            file.write(b"start")
            file.truncate(1 << 20)
    (folder / "z.jpg").write_bytes(b"z")
    for tar_format in ("gnu", "posix"):
        for names, expected in ((["disk.img", "z.jpg"], {"z.jpg": b"z"}), (["a.jpg"], None)):
            path = tmp_path / "s.tar"
            options = ["--sparse", f"--format={tar_format}", "-C", str(folder), "-cf", str(path)]
            subprocess.run(["tar", *options, *names], check=True)
            if expected is None:
                told = "holds the sparse file a.jpg, which cannot be read in place; pack it without -S"
                assert refusal(path) == told
            else:
                assert contents(path) == expected


def test_a_global_record_that_changes_sizes_is_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "hello"}) as tar:
        add(tar, "a.jpg", b"1")
        add(tar, "b.jpg", b"2")
    assert contents(path) == {"a.jpg": b"1", "b.jpg": b"2"}


def test_a_tar_is_told_by_its_name_or_its_mark(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", [("a.jpg", b"1")])
    shutil.copy(tar, tmp_path / "pictures")
    (tmp_path / "b.TAR").write_bytes(b"anything")
    (tmp_path / "c.csv").write_bytes(b"id\n1\n")
    (tmp_path / "d.tar").mkdir()
    told = {name: is_tar(tmp_path / name) for name in ("a.tar", "pictures", "b.TAR", "c.csv", "d.tar", "no.tar")}
    assert told == {"a.tar": True, "pictures": True, "b.TAR": True, "c.csv": False, "d.tar": False, "no.tar": False}


def test_a_compressed_tar_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(b"x"))
    with pytest.raises(LmrError) as caught:
        is_tar(path)
    assert str(caught.value) == f"{path} is compressed (gzip), and only plain tars are read in place; use gunzip first"


def test_the_bytes_told_add_up_to_the_tar(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", [(f"{i}.jpg", b"1") for i in range(2500)])
    told: list[int] = []
    assert len(list(TarScan(path, told.append))) == 2500
    assert sum(told) == path.stat().st_size
    assert len(told) == 4
