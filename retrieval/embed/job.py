"""Embedding a manifest: its images, a model and how it embeds them, to a descriptor store."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retrieval.data.request import CellsJob, ImagesJob
from retrieval.device_name import require_one_device
from retrieval.embed.complete import embed_manifest
from retrieval.embed.engine import EngineJob
from retrieval.embed.store_name import STORES, find_store, store_name
from retrieval.errors import LmrError, WordsError
from retrieval.extras import install_hint, require_extra
from retrieval.files.digest import sha256_json
from retrieval.files.lock import output_lock, output_locks
from retrieval.jobs import ComputingJob, WritingJob, option, settings_of, word_of
from retrieval.local.config import LocalOptions
from retrieval.models.packaged import EXTRA, LITE2, PACKAGED
from retrieval.models.request import EmbedRequest, NetworkRequest
from retrieval.shard import Shard, ShardedJob
from retrieval.spark.config import SparkJob

if TYPE_CHECKING:
    from retrieval.embed.fill import FillReport, FillRun
    from retrieval.models.card import Card

MODEL = Path("model")
_OF_A_STORE = {
    "manifest",
    "model",
    "output",
    "dtype",
    "descriptor",
    "overwrite",
    "wait",
    "device",
    "threads",
    "workers",
}
MOST_AT_ONCE = 65_536  # images; a batch of more fits into no memory


@dataclass(frozen=True, kw_only=True)
class UntrainedNetwork(NetworkRequest):
    """A network that is used as it is; a neck that nothing has trained would only lose."""

    backbone: str = option(
        "",
        default_text=f"none; {LITE2} where there is no model and the extra {EXTRA} is installed",
        help=f"Make a network: {LITE2}, a classification network of torchvision, timm:NAME or plain-cnn.",
    )
    n_dimensions: int = option(0, help="Length of a descriptor; 0 = the pooled features, without a neck.")

    def embedding(self, asked: EmbedRequest) -> EmbedRequest:
        """The way in which images are embedded: as was asked for, else as suits the packaged network as it comes."""
        if (source := self.packaged) is None:
            return asked
        return replace(
            asked,
            size=source.untrained_size if asked.size is None else asked.size,
            fit=source.untrained_fit if asked.fit is None else asked.fit,
            flip=True if asked.flip is None else asked.flip,
        )


@dataclass(frozen=True, kw_only=True)
class StoreFilling(ImagesJob, ComputingJob):
    """Fill a store from images, or find it filled from the same ones."""

    check: Literal["size", "content"] = option(
        "size",
        help="Images of a store that is there are unchanged by size and modification time, or only by content (reads "
        "all). Changed ones are embedded again.",
    )


@dataclass(frozen=True, kw_only=True)
class AskingJob(StoreFilling, EngineJob):
    """Fill a store by the network of an index folder."""


@dataclass(frozen=True)
class EmbedJob(StoreFilling, CellsJob, ShardedJob, WritingJob, SparkJob):
    """Embed the images of a manifest, or a share of them.

    network: made here and saved to `model`; None = the one that is in `model`.
    """

    manifest: Path = option(Path("train.csv"), is_argument=True)
    _: KW_ONLY
    model: Path = option(MODEL, help="Model folder, or a file of lmr export.")
    output: Path | None = option(None, default_text="MANIFEST with .h5, beside it", help="Store to write.")
    embedding: EmbedRequest = field(default_factory=EmbedRequest)
    dtype: Literal["float16", "float32"] = option("float16", help="Storage dtype of the descriptors.")
    batch_size: int | None = option(
        None,
        low=1,
        high=MOST_AT_ONCE,
        default_text="found by trying, where it changes no descriptor",
        help="Images that the network is given at once.",
    )
    engine: Literal["local", "spark", "torch", "compiled", "openvino"] = option(
        "local",
        help="What computes: local (torch on this machine), spark (a cluster), torch, torch.compile where that pays, "
        "or on the CPU openvino, which may be faster there.",
    )
    retry_unreadable: bool = option(False, help="Try the unreadable images of a finished store again.")
    profile: bool = option(False, help="Tell where the time went: reading, decoding, the network, writing.")
    network: UntrainedNetwork | None = None
    local_features: LocalOptions = field(default_factory=LocalOptions)

    def __post_init__(self) -> None:
        """Raises LmrError for several GPUs at once, options of local features without their kind, and for Spark."""
        super().__post_init__()
        if self.local_features != LocalOptions():
            self.local_features.require_kind()
        require_one_device(self.device, "give each a share of the images, as with `shard` 1/2 and `shard` 2/2")
        if self.on_spark:
            self._require_for_spark()

    def _require_for_spark(self) -> None:
        if self.shard is not None:
            raise WordsError("`shard` does not go with `engine` spark, which makes shares by itself; leave one out")
        if self.profile:
            raise WordsError("`profile` does not go with `engine` spark; it tells of one machine")
        if self.local_features.n_dimensions:
            raise WordsError("`local_dimensions` is learnt on all images, and does not go with `engine` spark")


def embed(job: EmbedJob) -> "tuple[Path, FillReport]":
    """Makes, completes or finds the store of a manifest; where it is, and what was done.

    Raises LmrError for what cannot be used, a store that was made of something else, and where no image is readable.
    """
    from retrieval.data.image_source import images_folder, index_tars
    from retrieval.embed.fill import require_same_job
    from retrieval.embed.shares import plan_local

    if job.manifest.suffix in STORES:
        return _adapt(job)
    job = with_network(job)
    if job.on_spark:
        from retrieval.embed.spark import embed_on_spark

        return embed_on_spark(job)
    share, engine = job.share, engine_of(job)
    if engine == "openvino":
        require_extra("`engine` openvino", "openvino", "openvino")
    named = of_share(job.output or store_name(job.manifest, "output"), share)
    model = job.model if job.network and share is None else None  # shares make it one after the other, then go on
    with output_locks(named, model, wait=job.wait, progress=job.progress):
        output = of_share(job.output or find_store(job.manifest, "output", job.progress), share)
        index_tars(job.manifest, job.progress)
        rows = job.load(job.manifest, job.progress, job.column_names).share(share)
        images = images_folder(job.images, job.manifest, job.progress)

        def check(card: "Card") -> None:
            require_same_job(output, rows, card, fill_run(job))

        if job.network is None:
            card = find_card(job)
        else:
            with output_lock(job.model, wait=job.wait or share is not None, progress=job.progress):
                card = make_card(job, job.network, check)
        fill_local = plan_local(rows, images, output, job)
        how: dict[str, Any] = {"batch_size": job.batch_size, "engine": engine}
        report = embed_manifest(rows, images, job.model, card, output, run=fill_run(job), job=job, **how)
        report = replace(report, local=fill_local())
    if report.n_unreadable > len(report.unreadable):
        job.progress.warn(
            "`retry_unreadable` tries the unreadable ones again; pictures that changed are tried without it"
        )
    return output, report


def with_network(job: EmbedJob) -> EmbedJob:
    """The job with a network where it names neither one nor a model, there is none, and the extra weights is there."""
    asked = job.network or UntrainedNetwork()
    if asked.backbone or job.model != MODEL or MODEL.exists():
        return job
    network = asked.named(job.progress)
    return job if network.packaged is None else replace(job, network=network)


def _adapt(job: EmbedJob) -> "tuple[Path, FillReport]":
    """The store of a store's images by the adapter of a model, or of a part of their descriptors.

    It is what embedding the images so makes.
    """
    from retrieval.embed.complete import adapt_whole

    plain = {word_of(item): value for item, value in settings_of(EmbedJob(job.manifest))}
    given = {word_of(item): value for item, value in settings_of(job)}
    for word in given.keys() - _OF_A_STORE:
        if word not in plain or given[word] != plain[word]:
            raise LmrError(
                f"`{word}` goes with pictures, which are not looked at where the store {job.manifest} is adapted; "
                "leave it out"
            )
    part = job.embedding.descriptor
    output = job.output or job.manifest.with_name(f"{job.manifest.stem}-{part or job.model.resolve().name}.h5")
    with output_locks(output, wait=job.wait, progress=job.progress):
        how: dict[str, Any] = {"job": job, "overwrite": job.overwrite, "part": part}
        return output, adapt_whole(job.manifest, job.model, output, job.dtype, **how)


def engine_of(job: EmbedJob) -> Literal["compiled", "openvino"] | None:
    """What computes on a machine, as `embed_manifest` takes it."""
    return job.engine if job.engine in ("compiled", "openvino") else None


def of_share(path: Path, share: Shard | None) -> Path:
    """The path of an output, that of a share by a name of its own."""
    return path if share is None else share.beside(path)


def fill_run(job: EmbedJob) -> "FillRun":
    """The filling of the store of a job."""
    from retrieval.embed.fill import FillRun

    return FillRun(job.dtype, job.overwrite, job.retry_unreadable, job.check, profile=job.profile)


def find_card(job: EmbedJob) -> "Card":
    """The card of the model, with the preparation that was asked for."""
    from retrieval.embed.load import adjusted_card, open_card
    from retrieval.models.folder import CARD

    if job.model.suffix != ".onnx" and not (job.model / CARD).exists():
        how = f"lmr embed `backbone` {LITE2} needs no training"
        if not PACKAGED[LITE2].is_installed():
            how = f"{install_hint(EXTRA)} brings a network: then {how}"
        raise LmrError(f"{job.model}: there is no model; {how}, and lmr train train.csv makes one")
    return adjusted_card(job.model, open_card(job.model), job.embedding.settings())


def make_card(job: EmbedJob, network: UntrainedNetwork, check: "Callable[[Card], None]") -> "Card":
    """Makes the network that was asked for and saves it to the model folder, unless that very model is there.

    check: is given its card before anything is written, and may raise.
    """
    model, asked = job.model, network.embedding(job.embedding)
    if not network.backbone:
        plain = UntrainedNetwork()
        others = [word_of(item) for item in fields(network) if getattr(network, item.name) != getattr(plain, item.name)]
        first = others[0] if others else "pooling"
        raise LmrError(f"`{first}` needs `backbone`; without it the network is the one in `model` {model}")
    network.require()
    request = sha256_json(
        network.identity(
            size=asked.size,
            fit=asked.fit,
            colors=asked.colors,
            descriptor=asked.descriptor,
            scales=asked.scales,
            flip=asked.flip,
        )
    )
    if not job.overwrite and (made := _made_already(model, request)) is not None:
        return made
    from retrieval.models.card import ModelCard
    from retrieval.models.checkpoint import save_model, weights_digest
    from retrieval.models.device import resolve_device, seeded
    from retrieval.models.folder import CARD, STATE_NAME, read_card, require_no_strangers

    resolve_device(job.device)
    with seeded(0):
        made_network, spec = network.build(asked)
    card = ModelCard(made_network.config, spec, weights_digest(made_network)).adjusted(asked.settings())
    made_network.length(card.descriptor)  # refuses what the network does not have
    if (model / CARD).exists() and not job.overwrite:
        found = read_card(model)
        if (found.config, found.weights_sha256) != (card.config, card.weights_sha256):
            raise LmrError(f"{model} holds another model; give `overwrite` or another `model`")
        return card
    check(card)
    if not job.overwrite:
        require_no_strangers(model)
    if (model / STATE_NAME).exists():
        (model / STATE_NAME).unlink()
    made_by = {
        "backbone": network.backbone,
        "pretrained": network.pretrained,
        "weights": str(network.weights or ""),
        "request": request,
    }
    return save_model(
        model,
        made_network,
        card.image_spec,
        flip=card.flip,
        descriptor=card.descriptor,
        scales=card.scales,
        made_by=made_by,
    )


def _made_already(model: Path, request: str) -> "Card | None":
    """The card of the model that the same request made, where it is whole: known without making it again."""
    from retrieval.models.folder import CARD, read_card, require_weights

    if not (model / CARD).exists():
        return None
    try:
        card = read_card(model)
        require_weights(model, card)
    except LmrError:
        return None
    return card if card.made_by.get("request") == request else None
