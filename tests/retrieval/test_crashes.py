"""Images that kill the process that decodes them."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.errors import LmrError, UnreadableError
from retrieval.images.crashes import Careful, Flight
from retrieval.own_process import Apart
from retrieval.parallel import KilledError
from retrieval.progress import Silent

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals that end a process")

KEY = "a" * 64


def decoded(data: bytes) -> str:
    """A fake decoder, which does to its process what the data says."""
    word = data.decode()
    if word.startswith("signal"):
        signal.raise_signal(int(word.split()[1]))
    if word == "abort":
        os.abort()
    if word == "exit":
        os._exit(3)
    if word == "large":
        return str(len(bytearray(1 << 40)))
    if word == "odd":
        raise LookupError("odd")
    if word == "unreadable":
        raise UnreadableError("cut short")
    return f"{word} by {os.getpid()}"


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def tell(self, text: str) -> None:
        self.lines.append(text)


def died(path: Path, rows: list[int], key: str = KEY) -> None:
    """Leaves the file of a process that died with these rows under way."""
    Flight(path, key).begin()
    for row in rows:
        Flight(path, key).note(row)


def careful(path: Path, heard: Heard | None = None, key: str = KEY) -> Careful[str]:
    return Careful(Flight(path, key), decoded, lambda row: f"p{row}", progress=heard or Heard())


def contents(words: dict[int, str]) -> Callable[[int], bytes]:
    return lambda row: words[row].encode()


def here(_: bytes) -> str:
    return "here"


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("signal 11", "its decoder crashed (signal 11)"),
        ("abort", "its decoder crashed (signal 6)"),
        ("exit", "its decoder crashed (exit code 3)"),
        ("signal 9", "its decoder crashed (signal 9), most often for want of memory"),
        ("signal 24", "takes more than 60 s to decode"),
        ("large", "not enough memory to decode it"),
        ("unreadable", "cut short"),
    ],
)
def test_what_kills_another_process_too_is_unreadable_with_the_reason(tmp_path: Path, word: str, reason: str) -> None:
    died(tmp_path / "flight", [2])
    with careful(tmp_path / "flight") as one:
        assert one.begin([1, 2], contents({2: word})) == {2: reason}
        assert one.read_row(2, lambda: b"", here) == reason


def test_what_decodes_well_is_used_and_the_rest_is_decoded_in_this_process(tmp_path: Path) -> None:
    died(tmp_path / "flight", [2])
    heard = Heard()
    with careful(tmp_path / "flight", heard) as one:
        (made,) = one.begin([1, 2], contents({2: "well"})).values()
        assert made.startswith("well by ")
        assert one.read_row(2, lambda: b"", here) == made
        assert one.read_row(2, lambda: b"", here) == "here"
        assert one.read_row(1, lambda: b"", here) == "here"
    assert heard.lines == ["1 picture under way when a process died: p2; other processes try first"]
    assert not (tmp_path / "flight").exists()


def test_once_a_decoder_crashed_all_are_decoded_by_other_processes(tmp_path: Path) -> None:
    died(tmp_path / "flight", [0])
    heard = Heard()
    with careful(tmp_path / "flight", heard) as one:
        one.begin(range(5), contents({0: "abort"}))
        words = ["well", "abort", "well", "well"]
        found = [one.read_row(row, lambda word=word: word.encode(), here) for row, word in enumerate(words, 1)]
    assert found[1] == "its decoder crashed (signal 6)"
    assert found[2] == found[3] != found[0]  # one process after the other
    assert heard.lines[1] == (
        "the rest is decoded in other processes too, so that no picture ends this run, which takes longer"
    )


def test_an_image_is_not_blamed_for_what_another_one_did_to_their_process(tmp_path: Path) -> None:
    with careful(tmp_path / "flight") as one:
        first = one.apart(b"well")
        os.kill(int(first.split()[-1]), signal.SIGSEGV)
        assert one.apart(b"well") != first
        assert not one.is_apart


def test_two_processes_that_died_one_after_the_other_make_other_processes_decode(tmp_path: Path) -> None:
    """As where an image does harm that kills the process later, at another one."""
    died(tmp_path / "flight", [3])
    died(tmp_path / "flight", [5])
    with careful(tmp_path / "flight") as one:
        assert list(one.begin(range(9), contents({3: "well", 5: "well"}))) == [3, 5]
        assert one.read_row(6, lambda: b"well", here).startswith("well by ")


def test_what_was_under_way_of_something_else_counts_for_nothing(tmp_path: Path) -> None:
    died(tmp_path / "flight", [2], key="b" * 64)
    with careful(tmp_path / "flight") as one:
        assert one.begin([1, 2], contents({})) == {}
    died(tmp_path / "flight", [2])
    with careful(tmp_path / "flight") as one:
        assert one.begin([1, 3], contents({})) == {}  # 2 is done


def test_a_file_that_is_cut_short_or_not_to_be_written_is_no_error(tmp_path: Path) -> None:
    died(tmp_path / "flight", [2, 4])
    whole = (tmp_path / "flight").read_bytes()
    (tmp_path / "flight").write_bytes(whole[:-3])
    assert Flight(tmp_path / "flight", KEY).begin() == ([2], False)
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", tmp_path / "none" / "flight", None):
        flight = Flight(place, KEY)
        assert flight.begin() == ([], False)
        flight.note(1)
        flight.end()


def test_a_run_that_ends_with_an_error_keeps_what_was_under_way(tmp_path: Path) -> None:
    def broken() -> None:
        with careful(tmp_path / "flight") as one:
            one.begin([7], contents({}))
            one.read_row(7, lambda: b"", here)
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert Flight(tmp_path / "flight", KEY).begin() == ([7], False)


@pytest.mark.parametrize("end", [KeyboardInterrupt, LmrError])
def test_a_run_that_a_person_or_a_full_disk_ends_leaves_only_what_a_dead_one_left(
    tmp_path: Path, end: type[BaseException]
) -> None:
    def ended() -> None:
        with careful(tmp_path / "flight") as one:
            one.begin([7], contents({7: "fine"}))
            one.read_row(8, lambda: b"", here)
            raise end

    with pytest.raises(end):
        ended()
    assert not (tmp_path / "flight").exists()
    died(tmp_path / "flight", [7])
    with pytest.raises(end):
        ended()
    assert Flight(tmp_path / "flight", KEY).begin()[0] == [7, 8]


def test_a_run_that_a_dead_worker_ends_keeps_what_was_under_way(tmp_path: Path) -> None:
    def ended() -> None:
        with careful(tmp_path / "flight") as one:
            one.begin([7], contents({}))
            one.read_row(7, lambda: b"", here)
            raise KilledError("a worker has ended")

    with pytest.raises(KilledError):
        ended()
    assert Flight(tmp_path / "flight", KEY).begin() == ([7], False)


def test_an_error_of_the_function_is_raised_and_a_process_that_was_ended_is_told(tmp_path: Path) -> None:
    process = Apart(decoded)
    with pytest.raises(LookupError, match="odd"):
        process.do(b"odd")
    with pytest.raises(LmrError) as caught:
        process.do(b"signal 15")
    assert str(caught.value) == "a process of its own was ended by signal 15; run the same command again"
    process.end()
