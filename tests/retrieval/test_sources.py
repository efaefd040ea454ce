import pytest
from tiny_world import Images

from retrieval.errors import UnreadableError
from retrieval.images.bytes_source import JoinedSource


def test_images_of_several_sources_follow_each_other() -> None:
    parts = [Images([b"a", b"b"]), Images([]), Images([b"c"]), Images([None, b"d"])]
    joined = JoinedSource(parts, [2, 0, 1, 2])
    assert [joined.read(i) for i in (0, 1, 2, 4)] == [b"a", b"b", b"c", b"d"]
    with pytest.raises(UnreadableError, match=r"^picture 0 is gone$"):
        joined.read(3)
    with pytest.raises(IndexError):
        joined.read(5)
