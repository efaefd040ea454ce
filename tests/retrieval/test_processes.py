"""Two processes on the CPU train as one does."""

import dataclasses
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_world import CPU, SPEC, Images, digest_of, jpeg, tiny_model, weights_of

from retrieval.errors import LmrError
from retrieval.models.backbones import build_backbone
from retrieval.models.checkpoint import weights_digest
from retrieval.models.device import place
from retrieval.models.network import DescriptorModel
from retrieval.train.config import AugmentConfig, TrainConfig
from retrieval.train.data import TrainingData
from retrieval.train.distributed import Processes, joined_processes, with_shared_norms
from retrieval.train.loop import train
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss
from retrieval.train.run import Run
from retrieval.train.state import LOG_NAME, TrainingState, read_state

CONFIG = TrainConfig(
    epochs=2,
    batch_size=4,
    head_rate=0.02,
    backbone_rate=0.01,
    optimizer="sgd",
    schedule="plateau",
    loss=LossConfig(scale=8.0),
    augment=AugmentConfig(min_area=0.8, hue=0),
)

pytestmark = [
    pytest.mark.usefixtures("in_float32"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


def data_of(unreadable: tuple[int, ...] = ()) -> TrainingData:
    landmark = np.array([0, 1, 2] * 3 + [-1] * 3, dtype=np.int32)
    encoded = [None if i in unreadable else jpeg(int(label), i) for i, label in enumerate(landmark)]
    return TrainingData(Images(encoded), landmark, ("a", "b", "c"), "digest")


def train_as(processes: Processes, folder: Path, config: TrainConfig, data: TrainingData) -> TrainingState:
    def validate(model: DescriptorModel, _: LandmarkLoss) -> dict[str, float]:
        assert processes.rank == 0
        return {"gap": 0.5}

    model = tiny_model()
    run = Run(folder, CPU, 0, validate, processes=processes)
    state = train(model, data, SPEC, config, run)
    (folder / f"digest-{processes.rank}").write_text(weights_digest(model))
    return state


def in_two_processes(work: Callable[[Processes], object]) -> list[int]:
    """Exit codes; a traceback is printed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ |= {
                    "RANK": str(rank),
                    "WORLD_SIZE": "2",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
                with joined_processes(CPU) as processes:
                    work(processes)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("unreadable", [(), (1, 2, 4, 5, 7, 9)], ids=["all", "some processes see none"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_train_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreadable: tuple[int, ...], accumulate: int
) -> None:
    """Batch norms of the backbone too; but a process that sees nothing has a blank image in their statistics."""

    def all_but_the_backbone(model: DescriptorModel) -> None:
        model.train()
        model.backbone.eval()

    if unreadable:
        monkeypatch.setattr("retrieval.train.loop.train_mode", all_but_the_backbone)
    config = dataclasses.replace(CONFIG, accumulate=accumulate)
    data = data_of(unreadable)
    alone = train_as(Processes(), tmp_path / "one", config, data)
    assert in_two_processes(lambda both: train_as(both, tmp_path / "two", config, data)) == [0, 0]
    digests = [(tmp_path / "two" / f"digest-{rank}").read_text() for rank in range(2)]
    assert digests == [digest_of(tmp_path / "two" / "last")] * 2
    models = [weights_of(tmp_path / name / "last") for name in ("one", "two")]
    for name, weights in models[0].items():
        assert torch.allclose(weights, models[1][name], atol=1e-5), name
    found = read_state(tmp_path / "two")
    assert found is not None
    assert [row["loss"] for row in found[1].log] == pytest.approx([row["loss"] for row in alone.log], rel=1e-4)
    assert found[1].unreadable == alone.unreadable
    assert set(alone.unreadable) == set(unreadable)
    assert len((tmp_path / "two" / LOG_NAME).read_text().splitlines()) == 3


def test_gradients_keep_the_layout_of_their_weights() -> None:
    """Which Adam takes for granted, on a GPU with an error and on a CPU with another gradient."""

    def add(both: Processes) -> None:
        model = tiny_model()
        place(model, CPU)
        weight = model.backbone[0].weight  # type: ignore[index]
        model.pooled(torch.rand(2, 3, SPEC.size, SPEC.size)).sum().backward()
        own = weight.grad.clone()
        both.add_gradients(model, torch.nn.Identity())
        assert weight.grad.stride() == weight.stride() != weight.contiguous().stride()
        assert not torch.equal(weight.grad, own)

    assert in_two_processes(add) == [0, 0]


def test_an_error_in_all_processes_is_told_by_each(tmp_path: Path) -> None:
    def refused(both: Processes) -> None:
        config = dataclasses.replace(CONFIG, patience=1)
        with pytest.raises(LmrError, match="needs `val`"):
            train(tiny_model(), data_of(), SPEC, config, Run(tmp_path, CPU, 0, processes=both))

    assert in_two_processes(refused) == [0, 0]


def test_a_batch_must_be_enough_for_all_processes(tmp_path: Path) -> None:
    with pytest.raises(LmrError) as caught:
        train(tiny_model(), data_of(), SPEC, CONFIG, Run(tmp_path, CPU, 0, processes=Processes(0, 8)))
    assert str(caught.value) == "`batch_size` 4 leaves some of 8 processes without pictures"


@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_050", "resnet18"])
def test_norms_that_are_shared_compute_the_same(name: str) -> None:
    """With the activations that timm's norms hold."""
    backbone = build_backbone(name, {}, image_size=64).features.eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = backbone(images)
        shared = with_shared_norms(backbone, name)
        found = shared(images)
    norms = [layer for layer in shared.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, torch.nn.SyncBatchNorm) for norm in norms)
    assert torch.equal(found, expected)


def test_processes_take_a_gpu_each_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device, text in (
        ("mps", "`device` mps: several processes train on cuda or cpu; start one without torchrun"),
        ("cuda:0", "`device` cuda:0: each process takes a GPU of its own; give `device` cuda"),
        (
            "cuda",
            "process 2 has no GPU of its own, this machine has 1; give torchrun --nproc-per-node as many or fewer",
        ),
    ):
        with pytest.raises(LmrError) as caught, joined_processes(torch.device(device)):
            pass
        assert str(caught.value) == text
