"""A small set of rendered landmarks with manifests: what `lmr demo` trains and tests on.

Every image has a seed of its own, so the number of workers and their order change nothing.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from io import BytesIO, StringIO
from itertools import accumulate
from pathlib import Path

import numpy as np

from cli.demo.buildings import FAMILIES, Building, build
from cli.demo.kit import draw_look
from cli.demo.light import cloud_tile
from cli.demo.names import landmark_names
from cli.demo.props import Props, make_props
from cli.demo.views import NON_LANDMARK_KINDS, ViewSpec, render_building, render_other
from cli.demo.windows import Look
from retrieval.arrays import FloatArray
from retrieval.errors import DamageError, LmrError
from retrieval.files.atomic import write_error, write_text
from retrieval.files.folders import flush_tree
from retrieval.files.json_file import read_json, write_json
from retrieval.parallel import run_tasks

FORMAT_VERSION = 1
RECORD = "scenes.json"
JPEG_QUALITY = 88
_IMAGES_A_TASK = 25


@dataclass(frozen=True, slots=True)
class SceneSpec:
    """How many images there are, and how hard they are.

    n_train, n_val, n_test, n_background: images. n_families: silhouettes; landmarks beyond that many are siblings
    of the first ones, with the same silhouette, material, wall colour and roof. non_landmark_share: of val and
    test. fewest_train: images of the rarest landmark in train. generic_share: of the non-landmarks, those that
    show an unknown building.
    """

    n_landmarks: int = 12
    n_families: int = 12
    n_train: int = 640
    n_background: int = 200
    n_val: int = 240
    n_test: int = 300
    non_landmark_share: float = 0.33
    generic_share: float = 0.25
    fewest_train: int = 25
    view: ViewSpec = field(default_factory=ViewSpec)

    def __post_init__(self) -> None:
        if self.n_landmarks < 2 or self.fewest_train < 1 or not 1 <= self.n_families <= len(FAMILIES):
            raise ValueError(f"{self}: at least two landmarks, a training picture each, 1 to {len(FAMILIES)} families")
        if self.n_train < self.n_landmarks * self.fewest_train:
            raise ValueError(f"n_train {self.n_train} is less than {self.fewest_train} for each landmark")
        if not (0 <= self.non_landmark_share < 1 and 0 <= self.generic_share <= 1):
            raise ValueError(f"shares {self.non_landmark_share}, {self.generic_share} are not within 0 and 1")


@dataclass(frozen=True, slots=True)
class DemoSet:
    """Where the parts of a rendered set are."""

    folder: Path
    images: Path
    train: Path
    val: Path
    test: Path
    test_solution: Path
    background: Path
    names: Path
    n_pictures: int


@dataclass(frozen=True, slots=True)
class Shot:
    """One image to render. landmark: its number, -1 = none."""

    split: str
    image_id: str
    landmark: int
    kind: str
    seed: tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """The landmarks of a seed: their looks, families, names, and the stock that stands about."""

    looks: tuple[Look, ...]
    families: tuple[str, ...]
    names: tuple[tuple[str, str], ...]
    stock: tuple[Props, FloatArray]

    def label(self, landmark: int) -> str:
        """The landmark_id: the name without spaces; blank for -1."""
        return "" if landmark < 0 else self.names[landmark][0].lower().replace(" ", "_")


def render_demo(
    folder: Path,
    *,
    seed: int,
    spec: SceneSpec | None = None,
    threads: int = 1,
    on_done: Callable[[int, int], None] | None = None,
) -> DemoSet:
    """Render the set into a folder, or take it as it is when it was finished before.

    on_done is called with the number of finished images and of all images. An interrupted set is rendered
    again from its start. Raises LmrError if the folder holds another set or somebody's own manifests.
    """
    spec = spec or SceneSpec()
    shots = plan(spec, seed)
    demo = _demo_set(Path(folder), len(shots))
    record = {"format_version": FORMAT_VERSION, "seed": seed, "spec": asdict(spec), "n_pictures": len(shots)}
    if _finished(demo, record):
        return demo
    try:
        demo.images.mkdir(parents=True, exist_ok=True)
        _write_record(demo, {**record, "finished": False})
        for n_done in _render_all(shots, (str(demo.images), seed, spec), threads):
            if on_done is not None:
                on_done(n_done, len(shots))
        flush_tree(demo.images)
        _write_manifests(demo, shots, world(seed, spec.n_landmarks, spec.n_families), seed)
        _write_record(demo, {**record, "finished": True})
    except OSError as error:
        raise write_error(demo.folder, error) from error
    return demo


def plan(spec: SceneSpec, seed: int) -> list[Shot]:
    """Every image of the set, in the order of the manifests."""
    rng = np.random.default_rng([seed, 11])
    extra = spec.n_train - spec.n_landmarks * spec.fewest_train
    counts = spec.fewest_train + rng.multinomial(extra, rng.dirichlet(np.full(spec.n_landmarks, 1.5)))
    rows = [("train", c, "landmark") for c in np.repeat(np.arange(spec.n_landmarks), counts).tolist()]
    rows += [("background", -1, kind) for kind in _kinds(spec.n_background, spec, rng)]
    for split, n in (("val", spec.n_val), ("test", spec.n_test)):
        others = _kinds(round(n * spec.non_landmark_share), spec, rng)
        known = np.resize(rng.permutation(spec.n_landmarks), n - len(others)).tolist()
        rows += [(split, c, "landmark") for c in known] + [(split, -1, kind) for kind in others]
    shots = [
        Shot(split, f"{int(rng.integers(2**63)):016x}", landmark, kind, (seed, 23, i))
        for i, (split, landmark, kind) in enumerate(rows)
    ]
    order = rng.permutation(len(shots))
    return [shots[i] for i in order]


def _kinds(n: int, spec: SceneSpec, rng: np.random.Generator) -> list[str]:
    rest = (1 - spec.generic_share) / (len(NON_LANDMARK_KINDS) - 1)
    shares = [spec.generic_share if kind == "generic-building" else rest for kind in NON_LANDMARK_KINDS]
    return [str(kind) for kind in rng.choice(NON_LANDMARK_KINDS, n, p=shares)]


@lru_cache(maxsize=1)
def world(seed: int, n_landmarks: int, n_families: int) -> World:
    """The landmarks of a seed; see SceneSpec."""
    rng = np.random.default_rng([seed, 3])
    order = [str(family) for family in rng.permutation(list(FAMILIES))]
    families: list[str] = []
    looks: list[Look] = []
    for i in range(n_landmarks):
        families.append(order[i % n_families])
        looks.append(draw_look(rng, looks[i - n_families] if i >= n_families else None))
    names = landmark_names(families, rng)
    return World(tuple(looks), tuple(families), tuple(names), (make_props(seed), cloud_tile(rng)))


@lru_cache(maxsize=4)
def _building(look: Look, family: str) -> Building:
    return build(family, look)


def render_shot(shot: Shot, seed: int, spec: SceneSpec) -> bytes:
    """The image of a shot as JPEG bytes."""
    scene = world(seed, spec.n_landmarks, spec.n_families)
    rng = np.random.default_rng(shot.seed)
    if shot.landmark >= 0:
        building = _building(scene.looks[shot.landmark], scene.families[shot.landmark])
        image = render_building(building, scene.stock, spec.view, rng)
    else:
        image = render_other(shot.kind, scene.stock, spec.view, rng)
    out = BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _render_task(shots: list[Shot], place: tuple[str, int, SceneSpec]) -> int:
    folder, seed, spec = place
    for shot in shots:
        Path(folder, f"{shot.image_id}.jpg").write_bytes(render_shot(shot, seed, spec))
    return len(shots)


def _render_all(shots: list[Shot], place: tuple[str, int, SceneSpec], threads: int) -> Iterator[int]:
    """How many are done after each task; tasks are sorted by landmark, so that a worker builds few buildings."""
    ordered = sorted(shots, key=lambda shot: shot.landmark)
    tasks = [ordered[i : i + _IMAGES_A_TASK] for i in range(0, len(ordered), _IMAGES_A_TASK)]
    yield from accumulate(run_tasks(_render_task, tasks, place, threads))


def _demo_set(folder: Path, n_pictures: int) -> DemoSet:
    return DemoSet(
        folder=folder,
        images=folder / "images",
        train=folder / "train.csv",
        val=folder / "val.csv",
        test=folder / "test.csv",
        test_solution=folder / "test_solution.csv",
        background=folder / "background.csv",
        names=folder / "names.csv",
        n_pictures=n_pictures,
    )


def _finished(demo: DemoSet, record: dict[str, object]) -> bool:
    path = demo.folder / RECORD
    if not path.exists():
        taken = [p.name for p in (demo.train, demo.val, demo.test, demo.images) if p.exists()]
        if taken:
            raise LmrError(f"{demo.folder} holds {taken[0]}, which no demo made; give the demo an empty folder")
        return False
    try:
        found = read_json(path, "")
        finished = bool(found.pop("finished"))
    except (DamageError, KeyError):
        raise LmrError(f"{path} is damaged; remove it and the demo set beside it, or give another folder") from None
    if found != json.loads(json.dumps(record)):
        raise LmrError(
            f"{demo.folder} holds a demo set of seed {found.get('seed')} made with other settings than "
            f"those of seed {record['seed']}; delete the folder or give another"
        )
    return finished


def _write_record(demo: DemoSet, record: dict[str, object]) -> None:
    write_json(demo.folder / RECORD, record)


def _write_manifests(demo: DemoSet, shots: list[Shot], scene: World, seed: int) -> None:
    def rows(split: str) -> Iterator[tuple[str, str, str]]:
        return ((s.image_id, scene.label(s.landmark), s.kind) for s in shots if s.split == split)

    usage = np.random.default_rng([seed, 5]).choice(["Public", "Private"], len(shots))
    _write_csv(demo.train, ("image_id", "landmark_id"), [row[:2] for row in rows("train")])
    _write_csv(demo.val, ("image_id", "landmark_id", "kind"), list(rows("val")))
    _write_csv(demo.background, ("image_id", "landmark_id", "kind"), list(rows("background")))
    _write_csv(demo.test, ("image_id",), [row[:1] for row in rows("test")])
    solution = [(i, label, str(usage[n]), kind) for n, (i, label, kind) in enumerate(rows("test"))]
    _write_csv(demo.test_solution, ("id", "landmarks", "Usage", "kind"), solution)
    named = [(scene.label(i), *scene.names[i]) for i in range(len(scene.names))]
    _write_csv(demo.names, ("landmark_id", "name", "address"), named)


def _write_csv(path: Path, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, [text.getvalue()])
