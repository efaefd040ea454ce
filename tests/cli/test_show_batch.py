"""`lmr train --show-batch`: a sheet of what the network sees, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_set import NETWORK, done, listing, refused

from cli.report.sheet import GAP_PX, LINE_PX, MARGIN_PX, MIN_TILE_PX, draw_batch
from retrieval.images.spec import ImageSpec
from retrieval.train.config import AugmentConfig, BalanceConfig, TrainConfig
from retrieval.train.data import read_training_data
from retrieval.train.first_batch import SeenImage, as_seen, first_batch
from retrieval.train.loader import PlainImages
from retrieval.train.loop import train
from retrieval.train.loss_config import LossConfig
from retrieval.train.run import Run
from retrieval.train.sampler import training_sampler

SHOW = ("train", "train.csv", *NETWORK, "--batch-size", "8", "--show-batch", "sheet.png")
RED, BLUE = (220, 20, 30), (10, 40, 180)


def image(colour: tuple[int, int, int], *labels: str, side: int = 32) -> SeenImage:
    return SeenImage(np.full((side, side, 3), colour, dtype=np.uint8), labels, "id-1")


def under(sheet: Image.Image, line: int) -> bytes:
    """The pixels of a line of text under the first image, whose tile is of the smallest size."""
    top = MARGIN_PX + MIN_TILE_PX + 6 + line * LINE_PX
    return sheet.crop((MARGIN_PX, top, MARGIN_PX + MIN_TILE_PX, top + LINE_PX)).tobytes()


# The drawing


def test_images_stand_in_rows_as_they_are_with_their_labels_below() -> None:
    sheet = draw_batch([image(RED, "arch"), image(BLUE), image(BLUE, "bridge"), image(RED, "arch")])
    step_x = MIN_TILE_PX + GAP_PX
    step_y = MIN_TILE_PX + 2 * LINE_PX + 6 + GAP_PX
    corners = [(MARGIN_PX + x * step_x, MARGIN_PX + y * step_y) for y in range(2) for x in range(2)]
    for corner, colour in zip(corners, (RED, BLUE, BLUE, RED), strict=True):
        tile = np.asarray(sheet.crop((*corner, corner[0] + MIN_TILE_PX, corner[1] + MIN_TILE_PX)))
        assert (tile == colour).all()
    assert sheet.size == (2 * MARGIN_PX + 2 * step_x - GAP_PX, 2 * MARGIN_PX + 2 * step_y - GAP_PX)


def test_pixels_are_enlarged_by_a_whole_number_or_not_at_all() -> None:
    checks = np.indices((100, 100)).sum(axis=0) % 2 * 255
    sheet = draw_batch([SeenImage(np.dstack([checks] * 3).astype(np.uint8), (), "x")])
    tile = np.asarray(sheet)[MARGIN_PX : MARGIN_PX + 200, MARGIN_PX : MARGIN_PX + 200, 0]
    assert (tile == checks.repeat(2, axis=0).repeat(2, axis=1)).all()
    large = np.zeros((300, 300, 3), dtype=np.uint8)
    assert draw_batch([SeenImage(large, (), "x")]).width == 300 + 2 * MARGIN_PX


def test_a_mixed_image_has_both_labels_and_a_non_landmark_says_so() -> None:
    one, both, none = (draw_batch([image(RED, *labels)]) for labels in (("70% arch",), ("70% arch", "30% bridge"), ()))
    assert under(one, 0) == under(both, 0) != under(none, 0)
    assert under(one, 1) == under(none, 1) == under(both, 2) != under(both, 1), "the id is the last line"
    assert both.height == one.height + LINE_PX


# The batch


def test_what_is_shown_is_what_the_first_step_gets(images, monkeypatch):
    config = TrainConfig(
        epochs=1,
        batch_size=8,
        epoch_size=8,
        loss=LossConfig("softmax"),
        augment=AugmentConfig(cutmix=1.0, erasing=0.5),
        sampling=BalanceConfig(floor=20, cap=20),
    )
    data, spec = read_training_data(Path("train.csv"), None, None), ImageSpec(size=32)
    shown = first_batch(data, spec, config)
    plan = training_sampler(data.landmark, config).plan(0)
    assert list(shown.rows) == plan.rows[0].tolist()
    assert shown.labels.tolist() == data.landmark[plan.rows[0]].tolist()
    given = []

    def stop(parts, batch, *_):
        given.append(batch)
        raise KeyboardInterrupt

    monkeypatch.setattr("retrieval.train.step.pooled_features", stop)
    from retrieval.models.config import ModelConfig
    from retrieval.models.network import build_model

    model = build_model(ModelConfig("shufflenet_v2_x0_5", n_dimensions=8), pretrained=False, image_size=32)
    with pytest.raises(KeyboardInterrupt):
        train(model, data, spec, config, Run(Path("made"), torch.device("cpu"), n_workers=0))
    assert torch.equal(given[0].images, shown.images)
    assert torch.equal(given[0].mixed[0], shown.mixed[0])
    assert given[0].mixed[1] == shown.mixed[1] < 1
    assert (as_seen(shown, spec) == shown.images.permute(0, 2, 3, 1).numpy()).all()


def test_plain_images_are_shown_plain_and_of_several_batches_the_first(images):
    config = TrainConfig(batch_size=4, accumulate=2, plain_pictures=True)
    data, spec = read_training_data(Path("train.csv"), None, None), ImageSpec(size=32)
    shown = first_batch(data, spec, config)
    assert list(shown.rows) == training_sampler(data.landmark, config).plan(0).rows[0][::2].tolist()
    plain = PlainImages(data.source, spec)
    assert all(torch.equal(shown.images[i], plain[(row, 0)][1]) for i, row in enumerate(shown.rows))


# The command


def test_the_sheet_is_written_and_nothing_is_trained(images):
    before = set(listing(images))
    result = done(*SHOW, "--cap", "2", "--floor", "2")
    assert result.stdout == "sheet.png: 8 pictures of the first batch; nothing was trained\n"
    assert {path for path in listing(images) if path not in before} == {"sheet.png"}
    with Image.open("sheet.png") as sheet:
        assert sheet.width == 3 * MIN_TILE_PX + 2 * GAP_PX + 2 * MARGIN_PX
    first = Path("sheet.png").read_bytes()
    done(*SHOW, "--cap", "2", "--floor", "2")
    assert Path("sheet.png").read_bytes() == first
    done(*SHOW, "--cap", "2", "--floor", "2", "--member", "1")
    assert Path("sheet.png").read_bytes() != first


def test_a_suffix_that_is_no_image_is_refused(images):
    assert refused("train", "train.csv", *NETWORK, "--show-batch", "sheet.txt") == (
        "sheet.txt: a sheet cannot have the suffix .txt; use .jpg, .png or .webp"
    )


def test_a_batch_without_a_readable_image_is_one_line(images):
    for path in Path("images").iterdir():
        path.write_bytes(b"")
    message = refused(*SHOW)
    assert message.splitlines()[-1] == "no picture of the first batch can be read (empty file); check --images"
    assert not Path("sheet.png").exists()
