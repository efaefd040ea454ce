"""The rendered demo set: the same for the same seed, complete, and never over somebody's own files."""

import csv
import json
import multiprocessing
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.demo.buildings import FAMILIES, build
from cli.demo.kit import draw_look
from cli.demo.scenes import DemoSet, SceneSpec, plan, render_demo, world
from cli.demo.views import NON_LANDMARK_KINDS, ViewSpec
from retrieval.errors import LmrError

SMALL = SceneSpec(
    n_landmarks=3,
    n_train=12,
    n_background=4,
    n_val=6,
    n_test=6,
    fewest_train=2,
    view=ViewSpec(size_px=48, supersampling=1.0),
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    return render_demo(tmp_path_factory.mktemp("demo") / "set", seed=0, spec=SMALL)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def content(demo: DemoSet) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(demo.folder.rglob("*")) if path.is_file()}


def test_the_manifests_have_the_columns_and_rows_that_were_asked_for(demo: DemoSet) -> None:
    expected = {
        demo.train: (12, ["image_id", "landmark_id"]),
        demo.val: (6, ["image_id", "landmark_id", "kind"]),
        demo.test: (6, ["image_id"]),
        demo.test_solution: (6, ["id", "landmarks", "Usage", "kind"]),
        demo.background: (4, ["image_id", "landmark_id", "kind"]),
        demo.names: (3, ["landmark_id", "name", "address"]),
    }
    for path, (n, columns) in expected.items():
        assert (len(rows(path)), list(rows(path)[0])) == (n, columns), path.name


def test_every_row_has_one_image_and_every_image_one_row(demo: DemoSet) -> None:
    ids = [row["image_id"] for path in (demo.train, demo.val, demo.test, demo.background) for row in rows(path)]
    assert sorted(f"{image_id}.jpg" for image_id in ids) == sorted(path.name for path in demo.images.iterdir())
    assert len(set(ids)) == len(ids) == demo.n_pictures
    for path in demo.images.iterdir():
        with Image.open(path) as image:
            assert max(image.size) == 48


def test_every_landmark_is_named_and_has_its_fewest_training_images(demo: DemoSet) -> None:
    names = {row["landmark_id"]: row["name"] for row in rows(demo.names)}
    counts = Counter(row["landmark_id"] for row in rows(demo.train))
    assert counts.keys() == names.keys()
    assert min(counts.values()) >= 2
    assert all(label == name.lower().replace(" ", "_") for label, name in names.items())


def test_a_third_of_the_queries_and_all_of_the_background_show_no_landmark(demo: DemoSet) -> None:
    for path, key in ((demo.val, "landmark_id"), (demo.test_solution, "landmarks")):
        blank = [row for row in rows(path) if not row[key]]
        assert len(blank) == 2
        assert {row["kind"] for row in blank} <= set(NON_LANDMARK_KINDS)
        assert all(row["kind"] == "landmark" for row in rows(path) if row[key])
    assert all(not row["landmark_id"] for row in rows(demo.background))


def test_the_solution_answers_the_test_manifest_line_by_line(demo: DemoSet) -> None:
    solution = rows(demo.test_solution)
    assert [row["id"] for row in solution] == [row["image_id"] for row in rows(demo.test)]
    assert {row["Usage"] for row in solution} <= {"Public", "Private"}


def test_two_workers_make_the_same_set_as_one(demo: DemoSet, tmp_path: Path) -> None:
    again = render_demo(tmp_path / "again", seed=0, spec=SMALL, threads=2)
    assert content(again) == content(demo)


def test_another_seed_makes_other_landmarks() -> None:
    first, second = world(0, 3, 3), world(1, 3, 3)
    assert first.names != second.names
    assert first.looks != second.looks


def test_a_finished_set_is_taken_as_it_is(demo: DemoSet) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.folder.rglob("*")}
    assert render_demo(demo.folder, seed=0, spec=SMALL) == demo
    assert {path: path.stat().st_mtime_ns for path in demo.folder.rglob("*")} == before


def test_an_interrupted_set_is_rendered_to_its_end(demo: DemoSet, tmp_path: Path) -> None:
    def die(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_demo(tmp_path, seed=0, spec=SMALL, on_done=die)
    assert not (tmp_path / "train.csv").exists()
    assert content(render_demo(tmp_path, seed=0, spec=SMALL)) == content(demo)


def test_a_killed_renderer_is_one_line_and_the_set_is_rendered_to_its_end(
    demo: DemoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.demo.scenes._IMAGES_A_TASK", 1)

    def kill(*_: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(LmrError) as error:
        render_demo(tmp_path, seed=0, spec=SMALL, threads=2, on_done=kill)
    assert str(error.value) == (
        "a process that works on pictures was killed, most often for want of memory; "
        "run the same command again with fewer `workers`"
    )
    assert content(render_demo(tmp_path, seed=0, spec=SMALL)) == content(demo)


def test_progress_counts_up_to_all_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    spec = replace(SMALL, n_background=0, n_val=0, n_test=0)
    render_demo(tmp_path, seed=0, spec=spec, on_done=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)
    assert seen == sorted(seen)


def test_a_set_of_another_seed_is_refused(demo: DemoSet) -> None:
    with pytest.raises(LmrError) as error:
        render_demo(demo.folder, seed=1, spec=SMALL)
    assert str(error.value) == (
        f"{demo.folder} holds a demo set of seed 0 made with other settings than those of seed 1; "
        "delete the folder or give another"
    )


def test_a_folder_with_somebodys_own_manifest_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("id,landmark_id\nmine,1\n")
    with pytest.raises(LmrError) as error:
        render_demo(tmp_path, seed=0, spec=SMALL)
    assert str(error.value) == f"{tmp_path} holds train.csv, which no demo made; give the demo an empty folder"
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"finished": true'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "scenes.json").write_text(text)
    with pytest.raises(LmrError) as error:
        render_demo(tmp_path, seed=0, spec=SMALL)
    record = tmp_path / "scenes.json"
    assert str(error.value) == f"{record} is damaged; remove it and the demo set beside it, or give another folder"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LmrError) as error:
        render_demo(tmp_path / "file" / "set", seed=0, spec=SMALL)
    assert str(error.value) == (
        f"{tmp_path / 'file' / 'set'} cannot be written: Not a directory; choose another place or make room"
    )


def test_the_record_says_what_was_made(demo: DemoSet) -> None:
    record = json.loads((demo.folder / "scenes.json").read_text())
    assert (record["seed"], record["finished"], record["spec"]["n_landmarks"]) == (0, True, 3)


def test_siblings_share_silhouette_wall_and_roof_but_not_their_windows() -> None:
    scene = world(0, 4, 3)
    first, sibling = scene.looks[0], scene.looks[3]
    assert (first.material, first.roof) == (sibling.material, sibling.roof)
    assert first.window_wide != sibling.window_wide
    assert scene.families[3] == scene.families[0]
    assert len(set(scene.families[:3])) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_builds_for_any_look(family: str) -> None:
    for seed in range(3):
        building = build(family, draw_look(np.random.default_rng(seed)))
        corners = np.array([p.origin for p in building.solid.patches] + [r.centre for r in building.solid.rounds])
        assert 5 < building.height < 70
        assert 4 < building.width < 60
        assert corners[:, 1].min() >= -0.01


def test_rare_and_frequent_landmarks_fill_the_training_set() -> None:
    shots = plan(SceneSpec(), 0)
    counts = Counter(shot.landmark for shot in shots if shot.split == "train")
    assert min(counts.values()) >= SceneSpec().fewest_train
    assert max(counts.values()) > 1.5 * min(counts.values())
    assert sum(counts.values()) == SceneSpec().n_train


def test_a_spec_that_cannot_be_rendered_is_a_callers_bug() -> None:
    with pytest.raises(ValueError, match="n_train 3 is less than 2 for each landmark"):
        replace(SMALL, n_train=3)
    with pytest.raises(ValueError, match="do not sum to 1"):
        ViewSpec(times=(1.0, 1.0, 0.0, 0.0, 0.0))
