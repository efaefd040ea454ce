"""Files of an lmr that knew no colour profiles, in made_before/: they keep their fingerprints, open, embed and answer.

That lmr trained a network of two small layers on photos/, embedded photos/ and queries/, built and calibrated an index,
joined the model with another one in both/, and wrote its answers to the queries to answers.json.
"""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_set import HERE, done, run

MADE_BEFORE = Path(__file__).parent / "made_before"
MODEL = "cc074110cc426e13b83392b261f4b3a5aaae3f864cdb83ca26429cccaf501ef7"
BOTH = "388cfb85a8a592070a42e1c54786e3cb3a8404caa142cef8dad5396c98511b84"


@pytest.fixture(autouse=True)
def made_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the old files is the working folder."""
    shutil.copytree(MADE_BEFORE, tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")


def info(path: str) -> dict[str, object]:
    content: dict[str, object] = json.loads(done("info", path, "--json").stdout)
    return content


def vectors(path: str) -> np.ndarray:
    with h5py.File(path) as file:
        return file["vectors"][:].astype(np.float32)


@pytest.mark.parametrize(
    ("path", "fingerprint"),
    [("index/model", MODEL), ("index", MODEL), ("photos.h5", MODEL), ("queries.h5", MODEL), ("both", BOTH)],
)
def test_an_old_file_keeps_its_fingerprint(path: str, fingerprint: str) -> None:
    assert info(path)["fingerprint"] == fingerprint


def test_the_fingerprint_of_an_old_model_is_computed_as_it_was() -> None:
    from retrieval.models.card import EnsembleCard, ModelCard
    from retrieval.models.folder import read_any_card

    single, both = read_any_card(Path("index/model")), read_any_card(Path("both"))
    assert isinstance(single, ModelCard)
    assert isinstance(both, EnsembleCard)
    assert single.image_spec.colors == "as-stored"
    assert (single.fingerprint, both.fingerprint) == (MODEL, BOTH)
    assert both.members[0].card == single


@pytest.mark.parametrize("name", ["photos", "queries"])
def test_an_old_model_describes_images_as_it_did(name: str) -> None:
    done("embed", name, "--model", "index/model", "--output", "again.h5", *HERE)
    assert info("again.h5")["fingerprint"] == MODEL
    assert vectors("again.h5") == pytest.approx(vectors(f"{name}.h5"), abs=2e-3)


def test_an_old_ensemble_describes_images() -> None:
    done("embed", "photos", "--model", "both", "--output", "both.h5", *HERE)
    assert info("both.h5")["fingerprint"] == BOTH
    joined, alone = vectors("both.h5"), vectors("photos.h5")
    assert joined[:, :4] == pytest.approx(alone * np.sqrt(0.5), abs=2e-3)


def test_an_old_store_is_finished_and_says_what_it_cannot_know() -> None:
    before = Path("photos.h5").read_bytes()
    result = run("embed", "photos", "--model", "index/model", *HERE)
    assert (result.exit_code, result.stderr.splitlines()) == (
        0,
        ["photos.h5 does not say what its pictures were (it is of an earlier lmr): all count as unchanged"],
    )
    assert result.stdout == "photos.h5: finished already, nothing to do (6 pictures)\n"
    assert Path("photos.h5").read_bytes() == before


def test_an_index_of_an_old_store_holds_its_rows() -> None:
    shutil.copytree("index/model", "model")
    assert done("build-index", "photos.h5", "--output", "new").stdout == (
        "new: built: 6 pictures of 2 landmarks, 0 in the background, d = 4\n"
    )


def test_an_old_index_answers_as_it_did() -> None:
    expected = json.loads(Path("answers.json").read_text())
    answers = json.loads(done("query", *[answer["image"] for answer in expected], "--index", "index", "--json").stdout)
    assert [answer["landmark_id"] for answer in answers] == ["Alpha", "Alpha", "Beta", "Beta"]
    for answer, old in zip(answers, expected, strict=True):
        assert answer["threshold"] == old["threshold"]
        assert answer["confidence"] == pytest.approx(old["confidence"], abs=1e-4)
        for kind in ("landmarks", "neighbours"):
            found, wanted = answer[kind], old[kind]
            assert [row["landmark_id"] for row in found] == [row["landmark_id"] for row in wanted]
            scores, old_scores = ([row["score"] for row in rows] for rows in (found, wanted))
            assert scores == pytest.approx(old_scores, abs=5e-2), "float32 and bfloat16 differ by as much as 0.01"


def test_an_old_calibration_is_measured_on_an_old_store() -> None:
    figures = json.loads(done("evaluate", "queries.h5", "--index", "index", "--json").stdout)
    assert (figures["gap"], figures["top1"], figures["n_queries"]) == (1.0, 1.0, 4)
