"""No image takes more memory than it may, and no decoder that crashes or hangs takes lmr with it."""

import os
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
from made_images import encoded, smooth
from PIL import Image

from retrieval.errors import UnreadableError
from retrieval.images.codecs import limited
from retrieval.images.decode import decode, image_size
from retrieval.images.limits import Limits

SMALL = Limits(max_memory=5_000_000)
GREY = Image.new("L", (1000, 1000))


def reason(data: bytes, limits: Limits) -> str:
    with pytest.raises(UnreadableError) as caught:
        decode(data, limits=limits)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "n_mb"),  # megapixels times the bytes a pixel of what is decoded, of its flat form and of RGB
    [
        (encoded(GREY.convert("F"), "TIFF", compression="tiff_lzw"), 9),  # 4 + 1 + 4
        (encoded(GREY.convert("I;16"), "PNG"), 7),  # 2 + 1 + 4
        (encoded(GREY.convert("RGBA"), "PNG"), 8),  # 4 + 4
        (encoded(GREY.convert("RGB"), "WEBP"), 16),  # of its decoder 12, and 4
        (encoded(GREY.convert("RGB"), "JPEG", progressive=True, subsampling=0), 10),  # 4, and coefficients 3 * 2
    ],
)
def test_what_takes_more_memory_than_the_limit_is_refused_by_its_header(data: bytes, n_mb: int) -> None:
    size = "decode 1000 x 1000 pixels"
    assert reason(data, SMALL) == f"needs {n_mb} MB of memory to {size}, over the limit of 5 MB; scale it down"
    assert decode(data, limits=Limits(max_memory=60_000_000)).size == (1000, 1000)


def test_what_is_decoded_at_reduced_scale_counts_at_that_scale() -> None:
    data = encoded(smooth(2000, 2000), "JPEG")
    assert decode(data, 200, SMALL).size == (250, 250)
    assert reason(data, SMALL) == (
        "needs 16 MB of memory to decode 2000 x 2000 pixels, over the limit of 5 MB; scale it down"
    )


def test_a_header_that_claims_much_is_refused_before_its_decoder_is_made() -> None:
    side = (12_999).to_bytes(3, "little")
    data = b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + side + side + b"ALPH"
    assert reason(data, Limits()) == (
        "needs 2,704 MB of memory to decode 13000 x 13000 pixels, over the limit of 1,000 MB; scale it down"
    )


def test_a_decoder_that_takes_more_than_its_header_says_is_stopped_by_the_system() -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("only where the system tells how much memory a process has")
    data = bytearray(encoded(smooth(64, 64), "JPEG2000"))
    at = data.index(b"\xff\x51")
    for place in (at + 6, at + 22, data.index(b"ihdr") + 4):
        data[place : place + 8] = struct.pack(">II", 4000, 4000)
    assert reason(bytes(data), Limits(max_memory=70_000_000)) == "broken JPEG2000: not enough memory to decode it"


def test_a_image_that_takes_too_long_to_decode_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(signal, "SIGALRM"):
        pytest.skip("only where a process can be ended at a time")
    send = limited._Worker.send

    def late(worker: limited._Worker, data: bytes, job: dict[str, Any]) -> None:
        assert job["limits"]["max_seconds"] == 7
        os.kill(worker.process.pid, signal.SIGALRM)
        worker.process.wait()
        send(worker, data, job)

    monkeypatch.setattr(limited._Worker, "send", late)
    assert reason(encoded(smooth(60, 40), "TIFF"), Limits(max_seconds=7)) == "takes more than 7 s to decode"


def test_a_process_that_has_gone_meanwhile_is_replaced() -> None:
    data = encoded(smooth(60, 40), "TIFF")
    assert image_size(data) == (60, 40)
    for worker in limited._idle[os.getpid()]:
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    assert decode(data).size == (60, 40)


def test_a_process_that_another_thread_took_first_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Contested(list[limited._Worker]):
        """Not empty when it is looked at, empty when something is taken."""

        def __bool__(self) -> bool:
            return True

    mine = Contested()
    monkeypatch.setitem(limited._idle, os.getpid(), mine)
    assert decode(encoded(smooth(60, 40), "TIFF")).size == (60, 40)
    mine.pop().end()


def test_a_image_that_kills_its_decoder_is_unreadable_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(worker: limited._Worker, *_: object) -> None:
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()

    data = encoded(smooth(60, 40), "TIFF")
    with monkeypatch.context() as patched:
        send = limited._Worker.send
        patched.setattr(limited._Worker, "send", lambda worker, *given: (kill(worker), send(worker, *given)))
        assert reason(data, Limits()) == "broken picture: it kills the process that decodes it"
    assert decode(data).size == (60, 40)
