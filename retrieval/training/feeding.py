"""What each step is fed with: which pictures, in which batches, decoded by worker processes."""

from collections.abc import Iterator
from itertools import count, islice

from torch.utils.data import DataLoader

from retrieval.images.preprocess import ImageSpec
from retrieval.training.augmentation import Batch, Collate, TrainingPictures
from retrieval.training.config import TrainConfig
from retrieval.training.features import FeatureRows, PlainPictures
from retrieval.training.processes import Processes
from retrieval.training.run import Run, TrainingData
from retrieval.training.sampling import Sampler, training_sampler
from retrieval.training.workers import explained_workers

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
) -> Iterator[list[Batch]]:
    """The batches of each step, without end. begin: epoch and step.

    Worker processes decode, and outlive the epochs. LmrError when one is killed.
    """
    loader = iter(
        DataLoader(
            pictures,
            batch_sampler=_keys(training_sampler(data.landmark, config), begin, config.accumulate, run.processes),
            collate_fn=Collate(data.landmark),
            num_workers=0 if isinstance(pictures, FeatureRows) else run.n_workers,
            pin_memory=run.device.type == "cuda",
        )
    )
    while True:
        with explained_workers():
            together = [next(loader) for _ in range(config.accumulate)]
        yield together


def _keys(
    sampler: Sampler, begin: tuple[int, int], accumulate: int, processes: Processes
) -> Iterator[list[tuple[int, int]]]:
    """Of each batch the rows and seeds of this process' pictures; `accumulate` batches are a step."""
    for epoch in count(begin[0]):
        plan = sampler.plan(epoch)
        steps = zip(plan.rows, plan.seeds, strict=True)
        for rows, seeds in islice(steps, begin[1] if epoch == begin[0] else 0, None):
            keys = list(zip(rows.tolist(), seeds.tolist(), strict=True))
            for i in range(accumulate):
                yield keys[i::accumulate][processes.rank :: processes.n]
