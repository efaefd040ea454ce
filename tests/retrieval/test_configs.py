import math

import pytest

from retrieval.errors import LmrError
from retrieval.models.config import ModelConfig
from retrieval.train.config import AugmentConfig, BalanceConfig, TrainConfig
from retrieval.train.loss_config import LossConfig


def test_a_model_configuration_comes_back_from_json() -> None:
    config = ModelConfig("timm:x", "avg", 2.0, 64, True, {"pad_type": "same"}, "layer3")
    assert ModelConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"poling": "gem"}, "model configuration: unknown key poling; it was written by another version of lmr"),
        ({"gem_p": None}, "model configuration: missing key gem_p; it was written by another version of lmr"),
    ],
)
def test_another_set_of_keys_is_refused(change: dict[str, object], message: str) -> None:
    given = ModelConfig().to_json() | change
    if None in change.values():
        del given[next(iter(change))]
    with pytest.raises(LmrError) as caught:
        ModelConfig.from_json(given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (
            LossConfig(),
            "miner",
            "`miner` goes with `loss` contrastive or triplet or multi-similarity, not with arcface",
        ),
        (LossConfig("linear"), "margin_rad", "`margin_rad` goes with `loss` arcface, not with linear"),
        (LossConfig(), "margin_cos", "`margin_cos` goes with `loss` cosface, not with arcface"),
        (LossConfig("cosface"), "n_centres", "`n_centres` goes with `loss` arcface, not with cosface"),
        (
            LossConfig("triplet"),
            "scale",
            "`scale` goes with `loss` arcface or cosface or softmax or proxy-anchor, not with triplet",
        ),
        (
            LossConfig("contrastive"),
            "triplet_margin",
            "`triplet_margin` goes with `loss` triplet, not with contrastive",
        ),
        (
            LossConfig(margin="dynamic"),
            "margin_rad",
            "`margin_rad` goes with `margin` count or fixed or adaptive, not with dynamic",
        ),
        (LossConfig(margin="fixed"), "margin_rare_rad", "`margin_rare_rad` goes with `margin` count, not with fixed"),
    ],
)
def test_a_field_that_was_given_in_vain_names_the_losses_that_read_it(
    config: LossConfig, given: str, message: str
) -> None:
    with pytest.raises(LmrError) as caught:
        config.require_used(["epochs", given])
    assert str(caught.value) == message


def test_a_miner_of_triplets_reads_their_margin_with_every_loss_of_pairs() -> None:
    LossConfig("contrastive", miner="semihard").require_used(["triplet_margin", "miner", "negative_weight"])
    with pytest.raises(LmrError):
        LossConfig("contrastive").require_used(["triplet_margin"])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: ModelConfig(pooling="mean"), "pooling is one of gem, avg, max, cls, got mean"),  # type: ignore[arg-type]
        (lambda: ModelConfig(n_dimensions=-1), "`n_dimensions` must be 0 (no neck) to 65,536, got -1"),
        (lambda: ModelConfig(gem_p=math.nan), "`gem_p` must be positive, got nan"),
        (
            lambda: LossConfig("hinge"),  # type: ignore[arg-type]
            "`loss` is one of arcface, cosface, softmax, linear, contrastive, triplet, multi-similarity, proxy-anchor, "
            "got hinge",
        ),
        (lambda: LossConfig(margin="rare"), "`margin` is one of count, fixed, dynamic, adaptive, got rare"),  # type: ignore[arg-type]
        (lambda: LossConfig(miner="easy"), "`miner` is one of multi-similarity, semihard, hard, none, got easy"),  # type: ignore[arg-type]
        (lambda: LossConfig(background="push"), "`background` is one of negatives, class, got push"),  # type: ignore[arg-type]
        (lambda: LossConfig(margin_cos=math.nan), "`margin_cos` must lie in [0, 2], got nan"),
        (lambda: LossConfig(triplet_margin=-1), "`triplet_margin` must lie in [0, 2], got -1"),
        (lambda: LossConfig(contrastive_cosine=2), "`contrastive_cosine` must lie in [-1, 1], got 2"),
        (lambda: LossConfig("softmax", label_smoothing=1), "`label_smoothing` must lie in [0, 1), got 1"),
        (lambda: LossConfig("linear", dropout=1), "`dropout` must lie in [0, 1), got 1"),
        (lambda: LossConfig(class_share=0), "`class_share` must lie in (0, 1], got 0"),
        (lambda: TrainConfig(epochs=10**30), f"`epochs` must be 1,000,000 or less, got {10**30}"),
        (
            lambda: TrainConfig(batch_size=2000, accumulate=1000),
            "`batch_size` times `accumulate` must be 1,000,000 or less, got 2000000",
        ),
        (lambda: TrainConfig(epoch_size=2**31), "`epoch_size` must be 100,000,000 or less, got 2147483648"),
        (lambda: BalanceConfig(floor=2**31), "`floor` must be 1,000,000 or less, got 2147483648"),
        (lambda: LossConfig(n_centres=0), "`n_centres` must be 1 to 100, got 0"),
        (lambda: LossConfig(n_centres=10**30), f"`n_centres` must be 1 to 100, got {10**30}"),
        (lambda: LossConfig("linear", head_hidden=-1), "`head_hidden` must be 0 to 65,536, got -1"),
        (lambda: LossConfig("linear", head_hidden=2**31), "`head_hidden` must be 0 to 65,536, got 2147483648"),
        (lambda: LossConfig("cosface", n_centres=3), "`n_centres` goes with `loss` arcface, not with cosface"),
        (
            lambda: LossConfig("softmax", margin="dynamic"),
            "`margin` goes with `loss` arcface, not with softmax",
        ),
        (lambda: LossConfig(dropout=0.5), "`dropout` goes with `loss` linear, not with arcface"),
        (
            lambda: LossConfig("linear", class_share=0.5),
            "`class_share` goes with `loss` arcface or cosface or softmax, not with linear",
        ),
        (
            lambda: LossConfig("triplet", background="class"),
            "`background` class goes with `loss` arcface or cosface or softmax or linear, not with triplet",
        ),
        (lambda: LossConfig(margin_rad=28.6), "`margin_rad` is in radians, 0 to pi/2, got 28.6"),
        (lambda: LossConfig(margin_rare_rad=math.nan), "`margin_rare_rad` is in radians, 0 to pi/2, got nan"),
        (lambda: LossConfig(scale=0), "`scale` must be positive, got 0"),
        (lambda: LossConfig(scale=math.inf), "`scale` must be positive, got inf"),
        (lambda: LossConfig(negative_weight=math.inf), "`negative_weight` must be 0 or more, got inf"),
        (
            lambda: TrainConfig(loss=LossConfig("softmax", class_share=0.5), augment=AugmentConfig(cutmix=0.5)),
            "`cutmix` needs the landmarks of two pictures, `class_share` draws those of one; give one",
        ),
        (lambda: LossConfig(negative_weight=math.nan), "`negative_weight` must be 0 or more, got nan"),
        (lambda: LossConfig(negative_cosine=2), "`negative_cosine` must lie in [-1, 1], got 2"),
        (lambda: AugmentConfig(min_area=0), "`min_area` must lie in (0, 1], got 0"),
        (
            lambda: TrainConfig(epochs=0),
            "`epochs` is too small; training needs at least 1 epoch and batches of 2",
        ),
        (
            lambda: TrainConfig(batch_size=1),
            "`batch_size` is too small; training needs at least 1 epoch and batches of 2",
        ),
        (lambda: BalanceConfig(negative_share=1), "`negative_share` must lie in [0, 1), got 1"),
        (lambda: TrainConfig(epoch_size=1), "`epoch_size` must be at least 2, got 1"),
        (
            lambda: TrainConfig(optimizer="adm"),  # type: ignore[arg-type]
            "`optimizer` is one of adamw, adam, sgd, rmsprop, got adm",
        ),
        (
            lambda: TrainConfig(schedule="linear"),  # type: ignore[arg-type]
            "`schedule` is one of cosine, step, plateau, constant, got linear",
        ),
        (
            lambda: TrainConfig(precision="fp8"),  # type: ignore[arg-type]
            "`precision` is one of auto, fp32, bf16, fp16, got fp8",
        ),
        (
            lambda: TrainConfig(freeze="0"),
            "`freeze` is none, all, or how many blocks at the end are trained, 1 or more, got 0",
        ),
        (
            lambda: TrainConfig(freeze="some"),
            "`freeze` is none, all, or how many blocks at the end are trained, 1 or more, got some",
        ),
        (lambda: TrainConfig(rate_drop=1), "`rate_drop` is a factor between 0 and 1, got 1"),
        (lambda: TrainConfig(rate_drop_epochs=0), "`rate_drop_epochs` must be 1 or more, got 0"),
        (lambda: TrainConfig(accumulate=0), "`accumulate` must be 1 or more, got 0"),
        (lambda: TrainConfig(patience=-1), "`patience` must be 0 or more, got -1"),
        (lambda: TrainConfig(ema=1), "`ema` must lie in [0, 1), got 1"),
        (lambda: TrainConfig(head_rate=-1), "`head_rate` must be 0 or more, got -1"),
        (lambda: TrainConfig(backbone_rate=math.nan), "`backbone_rate` must be 0 or more, got nan"),
        (lambda: TrainConfig(warmup=5), "`warmup` is a share of the steps, 0 to 1, got 5"),
        (lambda: TrainConfig(clip_norm=0), "`clip_norm` must be a positive number, got 0; a large one clips nothing"),
        (
            lambda: TrainConfig(clip_norm=math.inf),
            "`clip_norm` must be a positive number, got inf; a large one clips nothing",
        ),
        (lambda: TrainConfig(weight_decay=math.inf), "`weight_decay` must be 0 or more, got inf"),
        (lambda: BalanceConfig(balance=math.inf), "`balance` must be 0 to 10, got inf"),
        (lambda: BalanceConfig(balance=-1), "`balance` must be 0 to 10, got -1"),
        (lambda: BalanceConfig(balance=1e308), "`balance` must be 0 to 10, got 1e+308"),
        (lambda: AugmentConfig(contrast=1e308), "`contrast` must be 0 to 10, got 1e+308"),
        (lambda: TrainConfig(seed=-1), "`seed` must be 0 or more, got -1"),
        (lambda: TrainConfig(seed=2**32), "`seed` must lie below 2**32, got 4294967296"),
    ],
)
def test_a_value_out_of_range_names_its_option(made: object, message: str) -> None:
    with pytest.raises(LmrError) as caught:
        made()  # type: ignore[operator]
    assert str(caught.value) == message
