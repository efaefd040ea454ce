import io

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_world import CPU, SPEC, Pictures, jpeg

from retrieval.model import to_input
from retrieval.training.augmentation import Collate, TrainingPictures
from retrieval.training.config import AugmentConfig

STILL = AugmentConfig(min_area=1.0, flip=0, brightness=0, contrast=0, saturation=0, hue=0, greyscale=0)


def pictures(n: int = 3, config: AugmentConfig | None = None) -> TrainingPictures:
    source = Pictures([jpeg(i, i) for i in range(n)] + [None])
    return TrainingPictures(source, SPEC, config or AugmentConfig())


def picture(key: tuple[int, int], config: AugmentConfig | None = None) -> torch.Tensor:
    item = pictures(config=config)[key][1]
    assert isinstance(item, torch.Tensor)
    return item


def test_a_picture_is_a_function_of_row_and_seed() -> None:
    torch.manual_seed(1)
    first = picture((0, 5))
    torch.manual_seed(2)
    assert torch.equal(picture((0, 5)), first)
    assert not torch.equal(picture((0, 6)), first)
    assert not torch.equal(picture((1, 5)), first)
    assert first.shape == (3, 16, 16)
    assert first.dtype == torch.uint8


def test_drawing_a_picture_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    picture((0, 5))
    assert torch.equal(torch.rand(3), expected)


def test_an_unreadable_picture_is_its_reason() -> None:
    assert pictures()[(3, 0)] == (3, "picture 3 is gone")


@pytest.mark.parametrize(
    "change",
    [{"flip": 1.0}, {"brightness": 0.9}, {"contrast": 0.9}, {"saturation": 0.9}, {"hue": 0.5}, {"greyscale": 1.0}],
)
def test_every_strength_changes_pictures(change: dict[str, float]) -> None:
    import dataclasses

    still = picture((1, 7), STILL)
    assert not torch.equal(picture((1, 7), dataclasses.replace(STILL, **change)), still)


def test_a_mirrored_picture_is_mirrored() -> None:
    gradient = Image.fromarray(np.tile(np.arange(0, 256, 16, dtype=np.uint8)[None, :, None], (16, 1, 3)))
    buffer = io.BytesIO()
    gradient.save(buffer, "PNG")
    made = TrainingPictures(Pictures([buffer.getvalue()]), SPEC, AugmentConfig(1.0, 1.0, 0, 0, 0, 0, 0))[(0, 0)][1]
    assert isinstance(made, torch.Tensor)
    rows = made[0, :, :].float()
    assert (rows.diff(dim=1) <= 0).all()
    assert rows[0, 0] > rows[0, -1]


def test_a_picture_is_decoded_as_large_as_its_smallest_crop_needs() -> None:
    assert TrainingPictures(Pictures([]), SPEC, AugmentConfig(min_area=0.25)).min_side == 32


def test_unreadable_pictures_are_left_out_of_the_batch() -> None:
    made = pictures()
    batch = Collate(np.array([0, 1, -1, 2], dtype=np.int32))([made[(2, 0)], made[(3, 0)], made[(1, 0)]])
    assert batch.labels.tolist() == [-1, 1]
    assert batch.labels.dtype == torch.int64
    assert batch.unreadable == {3: "picture 3 is gone"}
    assert torch.equal(batch.pictures, torch.stack([made[(2, 0)][1], made[(1, 0)][1]]))  # type: ignore[list-item]


def test_a_batch_of_unreadable_pictures_is_empty() -> None:
    batch = Collate(np.array([0], dtype=np.int32))([(0, "gone")])
    assert len(batch.labels) == len(batch.pictures) == 0
    assert batch.unreadable == {0: "gone"}


def test_the_input_is_normalised_as_the_spec_says() -> None:
    given = torch.tensor(np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4)), dtype=torch.uint8)
    kept = given.clone()
    made = to_input(given, SPEC, CPU)
    expected = (kept.numpy() / 255 - np.array(SPEC.mean)[:, None, None]) / np.array(SPEC.std)[:, None, None]
    assert made.numpy() == pytest.approx(expected, abs=1e-5)
    assert made.dtype == torch.float32
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(given, kept)
