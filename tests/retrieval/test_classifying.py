import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_world import CPU, LABELS, SIZE, SPEC, Images, jpeg, tiny_model

from retrieval.errors import LmrError
from retrieval.images.preprocess import prepare
from retrieval.models import checkpoint
from retrieval.models.checkpoint import save_model
from retrieval.models.network import DescriptorModel, to_input
from retrieval.train import classifier as classifying
from retrieval.train.classifier import CLASSIFIER, load_classifier, most_probable, open_classifier, save_classifier
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss

D = 8
LINEAR = LossConfig("linear", head_hidden=4, dropout=0.5)


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of a card is the tiny one."""
    monkeypatch.setattr(checkpoint, "build_model", lambda config, **_: tiny_model())


def saved(folder: Path, config: LossConfig, seed: int = 0) -> tuple[DescriptorModel, LandmarkLoss]:
    """A model folder with a network and its head."""
    model = tiny_model(seed)
    loss = LandmarkLoss(config, D, np.array([3, 1, 2]))
    save_model(folder, model, SPEC, made_by={})
    save_classifier(folder, loss, LABELS)
    return model, loss


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        LossConfig(n_centres=3, margin="dynamic"),
        LossConfig("cosface", class_share=0.5),
        LossConfig("softmax", background="class"),
        LossConfig("proxy-anchor"),
        LINEAR,
    ],
    ids=lambda config: config.name,
)
def test_a_head_comes_back_with_the_same_probabilities(tmp_path: Path, config: LossConfig) -> None:
    _, loss = saved(tmp_path, config)
    classifier = load_classifier(tmp_path)
    head = loss.eval().head()
    assert head is not None
    features = torch.randn(5, D)
    expected = torch.softmax(head(features), dim=1)[:, :3]
    assert classifier.probabilities(features).numpy() == pytest.approx(expected.detach().numpy(), rel=1e-4)
    assert classifier.labels == LABELS
    assert classifier.wants == ("raw" if config.name == "linear" else "unit")


def test_probabilities_are_those_of_scaled_cosines(tmp_path: Path) -> None:
    _, loss = saved(tmp_path, LossConfig(scale=4.0, background="class"))
    with torch.no_grad():
        loss.classifier.W.copy_(torch.eye(D)[:, :4])
    save_classifier(tmp_path, loss, LABELS)
    found = load_classifier(tmp_path).probabilities(torch.eye(D)[:1] * 3)
    total = np.exp(4) + 3
    assert found.numpy() == pytest.approx(np.array([[np.exp(4) / total, 1 / total, 1 / total]]), rel=1e-5)


def test_very_sure_answers_differ_in_how_sure_they_are(tmp_path: Path) -> None:
    _, loss = saved(tmp_path, LossConfig("softmax", scale=30.0))
    with torch.no_grad():
        loss.classifier.W.copy_(torch.eye(D)[:, :3])
    save_classifier(tmp_path, loss, LABELS)
    features = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.1, 0.0]]))
    found = load_classifier(tmp_path).probabilities(torch.nn.functional.pad(features, (0, D - 3)))
    assert (1 - found[0, 0]).item() == pytest.approx(2 * np.exp(-30), rel=1e-2)
    assert found[1, 0] < found[0, 0] < 1


@pytest.mark.parametrize("config", [LossConfig(), LINEAR], ids=lambda config: config.name)
@pytest.mark.usefixtures("in_float32")
def test_images_are_classified_as_by_hand(tmp_path: Path, config: LossConfig) -> None:
    model, loss = saved(tmp_path, config)
    encoded = [jpeg(label, 0) for label in (0, 1, 2)]
    source = Images([encoded[0], None, encoded[1], encoded[2]])
    found = open_classifier(tmp_path, device=CPU, n_workers=1).classify(source, [3, 1, 0], k=2)
    assert found.row.tolist() == [3, 0]
    assert found.unreadable == {1: "picture 1 is gone"}
    images = np.stack([prepare(encoded[i], SPEC) for i in (2, 0)])
    x = to_input(torch.from_numpy(images).permute(0, 3, 1, 2), SPEC, CPU)
    assert x.shape == (2, 3, SIZE, SIZE)
    features = model.raw(x) if config.name == "linear" else model(x)
    head = loss.eval().head()
    assert head is not None
    probability, label = torch.softmax(head(features), dim=1).sort(dim=1, descending=True)
    assert found.label.tolist() == label[:, :2].tolist()
    assert found.probability == pytest.approx(probability[:, :2].detach().numpy(), rel=1e-4)
    assert found.doubt == pytest.approx(1 - found.probability)
    assert found.label.dtype == np.int32
    assert found.probability.dtype == np.float64


@pytest.mark.parametrize("k", [1, 3, 40])
def test_equal_probabilities_are_ordered_by_lower_label(k: int) -> None:
    """Many are equal, also to the last one taken, and some have become 0."""
    found = torch.randint(0, 4, (50, 40), generator=torch.Generator().manual_seed(0)) * 1e-38
    found[:, 7] = 1e-44  # too small for a number of the usual form
    expected = found.sort(dim=1, descending=True, stable=True).indices[:, :k]
    assert most_probable(found, k).tolist() == expected.tolist()


def test_raw_features_are_descriptors_of_another_length() -> None:
    model = tiny_model()
    x = torch.randn(3, 3, SIZE, SIZE)
    raw = model.raw(x)
    assert not torch.allclose(raw.norm(dim=1), torch.ones(3))
    assert torch.equal(torch.nn.functional.normalize(raw, dim=1), model(x))


def test_no_images_are_classified_as_none(tmp_path: Path) -> None:
    saved(tmp_path, LossConfig())
    found = open_classifier(tmp_path, device=CPU, n_workers=1).classify(Images([]), [], k=9)
    assert (found.row.shape, found.label.shape, found.probability.shape) == ((0,), (0, 3), (0, 3))


def test_losses_of_pairs_write_no_classifier(tmp_path: Path) -> None:
    saved(tmp_path, LossConfig("triplet"))
    assert not (tmp_path / CLASSIFIER).exists()
    with pytest.raises(LmrError) as caught:
        load_classifier(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has no {CLASSIFIER}; lmr train writes one with every `loss` that has classes, or use the "
        "neighbours: lmr evaluate"
    )


def test_a_classifier_of_other_weights_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, LossConfig())
    save_model(tmp_path, tiny_model(1), SPEC, made_by={})
    with pytest.raises(LmrError) as caught:
        load_classifier(tmp_path)
    path = tmp_path / CLASSIFIER
    assert str(caught.value) == (
        f"{path} was trained with other weights than those beside it; run the same lmr train again"
    )


def test_a_damaged_classifier_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, LossConfig())
    path = tmp_path / CLASSIFIER
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(LmrError) as caught:
        load_classifier(tmp_path)
    assert str(caught.value) == f"{path} is damaged; restore it or train again"


@pytest.mark.parametrize("at", [0.3, 0.9, 0.999])
def test_a_flipped_bit_in_a_classifier_is_noticed(tmp_path: Path, at: float) -> None:
    """In a label, in a weight, in the last one."""
    saved(tmp_path, LossConfig())
    path = tmp_path / CLASSIFIER
    data = bytearray(path.read_bytes())
    data[data.index(LABELS[0].encode()) if at == 0.3 else int(at * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(LmrError) as caught:
        load_classifier(tmp_path)
    assert str(caught.value) == f"{path} is damaged: its sha256 differs; restore it or train again"


def test_a_classifier_of_before_opens_without_a_digest(tmp_path: Path) -> None:
    saved(tmp_path, LossConfig())
    path = tmp_path / CLASSIFIER
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["lmr"])
    del about["content_sha256"]
    save_file(load_file(path), path, {"lmr": json.dumps(about)})
    assert load_classifier(tmp_path).labels == LABELS


@pytest.mark.parametrize("change", ["format_version", "loss"])
def test_a_classifier_of_another_version_is_refused(tmp_path: Path, change: str) -> None:
    saved(tmp_path, LossConfig())
    path = tmp_path / CLASSIFIER
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["lmr"])
    about[change] = {"name": "arcface"} if change == "loss" else 99
    save_file(load_file(path), path, {"lmr": json.dumps(about)})
    with pytest.raises(LmrError) as caught:
        load_classifier(tmp_path)
    assert str(caught.value) == f"{path} was written by another version of lmr; use that one, or train again elsewhere"


def test_as_many_labels_as_classes_are_asked_for(tmp_path: Path) -> None:
    _, loss = saved(tmp_path, LossConfig())
    with pytest.raises(ValueError, match=r"^2 labels for 3 classes$"):
        save_classifier(tmp_path, loss, LABELS[:2])


def test_the_file_names_its_configuration_and_labels(tmp_path: Path) -> None:
    saved(tmp_path, LINEAR)
    with safe_open(tmp_path / CLASSIFIER, framework="pt") as file:
        about = json.loads(file.metadata()["lmr"])
    assert about["labels"] == list(LABELS)
    assert about["loss"] == dataclasses.asdict(LINEAR)
    assert about["format_version"] == classifying.FORMAT_VERSION
