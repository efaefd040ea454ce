"""A service over the tiny index: answers in batches, errors of one image, another index in its place, its end."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_set import LABELS, flip_byte

import lmr
from index.serving.batches import Batches, BusyError, Room, apart
from index.serving.browse import CurvePoint, curve
from index.serving.config import ServingSettings
from index.serving.service import Service
from retrieval.errors import LmrError, NoMemoryError, UnreadableError
from retrieval.progress import Silent

WAIT_S = 60.0  # longest time for anything in these tests


class Gate:
    """A network that computes when it is let, and the batches that it was given."""

    def __init__(self, service: Service) -> None:
        self.embedder = service.landmarks.embedder
        self.compute = self.embedder.embed_batch
        self.begun, self.open = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        self.embedder.embed_batch = self.embed_batch  # type: ignore[method-assign]

    def embed_batch(self, *images):
        self.sizes.append(len(images[0]))
        self.begun.set()
        assert self.open.wait(WAIT_S)
        return self.compute(*images)


class Told(Silent):
    """Keeps what a person is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, text: str) -> None:
        self.lines.append(text)

    tell = warn


def until(is_so: Callable[[], object]) -> None:
    """Waits until something is so."""
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new index is seen at once."""
    monkeypatch.setattr("index.serving.service.FOLLOW_S", 0.02)


@pytest.fixture
def images(finished_set: Path) -> list[bytes]:
    """Encoded images of all landmarks and of none."""
    names = [f"test-{label}-{i}" for i in range(4) for label in (*LABELS, "other")]
    return [(finished_set / f"images/{name}.jpg").read_bytes() for name in names]


@pytest.fixture
def make_service(finished_set: Path) -> Iterator[Callable[..., Service]]:
    """Makes services of the finished set's index, or of another one, that are closed at the end."""
    made: list[Service] = []

    def make(path: Path = finished_set / "landmarks", progress: Silent | None = None, **settings) -> Service:
        how = {"device": "cpu", "threads": 1, "progress": progress or Silent()}
        made.append(Service(path, ServingSettings(**settings), **how))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def waiting(make_service: Callable[..., Service], images: list[bytes]) -> tuple[Service, Gate]:
    """A service that computes one image, and does not get on until its gate is opened."""
    service = make_service(n_batch=8, n_waiting=12)
    gate = Gate(service)
    service.query(images[0])
    assert gate.begun.wait(WAIT_S)
    yield service, gate
    gate.open.set()


def test_images_that_come_while_others_are_computed_are_answered_in_batches_as_they_are_alone(waiting, images):
    service, gate = waiting
    asked = [service.query(image, f"{i}") for i, image in enumerate(images[:19])]
    until(lambda: len(service._batches) == 19)
    gate.open.set()
    answers = [future.result(WAIT_S) for future in asked]
    assert gate.sizes == [1, 8, 8, 3]
    alone = [service.landmarks.query([image])[0] for image in images[:19]]
    assert answers == [replace(answer, image=f"{i}") for i, answer in enumerate(alone)]
    assert service.n_waiting == 0


def test_a_lone_image_waits_for_no_other(make_service, images):
    service = make_service(n_batch=8)
    gate = Gate(service)
    gate.open.set()
    for image in images[:3]:
        assert service.query(image).result(WAIT_S).image == "image"
    assert gate.sizes == [1, 1, 1]


def test_descriptors_are_those_of_the_index(make_service, images):
    service = make_service()
    expected, _ = service.landmarks.embed(images[:5])
    found = [service.embed(image) for image in images[:5]]
    assert np.array_equal([future.result(WAIT_S) for future in found], expected)


def test_words_are_those_of_each_image(waiting, images):
    service, gate = waiting
    words = [{}, {"threshold": 0.0}, {"n_landmarks": 1}, {"threshold": 0.0}]
    asked = [service.query(images[4], "it", **of_one) for of_one in words]
    gate.open.set()
    expected = [replace(service.landmarks.query([images[4]], **of_one)[0], image="it") for of_one in words]
    assert [future.result(WAIT_S) for future in asked] == expected


def test_an_unreadable_image_has_an_answer_that_says_so_and_no_descriptor(make_service, images):
    service = make_service()
    answer = service.query(b"no image", "it").result(WAIT_S)
    assert answer == replace(service.landmarks.query([b"no image"])[0], image="it")
    with pytest.raises(UnreadableError, match=f"^{answer.unreadable}$"):
        service.embed(b"no image").result(WAIT_S)
    assert service.n_waiting == 0


def test_what_fails_fails_alone(waiting, images):
    service, gate = waiting
    bad = service.landmarks.embedder.prepare(images[2])[0]

    def fails(*given):
        if any(np.array_equal(image, bad) for image in given[0]):
            raise LmrError("the network gives descriptors that are not numbers")
        return gate.compute(*given)

    asked = [service.query(image) for image in images[:4]] + [service.query(images[0], threshold=2.0)]
    until(lambda: len(service._batches) == 5)
    service.landmarks.embedder.embed_batch = fails
    gate.open.set()
    for i in (0, 1, 3):
        assert asked[i].result(WAIT_S).landmark_id == service.landmarks.query([images[i]])[0].landmark_id
    with pytest.raises(LmrError, match=r"^the network gives descriptors that are not numbers$"):
        asked[2].result(WAIT_S)
    with pytest.raises(LmrError, match=r"^threshold must lie in \[0, 1\], got 2\.0$"):
        asked[4].result(WAIT_S)


@pytest.mark.filterwarnings("ignore:not enough memory for")
def test_too_little_memory_for_a_batch_halves_it(waiting, images):
    service, gate = waiting

    def embed_batch(*given):
        if len(given[0]) > 2:
            raise NoMemoryError("not enough memory")
        return gate.compute(*given)

    asked = [service.query(image) for image in images[:8]]
    until(lambda: len(service._batches) == 8)
    service.landmarks.embedder.embed_batch = embed_batch
    gate.open.set()
    expected = [service.landmarks.query([image])[0].to_json() for image in images[:8]]
    assert [{**future.result(WAIT_S).to_json(), "image": "bytes"} for future in asked] == expected


def test_an_image_that_finds_no_room_is_told_when_to_come_again(waiting, images):
    service, gate = waiting
    asked = [service.query(image) for image in images[1:20]]
    assert service.n_waiting == 20
    with pytest.raises(BusyError, match=r"^too many images are waiting; try again in \d+ s$"):
        service.query(images[0])
    gate.open.set()
    assert all(future.result(WAIT_S).unreadable is None for future in asked)
    assert service.query(images[0]).result(WAIT_S).unreadable is None


def test_an_image_that_nobody_waits_for_any_more_is_not_computed(waiting, images):
    service, gate = waiting
    asked = [service.query(image) for image in images[:4]]
    until(lambda: len(service._batches) == 4)
    assert all(future.cancel() for future in asked[:3])
    gate.open.set()
    assert asked[3].result(WAIT_S).unreadable is None
    assert gate.sizes == [1, 1]
    until(lambda: service.n_waiting == 0)


def test_an_observer_is_told_of_stages_and_batches(make_service, images):
    class Seen:
        def __init__(self):
            self.stages, self.batches = [], []

        def stage(self, name, seconds):
            assert seconds >= 0
            self.stages.append(name)

        def batch(self, n_images):
            self.batches.append(n_images)

    service = make_service()
    service.observe = seen = Seen()
    service.query(images[0]).result(WAIT_S)
    service.embed(images[0]).result(WAIT_S)
    assert seen.stages == ["decode", "queue", "forward", "search", "decode", "queue", "forward"]
    assert seen.batches == [1, 1]


def test_work_that_takes_long_has_threads_of_its_own(waiting):
    service, _ = waiting
    assert service.run(divmod, 7, 2).result(WAIT_S) == (3, 1)
    assert service.run(sorted, [1, 2], reverse=True).result(WAIT_S) == [2, 1]


def relabelled(place: Path) -> None:
    """Puts another index into the place of one: its arches are gates."""
    (place.parent / "labels.csv").write_text("landmark_id,new_landmark_id\narch,gate\n")
    lmr.index_relabel(place.parent / "labels.csv", index=place, threads=1, progress=Silent())


@pytest.fixture
def place(finished_set: Path, tmp_path: Path) -> Path:
    """A copy of the index."""
    return shutil.copytree(finished_set / "landmarks", tmp_path / "landmarks")


def test_a_new_index_answers_from_then_on_and_what_is_on_its_way_has_the_old_one(place, make_service, images):
    told = Told()
    service = make_service(place, told)
    old, gate = service.landmarks, Gate(service)
    asked = [service.query(images[0]) for _ in range(5)]
    assert gate.begun.wait(WAIT_S)
    relabelled(place)
    until(lambda: service.landmarks is not old)
    later = service.query(images[0])
    gate.open.set()
    assert [future.result(WAIT_S).landmark_id for future in (*asked, later)] == ["arch"] * 5 + ["gate"]
    until(lambda: told.lines)
    assert told.lines == [f"another index answers now: {service.landmarks!r}"]


def test_a_new_calibration_counts_from_then_on(place, make_service, images):
    service = make_service(place)
    assert service.query(images[0]).result(WAIT_S).confidence is not None
    (place / "calibration.json").unlink()
    until(lambda: not service.landmarks.is_calibrated)
    assert service.query(images[0]).result(WAIT_S).confidence is None


def test_a_damaged_index_is_told_once_and_the_old_one_answers_on(place, make_service, images, monkeypatch):
    monkeypatch.setattr("index.serving.service.AGAIN_S", 0.0)
    told = Told()
    service = make_service(place, told)
    old, whole = service.landmarks, place.with_name("whole")
    place.rename(whole)
    shutil.copytree(whole, place)
    flip_byte(place / "rows.h5")
    until(lambda: told.lines)
    opened = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr("index.serving.service.open_landmarks", lambda *_, **words: opened.set() or fail())
        assert opened.wait(WAIT_S)  # it is tried again
    assert told.lines == [
        f"{place}/rows.h5 was changed or damaged: its sha256 is not that of index.json; copy the folder again or "
        "run lmr build-index again; the index that was opened before answers on"
    ]
    assert service.landmarks is old
    assert service.query(images[0]).result(WAIT_S).landmark_id == "arch"
    shutil.rmtree(place)
    whole.rename(place)
    until(lambda: service.landmarks is not old)


def fail() -> None:
    raise LmrError("it is damaged still")


def test_a_service_that_ends_answers_what_waits_and_takes_nothing_more(waiting, images):
    service, gate = waiting
    asked = [service.query(image) for image in images[:4]]
    work = service.run(gate.open.wait, WAIT_S)
    ending = threading.Thread(target=service.close)
    ending.start()
    until(lambda: not service.is_ready)
    for ask in (lambda: service.query(images[0]), lambda: service.embed(images[0]), lambda: service.run(print)):
        with pytest.raises(BusyError, match=r"^the server is ending; try again in 5 s$"):
            ask()
    gate.open.set()
    ending.join(WAIT_S)
    assert all(future.done() and future.result().unreadable is None for future in asked)
    assert work.result(WAIT_S)


def test_what_is_not_answered_when_time_is_over_is_told_so(waiting, images):
    service, gate = waiting
    asked = [service.query(image) for image in images[:4]]
    until(lambda: len(service._batches) == 4)
    service.close(wait_s=0.1)
    for future in asked:
        with pytest.raises(BusyError, match=r"^the server is ending; try again in 5 s$"):
            future.result(WAIT_S)
    gate.open.set()


def test_what_cannot_be_served_is_refused_at_once(tmp_path):
    with pytest.raises(LmrError, match=f"^{tmp_path}/none: there is no such index folder; lmr build-index makes one$"):
        Service(tmp_path / "none", ServingSettings(), device="cpu")


def test_an_index_without_local_features_cannot_be_asked_to_verify(make_service, finished_set):
    detail = (
        f"{finished_set}/landmarks has no local features to `verify` by; make some with lmr embed `local`, then run "
        "lmr build-index `local`, or serve it without `verify`"
    )
    with pytest.raises(LmrError, match=f"^{re.escape(detail)}$"):
        make_service(verify=True)


def test_the_curve_has_the_threshold_as_a_point(make_service):
    landmarks = make_service().landmarks
    own = landmarks.folder.calibration.threshold_precision
    lower = replace(own, confidence=0.123, precision=0.5, recall=0.25, false_answer_rate=None)
    calibration = replace(landmarks.folder.calibration, threshold_precision=lower)
    points = curve(SimpleNamespace(folder=SimpleNamespace(calibration=calibration)))
    assert CurvePoint(0.123, 0.5, 0.25, None) in points
    assert [point.confidence for point in points] == sorted((point.confidence for point in points), reverse=True)
    assert len(points) == len(calibration.curves.confidence) + 1


def test_a_batch_is_what_waits_and_goes_together_up_to_a_number():
    batches, first, more = [], threading.Event(), threading.Event()

    def compute(batch):
        first.set()
        assert more.wait(WAIT_S)
        batches.append(batch)

    queue = Batches(compute, most=lambda item: 3, fit=lambda one, other: one[0] == other[0])
    queue.put("a0")
    assert first.wait(WAIT_S)
    for item in ("a1", "a2", "a3", "a4", "b1", "a5"):
        assert queue.put(item)
    more.set()
    until(lambda: len(batches) == 5)
    assert batches == [["a0"], ["a1", "a2", "a3"], ["a4"], ["b1"], ["a5"]]
    assert queue.end() == []
    assert not queue.put("a6")


def test_room_tells_how_long_the_latest_have_stayed():
    room = Room(1)
    entered = room.enter()
    with pytest.raises(BusyError) as full:
        room.enter()
    assert full.value.retry_s == 1.0
    room.leave(entered - 10)
    entered = room.enter()
    with pytest.raises(BusyError, match=r"^too many images are waiting; try again in 3 s$"):
        room.enter()
    assert not room.close(time.monotonic())
    room.leave(entered)
    assert room.close(time.monotonic())


def test_items_that_fail_are_found_by_halves():
    done, failed = [], []

    def double(items):
        if any(item < 0 for item in items):
            raise ValueError(str(min(items)))
        done.extend(2 * item for item in items)

    apart(double, [1, 2, -3, 4, -5], lambda item, error: failed.append((item, str(error))))
    assert done == [2, 4, 8]
    assert failed == [(-3, "-3"), (-5, "-5")]


def test_an_index_in_shards_is_served_and_replaced_as_one_without(
    make_service, images, finished_set, tmp_path, monkeypatch
):
    shutil.copytree(finished_set / "landmarks", tmp_path / "landmarks")
    monkeypatch.chdir(tmp_path)
    plain = make_service()
    expected = [plain.query(image).result(WAIT_S) for image in images[:4]]
    lmr.index_compact(shards=3)
    service = make_service(Path("landmarks"))
    assert service.landmarks.folder.info.n_shards == 3
    assert [service.query(image).result(WAIT_S) for image in images[:4]] == expected
    lmr.index_compact(shards=2)
    until(lambda: service.landmarks.folder.info.n_shards == 2)
    assert [service.query(image).result(WAIT_S) for image in images[:4]] == expected
