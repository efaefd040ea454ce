"""Tuning: the settings of an index that held-out queries choose, and the index built with them."""

import tempfile
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from index.build_index import STORE, BuildJob
from index.calibrate.config import CalibrationSettings
from index.calibrate.job import CalibrateJob
from index.folder.config import INDEX_FOLDER
from index.queries import Asked, QueriesJob, store_of
from index.search.address import require_folder
from index.verify import STORES
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import ComputingJob, option, told, word_of

if TYPE_CHECKING:
    from index.calibration import Calibration
    from index.folder.inputs import BuildInputs
    from index.tune.material import Finder
    from index.tune.rounds import Found, Setting
    from index.tune.spaces import Space
    from retrieval.models.config import DescriptorPart

# Fields of a job of queries that `lmr calibrate` is told too; those of a manifest do not go with its store.
_OF_MANIFEST = ("images", "columns", "store")
_OF_CALIBRATION = ("allow_disjoint", "within", "verify", "n_verify_top", "matcher")


@dataclass(frozen=True)
class TuneJob(QueriesJob):
    """Choose the settings of an index on labelled queries."""

    queries: Path = field(metadata=told(is_argument=True))
    stores: tuple[Path, ...] = option((STORE,), is_argument=True)
    _: KW_ONLY
    model: Path = option(Path("model"), help="Model folder or file of lmr export that made the descriptors.")
    background: tuple[Path, ...] = option((), help="Store of non-landmarks, besides unlabelled rows.")
    minutes: float = option(10.0, low=0, low_open=True, help="Minutes after which no further setting is tried.")
    n_tries: int | None = option(
        None,
        low=1,
        default_text="as many as there is time for",
        help="Settings to try, however long that takes: the same number and seed give the same again on one machine.",
    )
    apply: bool = option(False, help="Build the index with what is chosen, and calibrate it on the queries.")
    output: Path = option(INDEX_FOLDER, help="Index folder that `apply` builds.")
    settings: CalibrationSettings = field(default_factory=CalibrationSettings)

    def __post_init__(self) -> None:
        """Raises LmrError for queries that are the rows, and for verified answers of no index."""
        super().__post_init__()
        if self.verify and not self.apply:
            raise LmrError("`verify` needs `apply`: answers are verified by an index that is built")
        for path in (*self.stores, *self.background):
            if path == self.queries:
                raise LmrError(f"{path} is given as the queries and for the index; give other pictures for one of them")


@dataclass(frozen=True, slots=True)
class Step:
    """A command that makes the chosen index, and its words."""

    command: str
    words: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What tuning came to, and the steps that make the chosen index.

    n_queries, n_landmark_queries, n_rows: that settings were compared on; n_all_queries, n_all_rows: that there are.
    calibration: of the index that `apply` built, None without it.
    """

    found: "Found"
    steps: tuple[Step, ...]
    queries: str
    seed: int
    n_queries: int
    n_landmark_queries: int
    n_rows: int
    n_all_queries: int
    n_all_rows: int
    warnings: tuple[str, ...]
    calibration: "Calibration | None" = None

    def to_json(self) -> dict[str, Any]:
        """As one JSON object; `steps` are left to those that spell commands."""
        found, counts = self.found, ("n_queries", "n_landmark_queries", "n_rows", "n_all_queries", "n_all_rows")
        return {
            "queries": self.queries,
            "seed": self.seed,
            **{name: getattr(self, name) for name in counts},
            "n_tries": found.n_tries,
            "n_planned": found.n_planned,
            "default": asdict(found.default),
            "nested": {**asdict(found.nested), "gain": found.gain, "gain_error": found.gain_error},
            "tried": _setting(found.tried),
            "chosen": {**_setting(found.chosen), "is_default": found.is_default},
            "by_choice": _by_choice(found),
            "trials": [
                {**_setting(t.setting), **asdict(t.figures), "gain": t.gain, "gain_error": t.gain_error}
                for t in found.trials
            ],
            "applied": None if self.calibration is None else asdict(self.calibration.cross_validated),
            "warnings": list(self.warnings),
        }


def _by_choice(found: "Found") -> dict[str, list[dict[str, Any]]]:
    """For each choice the GAP of the best trial with each of its values, the best first."""
    choices: dict[str, list[dict[str, Any]]] = {}
    for trial in found.trials:  # the best is first
        for name, value in trial.setting.space.to_json().items():
            known = choices.setdefault(name, [])
            if value is not None and all(row["value"] != value for row in known):
                known.append({"value": value, "gap": trial.figures.gap})
    return choices


def _setting(setting: "Setting") -> dict[str, Any]:
    return {**setting.space.to_json(), "vote": asdict(setting.rule)}


def tune(job: TuneJob) -> TuneResult:
    """Chooses the settings of an index on labelled queries, and with `apply` builds and calibrates it.

    Raises LmrError for queries and stores that cannot be used, for the solution of a test, and with `apply` for an
    index folder that is there, which `overwrite` replaces.
    """
    require_folder(job.output)
    if job.apply and job.output.exists() and not job.overwrite:
        raise LmrError(f"{job.output} exists; give `overwrite` to replace it by what is chosen, or another `output`")
    with output_locks(job.output if job.apply else None, wait=job.wait, progress=job.progress):
        result = _choose(job)
        if job.apply:
            spaces = result.found.chosen.space, result.found.usual.space
            result = replace(result, calibration=_apply(job, *spaces))
    return result


def _choose(job: TuneJob) -> TuneResult:
    """What tuning came to."""
    from index.build_index import read_inputs
    from index.evaluate.places import placed_index
    from index.folder.inputs import gather
    from index.queries import embed_by
    from index.tune.material import Finder, draw_material
    from index.tune.rounds import Limit, run_rounds
    from index.tune.spaces import spaces_of

    limit = Limit(job.minutes, job.n_tries)
    _refuse_solution(job)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = read_inputs(_build_job(job), Path(scratch) / "model")
        gathered = gather(inputs)
        asking = replace(job, verify=False, n_verify_top=None, matcher=None)
        source = ", ".join(store.source for store in inputs.stores)
        placed = None if job.within_m is None else placed_index(gathered, source, job.within_m)
        store, queries = embed_by(Asked(inputs.model_path, gathered.landmarks, source, placed), job.queries, asking)
    share = job.settings.non_landmark_share
    material = draw_material(gathered, inputs.stores[0], store, queries, share, job.settings.seed)
    spaces = spaces_of(material.choices(may_leave_background=not _has_own_background(inputs)))
    if job.verify:  # local features lie beside the stores as they are
        spaces = [space for space in spaces if space.descriptor == spaces[0].descriptor]
    finder = Finder(material, spaces[0], job.settings.seed, job.threads)
    found = run_rounds(finder, spaces, limit, job.progress)
    return _result(job, found, finder)


def _refuse_solution(job: TuneJob) -> None:
    """Refuses queries that a test is scored by: settings chosen on them would make its score worthless."""
    from retrieval.data.image_source import index_tars
    from retrieval.data.overview import load_manifest, require_there
    from retrieval.progress import SILENT

    require_there(job.queries)
    if job.queries.suffix in STORES:
        return
    index_tars(job.queries, job.progress)
    if load_manifest(job.queries, SILENT, job.column_names).usage is not None:
        raise LmrError(
            f"{job.queries} has a Usage column: it is the solution of a test, and what is chosen on it would be too "
            "good there; give held-out training pictures, as lmr split makes them"
        )


def _has_own_background(inputs: "BuildInputs") -> bool:
    """Unlabelled rows of the index's stores, which are its background whatever is asked for."""
    return any(bool((store.done & (store.landmark < 0)).any()) for store in inputs.stores)


def _result(job: TuneJob, found: "Found", finder: "Finder") -> TuneResult:
    from index.calibrate.precision import few_queries

    material = finder.material
    n = len(material.queries)
    return TuneResult(
        found=found,
        steps=_steps(job, found.chosen.space, found.usual.space),
        queries=str(job.queries),
        seed=job.settings.seed,
        n_queries=n,
        n_landmark_queries=int(material.truths.known.sum()),
        n_rows=len(material.rows),
        n_all_queries=material.n_queries,
        n_all_rows=material.n_rows,
        warnings=(*finder.warnings, *few_queries(n, "the figures and what was chosen by them")),
    )


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What an index in a space is built from and calibrated on. parts: stores that are made first, of these."""

    stores: tuple[Path, ...]
    background: tuple[Path, ...]
    queries: Path
    parts: Mapping[Path, Path]


def _inputs_of(job: TuneJob, space: "Space", usual: "Space") -> _Inputs:
    """The inputs of an index in a space. usual: the space of the stores as they are."""
    background = job.background if space.background else ()
    if space.descriptor == usual.descriptor:
        return _Inputs(job.stores, background, job.queries, {})
    given = (*job.stores, *background, store_of(job.queries, job))
    parts = {path: path.with_name(f"{path.stem}-{space.descriptor}.h5") for path in given}
    stores, others = (tuple(parts[path] for path in paths) for paths in (job.stores, background))
    return _Inputs(stores, others, parts[given[-1]], parts)


def _steps(job: TuneJob, space: "Space", usual: "Space") -> tuple[Step, ...]:
    """The commands that make an index in a space. usual: that of the stores as they are."""
    inputs = _inputs_of(job, space, usual)
    steps = [Step("embed", _given(job, manifest=path, descriptor=space.descriptor)) for path in inputs.parts]
    options = {word: value for word, value in space.to_json().items() if word.startswith(("whitening", "dimensions"))}
    if space.whitening == "none":
        options = {"whitening_power": 0}
    local = job.verify or None
    steps.append(
        Step("build-index", _given(job, stores=inputs.stores, background=inputs.background, local=local, **options))
    )
    settings = {word_of(item): getattr(job.settings, item.name) for item in fields(job.settings)}
    asked = {word: value for word, value in settings.items() if value != asdict(CalibrationSettings())[word]}
    own = {item.name: item for item in fields(QueriesJob)}
    for name in _OF_CALIBRATION if inputs.parts else (*_OF_MANIFEST, *_OF_CALIBRATION):
        asked[word_of(own[name])] = getattr(job, name) or None
    steps.append(Step("calibrate", _given(job, queries=inputs.queries, **asked)))
    return tuple(steps)


def _given(job: TuneJob, **words: Any) -> dict[str, Any]:
    """The words that say something, and those of the job that every step needs."""
    places = {"model": (job.model, Path("model"))} if "queries" not in words else {}
    if "manifest" not in words:
        places["output" if "stores" in words else "index"] = (job.output, INDEX_FOLDER)
    own = {name: value for name, (value, usual) in places.items() if value != usual}
    return {name: value for name, value in {**words, **own}.items() if value not in (None, ())}


def _build_job(job: TuneJob, space: "Space | None" = None, inputs: _Inputs | None = None) -> BuildJob:
    """The build of the index. space: None = only what it is built from matters."""
    asked = {item.name: getattr(job, item.name) for item in fields(ComputingJob)}
    build = BuildJob(job.stores, model=job.model, background=job.background, output=job.output, **asked)
    if space is None or inputs is None:
        return build
    options = space.build_options()
    how: dict[str, Any] = {"local": job.verify, "overwrite": job.overwrite, "wait": job.wait}
    return replace(build, stores=inputs.stores, background=inputs.background, options=options, **how)


def _apply(job: TuneJob, space: "Space", usual: "Space") -> "Calibration":
    """Builds and calibrates the index. A kill leaves the old one, or the new one without a calibration."""
    from index.build_index import build_index
    from index.calibrate.job import calibrate
    from retrieval.embed.job import EmbedJob, embed
    from retrieval.models.request import EmbedRequest

    inputs = _inputs_of(job, space, usual)
    asked = {item.name: getattr(job, item.name) for item in fields(ComputingJob)}
    for path in inputs.parts:
        part = EmbedRequest(descriptor=cast("DescriptorPart", space.descriptor))
        embed(EmbedJob(path, model=job.model, embedding=part, overwrite=job.overwrite, wait=job.wait, **asked))
    build_index(_build_job(job, space, inputs))
    left_out = {"overwrite", *(_OF_MANIFEST if inputs.parts else ())}
    own = {item.name: getattr(job, item.name) for item in fields(QueriesJob) if item.name not in left_out}
    return calibrate(CalibrateJob(inputs.queries, index=job.output, settings=job.settings, **own))
