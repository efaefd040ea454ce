"""Index folders: what is built opens again, damage is named, a kill leaves the old folder or the new one."""

import contextlib
import json
import os
import re
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from index.calibrate.config import CalibrationSettings
from index.calibrate.fit import calibrate
from index.calibrate.selection import CalibrationQueries, Grid
from index.calibration import Origin
from index.folder import build as building
from index.folder import folder as folder_module
from index.folder.build import BuildOptions, build_folder
from index.folder.folder import open_folder, read_calibration, replace_calibration
from index.folder.info import check_files, read_info, write_info
from index.folder.inputs import BuildInputs
from index.metrics import make_truths
from index.rerank.config import Refinement
from index.search.flat import FlatIndex
from retrieval.arrays import object_array
from retrieval.data.names import Name
from retrieval.errors import LmrError
from retrieval.files import atomic, folders
from retrieval.files.json_file import write_signed_json
from retrieval.store.store import DONE, UNREADABLE, Descriptors, StoreInfo

MODEL = "ab" * 32
OTHER = "cd" * 32


def store(image_ids, labels, *, seed=0, fingerprint=MODEL, source="train.h5", d=8):
    """Random descriptors; label '' = none."""
    names = tuple(sorted({label for label in labels if label}))
    codes = [names.index(label) if label else -1 for label in labels]
    return Descriptors(
        vectors=np.random.default_rng(seed).normal(size=(len(labels), d)).astype(np.float32),
        image_id=object_array(list(image_ids)),
        landmark=np.array(codes, dtype=np.int32),
        landmarks=names,
        state=np.full(len(labels), DONE, dtype=np.uint8),
        path=object_array([f"pictures/{i}.jpg" for i in image_ids]),
        kind=None,
        info=StoreInfo(fingerprint, {}, {}, "0.1", "manifest", "float32", d),
        source=source,
    )


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model", MODEL)


def write_model(path, fingerprint):
    path.mkdir()
    (path / "model.json").write_text(json.dumps({"fingerprint": fingerprint}))
    (path / "weights-1.safetensors").write_bytes(b"weights")
    (path / "state.pt").write_bytes(b"of training")
    return path


TRAIN = store(["a", "b", "c", "d", "e"], ["rome", "paris", "rome", "", "oslo"])
EMPTY_STREET = store([f"s{i}" for i in range(6)], [""] * 6, seed=1, source="background.h5")
PLAIN = BuildOptions(whitening_power=None)


def build(path, model, stores=(TRAIN,), options=PLAIN, background=(EMPTY_STREET,), **more):
    return build_folder(path, BuildInputs(stores, model, background), options, device="cpu", **more)


def test_a_folder_holds_the_labelled_rows_and_their_background(tmp_path, model):
    report = build(tmp_path / "landmarks", model)
    folder = open_folder(tmp_path / "landmarks", device="cpu")
    assert report.state == "built"
    assert folder.info == report.info
    assert folder.rows.image_id.tolist() == ["a", "b", "c", "e"]
    assert folder.rows.landmarks == ("oslo", "paris", "rome")
    assert folder.rows.landmark.tolist() == [2, 1, 2, 0]
    assert folder.rows.counts.tolist() == [1, 1, 2]
    assert folder.rows.path[0] == "pictures/a.jpg"
    assert folder.background.image_id.tolist() == ["d", *EMPTY_STREET.image_id]
    unit = TRAIN.vectors / np.linalg.norm(TRAIN.vectors, axis=1, keepdims=True)
    assert folder.index.vectors(np.arange(4)) == pytest.approx(unit[[0, 1, 2, 4]], abs=1e-6)
    similarity = np.sort(unit[[0, 1, 2, 4]] @ folder.background.vectors.T, axis=1)[:, -3:].mean(axis=1)
    assert folder.rows.background == pytest.approx(similarity, abs=1e-6)
    assert (folder.whitening, folder.calibration, folder.names) == (None, None, {})
    assert (folder.info.fingerprint, folder.info.recall, folder.info.d) == (MODEL, 1.0, 8)
    assert (folder.model_path / "weights-1.safetensors").read_bytes() == b"weights"
    assert not (folder.model_path / "state.pt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["landmarks", "model"]


def test_whitening_is_fitted_on_rows_and_background_and_stored(tmp_path, model):
    build(tmp_path / "landmarks", model, options=BuildOptions(n_dimensions=3))
    folder = open_folder(tmp_path / "landmarks", device="cpu")
    assert folder.index.d == 3
    both = np.concatenate([TRAIN.vectors[[0, 1, 2, 4, 3]], EMPTY_STREET.vectors])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    assert folder.whitening.mean == pytest.approx(both.mean(axis=0), abs=1e-6)
    assert folder.index.vectors(np.arange(4)) == pytest.approx(folder.whitening.apply(both[:4]), abs=1e-6)
    assert folder.background.vectors == pytest.approx(folder.whitening.apply(both[4:]), abs=1e-6)


def test_without_background_it_is_absent(tmp_path, model):
    build(tmp_path / "landmarks", model, [TRAIN.select(TRAIN.landmark >= 0)], background=())
    folder = open_folder(tmp_path / "landmarks", device="cpu")
    assert (folder.background, folder.rows.background) == (None, None)
    assert not (tmp_path / "landmarks" / "background.h5").exists()


def test_half_precision_reports_a_measured_recall(tmp_path, model):
    report = build(tmp_path / "landmarks", model, options=replace(PLAIN, storage="float16"))
    assert open_folder(tmp_path / "landmarks", device="cpu").index.storage == "float16"
    assert 0.9 < report.info.recall <= 1.0


def test_several_stores_join_their_landmarks(tmp_path, model):
    more = store(["x", "y"], ["athens", "rome"], seed=2, source="more.h5")
    build(tmp_path / "landmarks", model, [TRAIN, more])
    rows = open_folder(tmp_path / "landmarks", device="cpu").rows
    assert [rows.landmarks[c] for c in rows.landmark] == ["rome", "paris", "rome", "oslo", "athens", "rome"]


def test_unreadable_rows_are_left_out_and_counted(tmp_path, model):
    state = np.array([DONE, UNREADABLE, DONE, DONE, UNREADABLE], dtype=np.uint8)
    report = build(tmp_path / "landmarks", model, [replace(TRAIN, state=state)])
    assert report.n_unreadable == 2
    assert open_folder(tmp_path / "landmarks", device="cpu").rows.landmarks == ("rome",)


def test_names_of_the_file_win_over_those_of_the_folders(tmp_path, model):
    named = replace(TRAIN, names={"rome": "Rome (folder)", "oslo": "Oslo (folder)"})
    names = {"rome": Name("Roma", "https://example.org/roma"), "athens": Name("Athens", "")}
    build_folder(tmp_path / "l", BuildInputs([named], model, names=names), PLAIN, device="cpu")
    assert open_folder(tmp_path / "l", device="cpu").names == {
        "rome": Name("Roma", "https://example.org/roma"),
        "oslo": Name("Oslo (folder)", ""),
    }


def refusal(action, *arguments, **more):
    with pytest.raises(LmrError) as error:
        action(*arguments, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_stores_of_another_model_are_refused(tmp_path, model):
    other = store(["x"], ["rome"], fingerprint=OTHER, source="more.h5")
    expected = "more.h5 does not fit train.h5: model cdcdcdcd is not abababab; embed with the same model"
    assert refusal(build, tmp_path / "l", model, [TRAIN, other]) == expected
    assert refusal(build, tmp_path / "l", model, [TRAIN], background=[other]) == expected
    assert refusal(build, tmp_path / "l", model, [other], background=()) == (
        f"more.h5 does not fit {model}: model cdcdcdcd is not abababab; give the model that made it"
    )
    assert not (tmp_path / "l").exists()


def test_an_image_id_in_two_stores_is_refused(tmp_path, model):
    again = store(["c", "x"], ["rome", "rome"], source="more.h5")
    assert refusal(build, tmp_path / "l", model, [TRAIN, again]) == (
        "image_id c is there 2 times (more.h5, train.h5), 1 such id in all; give each picture once"
    )


def test_a_background_image_may_be_named_as_another_is(tmp_path, model):
    numbered = store(["a", "b"], ["", ""], seed=3, source="street.h5")
    build(tmp_path / "landmarks", model, background=[numbered, EMPTY_STREET])
    assert open_folder(tmp_path / "landmarks", device="cpu").background.image_id.tolist()[:3] == ["d", "a", "b"]
    the_same = replace(numbered, vectors=np.stack([2 * TRAIN.vectors[0], numbered.vectors[1]]))
    assert refusal(build, tmp_path / "l", model, background=[the_same]) == (
        "image_id a is there 2 times (street.h5, train.h5), 1 such id in all; give each picture once"
    )
    assert refusal(build, tmp_path / "l", model, background=[EMPTY_STREET, EMPTY_STREET]) == (
        "image_id s0 is there 2 times (background.h5), 6 such ids in all; give each picture once"
    )


def test_a_background_image_of_a_landmark_of_the_index_is_refused(tmp_path, model):
    wrong = store(["x", "y"], ["", "rome"], source="background.h5")
    assert refusal(build, tmp_path / "l", model, background=[wrong]) == (
        "background.h5: background picture y shows rome, a landmark of the index; "
        "take it out or blank its landmark_id if that is wrong"
    )


def test_no_labelled_image_is_an_error(tmp_path, model):
    assert refusal(build, tmp_path / "l", model, [EMPTY_STREET], background=()) == (
        "background.h5: no row has a landmark_id and a descriptor; an index needs labelled pictures"
    )


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_descriptor_that_is_zero_or_not_finite_is_named(tmp_path, model, value):
    vectors = TRAIN.vectors.copy()
    vectors[2] = value
    assert refusal(build, tmp_path / "l", model, [replace(TRAIN, vectors=vectors)]) == (
        "train.h5: the descriptor of c is zero or not finite; embed it again"
    )


def test_a_model_folder_without_a_model_is_an_error(tmp_path):
    assert refusal(build, tmp_path / "l", tmp_path / "no") == (
        f"{tmp_path / 'no'}: there is no model (no model.json); lmr train makes one"
    )


def test_the_same_build_again_does_nothing(tmp_path, model):
    build(tmp_path / "l", model)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "l").rglob("*")}
    assert build(tmp_path / "l", model).state == "unchanged"
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "l").rglob("*")} == before


@pytest.mark.parametrize("change", ["storage", "labels", "vectors"])
def test_another_build_is_refused_or_replaces(tmp_path, model, change):
    build(tmp_path / "l", model)
    stores, options = [TRAIN], PLAIN
    if change == "storage":
        options = replace(PLAIN, storage="float16")
    if change == "labels":
        stores = [replace(TRAIN, landmark=TRAIN.landmark[[1, 0, 2, 3, 4]])]
    if change == "vectors":
        stores = [replace(TRAIN, vectors=TRAIN.vectors * np.linspace(1, 2, 8, dtype=np.float32))]
    assert refusal(build, tmp_path / "l", model, stores, options) == (
        f"{tmp_path / 'l'} exists and was built from other descriptors or options; `overwrite` replaces it"
    )
    assert build(tmp_path / "l", model, stores, options, overwrite=True).state == "built"
    assert build(tmp_path / "l", model, stores, options).state == "unchanged"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l", "model"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path, model):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "index.json").write_text("{}")
    expected = f"{photos} exists and is not an index folder; choose another `output`"
    assert refusal(build, photos, model) == expected
    assert refusal(build, photos, model, overwrite=True) == expected
    assert (photos / "index.json").read_text() == "{}"


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("step", range(1, 12))
def test_a_kill_while_replacing_leaves_the_old_folder_or_the_new_one(tmp_path, model, monkeypatch, step, can_exchange):
    """Dies at the step-th change of the file system that puts the new folder in place."""
    path = tmp_path / "l"
    build(path, model)
    old = open_folder(path, device="cpu").info
    n_steps = 0

    class KilledError(BaseException):
        pass

    def dying(real):
        def act(*arguments, **more):
            nonlocal n_steps
            n_steps += 1
            if n_steps >= step:
                raise KilledError
            return real(*arguments, **more)

        return act

    new_options = replace(PLAIN, storage="float16")
    with monkeypatch.context() as patch:
        patch.setattr(folders, "exchange", dying(folders.exchange if can_exchange else lambda *_: False))
        patch.setattr(folders.os, "rename", dying(os.rename))
        patch.setattr(folders, "write_text", dying(folders.write_text))
        patch.setattr(folders.shutil, "rmtree", dying(shutil.rmtree))
        patch.setattr(building.shutil, "copyfile", dying(shutil.copyfile))
        patch.setattr(building, "write_rows", dying(building.write_rows))
        with contextlib.suppress(KilledError):
            build(path, model, options=new_options, overwrite=True)
    opened = open_folder(path, device="cpu")
    assert opened.info == old or opened.index.storage == "float16"
    assert build(path, model, options=new_options, overwrite=True).state == "built"
    assert open_folder(path, device="cpu").index.storage == "float16"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l", "model"]


def test_a_copied_folder_opens_elsewhere(tmp_path, model):
    build(tmp_path / "l", model)
    shutil.rmtree(model)
    (tmp_path / "l").rename(tmp_path / "elsewhere")
    assert len(open_folder(tmp_path / "elsewhere", device="cpu").rows) == 4


def test_weights_are_left_to_who_loads_them_and_verified_with_the_whole_folder(tmp_path, model):
    folder = tmp_path / "l"
    build(folder, model)
    weights = folder / "model/weights-1.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert len(open_folder(folder, device="cpu").rows) == 4
    assert refusal(open_folder, folder, verify="full") == (
        f"{weights} was changed or damaged: its sha256 is not that of index.json; "
        "copy the folder again or run lmr build-index again"
    )
    weights.write_bytes(weights.read_bytes()[:-1])
    assert refusal(open_folder, folder).startswith(f"{weights} has ")


@pytest.mark.parametrize("name", ["index.faiss", "rows.h5", "background.h5"])
def test_a_changed_a_shortened_and_a_missing_file_are_named(tmp_path, model, name):
    folder = tmp_path / "l"
    build(folder, model)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert refusal(open_folder, folder) == (
        f"{folder / name} was changed or damaged: its sha256 is not that of index.json; "
        "copy the folder again or run lmr build-index again"
    )
    (folder / name).write_bytes(content[:-1])
    assert refusal(check_files, folder, read_info(folder), "size") == (
        f"{folder / name} has {len(content) - 1} bytes, index.json says {len(content)}; "
        "copy the folder again or run lmr build-index again"
    )
    (folder / name).unlink()
    assert refusal(open_folder, folder) == (
        f"{folder / name} is missing; copy the whole folder or run lmr build-index again"
    )
    assert refusal(build, folder, model).endswith("; `overwrite` replaces it")
    assert build(folder, model, overwrite=True).state == "built"


def test_a_folder_that_is_not_there_or_not_an_index_is_named(tmp_path, model):
    assert refusal(open_folder, tmp_path / "no") == (
        f"{tmp_path / 'no'}: there is no such index folder; lmr build-index makes one"
    )
    assert refusal(open_folder, model) == (f"{model}: not an index folder (no index.json); lmr build-index makes one")


def test_another_format_version_is_named(tmp_path, model):
    build(tmp_path / "l", model)
    info = tmp_path / "l" / "index.json"
    info.write_text(info.read_text().replace('"format_version": 1', '"format_version": 9'))
    assert refusal(open_folder, tmp_path / "l") == (
        f"{info} has format_version 9, this program reads 1; use the lmr that made it"
    )
    info.write_text("{")
    assert refusal(open_folder, tmp_path / "l").startswith(f"{info} is not JSON (")


def test_an_index_of_another_model_is_named(tmp_path, model):
    build(tmp_path / "l", model)
    folder = tmp_path / "l"
    write_info(folder, replace(read_info(folder), fingerprint=OTHER))
    assert refusal(open_folder, folder) == (
        f"{folder / 'model'} is model abababab, {folder / 'index.faiss'} was made by cdcdcdcd; "
        "run lmr build-index again"
    )


@pytest.fixture
def calibrated(tmp_path, model):
    """An index folder and two calibrations of it."""
    build(tmp_path / "l", model)
    folder = open_folder(tmp_path / "l", device="cpu")
    found = folder.index.search(np.random.default_rng(3).normal(size=(12, 8)).astype(np.float32), 4)
    truths = make_truths([[i % 3] if i % 4 else [] for i in range(12)])
    queries = CalibrationQueries(found, folder.rows.landmark, truths, object_array([str(i) for i in range(12)]))
    origin = Origin("val.h5", MODEL, folder.info.inputs_digest)
    grid = Grid(k=(1, 3), tau=(0.05,), r=(0.5,), beta=(0.0,))
    settings = CalibrationSettings(), CalibrationSettings(precision=0.5)
    return tmp_path / "l", *(calibrate(queries, origin, one, grid) for one in settings)


def test_a_calibration_opens_with_the_folder_and_is_replaced(calibrated):
    path, first, second = calibrated
    for calibration in (first, second):
        replace_calibration(path, calibration)
        folder = open_folder(path, device="cpu")
        assert folder.calibration == calibration
        assert folder.rule == calibration.rule
    assert sorted(p.name for p in path.glob("calibration*")) == ["calibration.json"]


def test_a_kill_while_the_calibration_is_replaced_leaves_the_old_one(calibrated, monkeypatch):
    path, first, second = calibrated
    replace_calibration(path, first)

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            replace_calibration(path, second)
    assert open_folder(path, device="cpu").calibration == first
    replace_calibration(path, second)
    assert open_folder(path, device="cpu").calibration == second


def test_a_calibration_that_was_changed_or_is_of_another_index_is_named(calibrated, model):
    path, first, _ = calibrated
    replace_calibration(path, first)
    file = path / "calibration.json"
    text = file.read_text()
    file.write_text(text.replace('"tau": 0.05', '"tau": 0.06'))
    assert refusal(open_folder, path) == (f"{file} was changed or damaged: its sha256 differs; run lmr calibrate again")
    file.write_text(text[:100])
    assert refusal(open_folder, path).startswith(f"{file} is not JSON (")
    build(path, model, options=replace(PLAIN, storage="float16"), overwrite=True)
    assert open_folder(path, device="cpu").calibration is None
    file.write_text(text)
    assert refusal(open_folder, path) == f"{file} was made for another index; run lmr calibrate again"
    with pytest.raises(ValueError, match="the calibration was not made for"):
        replace_calibration(path, first)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, model):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "l"
    assert refusal(build, path, model) == (
        f"{path} cannot be written: Not a directory; choose another place or make room"
    )


def test_a_folder_from_before_refinement_has_none_and_one_of_a_later_version_is_refused(tmp_path, model):
    folder = tmp_path / "landmarks"
    build(folder, model)
    info = read_info(folder)
    options = {key: value for key, value in info.options.items() if key != "refinement"}
    write_info(folder, replace(info, options=options))
    assert open_folder(folder, device="cpu").refinement == Refinement()
    write_info(folder, replace(info, options={**options, "refinement": {"sharper": 1}}))
    with pytest.raises(LmrError) as caught:
        open_folder(folder, device="cpu")
    assert str(caught.value).startswith(f"{folder}/index.json: options.refinement is of another version of lmr (")
    assert "sharper" in str(caught.value)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_who_opens_a_folder_while_it_is_replaced_gets_the_old_one_or_the_new_one(
    tmp_path, model, monkeypatch, can_exchange
):
    if not can_exchange:
        monkeypatch.setattr(folders, "exchange", lambda *_: False)
    path, n_built, may_end = tmp_path / "l", [0], threading.Event()
    build(path, model)

    def replace_it() -> None:
        while not may_end.is_set():
            storage = "float16" if n_built[0] % 2 else "float32"
            build(path, model, options=replace(PLAIN, storage=storage), overwrite=True)
            n_built[0] += 1

    thread = threading.Thread(target=replace_it)
    thread.start()
    try:
        seen = set()
        while len(seen) < 2 or n_built[0] < 10:
            assert thread.is_alive()
            opened = open_folder(path, device="cpu")
            assert opened.index.storage == opened.info.options["storage"]
            seen.add(opened.index.storage)
    finally:
        may_end.set()
        thread.join()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l", "model"]
    if can_exchange:
        assert not (path / folders.CURRENT).exists()
    else:
        assert {p.name for p in path.iterdir()} == {folders.CURRENT, folders.current_folder(path).name}


def test_an_index_that_comes_and_goes_while_a_folder_is_read_leaves_none_of_its_files_in_it(
    tmp_path, model, monkeypatch
):
    path, other = tmp_path / "l", tmp_path / "other"
    build(path, model)
    build(other, model, options=replace(PLAIN, storage="float16"))
    load, n_loaded = FlatIndex.load, [0]

    def load_while_another_is_there(*args, **more):
        n_loaded[0] += 1
        if n_loaded[0] > 1:
            return load(*args, **more)
        folders.exchange(path, other)
        try:
            return load(*args, **more)
        finally:
            folders.exchange(path, other)

    monkeypatch.setattr(FlatIndex, "load", load_while_another_is_there)
    assert open_folder(path, device="cpu").index.storage == "float32"
    assert n_loaded == [2]


def test_a_folder_that_is_replaced_by_an_equal_one_again_and_again_is_opened(tmp_path, model, monkeypatch):
    path, n_replaced = tmp_path / "l", [0]
    build(path, model)
    check = folder_module.check_files

    def replaced_meanwhile(folder, info, verify):
        if n_replaced[0] == 20:
            return check(folder, info, verify)
        n_replaced[0] += 1
        shutil.copytree(path, tmp_path / "copy")
        path.rename(tmp_path / f"old{n_replaced[0]}")
        (tmp_path / "copy").rename(path)
        raise LmrError("a file of the old one is gone")

    monkeypatch.setattr(folder_module, "check_files", replaced_meanwhile)
    assert len(open_folder(path, device="cpu").rows) > 0
    assert n_replaced == [20]


def test_an_index_behind_a_link_is_replaced_where_it_is(tmp_path, model):
    (tmp_path / "far").mkdir()
    (tmp_path / "l").symlink_to(tmp_path / "far" / "l")
    build(tmp_path / "l", model)
    build(tmp_path / "l", model, options=replace(PLAIN, storage="float16"), overwrite=True)
    assert (tmp_path / "l").is_symlink()
    assert open_folder(tmp_path / "far" / "l", device="cpu").index.storage == "float16"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["far", "l", "model"]


def test_a_folder_that_is_not_whole_is_never_put_in_place(tmp_path, model, monkeypatch):
    build(tmp_path / "l", model)
    old = open_folder(tmp_path / "l", device="cpu").info
    write = building.write_info

    def lose_a_file(folder, info):
        write(folder, info)
        os.truncate(folder / "rows.h5", 100)

    monkeypatch.setattr(building, "write_info", lose_a_file)
    told = refusal(build, tmp_path / "l", model, options=replace(PLAIN, storage="float16"), overwrite=True)
    assert re.fullmatch(r".*/rows\.h5 has 100 bytes, index\.json says \d+; copy the folder again or .*", told)
    assert open_folder(tmp_path / "l", device="cpu").info == old
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l", "model"]


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        ({"h": 0.5}, "verified neighbours in plain answers"),
        ({"g": 0.5}, "a background, which this index has none of"),
    ],
)
def test_a_calibration_that_weighs_what_the_index_has_not_is_named(calibrated, weights, what):
    path, first, _ = calibrated
    content = first.to_json()
    content["confidence"] |= {"g": 0.0, "h": 0.0, **weights}
    write_signed_json(path / "calibration.json", content)
    without = replace(read_info(path), n_background=0)
    with pytest.raises(LmrError) as caught:
        read_calibration(path, without)
    assert str(caught.value) == (f"{path}/calibration.json weighs {what}; run lmr calibrate again")
