"""Training: of a network on the labelled images of a manifest, or of an adapter on a store, to a model folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.data.request import CellsJob, ImagesJob
from retrieval.device_name import require_one_device
from retrieval.embed.complete import list_unreadable
from retrieval.embed.job import MODEL
from retrieval.errors import DamageError, LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import ComputingJob, WritingJob, build, option, told, words_of
from retrieval.models.request import NetworkRequest, PreparationRequest
from retrieval.parallel import count_workers, is_first
from retrieval.progress import SILENT
from retrieval.train.config import DistillationConfig, TrainConfig
from retrieval.train.stored.request import OUTPUT, AdapterRequest, is_store, require_words, with_defaults

if TYPE_CHECKING:
    import torch

    from retrieval.images.spec import ImageSpec
    from retrieval.models.network import DescriptorModel
    from retrieval.train.data import TrainingData
    from retrieval.train.distributed import Processes
    from retrieval.train.first_batch import SeenImage
    from retrieval.train.loop import Stage
    from retrieval.train.lr_finder import RateTest
    from retrieval.train.record import Trained
    from retrieval.train.run import Validate
    from retrieval.train.state import TrainingState
    from retrieval.train.stored.adapter import BaseModel, FitWhitening

    MakeValidation = Callable[["TrainJob", TrainingData, ImageSpec, torch.device, int], tuple[Validate, str]]


@dataclass(frozen=True)
class TrainJob(ImagesJob, CellsJob, ComputingJob, WritingJob):
    """Train a network on the labelled images of a manifest, or an adapter on those of a descriptor store.

    later: the stages that follow, each trained from the weights of the one before; of theirs the manifests, the
    preparation and the training are used.
    """

    manifest: Path = field(metadata=told(is_argument=True))
    _: KW_ONLY
    negatives: Path | None = option(None, help="Manifest of non-landmarks, besides the manifest's own.")
    val: Path | None = option(None, help="Manifest to validate on after each epoch; the best epoch is kept.")
    output: Path = option(MODEL, default_text=f"{MODEL}, of stores {OUTPUT}", help="Model folder to write.")
    allow_disjoint: bool = option(
        False, help="Go on where the labels of the two sides have nothing in common, or would if they were spelt alike."
    )
    network: NetworkRequest = field(default_factory=NetworkRequest)
    preparation: PreparationRequest = field(default_factory=PreparationRequest)
    training: TrainConfig = field(default_factory=TrainConfig)
    teacher: tuple[Path, ...] = option(
        (),
        help="Store of a larger model or an ensemble whose descriptors are imitated; several with all training images.",
    )
    adapter: AdapterRequest = field(default_factory=AdapterRequest)
    tensorboard: bool = option(False, help="Also write the figures of each epoch for TensorBoard.")
    later: "tuple[TrainJob, ...]" = ()

    def __post_init__(self) -> None:
        """Raises LmrError for several GPUs in one process."""
        super().__post_init__()
        require_one_device(self.device, "start lmr train by torchrun, a process for each, as its help shows")

    @property
    def stages(self) -> "tuple[TrainJob, ...]":
        """All stages, each as a job."""
        return (self, *self.later)

    @property
    def is_on_store(self) -> bool:
        """True where an adapter is trained on a store."""
        return is_store(self.manifest)


_OF_ALL_STAGES = {word for word, _, _ in words_of(DistillationConfig)}
STAGE_WORDS = {word for word, _, _ in words_of(TrainConfig)} - _OF_ALL_STAGES | {"manifest", "negatives", "size", "fit"}


def training_job(words: Mapping[str, Any], stages: Sequence[Mapping[str, Any]] = ()) -> TrainJob:
    """The job of these words. stages: the STAGE_WORDS that each stage of training has of its own.

    Raises TypeError for a word that there is not, LmrError for a value that cannot be, and one given in vain.
    """
    manifests = {word: words.get(word) for word in ("manifest", "negatives", "val")}
    require_words(words, {word: path and Path(path) for word, path in manifests.items()})
    if is_store(Path(words["manifest"])):
        if stages:
            raise LmrError("stages go with pictures; an adapter is trained on a store in one")
        words = with_defaults(words)
    own = stages or ({},)
    for stage in own:
        for word in set(stage) - STAGE_WORDS:
            raise TypeError(f"{word} is no word of a stage of training")
    first, *later = (build(TrainJob, {**words, **stage}) for stage in own)
    job = replace(first, later=tuple(later))
    for each, given in zip(job.stages, own, strict=True):
        _require_used(each, given or words)
    return job


def _require_used(stage: TrainJob, words: Mapping[str, Any]) -> None:
    """LmrError when one of these words was given in vain."""
    names = {word: item.name for word, _, item in words_of(TrainConfig)}
    given = [names.get(word, word) for word in words]
    stage.training.loss.require_used(given)
    if stage.is_on_store and stage.training.loss.name == "linear":
        raise LmrError("`loss` linear goes with pictures; an adapter is trained by the cosines that are compared")
    for name in given:
        if name in _OF_ALL_STAGES and not stage.teacher:
            raise LmrError(f"`{name}` goes with `teacher`, a store of descriptors to imitate")


def train(job: TrainJob, make_validation: "MakeValidation", fit: "FitWhitening") -> "Trained":
    """Trains a network or an adapter, goes on with a training that was stopped, or finds it finished.

    make_validation: from the job, the training data and the preparation of a stage, the device and the number of
    workers to a function that measures a network on `val`, and the digest of that manifest. fit: a whitening, at which
    an adapter begins.
    Raises LmrError for what cannot be used or read, a folder that holds another model or training, a loss that is not
    finite, and where memory or disk are full.
    """
    from retrieval.train.record import find_trained, record_trained, training_request

    if not job.is_on_store:
        network = job.network.named(job.progress if is_first() else SILENT)
        network.require()
        job = replace(job, network=network, later=tuple(replace(stage, network=network) for stage in job.later))
    with output_locks(job.output if is_first() else None, wait=job.wait, progress=job.progress):
        data = _read(job)
        request = training_request(job, data)
        trained = None if job.overwrite else find_trained(job.output, request)
        if trained is not None:
            job.progress.warn(f"{job.output} is trained already; nothing to do")
            list_unreadable(trained.unreadable, len(trained.unreadable), len(data[-1].landmark), job.progress)
            return trained
        trained = _trained(_train(job, data, make_validation, fit), data[-1])
        if is_first():
            list_unreadable(trained.unreadable, len(trained.unreadable), len(data[-1].landmark), job.progress)
            record_trained(job.output, request, trained)
    return trained


def find_rate(job: TrainJob, fit: "FitWhitening") -> "RateTest":
    """The learning rate range test with the first stage of a job; nothing is written. Raises LmrError."""
    from retrieval.models.device import limit_threads, resolve_device, seeded
    from retrieval.train.lr_finder import find_rate as run_test
    from retrieval.train.run import Run

    if not job.is_on_store:
        job.network.require()
    data = _read(job)[0]
    with seeded(job.training.seed), limit_threads(job.threads):
        model, spec = _make_network(job, data, fit)
        run = Run(Path(), resolve_device(job.device), count_workers(job.workers, job.progress), progress=job.progress)
        return run_test(model, data, spec, job.training, run)


def first_batch(job: TrainJob) -> "list[SeenImage]":
    """The first batch of the first stage of a job as the network would see it; nothing is trained.

    Warns of its images that cannot be read; raises LmrError where none of them can.
    """
    from retrieval.train.first_batch import first_batch, seen_images, unreadable_of

    if job.is_on_store:
        raise LmrError(f"{job.manifest} is a store of descriptors, of which there are no pictures to show")
    job.network.require()
    data = _read(job)[0]
    _, spec = job.network.build(job.preparation)
    batch = first_batch(data, spec, job.training)
    list_unreadable(unreadable_of(batch, data), 0, 0, job.progress)
    if not batch.rows:
        reason = next(iter(batch.unreadable.values()))
        raise LmrError(f"no picture of the first batch can be read ({reason}); check `images`")
    return seen_images(batch, data, spec)


def _read(job: TrainJob) -> "list[TrainingData]":
    """The training data of each stage; what several stages have in common is read once."""
    from retrieval.train.data import read_training_data

    if job.is_on_store:
        from retrieval.train.stored.rows import read_stored

        job.column_names.refuse(job.manifest, "a store")
        return [read_stored(job.manifest, job.negatives, job.training.sampling, job.progress)]
    kinds = [(stage.manifest, stage.negatives, stage.training.sampling) for stage in job.stages]
    names = {stage.manifest: job.column_names_beside for stage in job.stages} | {job.manifest: job.column_names}
    how: dict[str, Any] = {"load": job.load, "teachers": job.teacher, "progress": job.progress}
    read = {
        kind: read_training_data(*kind[:2], job.images, kind[2], names=names[kind[0]], **how)
        for kind in dict.fromkeys(kinds)
    }
    return [read[kind] for kind in kinds]


def _make_network(job: TrainJob, data: "TrainingData", fit: "FitWhitening") -> "tuple[DescriptorModel, ImageSpec]":
    """The network to begin with, of random numbers that depend on the seed, and how images are prepared for it."""
    from retrieval.models.device import seeded

    with seeded(job.training.seed):
        if data.stored is None:
            return job.network.build(job.preparation)
        from retrieval.train.stored.adapter import adapter_network

        base = _base_of(job, data)
        d = None if job.network.n_dimensions == NetworkRequest.n_dimensions else job.network.n_dimensions
        return adapter_network(base, data.stored, job.adapter, d, fit), base.card.image_spec


def _base_of(job: TrainJob, data: "TrainingData") -> "BaseModel":
    """The model whose descriptors are trained on. LmrError for one that did not make them, or is the output."""
    from retrieval.train.stored.adapter import open_base

    assert data.stored is not None
    if job.output.resolve() == job.adapter.model.resolve():
        raise LmrError(f"`output` {job.output} is the model that made the store; give another folder")
    return open_base(job.adapter.model, data.stored.stores)


def _train(
    job: TrainJob, data: "Sequence[TrainingData]", make_validation: "MakeValidation", fit: "FitWhitening"
) -> "TrainingState":
    """Trains through the stages, or goes on where the training in the folder stopped."""
    from retrieval.models.device import limit_threads, resolve_device, seeded
    from retrieval.train.distributed import joined_processes
    from retrieval.train.loop import train_stages
    from retrieval.train.run import summary_writer
    from retrieval.train.state import read_state

    model, spec = _make_network(job, data[0], fit)
    if job.tensorboard:
        summary_writer()  # refused now, not after the first epoch
    random = seeded(job.training.seed)  # the stages seed again
    with limit_threads(job.threads), random, joined_processes(resolve_device(job.device)) as processes:
        specs = [stage.preparation.adjusted(spec) for stage in job.stages]
        stages = list(_make_stages(job, data, specs, processes, make_validation))
        if is_first():
            _make_way(job.output, overwrite=job.overwrite)
        processes.first_says(None)
        found = read_state(job.output)
        state = train_stages(model, stages)
    job.progress.end()
    if is_first() and found is not None and found[1].epoch == len(state.log):
        _require_whole(job.output)
        job.progress.warn(f"{job.output} is trained already; nothing to do")
    return state


def _make_stages(
    job: TrainJob,
    data: "Sequence[TrainingData]",
    specs: "Sequence[ImageSpec]",
    processes: "Processes",
    make_validation: "MakeValidation",
) -> "Iterator[Stage]":
    from retrieval.train.loader import count_steps
    from retrieval.train.loop import Stage, stage_folder
    from retrieval.train.run import Run, StepTeller, epoch_teller, save_network

    n_workers = count_workers(job.workers, job.progress)
    configs = [stage.training for stage in job.stages]
    steps = StepTeller(job.progress, configs, lambda: list(map(count_steps, data, configs)))
    for number, (stage, part, spec) in enumerate(zip(job.stages, data, specs, strict=True), start=1):
        validate, validation = None, None
        if job.val is not None:
            validate, validation = make_validation(job, part, spec, processes.device, n_workers)
        folder = stage_folder(job.output, number, len(specs))
        run = Run(
            folder,
            processes.device,
            n_workers,
            validate,
            validation,
            on_step=steps.of_stage(number),
            on_epoch=epoch_teller(job.progress, folder / "tensorboard" if job.tensorboard else None),
            progress=job.progress,
            processes=processes,
            save=save_network if part.stored is None else _base_of(job, part).save,
        )
        yield Stage(part, spec, stage.training, run)


def _make_way(output: Path, *, overwrite: bool) -> None:
    """Refuses a model that another run made; with `overwrite` the training starts afresh."""
    from retrieval.models.folder import CARD, STATE_NAME, require_no_strangers
    from retrieval.train.record import forget_trained

    if overwrite:
        forget_trained(output)
        for folder in (output, *output.glob("stage-*")):
            for old in (folder / STATE_NAME, *folder.glob("features-*")):  # whose images may be others by now
                old.unlink(missing_ok=True)
    elif (output / CARD).exists() and not (output / STATE_NAME).exists():
        raise LmrError(f"{output} holds a model already; give `overwrite` or another `output`")
    else:
        require_no_strangers(output)


def _require_whole(output: Path) -> None:
    """LmrError where a finished training has lost its model since."""
    from retrieval.models.checkpoint import read_card, require_weights

    try:
        require_weights(output, read_card(output))
    except DamageError as error:
        raise LmrError(f"{output} is trained already, but is not whole: {error}; `overwrite` trains anew") from error


def _trained(state: "TrainingState", data: "TrainingData") -> "Trained":
    """Outcome of a finished training. data: of the last stage."""
    from retrieval.train.record import Trained

    ids = data.image_id
    unreadable = {str(ids[row]) if ids else f"row {row}": reason for row, reason in state.unreadable.items()}
    return Trained([dict(row) for row in state.log], unreadable, "trained")
