import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import CPU, SIZE, SPEC, Images, jpeg, tiny_model

from retrieval.arrays import FloatArray, UInt8Array
from retrieval.embed.embedder import Embedder, JoinedEmbedder
from retrieval.embed.torch_embedder import TorchEmbedder, load_embedder
from retrieval.errors import LmrError
from retrieval.images.spec import ImageSpec
from retrieval.models.card import EmbedSettings, EnsembleCard, Member, ModelCard, join
from retrieval.models.checkpoint import save_model
from retrieval.models.config import ModelConfig
from retrieval.models.ensemble import save_ensemble
from retrieval.models.folder import read_any_card, read_card, require_no_strangers
from retrieval.store.file import StoreInfo

SMALL = dataclasses.replace(SPEC, size=SIZE // 2, mean=(0.5, 0.5, 0.5))


def card_of(name: str, **changes: Any) -> ModelCard:
    return dataclasses.replace(ModelCard(ModelConfig("tiny", n_dimensions=8), SPEC, name * 64), **changes)


class Fixed(Embedder):
    """Gives these descriptors, and notes how large the images were."""

    def __init__(self, vectors: FloatArray, *specs: ImageSpec) -> None:
        super().__init__(specs, vectors.shape[1], batch_size=5)
        self.vectors, self.seen = vectors, ()

    def embed_batch(self, *images: UInt8Array) -> FloatArray:
        self.seen = tuple(given.shape[1] for given in images)
        return self.vectors


def unit(n: int, d: int, seed: int) -> FloatArray:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_inner_product_is_the_weighted_mean_of_the_cosines() -> None:
    one, other = Fixed(unit(4, 3, 0), SPEC), Fixed(unit(4, 5, 1), SMALL, SPEC)
    joined = JoinedEmbedder([one, other], [0.75, 0.25])
    assert (joined.d, joined.specs, joined.batch_size) == (8, (SPEC, SMALL), 5)
    vectors = joined.embed_batch(
        np.zeros((4, SIZE, SIZE, 3), np.uint8), np.zeros((4, SMALL.size, SMALL.size, 3), np.uint8)
    )
    expected = 0.75 * one.vectors @ one.vectors.T + 0.25 * other.vectors @ other.vectors.T
    assert vectors @ vectors.T == pytest.approx(expected, abs=1e-6)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    assert (one.seen, other.seen) == ((SIZE,), (SIZE // 2, SIZE))


def test_only_the_ratios_of_weights_count_and_ensembles_are_flattened() -> None:
    cards = [card_of(name) for name in "abc"]
    two = join(cards[:2], [3, 1], {})
    assert [member.weight for member in two.members] == [0.75, 0.25]
    assert join(cards[:2], [6, 2], {"by": 1}).fingerprint == two.fingerprint
    nested = join([two, cards[2]], [1, 1], {})
    assert [(m.card.weights_sha256[0], m.weight) for m in nested.members] == [("a", 0.375), ("b", 0.125), ("c", 0.5)]


def test_the_fingerprint_covers_members_weights_and_order() -> None:
    a, b = card_of("a"), card_of("b")
    others = [
        join([a, b], [1, 1], {}),
        join([b, a], [1, 1], {}),
        join([a, b], [2, 1], {}),
        join([a, dataclasses.replace(b, flip=True)], [1, 1], {}),
        join([a, b, b], [1, 1, 1], {}),
    ]
    assert len({card.fingerprint for card in others}) == 5


def test_scales_change_the_fingerprint_and_one_times_the_size_does_not() -> None:
    plain = card_of("a", image_spec=dataclasses.replace(SPEC, colors="as-stored"))
    assert plain.fingerprint == "5c99f9575fa2fb1a2135203a0437e41be561fe0c39d27c96c34345fd13628dbb"  # of old stores
    assert card_of("a").fingerprint != plain.fingerprint
    assert dataclasses.replace(plain, scales=(1,)).fingerprint == plain.fingerprint
    several = dataclasses.replace(plain, scales=(1.0, 2.0))
    assert several.fingerprint != plain.fingerprint
    assert dataclasses.replace(plain, scales=(2, 1, 2)).fingerprint == several.fingerprint
    for scales in ((), (0.0,), (-1.0,), (float("nan"),)):
        with pytest.raises(ValueError, match="scales must be positive"):
            dataclasses.replace(plain, scales=scales)


def test_every_part_of_an_old_card_counts_as_it_did() -> None:
    spec = ImageSpec(size=448, fit="crop", resample="bicubic", colors="as-stored")
    card = ModelCard(ModelConfig(), spec, "b" * 64, flip=True, descriptor="both", scales=(1, 2), n_features=2048)
    assert card.fingerprint == "c1057af0f8c0acd125b196df20484a02ba0dece43fd1672b41c2ee9dcee7b50c"
    assert (
        dataclasses.replace(card, image_spec=dataclasses.replace(spec, colors="srgb")).fingerprint != card.fingerprint
    )


def test_every_member_is_described_in_the_way_asked_for() -> None:
    ensemble = join([card_of("a"), card_of("b", image_spec=SMALL, flip=True)], [1, 1], {})
    changed = ensemble.adjusted(EmbedSettings(size=24, scales=(1, 2)))
    assert [m.card.image_spec.size for m in changed.members] == [24, 24]
    assert [m.card.flip for m in changed.members] == [False, True]
    assert [spec.size for spec in changed.specs] == [24, 48, 24, 48]  # of different means
    store, spec = changed.of_store()
    stored = json.loads(json.dumps(store))
    assert ensemble.as_stored(stored, spec) == changed
    assert ensemble.as_stored({"members": stored["members"][:1]}, {}) == ensemble
    assert ensemble.as_stored(card_of("a").of_store()[0], {}) == ensemble


def test_stores_of_two_ensembles_differ_by_their_models() -> None:
    infos = []
    for weights in ([1, 1], [1, 2]):
        card = join([card_of("a"), card_of("b")], weights, {})
        infos.append(StoreInfo(card.fingerprint, *card.of_store(), "1", "m", "float16", 8))
    one, other = infos
    assert one.difference(other) == f"another model ({one.fingerprint[:8]}, now {other.fingerprint[:8]})"
    assert one.difference(one) == ""


@pytest.mark.parametrize(
    ("n", "weights", "message"),
    [
        (1, [1], "an ensemble has two models or more and a weight for each, got 1 and 1"),
        (2, [1], "an ensemble has two models or more and a weight for each, got 2 and 1"),
        (2, [1, 0], "`weight` 0: weights are positive numbers; leave a model out instead"),
        (2, [1, float("nan")], "`weight` nan: weights are positive numbers; leave a model out instead"),
        (2, [1, float("inf")], "`weight` inf: weights are positive numbers; leave a model out instead"),
    ],
)
def test_what_is_no_ensemble_is_one_line(n: int, weights: list[float], message: str) -> None:
    with pytest.raises(LmrError) as caught:
        join([card_of("a")] * n, weights, {})
    assert str(caught.value) == message


def test_a_card_checks_its_weights() -> None:
    with pytest.raises(ValueError, match="whose positive weights sum to 1"):
        EnsembleCard((Member(card_of("a"), 0.5), Member(card_of("b"), 0.6)))


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Two folders of the tiny network, at different sizes."""
    save_model(tmp_path / "a", tiny_model(), SPEC, flip=True, made_by={})
    save_model(tmp_path / "b", tiny_model(1), SMALL, scales=(1, 2), made_by={})
    return [tmp_path / "a", tmp_path / "b"]


@pytest.mark.usefixtures("in_float32")
def test_an_ensemble_folder_describes_as_its_members_do(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, card = save_ensemble(tmp_path / "both", models, [3, 1])
    assert state == "made"
    assert read_any_card(tmp_path / "both") == card
    weights = sorted(m.card.weights_name for m in card.members)
    assert sorted(os.listdir(tmp_path / "both")) == ["README.md", "model.json", *weights]
    monkeypatch.setattr("retrieval.models.checkpoint.build_model", lambda *_, **__: tiny_model())
    source = Images([jpeg(i, i) for i in range(3)])
    joined = load_embedder(tmp_path / "both", card, CPU, n_workers=1)
    rows, vectors = joined.embed_all(source, [0, 1, 2])
    large = dataclasses.replace(SMALL, size=SIZE)
    one = TorchEmbedder(tiny_model(), SPEC, CPU, flip=True).embed_all(source, rows)[1]
    other = TorchEmbedder(tiny_model(1), [SMALL, large], CPU).embed_all(source, rows)[1]
    expected = np.concatenate([np.sqrt(0.75) * one, np.sqrt(0.25) * other], axis=1)
    assert vectors == pytest.approx(expected, abs=1e-5)
    assert torch.get_num_threads() == 1


def test_the_same_ensemble_again_is_nothing_to_do_and_another_is_refused(tmp_path: Path, models: list[Path]) -> None:
    folder = tmp_path / "both"
    save_ensemble(folder, models, [1, 1])
    assert save_ensemble(folder, models, [2, 2])[0] == "unchanged"
    with pytest.raises(LmrError) as caught:
        save_ensemble(folder, models, [1, 2])
    assert str(caught.value) == f"{folder} holds another model; give `overwrite` or another `output`"
    save_ensemble(folder, [models[0], models[0]], [1, 1], overwrite=True)
    assert len(list(folder.glob("weights-*"))) == 1
    with pytest.raises(LmrError) as caught:
        save_ensemble(models[0], models, [1, 1], overwrite=True)
    assert str(caught.value) == f"`output` {models[0]} is one of the members; give another folder"
    with pytest.raises(LmrError) as caught:
        read_card(folder)
    assert str(caught.value) == f"{folder} is an ensemble of 2 models; give a folder of one model here"


def test_an_ensemble_replaces_no_page_of_somebody_else(tmp_path: Path, models: list[Path]) -> None:
    (tmp_path / "both").mkdir()
    page = tmp_path / "both" / "README.md"
    page.write_text("# My project")
    with pytest.raises(LmrError) as caught:
        save_ensemble(tmp_path / "both", models, (1.0, 1.0))
    assert str(caught.value) == f"{page} exists and is of no model; give another folder, or `overwrite`"
    assert os.listdir(tmp_path / "both") == ["README.md"]
    assert save_ensemble(tmp_path / "both", models, (1.0, 1.0), overwrite=True)[0] == "made"


@pytest.mark.parametrize("name", ["README.md", "training.csv", "training.png", "classifier.safetensors"])
def test_a_folder_with_a_file_of_somebody_else_and_no_model_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(LmrError) as caught:
        require_no_strangers(tmp_path)
    assert str(caught.value) == f"{tmp_path}/{name} exists and is of no model; give another folder, or `overwrite`"
    (tmp_path / "training.pt").write_text("a run that goes on")
    require_no_strangers(tmp_path)


def test_a_page_that_a_kill_left_without_its_card_is_no_hindrance(tmp_path: Path, models: list[Path]) -> None:
    save_ensemble(tmp_path / "both", models, (1.0, 1.0))
    (tmp_path / "both" / "model.json").unlink()
    assert save_ensemble(tmp_path / "both", models, (1.0, 1.0))[0] == "made"


def test_the_page_of_an_ensemble_tells_of_each_member(tmp_path: Path, models: list[Path]) -> None:
    started = {"weights": "the file given.pt", "licence": "of the museum"}
    made_by = {
        "training": {"epochs": 7},
        "data": "d" * 64,
        "log": [{"epoch": 1, "loss": 0.25}],
        "started_from": started,
    }
    save_model(models[0], tiny_model(), SPEC, made_by=made_by)
    save_ensemble(tmp_path / "two", models, [3, 1])
    save_ensemble(tmp_path / "nested", [tmp_path / "two", models[1]], [1, 1])
    nested = read_any_card(tmp_path / "nested")
    assert nested.members[0].card.made_by == made_by
    page = (tmp_path / "nested" / "README.md").read_text()
    assert page.startswith("# A model of lmr: an ensemble of 3\n")
    first, second, third = page.split("\n# Member ")[1:]
    assert first.startswith("1: tiny, weight 0.375\n")
    assert second.startswith("2: tiny, weight 0.125\n")
    assert third.startswith("3: tiny, weight 0.5\n")
    assert "Started from: the file given.pt.\nLicence of those weights: of the museum.\n" in first
    assert f"Manifests with the digest `{'d' * 64}` (sha256).\n" in first
    assert "\nepochs = 7\n" in first
    assert "| 1 | 0.25 |" in first
    assert "\nNone by lmr.\n" in second


def test_what_a_member_was_made_by_is_not_part_of_the_fingerprint(tmp_path: Path, models: list[Path]) -> None:
    before = save_ensemble(tmp_path / "both", models, [1, 1])[1]
    save_model(models[0], tiny_model(), SPEC, flip=True, made_by={"note": "another"})
    assert save_ensemble(tmp_path / "again", models, [1, 1])[1].fingerprint == before.fingerprint


def test_an_ensemble_in_the_place_of_a_training_ends_that(tmp_path: Path, models: list[Path]) -> None:
    folder = tmp_path / "trained"
    save_model(folder, tiny_model(2), SPEC, made_by={})
    (folder / "training.pt").write_bytes(b"of a run that would go on here")
    (folder / "weights-0.safetensors.tmp").write_bytes(b"left by a kill")
    save_ensemble(folder, models, [1, 1], overwrite=True)
    names = sorted(m.card.weights_name for m in read_any_card(folder).members)
    assert sorted(os.listdir(folder)) == ["README.md", "model.json", *names]


@pytest.mark.parametrize("change", [
    lambda content: content["members"][0].update(weight=0.9),
    lambda content: content["members"].pop(),
    lambda content: content["members"][0].pop("weight"),
])  # fmt: skip
def test_a_damaged_ensemble_is_one_line(tmp_path: Path, models: list[Path], change: Any) -> None:
    folder = tmp_path / "both"
    save_ensemble(folder, models, [1, 1])
    content = json.loads((folder / "model.json").read_text())
    change(content)
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(LmrError) as caught:
        read_any_card(folder)
    assert str(caught.value).startswith(f"{folder}/model.json is damaged (")


def test_an_ensemble_whose_origin_is_no_object_is_named(tmp_path: Path, models: list[Path]) -> None:
    folder = tmp_path / "both"
    save_ensemble(folder, models, [1, 1])
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**content, "made_by": [None]}))
    with pytest.raises(LmrError) as caught:
        read_any_card(folder)
    assert str(caught.value) == (
        f"{folder}/model.json is damaged or of another version (Expected `object`, got `array`); "
        "train again or restore it"
    )
