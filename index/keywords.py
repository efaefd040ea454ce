"""Keyword arguments of lmr's functions, for type checkers and editors: the words of each job with their types.

Defaults, bounds and help are in the jobs alone; `tests/test_keywords.py` compares names and types. Text does for a
path. The parts of a job, such as `training`, may also be given whole.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Required, TypedDict

from index.calibrate.config import CalibrationSettings
from index.clean.config import CleaningRule
from index.clean.job import Gallery
from index.folder.config import BuildOptions
from index.search.config import Kind, MilvusKind, Storage
from retrieval.download.config import Form, Layout, Resize
from retrieval.embed.engine import Engine
from retrieval.embed.fill import StoreDtype
from retrieval.embed.job import UntrainedNetwork
from retrieval.images.fetch_rules import FetchRules
from retrieval.images.spec import Colors
from retrieval.local.config import LocalKind, LocalOptions, MatcherName
from retrieval.models.config import DescriptorPart, Pooling
from retrieval.models.request import EmbedRequest, NetworkRequest, PreparationRequest
from retrieval.progress import Progress
from retrieval.split.class_folders import How
from retrieval.split.quotas import Rare
from retrieval.store.changes import Check
from retrieval.train.config import OptimizerName, PrecisionName, ScheduleName, TrainConfig
from retrieval.train.loss_config import BackgroundKind, LossName, MarginKind, MinerName
from retrieval.train.stored.request import AdapterRequest

Place = str | Path


class _Telling(TypedDict, total=False):
    """Word of every function."""

    progress: Progress


class _Decoding(_Telling, total=False):
    """Words of jobs that decode images."""

    workers: int | None


class _Computing(_Decoding, total=False):
    """Words of jobs that decode and compute."""

    device: str
    threads: int | None


class _Writing(TypedDict, total=False):
    """Words of jobs with an output."""

    overwrite: bool
    wait: bool


class _Table(TypedDict, total=False):
    """Word of jobs that read a table of images."""

    column: tuple[str, ...]


class _Images(_Table, total=False):
    """Words of jobs that read the images of a manifest."""

    images: Place | None


class _Cells(TypedDict, total=False):
    """Word of jobs for which a place may be a landmark."""

    cells: str | None


class _Measuring(_Images, total=False):
    """Words of jobs that measure images."""

    facts: Place


class _Sharded(TypedDict, total=False):
    """Word of jobs that can be done by shares."""

    shard: str | None


class _Spark(TypedDict, total=False):
    """Words of jobs that a Spark cluster may do."""

    master: str | None
    tasks: int | None
    spark_conf: tuple[str, ...]


class _Filling(_Images, _Computing, total=False):
    """Words of jobs that fill a store."""

    check: Check


class _Engine(TypedDict, total=False):
    """Word of jobs that embed by the network of an index folder."""

    engine: Engine


class _Verifying(TypedDict, total=False):
    """Words of jobs whose answers may be verified."""

    verify: bool
    verify_top: int | None
    matcher: MatcherName | None


class AskWords(_Telling, _Verifying, total=False):
    """Words of `Landmarks.query`."""

    threshold: float | None
    n_landmarks: int
    allow_private: bool


class ExplainAskWords(AskWords, total=False):
    """Words of `Landmarks.explain`."""

    classifier: Place | None


class SearchWords(_Telling, total=False):
    """Words of `Landmarks.search`."""

    first: int
    n: int
    leave_out: str | None
    landmark: str | None
    sort: Literal["similarity", "megapixels", "pixels_per_inch"]
    fold: bool
    sure: bool


class _Queries(_Filling, _Engine, _Verifying, _Writing, total=False):
    """Words of jobs that ask an index labelled queries."""

    store: Place | None
    allow_disjoint: bool
    within: str | None


class _Fetching(TypedDict, total=False):
    """Words of downloads."""

    connections: int
    per_host: int
    timeout_s: float
    idle_s: float
    retries: int
    back_off_s: float
    max_wait_s: float
    allow_private: bool
    ignore_robots_tag: bool
    user_agent: str
    max_bytes: int
    max_pixels: int


class _Network(TypedDict, total=False):
    """Words of a network that is made."""

    backbone: str
    pooling: Pooling
    gem_p: float
    dimensions: int
    prelu: bool
    last_layer: str | None
    backbone_option: tuple[str, ...]
    pretrained: bool
    weights: Place | None
    mean: str | None
    std: str | None


class _Preparation(TypedDict, total=False):
    """Words of the preparation of images."""

    size: int | None
    fit: Literal["squash", "crop", "pad"] | None
    colors: Colors | None


class _Embedding(_Preparation, total=False):
    """Words of the way in which a model embeds."""

    flip: bool | None
    scales: str | None
    descriptor: DescriptorPart | None


class _Training(TypedDict, total=False):
    """Words of training, which a stage of it may have of its own."""

    epochs: int
    batch_size: int
    accumulate: int
    epoch_size: int | None
    freeze: str
    plain_pictures: bool
    optimizer: OptimizerName
    backbone_rate: float
    head_rate: float
    schedule: ScheduleName
    warmup: float
    rate_drop: float
    rate_drop_epochs: int
    weight_decay: float
    clip_norm: float
    ema: float
    patience: int
    precision: PrecisionName
    compile: bool
    seed: int
    loss: LossName
    margin: MarginKind
    margin_rad: float
    margin_rare_rad: float
    margin_cos: float
    centres: int
    scale: float
    label_smoothing: float
    head_hidden: int
    dropout: float
    class_share: float
    contrastive_cosine: float
    triplet_margin: float
    miner: MinerName
    background: BackgroundKind
    negative_weight: float
    negative_cosine: float
    min_area: float
    flip: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    greyscale: float
    rotation: float
    shift: float
    zoom: float
    blur: float
    jpeg: float
    erasing: float
    cutmix: float
    balance: float
    negative_share: float
    cap: int
    member: int
    floor: int
    min_per_landmark: int
    rare: Rare
    per_landmark: int


class DownloadWords(_Decoding, _Table, _Fetching, _Writing, total=False):
    """Words of `lmr.download`."""

    resize: Resize | None
    size: int
    quality: int
    layout: Layout
    keep_original: bool
    retry_failed: bool
    dry_run: bool
    form: Form
    rules: FetchRules


class ArchiveWords(_Telling, _Fetching, _Writing, total=False):
    """Words of `lmr.download_tars`."""

    mirror: str
    numbers: str | None
    dry_run: bool
    rules: FetchRules


class CleanWords(_Measuring, _Computing, _Writing, total=False):
    """Words of `lmr.clean`."""

    store: Place | None
    background: Sequence[Place]
    output: Place
    review: Place | None
    checks: str
    neighbours: int
    odds: float
    background_margin: float
    near_similarity: float
    near_bits: int
    component_similarity: float
    component_share: float
    min_per_landmark: int
    min_sharpness: float
    min_contrast: float
    min_brightness: float
    max_brightness: float
    min_side_px: int
    diagonal_in: float
    verify: bool
    min_inliers: int
    min_verified: int
    verified_neighbours: int
    relabel: bool
    ppi_range: str | None
    dry_run: bool
    rule: CleaningRule
    gallery: Gallery | None


class _Comparing(_Measuring, _Decoding, total=False):
    """Words of jobs that measure images and compare their descriptors."""

    store: Place | None
    clusters: int | None
    near_similarity: float
    seed: int


class StatsWords(_Comparing, _Spark, total=False):
    """Words of `lmr.stats`."""

    engine: Literal["local", "spark"]
    test: Place | None
    test_images: Place | None
    names: Place | None
    diagonal_in: float
    map_pictures: int
    image_list: Place | None
    boxes: Place | None
    hierarchy: Place | None
    min_label_confidence: float


class MeasureWords(_Comparing, _Sharded, total=False):
    """Words of `lmr.measure`."""

    test: Place | None
    test_images: Place | None


class InfoWords(_Telling, _Table, total=False):
    """Words of `lmr.info`."""

    verify: bool


class ExplainWords(_Telling, total=False):
    """Words of `lmr.explain`."""

    index: Place
    top: int
    device: str
    threads: int | None


class SplitWords(_Measuring, _Decoding, _Writing, total=False):
    """Words of `lmr.split`."""

    output: Place
    val: float | None
    test: float | None
    val_per_landmark: int | None
    test_per_landmark: int | None
    at_least: int
    val_non_landmarks: float | None
    test_non_landmarks: float | None
    landmarks: int | None
    pick: str
    min_per_landmark: int
    rare: Rare
    unknown_landmarks: float
    near_bits: int
    store: Place | None
    near_similarity: float
    ignore_duplicates: bool
    class_folders: Place | None
    links: How
    seed: int
    dry_run: bool


class _Local(TypedDict, total=False):
    """Words of jobs that find local features."""

    local: LocalKind | None
    keypoints: int
    long_side: int
    local_dimensions: int
    local_weights: Place | None


class EmbedWords(_Filling, _Cells, _Sharded, _Writing, _Spark, _Network, _Embedding, _Local, total=False):
    """Words of `lmr.embed`."""

    model: Place
    output: Place | None
    dtype: StoreDtype
    batch_size: int | None
    engine: Literal["local", "spark", "torch", "compiled", "openvino"]
    retry_unreadable: bool
    profile: bool
    embedding: EmbedRequest
    network: UntrainedNetwork | None
    local_features: LocalOptions


class JoinWords(_Telling, _Writing, total=False):
    """Words of `lmr.join`."""

    output: Required[Place]


class BenchWords(_Telling, total=False):
    """Words of `lmr.bench`."""

    rows: int | None
    memory: float | None
    threads: int | None


class BuildWords(_Computing, _Writing, _Spark, total=False):
    """Words of `lmr.build_index`."""

    output: Place
    model: Place
    background: Sequence[Place]
    names: Place | None
    storage: Storage | None
    whitening: Literal["pca", "supervised"]
    whitening_power: float | None
    dimensions: int | None
    kind: Kind
    recall: float
    memory: float | None
    lists: int | None
    shards: int
    augment: int
    augment_alpha: float
    expand: int
    expand_alpha: float
    rerank: int
    rerank_neighbours: int
    rerank_weight: float
    thumbnails: int
    local: bool
    local_store: Sequence[Place]
    local_weights: Place | None
    recalibrate: bool
    engine: Literal["auto", "local", "spark", "onnx", "torch"]
    options: BuildOptions


class _Changing(_Decoding, total=False):
    """Words of functions that change an index."""

    index: Place
    threads: int | None
    wait: bool


class IndexAddWords(_Changing, total=False):
    """Words of `lmr.index_add`."""

    background: bool
    names: Place | None
    local: bool
    local_store: Sequence[Place]
    local_weights: Place | None


class IndexRemoveWords(_Changing, total=False):
    """Words of `lmr.index_remove`."""

    ids_file: Place | None


class IndexMergeWords(_Changing, total=False):
    """Words of `lmr.index_merge`."""

    background: bool


class IndexRelabelWords(_Changing, total=False):
    """Words of `lmr.index_relabel`."""


class IndexCompactWords(_Changing, total=False):
    """Words of `lmr.index_compact`."""

    kind: Kind | None
    recall: float | None
    shards: int | None


class SyncWords(_Filling, _Engine, _Changing, total=False):
    """Words of `lmr.sync`."""

    store: Place | None
    background: bool


class FeedbackWords(_Telling, _Table, _Writing, total=False):
    """Words of `lmr.feedback`."""

    index: Place
    output: Place
    feedback_folder: Place | None
    manifest: Place | None
    queries: Place | None
    images: Place | None
    held_out: float
    at_least: int


class IndexInfoWords(_Telling, total=False):
    """Words of `lmr.index_info`."""


class IndexVerifyWords(_Telling, total=False):
    """Words of `lmr.index_verify`."""

    threads: int | None


class IndexExportWords(_Telling, _Writing, total=False):
    """Words of `lmr.index_export`."""

    index: Place
    kind: MilvusKind | None
    recall: float | None
    leave_out: tuple[Literal["local", "thumbnails"], ...]


class TrainWords(_Images, _Cells, _Computing, _Writing, _Network, _Preparation, _Training, total=False):
    """Words of `lmr.train`, `lmr.find_rate` and `lmr.first_batch`."""

    negatives: Place | None
    val: Place | None
    output: Place
    allow_disjoint: bool
    distill_cosine: float
    distill_relations: float
    teacher: Sequence[Place]
    model: Place
    hidden: int
    start_power: float
    noise: float
    adapter: AdapterRequest
    tensorboard: bool
    network: NetworkRequest
    preparation: PreparationRequest
    training: TrainConfig


class StageWords(_Training, total=False):
    """Words that a stage of `lmr.train` may have of its own."""

    manifest: Place
    negatives: Place | None
    size: int | None
    fit: Literal["squash", "crop", "pad"] | None


class SummaryWords(_Telling, _Network, _Preparation, total=False):
    """Words of `lmr.summarise`."""

    network: NetworkRequest
    preparation: PreparationRequest


class EnsembleWords(_Telling, _Writing, total=False):
    """Words of `lmr.ensemble`."""

    output: Required[Place]
    weight: tuple[float, ...]


class ExportWords(_Telling, _Writing, _Embedding, total=False):
    """Words of `lmr.export`."""

    embedding: EmbedRequest


class CalibrateWords(_Queries, total=False):
    """Words of `lmr.calibrate`."""

    index: Place
    precision: float
    non_landmark_share: float | None
    seed: int
    settings: CalibrationSettings


class TuneWords(_Queries, total=False):
    """Words of `lmr.tune`."""

    precision: float
    non_landmark_share: float | None
    seed: int
    settings: CalibrationSettings
    model: Place
    background: Sequence[Place]
    minutes: float
    tries: int | None
    apply: bool
    output: Place


class EvaluateWords(_Queries, total=False):
    """Words of `lmr.evaluate`."""

    index: Place
    leave_one_out: bool


class EvaluateShareWords(EvaluateWords, _Sharded, total=False):
    """Words of `lmr.evaluate_share`."""


class SubmitWords(_Filling, _Verifying, _Sharded, _Writing, _Spark, total=False):
    """Words of `lmr.submit`."""

    engine: Literal["local", "spark", "auto", "onnx", "torch"]
    index: Place
    store: Place | None
    output: Place
    threshold: float | None


class CompareWords(_Images, _Computing, _Writing, total=False):
    """Words of `lmr.compare`."""

    data: Place
    output: Place
    part: Literal["val", "test"]
    solution: Place | None
    seeds: str
    search: int
    backbone: str | None
    weights: Place | None
    set: tuple[str, ...]
