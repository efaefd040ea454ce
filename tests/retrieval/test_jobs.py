"""Jobs built from flat words: their own, those of their parts, and what is wrong with them."""

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from retrieval.errors import LmrError
from retrieval.jobs import ComputingJob, WritingJob, build, option, told, words_of


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A part of a job."""

    n_sides: int = option(4, help="Sides.")
    colour: str = option("black", help="Colour.")

    def __post_init__(self) -> None:
        if self.n_sides < 3:
            raise ValueError(f"n_sides must be at least 3, got {self.n_sides}")


@dataclass(frozen=True)
class PaintJob(ComputingJob, WritingJob):
    """A job with an argument, a part that is always there and one that may be."""

    image: Path = field(metadata=told(is_argument=True))
    others: tuple[Path, ...] = option((), is_argument=True)
    _: KW_ONLY
    frame: Frame = field(default_factory=Frame)
    second: Frame | None = None
    layers: int = option(1, help="Layers.")
    share: float = option(0.5, low=0, high=1, low_open=True, help="Share that is painted.")
    finish: Literal["matt", "gloss"] = option("matt", help="Finish.")


def message(**words: object) -> str:
    with pytest.raises(LmrError) as caught:
        build(PaintJob, {"image": "a.jpg", **words})
    return str(caught.value)


def test_words_of_a_job_are_its_own_and_those_of_its_parts() -> None:
    words = [word for word, _, _ in words_of(PaintJob)]
    assert words[:5] == ["image", "others", "sides", "colour", "sides"]
    assert words[-5:] == ["device", "threads", "workers", "overwrite", "wait"]


def test_what_no_word_says_has_its_default_and_text_becomes_a_path() -> None:
    job = build(PaintJob, {"image": "a.jpg", "others": ["b.jpg"], "layers": 2})
    assert (job.image, job.others, job.layers) == (Path("a.jpg"), (Path("b.jpg"),), 2)
    assert (job.frame, job.second, job.workers, job.overwrite) == (Frame(), None, None, False)
    assert build(PaintJob, {"image": "a.jpg", "others": "b.jpg"}).others == (Path("b.jpg"),)


def test_words_of_a_part_make_the_part_also_where_it_may_be_none() -> None:
    job = build(PaintJob, {"image": "a.jpg", "sides": 5})
    assert (job.frame, job.second) == (Frame(n_sides=5), Frame(n_sides=5))


def test_a_part_may_be_given_whole() -> None:
    frame = Frame(colour="red")
    assert build(PaintJob, {"image": "a.jpg", "frame": frame}).frame is frame


def test_a_misspelt_word_names_the_right_one() -> None:
    with pytest.raises(TypeError, match=r"^color is no word of PaintJob; did you mean colour\?$"):
        build(PaintJob, {"image": "a.jpg", "color": "red"})
    with pytest.raises(TypeError, match=r"^n_sides is no word of PaintJob; did you mean sides\?$"):
        build(PaintJob, {"image": "a.jpg", "n_sides": 3})


def test_a_value_that_cannot_be_is_named_by_its_word() -> None:
    assert message(sides=2) == "`sides` must be at least 3, got 2"
    assert message(device="abacus") == "`device` abacus: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps"
    assert message(threads=0) == "`threads` must be at least 1, got 0"
    assert message(workers=-1) == "`workers` must be at least 0, got -1"
    assert message(workers=True) == "`workers` must be int or NoneType, got True"
    assert message(layers="2") == "`layers` must be int, got '2'"
    assert message(share=float("nan")) == "`share` must be above 0 and at most 1, got nan"
    assert message(share=0) == "`share` must be above 0 and at most 1, got 0"
    assert message(finish="shiny") == "`finish` must be matt or gloss, got 'shiny'"
    assert build(PaintJob, {"image": "a.jpg", "share": 1, "finish": "gloss"}).share == 1
