"""`lmr train` and `lmr embed` on stores: an adapter is learnt without images, and made of them it gives the same."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_set import HERE, done, listing, refused, run

import lmr
from retrieval.models.folder import read_card
from retrieval.progress import SILENT
from retrieval.store.join import renew_columns
from retrieval.store.store import read_store
from retrieval.texts import Texts
from retrieval.train.stored.rows import content_of

TRAIN = ("train", "train.h5", "--threads", "1", "--device", "cpu", "--epochs", "4")


@pytest.fixture(scope="session")
def adapted_set(finished_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished set with an adapter of two layers and its stores; its images are gone. Not to be changed."""
    folder = tmp_path_factory.mktemp("adapted") / "set"
    shutil.copytree(finished_set, folder, ignore=shutil.ignore_patterns("images"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done(*TRAIN, "--val", "val.h5", "--hidden", "16")
        for store in ("train.h5", "val.h5"):
            done("embed", store, "--model", "adapted", "--threads", "1", "--device", "cpu")
    return folder


@pytest.fixture
def adapted(adapted_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that is the working folder."""
    folder = tmp_path / "set"
    shutil.copytree(adapted_set, folder)
    monkeypatch.chdir(folder)
    return folder


def log() -> list[dict[str, str]]:
    with Path("adapted/training.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_adapter_is_learnt_from_stores_alone(adapted: Path) -> None:
    result = run(*TRAIN, "--val", "val.h5", "--hidden", "16")
    assert result.stdout.startswith("adapted: trained 4 epochs in ")
    assert result.stderr.splitlines()[-1] == "adapted is trained already; nothing to do"
    assert [row["epoch"] for row in log()] == ["1", "2", "3", "4"]
    assert float(log()[-1]["loss"]) < float(log()[0]["loss"])
    facts = json.loads(done("info", "adapted", "--json").stdout)
    before = json.loads(done("info", "model", "--json").stdout)
    adapter = facts["config"].pop("adapter")
    assert facts["config"] == before["config"]
    assert (adapter["n_given"], adapter["n_hidden"]) == (1024, 16)
    assert adapter["n_dimensions"] < 44  # of so many images
    assert adapter["before_sha256"] == before["weights_sha256"]
    assert facts["made_by"]["adapted_from"] == read_store("train.h5").info.fingerprint
    page = Path("adapted/README.md").read_text()
    assert f"| adapter | of 1,024 numbers to {adapter['n_dimensions']} dimensions, a hidden layer of 16 units |" in page
    assert "An adapter learned from the descriptors of the model `" in page


def test_a_store_that_is_adapted_is_the_one_that_the_images_make(adapted: Path, finished_set: Path) -> None:
    without_images = read_store("train-adapted.h5")
    shutil.copytree(finished_set / "images", "images")
    again = done("embed", "train.csv", "--model", "adapted", "--output", "train-adapted.h5", *HERE).stdout
    assert again == "train-adapted.h5: finished already, nothing to do (44 pictures)\n"
    done("embed", "train.csv", "--model", "adapted", "--output", "whole.h5", *HERE)
    by_images = read_store("whole.h5")
    assert by_images.info == without_images.info
    assert by_images.image_id == without_images.image_id
    assert np.array_equal(by_images.landmark, without_images.landmark)
    np.testing.assert_allclose(without_images.vectors, by_images.vectors, rtol=0, atol=2e-3)


def test_own_columns_that_changed_are_taken_into_the_adapted_store(adapted: Path) -> None:
    given = {"lat": Texts.of(str(i) for i in range(len(read_store("train.h5"))))}
    renew_columns(Path("train.h5"), given, SILENT)
    before = read_store("train-adapted.h5")
    assert before.columns == {}
    done("embed", "train.h5", "--model", "adapted", "--threads", "1", "--device", "cpu")
    after = read_store("train-adapted.h5")
    assert after.columns["lat"] == given["lat"]
    assert np.array_equal(after.vectors, before.vectors)


def test_a_store_without_digests_is_another_one_with_other_labels(adapted: Path) -> None:
    store = read_store("train.h5")
    relabelled = replace(store, landmark=np.roll(store.landmark, 1))
    renamed = replace(store, landmarks=tuple(f"{name}-1" for name in store.landmarks))
    assert not hasattr(store.vectors, "digests")
    assert len({content_of(one) for one in (store, relabelled, renamed)}) == 3
    assert content_of(replace(store)) == content_of(store)


def test_an_adapted_model_is_taken_like_any_other(adapted: Path, finished_set: Path) -> None:
    shutil.copytree(finished_set / "images", "images")
    index = ("--output", "adapted-landmarks", "--device", "cpu", "--engine", "torch")
    done("build-index", "train-adapted.h5", "--model", "adapted", *index)
    done("calibrate", "val-adapted.h5", "--index", "adapted-landmarks")
    (answer,) = json.loads(
        done("query", "images/train-arch-0.jpg", "--index", "adapted-landmarks", "--json", "--device", "cpu").stdout
    )
    assert answer["in_index"] == "train-arch-0"
    assert answer["neighbours"][0]["score"] == pytest.approx(1, abs=1e-3)
    done("ensemble", "model", "adapted", "--output", "both")
    done("embed", "val.csv", "--model", "both", "--output", "both.h5", *HERE)
    both, one, other = (read_store(name).vectors.astype(float) for name in ("both.h5", "val.h5", "val-adapted.h5"))
    np.testing.assert_allclose(both @ both.T, (one @ one.T + other @ other.T) / 2, rtol=0, atol=4e-3)


def test_the_places_of_an_image_sum_to_its_score_behind_an_adapter(adapted: Path, finished_set: Path) -> None:
    from retrieval.explain.maps import Pair, open_explainer
    from retrieval.explain.similarity import similarity_maps

    query, row = ((finished_set / f"images/train-arch-{i}.jpg").read_bytes() for i in (0, 1))
    store = read_store("train-adapted.h5")
    at = store.image_id.tolist().index("train-arch-1")
    found = similarity_maps(open_explainer(Path("adapted"), device="cpu"), Pair(query, row, store.vectors[at]))
    (shown,) = found.maps
    assert shown.query_rest is not None
    assert float(shown.query.sum()) + shown.query_rest == pytest.approx(found.score, abs=1e-4)
    own = store.vectors[store.image_id.tolist().index("train-arch-0")].astype(float)
    assert found.score == pytest.approx(float(own @ store.vectors[at].astype(float)), abs=0.04)


def test_a_classifier_of_an_adapter_knows_its_training_images(adapted: Path, finished_set: Path) -> None:
    import torch

    from retrieval.data.image_source import ImageSource
    from retrieval.data.manifest import read_manifest
    from retrieval.train.classifier import open_classifier

    manifest = read_manifest(Path("train.csv"))
    opened = open_classifier(Path("adapted"), device=torch.device("cpu"), n_workers=1)
    rows = np.flatnonzero(manifest.landmark >= 0)
    found = opened.classify(ImageSource(manifest, finished_set / "images"), rows, k=1)
    right = [manifest.landmarks[code] for code in manifest.landmark[rows]]
    named = [found.labels[label] for label in found.label[:, 0]]
    assert np.mean([one == other for one, other in zip(named, right, strict=True)]) > 0.6  # a quarter by chance


def test_a_training_that_was_stopped_goes_on_to_the_same_adapter(
    adapted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.train import loop

    words = {"model": "model", "val": "val.h5", "epochs": 4, "hidden": 16, "threads": 1, "device": "cpu"}
    monkeypatch.setattr(loop, "STATE_EVERY_S", -1.0)
    finish, n_left = loop._finish_epoch, [2]

    def stop_later(training: object) -> None:
        n_left[0] -= 1
        if n_left[0] < 0:
            raise KeyboardInterrupt
        finish(training)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_finish_epoch", stop_later)
    with pytest.raises(KeyboardInterrupt):
        lmr.train("train.h5", output="stopped", **words)  # type: ignore[arg-type]
    monkeypatch.setattr(loop, "_finish_epoch", finish)
    lmr.train("train.h5", output="stopped", **words)  # type: ignore[arg-type]
    assert read_card(Path("stopped")).weights_sha256 == read_card(Path("adapted")).weights_sha256
    lmr.train("train.h5", output="other", seed=1, **words)  # type: ignore[arg-type]
    assert read_card(Path("other")).weights_sha256 != read_card(Path("adapted")).weights_sha256


def test_non_landmarks_are_pushed_away_and_rare_landmarks_count_as_such(adapted: Path) -> None:
    assert refused(*TRAIN, "--min-per-landmark", "9", "--output", "none") == (
        "train.h5: no landmark has 9 pictures or more; lower --min-per-landmark"
    )
    assert refused(*TRAIN, "--negatives", "val.h5", "--output", "none") == (
        "val.h5 has rows with a landmark_id; negatives are pictures of no known landmark"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("train", "train.h5", "--backbone", "resnet18"),
            "--backbone goes with pictures, which training on the store train.h5 does not look at; leave it out",
        ),
        (
            ("train", "train.csv", "--hidden", "4"),
            "--hidden goes with a store of descriptors, train.csv is none; leave it out",
        ),
        (
            ("train", "train.h5", "--val", "val.csv"),
            "--val val.csv is no store of descriptors, train.h5 is a store; lmr embed makes one of it",
        ),
        (
            ("train", "train.csv", "--val", "val.h5"),
            "--val val.h5 is a store of descriptors, train.csv is none; give the manifest that it was made of",
        ),
        (
            ("train", "train.h5", "--loss", "linear"),
            "--loss linear goes with pictures; an adapter is trained by the cosines that are compared",
        ),
        (
            ("train", "train.h5", "--output", "model"),
            "--output model is the model that made the store; give another folder",
        ),
        (
            ("train", "train-adapted.h5", "--model", "adapted", "--output", "twice"),
            "adapted has an adapter already; train on a store of the model before it",
        ),
        (
            ("train", "train.h5", "--dimensions", "2000", "--output", "wide"),
            "2,000 dimensions asked of whitening, the descriptors have 1024; give 1 to 1024",
        ),
        (
            (*TRAIN, "--val", "val.h5", "--hidden", "16", "--noise", "0.5"),
            "adapted holds a run with another model (backbone_options noise was 1.0, is 0.5); go on with that one",
        ),
        (
            ("embed", "train.h5"),
            "train.h5 is a store already, and model has no adapter to make another of it; give a model that lmr train "
            "made of a store, or a manifest",
        ),
        (
            ("embed", "train-adapted.h5", "--model", "adapted"),
            "train-adapted.h5 was made by adapted itself; give the store that its adapter was learnt on",
        ),
        (
            ("embed", "train.h5", "--model", "adapted", "--flip"),
            "--flip goes with pictures, which are not looked at where the store train.h5 is adapted; leave it out",
        ),
        (
            ("embed", "train.csv", "--model", "adapted", "--descriptor", "pooled"),
            "--descriptor pooled: the adapter of this model was learnt on --descriptor neck; leave it out",
        ),
        (
            ("embed", "train.h5", "--model", "adapted", "--descriptor", "pooled"),
            "--descriptor pooled: descriptors of adapted come from its adapter whole; leave it out",
        ),
        (
            ("embed", "val.h5", "--model", "adapted", "--output", "train-adapted.h5"),
            "train-adapted.h5 was made with another manifest",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(adapted: Path, words: tuple[str, ...], message: str) -> None:
    before = listing(adapted)
    assert refused(*words).startswith(message)
    assert listing(adapted) == before


def test_an_adapted_store_is_left_alone_until_the_store_is_another(adapted: Path) -> None:
    words = ("embed", "train.h5", "--model", "adapted", "--threads", "1", "--device", "cpu")
    assert done(*words).stdout == "train-adapted.h5: finished already, nothing to do (44 pictures)\n"
    Path("train-adapted.h5").rename("train-adapted.h5.partial")
    assert done(*words).stdout == "train-adapted.h5: 44 descriptors, 0 unreadable\n"
