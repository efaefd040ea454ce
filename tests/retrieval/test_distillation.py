from pathlib import Path

import numpy as np
import pytest
import torch
from made_stores import write_store
from torch.nn import functional as F

from retrieval.errors import LmrError
from retrieval.store.store import DONE, UNREADABLE, Descriptors, StoreInfo
from retrieval.train.config import DistillationConfig
from retrieval.train.data import Teacher, open_teacher
from retrieval.train.losses import Distillation, relation_loss


def names(*given: str) -> np.ndarray:
    return np.array([*given, None], dtype=object)[:-1]


def store(path: Path, image_ids: list[str], *, fingerprint: str = "ab" * 32, d: int = 3, unreadable: str = "") -> Path:
    """Unit descriptors: image i points along axis i mod d."""
    n = len(image_ids)
    state = np.array([UNREADABLE if name == unreadable else DONE for name in image_ids], dtype=np.uint8)
    vectors = np.eye(d, dtype=np.float32)[np.arange(n) % d]
    vectors[state == UNREADABLE] = 0
    texts = names(*[""] * n)
    info = StoreInfo(fingerprint, {}, {}, "1", "m", "float16", d)
    landmark = np.full(n, -1, dtype=np.int32)
    write_store(path, Descriptors(vectors, names(*image_ids), landmark, (), state, texts, None, info, str(path)))
    return path


def refused(paths: list[Path], *image_ids: str) -> str:
    with pytest.raises(LmrError) as caught:
        open_teacher(paths, names(*image_ids))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_training_image_has_the_descriptor_of_its_name(tmp_path: Path) -> None:
    paths = [store(tmp_path / "a.h5", ["x", "y", "z"], unreadable="y"), store(tmp_path / "b.h5", ["v", "w"])]
    teacher = open_teacher(paths, names("w", "z", "y", "x", "x"))
    targets, known = teacher.targets(np.array([0, 1, 2, 3, 0]))
    assert targets.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert known.tolist() == [True, True, False, True, True]
    assert teacher.d == 3
    assert teacher.targets(np.array([], dtype=np.int64))[0].shape == (0, 3)


def test_the_identity_covers_the_model_and_whose_descriptors_there_are(tmp_path: Path) -> None:
    one = store(tmp_path / "a.h5", ["x", "y"])
    given = [
        open_teacher([one], names("x", "y")),
        open_teacher([one], names("y", "x")),
        open_teacher([store(tmp_path / "b.h5", ["x", "y"], fingerprint="cd" * 32)], names("x", "y")),
        open_teacher([store(tmp_path / "c.h5", ["x", "y"], unreadable="y")], names("x", "y")),
    ]
    assert len({teacher.identity for teacher in given}) == 4
    assert open_teacher([one], names("x", "y")).identity == given[0].identity


def test_stores_that_are_no_teacher_are_refused(tmp_path: Path) -> None:
    one = store(tmp_path / "a.h5", ["x", "y"])
    assert refused([one], "x", "p", "q", "r", "s") == (
        f"`teacher` {one}: 4 of 5 training pictures are not there: p, q, r and 1 more; "
        "run lmr embed on the training manifest with the teacher's model"
    )
    other = store(tmp_path / "b.h5", ["z"], fingerprint="cd" * 32)
    assert refused([one, other], "x") == (
        f"{other} does not fit {one}: model cdcdcdcd is not abababab; a teacher is one model, which may be an ensemble"
    )
    twice = store(tmp_path / "c.h5", ["y"])
    assert refused([one, twice], "x") == f"{twice}: y is there twice (also in {one})"
    assert refused([tmp_path / "d.h5"], "x").startswith(f"{tmp_path}/d.h5")
    unread = store(tmp_path / "e.h5", ["y"], unreadable="y")
    assert refused([unread], "y") == f"`teacher` {unread}: has no descriptor of any training picture; embed again"
    with pytest.raises(ValueError, match="paths is empty"):
        open_teacher([], names("x"))
    with pytest.raises(ValueError, match="must be equal"):
        Teacher((), np.zeros(2, dtype=np.int64), np.zeros(3, dtype=np.int64), "")


def test_relations_are_compared_pair_by_pair() -> None:
    # Cosines 0, 0 and 1 of the three pairs; the teacher's 0.6, 0 and 0.
    given = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    assert relation_loss(given, targets).item() == pytest.approx((0.36 + 0 + 1) / 3)
    assert relation_loss(targets, targets).item() == 0
    turned = targets @ torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    assert relation_loss(turned, targets).item() == pytest.approx(0, abs=1e-12)


def test_the_cosine_to_the_teacher_is_taken_after_the_map() -> None:
    distillation = Distillation(DistillationConfig(distill_cosine=2.0, distill_relations=0.0), 2, 3)
    assert distillation.project is not None
    with torch.no_grad():
        distillation.project.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 5.0], [0.0, 0.0]]))
    given = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8], [0.0, 0.0, 0.0]])
    known = torch.tensor([True, True, False])
    assert distillation(given, targets, known).item() == pytest.approx(2 * (0 + 0.4) / 2)


def test_only_rows_with_a_target_count() -> None:
    distillation = Distillation(DistillationConfig(distill_cosine=1.0, distill_relations=1.0), 4, 6)
    generator = torch.Generator().manual_seed(0)
    given, targets = (F.normalize(torch.randn(5, d, generator=generator), dim=1) for d in (4, 6))
    known = torch.tensor([True, False, True, True, False])
    kept = distillation(given[known], targets[known], torch.ones(3, dtype=torch.bool))
    assert distillation(given, targets, known).item() == pytest.approx(kept.item())


@pytest.mark.parametrize("n_known", [0, 1])
def test_a_batch_with_hardly_a_target_is_finite_with_all_its_gradients(n_known: int) -> None:
    distillation = Distillation(DistillationConfig(distill_cosine=1.0), 4, 6)
    given = F.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1).requires_grad_()
    loss = distillation(given, F.normalize(torch.ones(3, 6), dim=1), torch.arange(3) < n_known)
    loss.backward()
    assert torch.isfinite(loss)
    assert (loss.item() == 0) == (n_known == 0)
    assert given.grad is not None
    assert all(parameter.grad is not None for parameter in distillation.parameters())


def test_descending_the_loss_brings_a_network_to_its_teacher() -> None:
    torch.manual_seed(0)
    images, targets = torch.randn(40, 10), F.normalize(torch.randn(40, 7), dim=1)
    network = torch.nn.Linear(10, 8)
    distillation = Distillation(DistillationConfig(distill_cosine=1.0, distill_relations=1.0), 8, 7)
    optimizer = torch.optim.Adam([*network.parameters(), *distillation.parameters()], lr=0.03)
    losses = []
    for _ in range(120):
        loss = distillation(F.normalize(network(images), dim=1), targets, torch.ones(40, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("values", "message"), [
    ({"distill_cosine": -1.0}, "`distill_cosine` must be 0 or more, got -1.0"),
    ({"distill_relations": float("nan")}, "`distill_relations` must be 0 or more, got nan"),
    ({"distill_cosine": 0.0, "distill_relations": 0.0},
     "`distill_cosine` and `distill_relations` are both 0; give one, or no `teacher`"),
])  # fmt: skip
def test_a_distillation_that_cannot_be_is_one_line(values: dict[str, float], message: str) -> None:
    with pytest.raises(LmrError) as caught:
        DistillationConfig(**values)
    assert str(caught.value) == message
