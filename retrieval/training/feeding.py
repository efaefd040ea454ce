"""What each step is fed with: which pictures, in which batches, decoded by worker processes."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import count, islice

from retrieval.images.preprocess import ImageSpec
from retrieval.training.augmentation import Batch, Collate, TrainingPictures
from retrieval.training.config import TrainConfig
from retrieval.training.data import TrainingData
from retrieval.training.features import FeatureRows, PlainPictures
from retrieval.training.processes import Processes
from retrieval.training.run import Run
from retrieval.training.sampling import Sampler, training_sampler
from retrieval.training.workers import Keys, load_batches

Pictures = TrainingPictures | PlainPictures | FeatureRows


def pictures_of(data: TrainingData, spec: ImageSpec, config: TrainConfig) -> TrainingPictures | PlainPictures:
    """What is trained on: varied pictures, or plain ones."""
    if config.plain_pictures:
        return PlainPictures(data.source, spec)
    return TrainingPictures(data.source, spec, config.augment)


def count_steps(data: TrainingData, config: TrainConfig) -> int:
    """Steps of an epoch."""
    return len(training_sampler(data.landmark, config).plan(0))


def feed(
    data: TrainingData, pictures: Pictures, config: TrainConfig, run: Run, begin: tuple[int, int] = (0, 0)
) -> Generator[list[Batch], None, None]:
    """The batches of each step, without end. begin: epoch and step.

    Worker processes decode, and outlive the epochs. LmrError when one is killed.
    """
    batches = load_batches(
        pictures,
        Collate(data.landmark),
        _keys(training_sampler(data.landmark, config), begin, config.accumulate, run.processes),
        0 if isinstance(pictures, FeatureRows) else min(run.n_workers, _count_batches(data, config)),
        pin=run.device.type == "cuda",
        on_warning=run.on_warning,
    )
    with closing(batches):
        while True:
            yield [next(batches) for _ in range(config.accumulate)]


def _keys(sampler: Sampler, begin: tuple[int, int], accumulate: int, processes: Processes) -> Iterator[Keys]:
    """Of each batch the rows and seeds of this process' pictures; `accumulate` batches are a step."""
    for epoch in count(begin[0]):
        plan = sampler.plan(epoch)
        steps = zip(plan.rows, plan.seeds, strict=True)
        for rows, seeds in islice(steps, begin[1] if epoch == begin[0] else 0, None):
            keys = list(zip(rows.tolist(), seeds.tolist(), strict=True))
            for i in range(accumulate):
                yield keys[i::accumulate][processes.rank :: processes.n]


def _count_batches(data: TrainingData, config: TrainConfig) -> int:
    """Of all epochs."""
    return count_steps(data, config) * config.accumulate * config.epochs
