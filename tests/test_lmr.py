"""The Python API: an index folder asked about images of every kind."""

import doctest
import io
import os
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_set import HERE, LABELS, done, image

import lmr
from cli.main import COMMANDS
from retrieval.errors import LmrError, UnreadableError

NAMED_AFTER_COMMANDS = {name.replace("-", "_") for name in COMMANDS}
ARCH = "images/test-arch-0.jpg"
OTHER = "images/test-other-5.jpg"
EXAMPLES = {lmr: "lmr", lmr.Landmarks: "lmr.Landmarks"}


@pytest.fixture(scope="module")
def folder(finished_set, tmp_path_factory):
    """A finished set that is the working folder; not to be changed."""
    place = shutil.copytree(finished_set, tmp_path_factory.mktemp("api") / "set")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


@pytest.fixture(scope="module")
def landmarks(folder) -> lmr.Landmarks:
    """The opened index of the set."""
    return lmr.open_index("landmarks", device="cpu", threads=1, workers=1)


def test_a_image_is_named_with_its_confidence_and_neighbours(landmarks):
    known, unknown = landmarks.query([ARCH, Path(OTHER)])
    assert (known.image, known.landmark_id, known.name) == (ARCH, "arch", "The Great Arch")
    assert known.confidence >= known.threshold > unknown.confidence
    assert known.landmarks[0] == lmr.LandmarkScore("arch", "The Great Arch", known.confidence, known.landmarks[0].score)
    assert all(isinstance(neighbour, lmr.Neighbour) for neighbour in known.neighbours)
    assert (unknown.image, unknown.landmark_id, unknown.name) == (OTHER, None, "")
    assert landmarks.is_calibrated


def test_the_command_prints_what_the_api_answers(landmarks):
    import json

    (answer,) = landmarks.query([ARCH])
    assert json.loads(done("query", ARCH, "--json", *HERE).stdout) == [json.loads(json.dumps(answer.to_json()))]


def test_images_like_one_are_those_of_the_command(landmarks):
    import json

    page = landmarks.search(ARCH, n=4, box=(0, 0, 1, 0.9), landmark="arch")
    shown = done("search", ARCH, "--n", 4, "--box", "0,0,1,0.9", "--landmark", "arch", "--json", *HERE[2:]).stdout
    assert json.loads(shown) == json.loads(json.dumps(page.to_json()))
    data = Path(ARCH).read_bytes()
    assert [landmarks.search(one, n=2).items for one in (data, Path(ARCH))] == [landmarks.search(ARCH, n=2).items] * 2


def test_a_part_of_an_image_of_the_index_does_not_find_that_image(landmarks):
    page = landmarks.search(image_id="train-arch-0", box=(0, 0, 1, 0.9), n=100, fold=False)
    assert len(page.items) == 31
    assert "train-arch-0" not in [item.neighbour.image_id for item in page.items]


def test_what_is_searched_for_is_one_image(landmarks):
    for words in ({}, {"image": ARCH, "image_id": "train-arch-0"}):
        with pytest.raises(LmrError) as error:
            landmarks.search(**words)
        assert str(error.value) == "give an image or an `image_id`, one of them"
    with pytest.raises(UnreadableError, match=r"^not found$"):
        landmarks.search("none.jpg")
    with pytest.raises(UnreadableError, match=r"^not a picture in a known format$"):
        landmarks.search(b"text", box=(0, 0, 1, 1))


def test_any_image_of_the_index_is_compared_with_another_one(landmarks):
    from cli.report.pair import drawn_compared

    item = landmarks.search(ARCH, n=30, fold=False).items[-1]
    compared = landmarks.compare(ARCH, item.neighbour.image_id, maps="similarity")
    assert compared.neighbour == replace(item.neighbour, score=compared.neighbour.score)
    assert compared.neighbour.score == pytest.approx(item.neighbour.score, abs=1e-5)
    assert compared.maps.score == pytest.approx(item.neighbour.score, abs=0.02)  # which may be of bfloat16
    drawn = list(drawn_compared(compared, "asked"))
    assert [one.name for one in drawn] == ["match", "map-similarity"]
    assert all(Image.open(io.BytesIO(one.webp)).format == "WEBP" for one in drawn)
    part = landmarks.compare(ARCH, item.neighbour.image_id, box=(0, 0, 0.5, 1), maps="none")
    assert (part.query.pixels.size, part.maps) == ((24, 48), None)
    with pytest.raises(LmrError, match=r"^landmarks has no image nobody; lmr index export lists those it has$"):
        landmarks.compare(ARCH, "nobody")


def test_descriptors_that_were_made_before_get_the_answers_of_their_images(landmarks):
    images = [ARCH, OTHER, "images/train-dome-1.jpg"]
    descriptors, unreadable = landmarks.embed(images)
    assert unreadable == {}
    assert landmarks.answer_descriptors(descriptors, images) == landmarks.query(images)
    asked = {"threshold": 0.0, "n_landmarks": 2}
    assert landmarks.answer_descriptors(descriptors[:1], ["a name"], **asked) == [
        replace(landmarks.query([ARCH], **asked)[0], image="a name")
    ]
    assert landmarks.answer_descriptors(descriptors[:0], []) == []
    with pytest.raises(ValueError, match=r"^2 names do not fit 3 descriptors$"):
        landmarks.answer_descriptors(descriptors, images[:2])


def test_a_word_that_asking_does_not_have_is_refused(landmarks):
    with pytest.raises(TypeError, match=r"^treshold is no word of AskJob; did you mean threshold\?$"):
        landmarks.query([ARCH], treshold=0.5)
    with pytest.raises(LmrError, match=r"^`n_landmarks` must be at least 0, got -1$"):
        landmarks.query([ARCH], n_landmarks=-1)


def test_paths_bytes_and_pil_images_get_the_same_answer(landmarks):
    answers = landmarks.query([ARCH, Path(ARCH), Path(ARCH).read_bytes(), Image.open(ARCH)])
    assert [answer.image for answer in answers] == [ARCH, ARCH, "bytes", "JpegImageFile"]
    assert len({answer.landmarks for answer in answers}) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"])
def test_a_pil_image_of_any_mode_is_described_as_its_rgb_or_grey_values(landmarks, mode):
    shown = image(LABELS.index("arch"), 200)
    given = shown.convert("RGBA").convert("RGBa") if mode == "RGBa" else shown.convert(mode)
    expected = shown if mode not in ("1", "L", "LA", "I", "F") else given.convert("L")
    vectors, unreadable = landmarks.embed([given, expected])
    assert unreadable == {}
    if mode in ("I", "F"):  # stretched from their minimum to their maximum
        values = np.asarray(given, dtype=float)
        stretched = np.rint((values - values.min()) * 255 / (values.max() - values.min())).astype(np.uint8)
        vectors = np.stack([vectors[0], landmarks.embed([Image.fromarray(stretched)])[0][0]])
    assert vectors[0] @ vectors[1] > 0.98


def test_a_pil_image_is_turned_as_its_exif_says(landmarks, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(ARCH).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "p.png", exif=turned)
    vectors, _ = landmarks.embed([ARCH, tmp_path / "p.png", Image.open(tmp_path / "p.png")])
    assert vectors[1] @ vectors[0] > 0.999
    assert vectors[2] @ vectors[0] > 0.999


def test_one_pil_image_given_twice_is_loaded_once_at_a_time(folder):
    shown = Image.open(ARCH)
    answers = lmr.open_index("landmarks", device="cpu", threads=1, workers=4).query([shown] * 12)
    assert len({answer.landmarks for answer in answers}) == 1


def test_unreadable_images_have_a_reason_and_no_landmark(landmarks):
    whole = Path(ARCH).read_bytes()
    cut = Image.open(io.BytesIO(whole[: len(whole) // 2]))
    answers = landmarks.query([b"", "no.jpg", ARCH, "images", cut])
    assert [answer.unreadable for answer in answers[:4]] == ["empty file", "not found", None, "a folder, not a picture"]
    assert answers[4].unreadable.startswith("broken picture: ")
    assert [answer.landmark_id for answer in answers] == [None, None, "arch", None, None]
    assert answers[0] == lmr.Answer("bytes", None, "", "", None, None, (), (), None, "empty file")
    vectors, unreadable = landmarks.embed([b"", ARCH])
    assert vectors.shape == (1, 1024)
    assert unreadable == {0: "empty file"}


def test_no_images_have_no_answers(landmarks):
    assert landmarks.query([]) == []
    vectors, unreadable = landmarks.embed([])
    assert (vectors.shape, unreadable) == ((0, 1024), {})


def test_descriptors_are_of_unit_length_and_float32(landmarks):
    vectors, _ = landmarks.embed([ARCH, OTHER])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ARCH, "images must be a list of images, got one str"),
        (Path(ARCH), "images must be a list of images, got one PosixPath"),
        (b"x", "images must be a list of images, got one bytes"),
        ([None], r"images\[0\] must be a path, URL, encoded bytes or PIL image, got NoneType"),
        ([ARCH, np.zeros((4, 4))], r"images\[1\] must be a path, URL, encoded bytes or PIL image, got ndarray"),
    ],
)
def test_what_is_no_list_of_images_is_a_callers_bug(landmarks, given, message):
    with pytest.raises(TypeError, match=f"^{message}$"):
        landmarks.query(given)


def test_threshold_and_number_of_landmarks_are_the_callers(landmarks):
    assert landmarks.query([OTHER], threshold=0.0)[0].landmark_id is not None
    assert landmarks.query([ARCH], threshold=1.0)[0].landmark_id is None
    assert landmarks.query([ARCH], n_landmarks=0)[0].landmarks == ()
    for threshold in (1.5, -0.1, float("nan")):
        with pytest.raises(LmrError) as error:
            landmarks.query([ARCH], threshold=threshold)
        assert str(error.value) == f"threshold must lie in [0, 1], got {threshold}"


def test_an_index_without_calibration_gives_scores_alone(folder, tmp_path):
    shutil.copytree("landmarks", tmp_path / "l")
    (tmp_path / "l/calibration.json").unlink()
    opened = lmr.open_index(tmp_path / "l", device="cpu", threads=1)
    assert not opened.is_calibrated
    (answer,) = opened.query([OTHER])
    assert answer.landmark_id == answer.landmarks[0].landmark_id
    assert answer.confidence is answer.threshold is answer.landmarks[0].confidence is None
    with pytest.raises(LmrError) as error:
        opened.query([b"never read"], threshold=0.5)
    assert str(error.value) == (f"{tmp_path / 'l'} is not calibrated, so a threshold has no meaning; run lmr calibrate")


def test_a_image_of_the_index_is_told(landmarks):
    assert landmarks.query(["images/train-dome-1.jpg"])[0].in_index == "train-dome-1"


def test_what_cannot_be_opened_is_named(folder):
    for path, message in {
        "no": "no: there is no such index folder; lmr build-index makes one",
        "images": "images: not an index folder (no index.json); lmr build-index makes one",
    }.items():
        with pytest.raises(LmrError) as error:
            lmr.open_index(path)
        assert str(error.value) == message
    with pytest.raises(LmrError) as error:
        lmr.open_index("landmarks", device="abacus")
    assert str(error.value) == "`device` abacus: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps"


def test_a_set_goes_from_stores_to_scores_by_the_words_of_the_commands(folder, tmp_path):
    index, one = tmp_path / "index", {"device": "cpu", "threads": 1, "workers": 1}
    built = lmr.build_index(names="names.csv", output=index, dimensions=4, augment=1, thumbnails=0, **one)
    assert (built.state, built.info.d, built.info.options["refinement"]["n_augment"]) == ("built", 4, 1)
    assert lmr.build_index(names="names.csv", output=index, dimensions=4, augment=1, thumbnails=0, **one).state == (
        "unchanged"
    )
    store = tmp_path / "val.h5"
    with pytest.warns(UserWarning, match="not calibrated: ranked by score"):
        written = lmr.submit("test.csv", index=index, store=tmp_path / "test.h5", output=tmp_path / "s.csv", **one)
    assert (written.state, written.n_lines, written.n_answered) == ("written", 22, 22)
    calibration = lmr.calibrate("val.csv", index=index, store=store, precision=0.8, **one)
    assert calibration.settings.precision == 0.8
    result = lmr.evaluate("val.csv", index=index, store=store, **one)
    assert result.folder.calibration == calibration
    assert result.evaluation.accuracy.gap == pytest.approx(calibration.choice.held_out.gap, abs=0.2)
    scores = lmr.score(tmp_path / "s.csv", "solution.csv")
    assert list(scores) == ["All", "Public"]
    assert scores["All"].n_queries == 22


def test_a_calibration_that_ends_is_in_the_report_or_made_again(folder, tmp_path):
    index = tmp_path / "index"
    shutil.copytree("landmarks", index)
    ended = lmr.build_index(output=index, whitening_power=0, overwrite=True, device="cpu", workers=1)
    assert ended.lost is not None
    assert (ended.kept, ended.recalibrated) == (None, None)
    shutil.rmtree(index)
    shutil.copytree("landmarks", index)
    again = lmr.build_index(output=index, whitening_power=0, overwrite=True, recalibrate=True, device="cpu", workers=1)
    assert again.lost == ended.lost
    assert again.recalibrated is not None
    assert again.recalibrated.settings == ended.lost.settings


def test_an_evaluation_needs_queries_or_leaves_one_out(folder):
    for words in ({}, {"queries": Path("val.csv"), "leave_one_out": True}):
        with pytest.raises(LmrError) as error:
            lmr.evaluate(**words)
        assert str(error.value) == "give `queries` or `leave_one_out`, one of them"


def test_answers_are_sorted_into_folders_and_moves_are_undone(landmarks, tmp_path):
    trip = tmp_path / "trip"
    trip.mkdir()
    for name in (ARCH, OTHER):
        shutil.copy(name, trip)
    images = sorted(map(str, trip.iterdir()))
    done = landmarks.sort_into(tmp_path / "sorted", landmarks.query(images), mode="move")
    assert (done.n_moved, done.n_links) == (2, 0)
    assert not any(map(os.path.exists, images))
    assert lmr.undo_moves(tmp_path / "sorted") == 2
    assert sorted(map(str, trip.iterdir())) == images


def test_importing_the_api_loads_nothing_heavy():
    import subprocess

    code = "import lmr, sys; print([m for m in ('torch', 'faiss', 'h5py', 'sklearn', 'pandas') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_the_examples_of_the_docstrings_run(finished_set, tmp_path, monkeypatch):
    """One after the other, as they stand in the file, in a folder with a finished set."""
    shutil.copytree(finished_set, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    found = [doctest.DocTestFinder().find(one, name, globs={"lmr": lmr}) for one, name in EXAMPLES.items()]
    examples = [example for of_one in found for example in of_one if example.examples]
    said: list[str] = []
    text = Path(lmr.__file__).read_text(encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for example in sorted(examples, key=lambda found: text.find(f"def {found.name.removeprefix('lmr.')}(")):
            doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert not said, "".join(said)
    assert {"lmr.Landmarks.search", "lmr.Landmarks.compare"} <= {found.name for found in examples}
    assert {found.name.removeprefix("lmr.") for found in examples} >= set(lmr.__all__) & NAMED_AFTER_COMMANDS
