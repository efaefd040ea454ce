import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import SPEC, tiny_model

from retrieval.errors import LmrError
from retrieval.files.atomic import write_bytes
from retrieval.models.card import EmbedSettings
from retrieval.models.checkpoint import (
    CARD,
    ModelCard,
    load_model,
    load_network,
    read_card,
    save_model,
    weights_digest,
    write_card,
)
from retrieval.models.config import ModelConfig
from retrieval.models.network import DescriptorModel, build_model


def message(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(LmrError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def small_network(seed: int = 0) -> DescriptorModel:
    """Of a name, so that it can be built again."""
    torch.manual_seed(seed)
    return build_model(ModelConfig("shufflenet_v2_x0_5", n_dimensions=8), image_size=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder of the tiny network."""
    save_model(tmp_path / "model", tiny_model(), SPEC, made_by={"by": "a test"})
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / CARD).read_text())
    change(content)
    (folder / CARD).write_text(json.dumps(content))


def test_a_network_comes_back_exactly(tmp_path: Path) -> None:
    model = small_network()
    spec = dataclasses.replace(SPEC, size=32, fit="pad")
    card = save_model(tmp_path / "deep" / "model", model, spec, flip=True, descriptor="both", made_by={"epochs": 3})
    loaded, found = load_model(tmp_path / "deep" / "model")
    assert found == card
    assert (found.config, found.image_spec) == (model.config, spec)
    assert found.made_by == {
        "epochs": 3,
        "started_from": {"weights": "random numbers", "licence": "none, they are random"},
    }
    assert (found.flip, found.descriptor) == (True, "both")
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(x), model.eval()(x))
    assert weights_digest(loaded) == card.weights_sha256
    assert sorted(os.listdir(tmp_path / "deep" / "model")) == ["README.md", "model.json", card.weights_name]


def test_weights_that_do_not_fit_the_network_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = save_model(tmp_path, small_network(), SPEC, made_by={})
    monkeypatch.setattr("retrieval.models.checkpoint.build_model", lambda *_, **__: tiny_model())
    assert message(load_model, tmp_path) == (
        f"{tmp_path}/{card.weights_name} does not fit shufflenet_v2_x0_5 as the installed library builds it; "
        "install the release that it was trained with or train again"
    )


def test_images_of_another_size_than_the_weights_are_for_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sized(_: ModelConfig, image_size: int) -> DescriptorModel:
        model = tiny_model(n_dimensions=image_size)  # as many weights as a transformer has places
        model.image_size = image_size
        return model

    monkeypatch.setattr("retrieval.models.checkpoint.build_model", sized)
    card = save_model(tmp_path, sized(ModelConfig("tiny"), SPEC.size), SPEC, made_by={})
    assert load_network(tmp_path, card).image_size == SPEC.size
    larger = card.adjusted(EmbedSettings(size=SPEC.size + 8))
    assert message(load_network, tmp_path, larger) == (
        f"{tmp_path}/{card.weights_name} does not fit tiny for pictures of {SPEC.size + 8} pixels; "
        "leave out `size`, or train at the size you want"
    )


def test_the_fingerprint_covers_what_changes_a_descriptor(tmp_path: Path) -> None:
    def card(n: int, model: DescriptorModel, **changes: Any) -> ModelCard:
        return save_model(tmp_path / str(n), model, changes.pop("spec", SPEC), made_by=changes.pop("by", {}), **changes)

    base = card(0, tiny_model())
    assert card(1, tiny_model()).fingerprint == base.fingerprint
    assert card(2, tiny_model(), by={"epochs": 3}).fingerprint == base.fingerprint
    others = [
        card(3, tiny_model(seed=1)),
        card(4, tiny_model(), flip=True),
        card(7, tiny_model(), descriptor="pooled"),
        card(5, tiny_model(), spec=dataclasses.replace(SPEC, size=32)),
        card(6, tiny_model(), spec=dataclasses.replace(SPEC, fit="crop")),
        dataclasses.replace(base, config=dataclasses.replace(base.config, pooling="avg")),
    ]
    assert len({other.fingerprint for other in others} | {base.fingerprint}) == 7


def test_memory_format_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    model = tiny_model()
    expected = weights_digest(model)
    assert weights_digest(model.to(memory_format=torch.channels_last)) == expected  # type: ignore[call-overload]


def test_a_folder_without_a_model_names_train(tmp_path: Path) -> None:
    assert message(read_card, tmp_path) == f"{tmp_path}: there is no model (no model.json); lmr train makes one"


def test_missing_weights_are_named(folder: Path) -> None:
    card = read_card(folder)
    (folder / card.weights_name).unlink()
    assert message(load_model, folder) == (
        f"{folder}/{card.weights_name} is missing; restore it beside model.json or train again"
    )


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"\xff", lambda data: b""])
def test_damaged_weights_are_refused(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = folder / read_card(folder).weights_name
    path.write_bytes(damage(path.read_bytes()))
    assert message(load_model, folder) == (
        f"{path} is damaged: its sha256 is not the one in model.json; restore it or train again"
    )


def test_another_format_version_is_refused(folder: Path) -> None:
    edit(folder, lambda content: content.update(format_version=7))
    assert message(read_card, folder) == (
        f"{folder}/model.json has format_version 7, this program reads 1; use the lmr that made it"
    )


def test_a_card_edited_by_hand_is_refused(folder: Path) -> None:
    before = read_card(folder).fingerprint
    edit(folder, lambda content: content["image_spec"].update(size=32))
    card = ModelCard(ModelConfig("x"), SPEC, "y")
    assert len(card.fingerprint) == 64
    text = message(read_card, folder)
    assert text.startswith(f"{folder}/model.json was changed by hand: its fingerprint is ")
    assert text.endswith(f", it says {before[:8]}; restore it or train again")


def test_what_made_a_model_may_be_edited(folder: Path) -> None:
    edit(folder, lambda content: content.update(made_by={"note": "mine"}))
    assert read_card(folder).made_by == {"note": "mine"}


def test_a_misspelt_key_is_named_with_its_file(folder: Path) -> None:
    edit(folder, lambda content: content["image_spec"].update(sise=32))
    assert message(read_card, folder) == f"{folder}/model.json: image_spec: unknown key 'sise'; did you mean size?"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"{", "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (b'{"flip": NaN}', "not JSON (NaN is no number of JSON)"),
        (b'{"flip": true, "flip": false}', "not JSON (the key 'flip' is there twice)"),
        (b"3", "not a JSON object"),
        (b"{}", "damaged ('format_version')"),
        (b'{"format_version": 1, "fingerprint": "a"}', "damaged ('config')"),
    ],
)
def test_a_damaged_card_is_one_line(folder: Path, content: bytes, reason: str) -> None:
    (folder / CARD).write_bytes(content)
    assert message(read_card, folder) == f"{folder}/model.json is {reason}; train again or restore it"


def test_a_card_with_a_key_too_many_is_damaged(folder: Path) -> None:
    edit(folder, lambda content: content.update(surprise=1))
    assert message(read_card, folder).startswith(f"{folder}/model.json is damaged (")


@pytest.mark.parametrize("n_replaced", [0, 1, 2, 3])
def test_a_kill_between_writes_leaves_the_old_model_or_the_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch, n_replaced: int
) -> None:
    """os.replace ends the process, as it were, before its n-th time: the weights' turn, the page's, then the card's."""
    old = read_card(folder)
    replace, calls = os.replace, []

    def replace_or_die(*arguments: Any) -> None:
        if len(calls) == n_replaced:
            raise KeyboardInterrupt
        calls.append(arguments)
        replace(*arguments)

    monkeypatch.setattr(os, "replace", replace_or_die)
    new = tiny_model(seed=1)
    if n_replaced < 3:
        with pytest.raises(KeyboardInterrupt):
            save_model(folder, new, SPEC, made_by={})
        assert read_card(folder) == old
    else:
        save_model(folder, new, SPEC, made_by={})
        assert read_card(folder).weights_sha256 == weights_digest(new)
    card = read_card(folder)
    assert card.weights_name in os.listdir(folder)
    monkeypatch.undo()
    save_model(folder, new, SPEC, made_by={})
    assert sorted(os.listdir(folder)) == ["README.md", "model.json", read_card(folder).weights_name]


def test_a_full_disk_keeps_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = read_card(folder)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert re.fullmatch(
        rf"{folder}/weights-[0-9a-f]{{12}}\.safetensors cannot be written: No space left on device; "
        "choose another place or make room",
        message(lambda: save_model(folder, tiny_model(seed=1), SPEC, made_by={})),
    )
    assert read_card(folder) == old
    assert sorted(os.listdir(folder)) == ["README.md", "model.json", old.weights_name]


def test_a_file_in_the_way_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    assert message(lambda: save_model(tmp_path / "model", tiny_model(), SPEC, made_by={})) == (
        f"{tmp_path}/model: the model cannot be written: File exists; make room or choose another `model`"
    )


def test_a_card_can_be_written_alone(folder: Path) -> None:
    card = dataclasses.replace(read_card(folder), flip=True)
    write_card(folder, card)
    assert read_card(folder) == card


def test_an_atomic_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"1")
    write_bytes(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"2"
    assert os.listdir(tmp_path) == ["a"]
