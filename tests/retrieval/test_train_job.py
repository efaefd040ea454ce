"""The job of a training: its words, those of its stages, and the request by which a finished one is known again."""

from dataclasses import fields
from pathlib import Path

import pytest

from retrieval.errors import LmrError
from retrieval.jobs import words_of
from retrieval.models.config import ModelConfig
from retrieval.train.config import AugmentConfig, BalanceConfig, DistillationConfig, TrainConfig
from retrieval.train.job import STAGE_WORDS, TrainJob, training_job
from retrieval.train.loss_config import LossConfig
from retrieval.train.record import _options

CONFIGS = (LossConfig, AugmentConfig, BalanceConfig, DistillationConfig, TrainConfig)


def test_each_word_belongs_to_one_setting() -> None:
    words = [word for word, _, _ in words_of(TrainJob)]
    assert len(words) == len(set(words))
    assert {"loss", "centres", "dimensions", "backbone_option", "seed", "manifest"} <= set(words)


def test_words_reach_the_configuration_that_they_are_of() -> None:
    job = training_job({"manifest": "a.csv", "loss": "cosface", "cap": 3, "flip": 0.0, "size": 64, "dimensions": 8})
    assert (job.training.loss.name, job.training.sampling.cap, job.training.augment.flip) == ("cosface", 3, 0.0)
    assert (job.preparation.size, job.network.n_dimensions, job.manifest) == (64, 8, Path("a.csv"))
    assert job.stages == (job,)


def test_a_stage_has_its_own_words_and_otherwise_those_of_all() -> None:
    job = training_job(
        {"manifest": "a.csv", "epochs": 3, "size": 64}, [{"size": 32}, {"epochs": 5, "manifest": Path("b.csv")}]
    )
    assert [stage.preparation.size for stage in job.stages] == [32, 64]
    assert [stage.training.epochs for stage in job.stages] == [3, 5]
    assert [str(stage.manifest) for stage in job.stages] == ["a.csv", "b.csv"]


def test_values_that_go_together_in_each_stage_need_not_do_so_before() -> None:
    job = training_job({"manifest": "a.csv", "loss": "triplet"}, [{"per_landmark": 2}, {"loss": "arcface"}])
    assert [stage.training.loss.name for stage in job.stages] == ["triplet", "arcface"]
    with pytest.raises(LmrError, match="`loss` triplet compares pictures of a landmark; give `per_landmark`"):
        training_job({"manifest": "a.csv", "loss": "triplet"})


def test_a_word_that_a_stage_cannot_have_is_none_of_its_words() -> None:
    assert {"backbone", "output", "val", "teacher", "distill_cosine", "workers"}.isdisjoint(STAGE_WORDS)
    with pytest.raises(TypeError, match="backbone is no word of a stage of training"):
        training_job({"manifest": "a.csv"}, [{"backbone": "plain-cnn"}])
    with pytest.raises(TypeError, match="epoch is no word of TrainJob; did you mean epochs"):
        training_job({"manifest": "a.csv", "epoch": 3})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"dropout": 0.0}, "`dropout` goes with `loss` linear, not with arcface"),
        ({"centres": 1, "loss": "cosface"}, "`n_centres` goes with `loss` arcface, not with cosface"),
        ({"distill_cosine": 1.0}, "`distill_cosine` goes with `teacher`, a store of descriptors to imitate"),
    ],
)
def test_a_word_given_in_vain_is_refused_though_it_has_the_default_value(
    words: dict[str, object], message: str
) -> None:
    with pytest.raises(LmrError) as caught:
        training_job({"manifest": "a.csv", **words})
    assert str(caught.value) == message


def test_what_is_asked_of_a_stage_has_the_names_and_forms_of_records_made_before() -> None:
    names = {item.name for config in CONFIGS for item in fields(config)} - {"augment", "sampling", "distillation"}
    names = names - {"loss"} | {item.name for item in fields(ModelConfig)} - {"adapter"}
    names |= {"manifest", "negatives", "val", "allow_disjoint", "images", "teacher", "pretrained", "mean", "std"}
    names |= {"size", "fit", "colors", "show_batch", "summary", "find_rate"}
    words = {"manifest": "a.csv", "teacher": ["t.h5"], "backbone_option": ("pool=max",), "weights": "w.pt"}
    asked = _options(training_job({**words, "output": "m", "device": "cpu", "workers": 3, "wait": True}))
    assert asked.keys() == names
    assert (asked["manifest"], asked["teacher"], asked["backbone_options"]) == ("a.csv", ["t.h5"], ["pool=max"])
    assert (asked["name"], asked["show_batch"], asked["summary"], asked["find_rate"]) == ("arcface", None, False, None)
