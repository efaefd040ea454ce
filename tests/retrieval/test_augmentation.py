import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_world import CPU, SPEC, Images, jpeg
from torchvision.transforms import v2

from retrieval.errors import LmrError
from retrieval.images.decode import decode
from retrieval.images.spec import ImageSpec
from retrieval.models.network import to_input
from retrieval.train.augment import Batch, Collate, TrainingImages, mix, repeat_place
from retrieval.train.config import AugmentConfig, TrainConfig
from retrieval.train.loss_config import LossConfig

STILL = AugmentConfig(min_area=1.0, flip=0, brightness=0, contrast=0, saturation=0, hue=0, greyscale=0)


def images(n: int = 3, config: AugmentConfig | None = None) -> TrainingImages:
    source = Images([jpeg(i, i) for i in range(n)] + [None])
    return TrainingImages(source, SPEC, config or AugmentConfig())


def image(key: tuple[int, int], config: AugmentConfig | None = None) -> torch.Tensor:
    item = images(config=config)[key][1]
    assert isinstance(item, torch.Tensor)
    return item


def test_a_image_is_a_function_of_row_and_seed() -> None:
    torch.manual_seed(1)
    first = image((0, 5))
    torch.manual_seed(2)
    assert torch.equal(image((0, 5)), first)
    assert not torch.equal(image((0, 6)), first)
    assert not torch.equal(image((1, 5)), first)
    assert first.shape == (3, 16, 16)
    assert first.dtype == torch.uint8


def test_drawing_a_image_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    image((0, 5))
    assert torch.equal(torch.rand(3), expected)


def test_an_unreadable_image_is_its_reason() -> None:
    assert images()[(3, 0)] == (3, "picture 3 is gone")


@pytest.mark.parametrize(
    "change",
    [
        {"min_area": 0.2},
        {"flip": 1.0},
        {"brightness": 0.9},
        {"contrast": 0.9},
        {"saturation": 0.9},
        {"hue": 0.5},
        {"greyscale": 1.0},
        {"rotation": 90.0},
        {"shift": 0.5},
        {"zoom": 0.5},
        {"blur": 1.0},
        {"jpeg": 1.0},
        {"erasing": 1.0},
    ],
)
def test_every_strength_changes_images(change: dict[str, float]) -> None:
    still = image((1, 7), STILL)
    assert not torch.equal(image((1, 7), dataclasses.replace(STILL, **change)), still)


def test_a_mirrored_image_is_mirrored() -> None:
    gradient = Image.fromarray(np.tile(np.arange(0, 256, 16, dtype=np.uint8)[None, :, None], (16, 1, 3)))
    buffer = io.BytesIO()
    gradient.save(buffer, "PNG")
    made = TrainingImages(Images([buffer.getvalue()]), SPEC, AugmentConfig(1.0, 1.0, 0, 0, 0, 0, 0))[(0, 0)][1]
    assert isinstance(made, torch.Tensor)
    rows = made[0, :, :].float()
    assert (rows.diff(dim=1) <= 0).all()
    assert rows[0, 0] > rows[0, -1]


def test_a_image_is_decoded_as_large_as_its_smallest_crop_needs() -> None:
    assert TrainingImages(Images([]), SPEC, AugmentConfig(min_area=0.25)).min_side == 32


def test_unreadable_images_are_left_out_of_the_batch() -> None:
    made = images()
    batch = Collate(np.array([0, 1, -1, 2], dtype=np.int32))([made[(2, 0)], made[(3, 0)], made[(1, 0)]])
    assert batch.labels.tolist() == [-1, 1]
    assert batch.labels.dtype == torch.int64
    assert batch.unreadable == {3: "picture 3 is gone"}
    assert torch.equal(batch.images, torch.stack([made[(2, 0)][1], made[(1, 0)][1]]))  # type: ignore[list-item]


def test_a_batch_of_unreadable_images_is_empty() -> None:
    batch = Collate(np.array([0], dtype=np.int32))([(0, "gone")])
    assert len(batch.labels) == len(batch.images) == 0
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


# The steps


def test_what_is_off_draws_no_random_number() -> None:
    """The steps of earlier versions, one after the other: images of the same seed stay the same, bit by bit."""
    config = AugmentConfig()
    before = v2.Compose(
        [
            v2.RandomResizedCrop(SPEC.size, scale=(config.min_area, 1.0)),
            v2.RandomHorizontalFlip(config.flip),
            v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue),
            v2.RandomGrayscale(config.greyscale),
            v2.PILToTensor(),
        ]
    )
    whole = decode(jpeg(1, 1), int(SPEC.size / config.min_area**0.5))
    for seed in (0, 1, 2**40 + 7, 2**62 - 1):
        torch.manual_seed(seed)
        assert torch.equal(image((1, seed)), before(whole))


def white(config: AugmentConfig, seed: int = 0, side: int = 64) -> torch.Tensor:
    """A white image after it."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (255, 255, 255)).save(buffer, "PNG")
    item = TrainingImages(Images([buffer.getvalue()]), ImageSpec(size=side), config)[(0, seed)][1]
    assert isinstance(item, torch.Tensor)
    return item


MEAN = [124, 116, 104]  # of ImageNet, in 256ths


@pytest.mark.parametrize("change", [{"shift": 0.5}, {"rotation": 45.0}, {"zoom": 0.9}, {"erasing": 1.0}])
def test_what_is_uncovered_or_erased_has_the_mean_colour(change: dict[str, float]) -> None:
    seen = set()
    for seed in range(8):
        made = white(dataclasses.replace(STILL, **change), seed)
        assert made.shape == (3, 64, 64)
        seen |= {tuple(colour) for colour in made.flatten(1).T.tolist()}
    assert tuple(MEAN) in seen
    assert (255, 255, 255) in seen


def test_a_shift_moves_by_no_more_than_its_share() -> None:
    ground = torch.tensor(MEAN, dtype=torch.uint8)[:, None, None]
    widest = 0
    for seed in range(30):
        uncovered = (white(dataclasses.replace(STILL, shift=0.25), seed) == ground).all(dim=0)
        columns, rows = uncovered.all(dim=0).sum().item(), uncovered.all(dim=1).sum().item()
        widest = max(widest, int(columns), int(rows))
    assert 12 <= widest <= 16


def test_an_erased_rectangle_is_no_more_than_a_third_of_the_image() -> None:
    """Zhong et al. 2020: 2 to 33 % of the image."""
    for seed in range(20):
        made = white(dataclasses.replace(STILL, erasing=1.0), seed)
        share = (made[0] != 255).float().mean().item()
        assert 0.01 < share < 0.34


@pytest.mark.parametrize("name", ["blur", "jpeg", "erasing"])
def test_a_probability_is_how_often_it_happens(name: str) -> None:
    """A half of 60: 30 with a standard deviation of 3.9."""
    still = [image((1, seed), STILL) for seed in range(60)]
    half = dataclasses.replace(STILL, **{name: 0.5})
    changed = sum(not torch.equal(image((1, seed), half), still[seed]) for seed in range(60))
    assert 12 < changed < 48


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["blur", "jpeg", "erasing"])
def test_what_damages_images_warns_of_nothing(name: str) -> None:
    assert image((0, 5), dataclasses.replace(STILL, **{name: 1.0})).shape == (3, 16, 16)


def test_a_pinned_batch_is_the_same_in_other_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinning itself needs a GPU."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    batch = Collate(np.zeros(3, dtype=np.int32))([images()[(0, 1)], images()[(1, 2)]])
    pinned = batch.pin_memory()
    assert torch.equal(pinned.images, batch.images + 1)
    assert pinned.rows == batch.rows == (0, 1)


# Repeats of an image in an epoch


@given(first=st.integers(-(2**63), 2**63), n=st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_consecutive_seeds_lie_evenly(first: int, n: int) -> None:
    places = np.sort([repeat_place(first + i) for i in range(n)])
    assert 0 <= places[0] <= places[-1] < 1
    gaps = np.diff([*places, places[0] + 1])
    assert gaps.max() <= 1.9 / n + 1e-9 or n == 1
    assert gaps.min() >= 0.38 / n


def test_repeats_of_a_image_differ_and_show_from_little_to_all_of_it() -> None:
    """Red says how far to the right a pixel comes from and green how far down, so that crops can be measured."""
    y, x = np.mgrid[:64, :64]
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([2 * x + 64, 2 * y + 64, 0 * x]).astype(np.uint8)).save(buffer, "PNG")
    config = dataclasses.replace(STILL, min_area=0.2)
    made = TrainingImages(Images([buffer.getvalue()]), ImageSpec(size=64), config)
    places, crops = [], []
    for seed in range(-1000, -984):
        item = made[(0, seed)][1]
        assert isinstance(item, torch.Tensor)
        width, height = ((int(channel.max()) - int(channel.min())) / 2 + 1 for channel in item[:2])
        places.append(repeat_place(seed))
        crops.append(item.numpy().tobytes())
        if places[-1] < 0.6:  # crops of nearly all of an image may not fit with their sides, and then are all of it
            assert width * height / 64**2 == pytest.approx(0.2 + 0.8 * places[-1], abs=0.06)
    assert len(set(crops)) == 16
    assert min(places) < 0.12
    assert max(places) > 0.88
    assert torch.equal(made[(0, -1000)][1], made[(0, -1000)][1])  # type: ignore[arg-type]


# Mixed batches


def batch_of(labels: list[int]) -> Batch:
    """Each image of one colour, its place in the batch."""
    colours = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    return Batch(tuple(range(len(labels))), colours.expand(-1, 3, 16, 16).clone(), torch.tensor(labels), {})


CUT = AugmentConfig(cutmix=1.0)


@pytest.mark.parametrize("seed", range(12))
def test_cutmix_says_whose_rectangle_is_in_a_image_and_how_large(seed: int) -> None:
    given = batch_of([5, -1, 6, 7, -1, 5])
    made = mix(given, CUT, torch.Generator().manual_seed(seed))
    assert made.mixed is not None
    others, share = made.mixed
    assert (made.rows, made.unreadable) == (given.rows, given.unreadable)
    assert torch.equal(made.labels, given.labels)
    assert torch.equal(given.images, batch_of([0] * 6).images), "the batch that was given is as it was"
    for i, label in enumerate(given.labels.tolist()):
        strange = made.images[i] != i
        if label < 0:
            assert not strange.any()
            assert others[i] == -1
            continue
        assert strange.float().mean().item() == pytest.approx(1 - share, abs=1e-6)
        if strange.any():
            (donor,) = made.images[i][strange].unique().tolist()
            assert donor != i
            assert given.labels[donor] == others[i] >= 0


def test_cutmix_is_a_function_of_its_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    made = []
    for outside in (1, 2):
        torch.manual_seed(outside)
        made.append(mix(batch_of([0, 1, 2, 3]), CUT, torch.Generator().manual_seed(5)))
    torch.manual_seed(1)
    mix(batch_of([0, 1, 2, 3]), CUT, torch.Generator().manual_seed(5))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(made[0].images, made[1].images)
    assert made[0].mixed is not None
    assert made[1].mixed is not None
    assert made[0].mixed[1] == made[1].mixed[1]


def test_cutmix_happens_as_often_as_asked_and_needs_two_landmark_images() -> None:
    generator = torch.Generator().manual_seed(0)
    half = AugmentConfig(cutmix=0.5)
    mixed = sum(mix(batch_of([0, 1]), half, generator).mixed is not None for _ in range(100))
    assert 30 < mixed < 70
    for labels in ([], [3], [3, -1, -1]):
        given = batch_of(labels)
        assert mix(given, CUT, generator) is given


def test_without_cutmix_a_batch_is_left_alone_and_no_number_drawn() -> None:
    generator, same = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    given = batch_of([0, 1, 2])
    assert mix(given, AugmentConfig(), generator) is given
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=same))


# Configuration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({name: 1.5}, f"`{name}` is a probability, 0 to 1, got 1.5")
            for name in ("flip", "greyscale", "blur", "jpeg", "erasing", "cutmix")
        ),
        *(({name: -0.1}, f"`{name}` must be 0 to 10, got -0.1") for name in ("brightness", "contrast", "saturation")),
        ({"contrast": math.inf}, "`contrast` must be 0 to 10, got inf"),
        ({"blur": math.nan}, "`blur` is a probability, 0 to 1, got nan"),
        ({"hue": 0.6}, "`hue` is a share of the colour circle, 0 to 0.5, got 0.6"),
        ({"rotation": 181}, "`rotation` is in degrees, 0 to 180, got 181"),
        ({"shift": 1}, "`shift` must lie in [0, 1), got 1"),
        ({"zoom": -0.5}, "`zoom` must lie in [0, 1), got -0.5"),
    ],
)
def test_a_strength_that_cannot_be_is_one_line(change: dict[str, float], message: str) -> None:
    with pytest.raises(LmrError) as caught:
        AugmentConfig(**change)
    assert str(caught.value) == message


def test_cutmix_is_for_softmax() -> None:
    with pytest.raises(LmrError) as caught:
        TrainConfig(augment=CUT)
    assert str(caught.value) == "`cutmix` mixes the labels of `loss` softmax or linear, got `loss` arcface"
    TrainConfig(augment=CUT, loss=LossConfig("softmax"))
