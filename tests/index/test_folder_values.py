"""Index folders whose files are whole, with right digests, but hold what cannot be: one line that names it."""

import json
import re
from collections.abc import Callable

import faiss
import h5py
import numpy as np
import pytest
from test_folder import EMPTY_STREET, TRAIN, build, refusal, store, write_model

from index.folder.folder import open_folder
from index.folder.info import list_files, read_info
from index.folder.rows import Rows, write_rows
from index.recognition import answer_store
from retrieval.arrays import object_array
from retrieval.errors import LmrError
from retrieval.files.json_file import write_signed_json
from retrieval.store.info import StoreInfo, model_difference

REBUILD = "run lmr build-index again"


@pytest.fixture
def folder(tmp_path):
    build(tmp_path / "l", write_model(tmp_path / "model", "ab" * 32))
    return tmp_path / "l"


def sign(folder, **changes):
    """index.json as it is now, with these entries instead, and right digests of all files."""
    content = json.loads((folder / "index.json").read_text())
    del content["sha256"]
    listed = list_files(folder)
    del listed["index.json"]
    write_signed_json(folder / "index.json", {**content, "files": listed, **changes})


def options_with(folder, **changes):
    return {**read_info(folder).options, **changes}


IMPOSSIBLE: dict[str, tuple[Callable, str]] = {
    "files is a list": (lambda f: {"files": []}, "Expected `object`, got `array` - at `$.files`"),
    "a file is a number": (
        lambda f: {"files": {"index.faiss": 7}}, "Expected `object`, got `int` - at `$.files[...]`"),
    "a size is text": (
        lambda f: {"files": {"index.faiss": {"sha256": "", "size": "7"}}},
        "Expected `int`, got `str` - at `$.files[...].size`"),
    "no rows": (
        lambda f: {"files": {"index.faiss": {"sha256": "", "size": 7}}}, "files does not list rows.h5"),
    "a file elsewhere": (
        lambda f: {"files": {**read_info(f).files, "../model/state.pt": {"sha256": "", "size": 7}}},
        "files lists '../model/state.pt', which is not in the folder"),
    "no options": (lambda f: {"options": {}}, "options.m must lie in [1, 10,000], got None"),
    "10^12 neighbours": (
        lambda f: {"options": options_with(f, m=10**12)}, "options.m must lie in [1, 10,000], got 1000000000000"),
    "another storage": (
        lambda f: {"options": options_with(f, storage=7)}, "options.storage must be one of float32, float16"),
    "options is a list": (lambda f: {"options": [1]}, "Expected `object`, got `array` - at `$.options`"),
    "recall": (
        lambda f: {"recall": 7.0}, "n_rows, n_landmarks, n_background, d or recall is out of its range"),
}  # fmt: skip


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_index_json_that_cannot_be_is_one_line(folder, case):
    changes, reason = IMPOSSIBLE[case]
    sign(folder, **changes(folder))
    said = refusal(open_folder, folder)
    assert said.startswith(f"{folder}/index.json is damaged or of another version ({reason}")
    assert said.endswith(f"; {REBUILD}")


@pytest.mark.parametrize(
    ("refinement", "reason"),
    [
        ([], "options.refinement is damaged or of another version (Expected `object`, got `array`)"),
        ({"n_expand": "3"}, "options.refinement is damaged or of another version (Expected `int`, got `str` - at "
         "`$.n_expand`)"),
        ({"n_expand": 10**12}, "options.refinement: `n_expand` must be 0 (off) to 10,000, got 1000000000000"),
    ],
)  # fmt: skip
def test_a_refinement_that_cannot_be_is_one_line(folder, refinement, reason):
    sign(folder, options=options_with(folder, refinement=refinement))
    assert refusal(open_folder, folder) == f"{folder}/index.json: {reason}; {REBUILD}"


@pytest.mark.parametrize("names", [{"rome": 7}, {"rome": {"name": 7}}, {"rome": {}}])
def test_names_that_cannot_be_are_one_line(folder, names):
    (folder / "names.json").write_text(json.dumps(names))
    sign(folder)
    assert refusal(open_folder, folder).startswith(f"{folder}/names.json is damaged or of another version (")


def test_a_background_that_is_not_finite_is_refused(folder):
    with h5py.File(folder / "background.h5", "r+") as file:
        file["vectors"][2, 1] = np.nan
    sign(folder)
    assert refusal(open_folder, folder) == (
        f"{folder}/background.h5 is damaged (vectors of row 2 hold NaN or infinity); {REBUILD}"
    )


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("vectors", np.zeros(6, np.float32), "vectors must have the shape (any, any), got 6 rows"),
        ("vectors", np.zeros((6, 8)), "vectors must be float32, got float64"),
        ("image_id", np.zeros(7), "image_id must be text, got float64"),
        ("image_id", ["a"], "image_id must have 7 rows, got 1 row"),
        ("image_id", [b"\xff", b"", b"", b"", b"", b"", b""], "image_id of row 0 is not UTF-8: b'\\xff'"),
    ],
)
def test_a_background_that_cannot_be_is_refused(folder, name, data, reason):
    with h5py.File(folder / "background.h5", "r+") as file:
        del file[name]
        file[name] = data
    sign(folder)
    assert refusal(open_folder, folder) == f"{folder}/background.h5 is damaged ({reason}); {REBUILD}"


def test_files_that_do_not_belong_together_are_named(folder, tmp_path):
    whole = (folder / "rows.h5").read_bytes()
    rows = Rows(object_array(["a"]), np.zeros(1, np.int32), ("rome",), object_array([""]), None)
    write_rows(folder / "rows.h5", rows)
    sign(folder)
    assert refusal(open_folder, folder) == f"{folder}/rows.h5 has 1 row, {folder}/index.faiss has 4; {REBUILD}"
    (folder / "rows.h5").write_bytes(whole)
    other = faiss.IndexFlatIP(5)
    other.add(np.eye(5, dtype=np.float32)[:4])
    faiss.write_index(other, str(folder / "index.faiss"))
    sign(folder, d=5)
    assert refusal(open_folder, folder) == (
        f"{folder}/background.h5 does not fit {folder}/index.faiss (4 x 5); {REBUILD}"
    )
    sign(folder, d=8)
    assert refusal(open_folder, folder) == f"{folder}/index.json does not fit {folder}/index.faiss (4 x 5); {REBUILD}"


def test_stores_of_other_lengths_are_refused(tmp_path, folder):
    short = store(["x", "y"], ["rome", "paris"], d=5, source="short.h5")
    model = tmp_path / "model"
    assert refusal(build, tmp_path / "m", model, [TRAIN, short]) == (
        "short.h5 has descriptors of 5 columns, train.h5 of 8; embed with the same model"
    )
    with pytest.raises(LmrError) as caught:
        answer_store(open_folder(folder, device="cpu"), short)
    assert str(caught.value) == (
        f"short.h5 has descriptors of 5 columns, {folder} is of 8; embed with the model of the index"
    )
    assert len(EMPTY_STREET) == 6


def test_what_differs_of_two_models_is_said():
    mine = {"config": {"backbone": "a"}, "image_spec": {"size": 168}, "flip": False, "weights_sha256": "1" * 64}
    mine["fingerprint"] = "f" * 64
    assert model_difference(mine, {**mine, "image_spec": {"size": 128}}) == "size 168 is not 128"
    other = {**mine, "config": {"backbone": "b"}, "weights_sha256": "2" * 64}
    assert model_difference(mine, other) == "backbone a is not b, weights 11111111 are not 22222222"
    assert model_difference(mine, {"fingerprint": "e" * 64}) == "model ffffffff is not eeeeeeee"
    joined = {"members": [mine, mine], "fingerprint": "d" * 64}
    changed = {"members": [mine, {**mine, "flip": True}], "fingerprint": "c" * 64}
    assert model_difference(joined, changed) == "member 2: flip False is not True"
    assert re.match("model f+ is not d+", model_difference(mine, joined))
    info = StoreInfo("f" * 64, {"flip": False}, {"size": 168}, "0.1", "m", "float16", 8)
    assert model_difference(info.made_by, {**mine, "image_spec": {"size": 32}}) == "size 168 is not 32"
