"""Bars while manifests are read."""

from cli import reading
from cli.progress import PictureBar
from retrieval.manifest import read_manifest

ROWS = "id,landmark_id\n" + "".join(f"{i:08x},{i % 7}\n" for i in range(40_000))


def watch(monkeypatch) -> tuple[list[int], list[int]]:
    """What bars are begun with, and what is added to them."""
    begun: list[int] = []
    added: list[int] = []
    monkeypatch.setattr(PictureBar, "begin", lambda _, n: begun.append(n))
    monkeypatch.setattr(PictureBar, "add", lambda _, n: added.append(n))
    return begun, added


def test_a_large_manifest_is_read_with_a_bar_over_its_bytes(tmp_path, monkeypatch):
    path = tmp_path / "train.csv"
    path.write_text(ROWS)
    monkeypatch.setattr(reading, "_SHOWN_BYTES", len(ROWS))
    begun, added = watch(monkeypatch)
    assert reading.load_manifest(path).digest == read_manifest(path).digest
    assert begun == [len(ROWS)]
    assert len(added) > 3
    assert sum(added) == len(ROWS)


def test_a_small_one_and_a_folder_have_none(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "p.jpg").write_bytes(b"x")
    path = tmp_path / "train.csv"
    path.write_text(ROWS[:1000].rsplit("\n", 1)[0])
    begun, _ = watch(monkeypatch)
    assert len(reading.load_manifest(path)) > 10
    assert len(reading.load_manifest(tmp_path / "a")) == 1
    assert begun == []
