"""Indexes that change: what is added, removed, relabelled or merged gives the answers of an index built that way."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.calibrate.config import CalibrationSettings
from index.calibrate.fit import calibrate
from index.calibrate.queries import CalibrationQueries
from index.calibrate.selection import Grid
from index.calibration import Origin
from index.folder.build import BuildOptions, build_folder
from index.folder.changes import read_journal, tell_changed, tell_unwhitened
from index.folder.folder import open_folder, replace_calibration
from index.folder.info import SAMPLE, check_files, write_info
from index.folder.inputs import BuildInputs
from index.metrics import make_truths
from index.rerank.config import Refinement
from index.search.config import SearchOptions
from index.search.kept_sample import read_sample
from index.update import write
from index.update.addition import plan_addition
from index.update.change import plan_relabelling, plan_removal
from index.update.compact import IndexCompactJob, compact
from index.update.images import Images
from index.update.inspect import IndexVerifyJob, verify
from index.update.job import IndexMergeJob, merge
from index.update.write import write_changed
from retrieval.arrays import object_array
from retrieval.errors import LmrError
from retrieval.files import folders
from retrieval.files.folders import replacing_folder
from retrieval.store.store import DONE, Descriptors, StoreInfo
from retrieval.texts import Texts

MODEL = "ab" * 32
D = 16
PLAIN = BuildOptions(whitening_power=None)
PATH = "landmarks"


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.json").write_text(json.dumps({"fingerprint": MODEL}))
    (tmp_path / "model/weights-1.safetensors").write_bytes(b"weights")
    return tmp_path


def store(name, n, *, seed, labels=("oslo", "paris", "rome"), source="train.h5"):
    """Random descriptors with these labels in turn; '' = none."""
    names = tuple(sorted({label for label in labels if label}))
    given = [labels[i % len(labels)] for i in range(n)]
    return Descriptors(
        vectors=np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32),
        image_id=object_array([f"{name}{i}" for i in range(n)]),
        landmark=np.array([names.index(label) if label else -1 for label in given], dtype=np.int32),
        landmarks=names,
        state=np.full(n, DONE, dtype=np.uint8),
        path=object_array([""] * n),
        kind=None,
        info=StoreInfo(MODEL, {}, {}, "0.1", "manifest", "float32", D),
        source=source,
    )


TRAIN = store("a", 30, seed=0)
MORE = store("b", 20, seed=1, labels=("athens", "rome"), source="more.h5")
STREET = store("s", 12, seed=2, labels=("",), source="street.h5")


def build(path, stores, options=PLAIN, background=(STREET,)):
    build_folder(path, BuildInputs(stores, Path("model"), background), options, device="cpu")
    return open_folder(path, device="cpu")


def images(folder, given):
    """The rows of a store as they may come into an index."""
    from index.recognition import to_index_space

    return Images(
        given.source,
        given.image_id,
        given.path,
        given.landmark,
        given.landmarks,
        lambda rows: to_index_space(folder, given.vectors[rows]),
    )


def changed(folder, change):
    with replacing_folder(folder.path) as target:
        write_changed(folder, change, target)
    return open_folder(folder.path, device="cpu")


def grown(folder, *stores, background=False):
    given = [images(folder, one) for one in stores]
    return changed(folder, plan_addition(folder, "add", given, {}, to_background=background))


def assert_same(one, other):
    """Same rows in the same order, bit for bit, and same answers."""
    assert one.rows.image_id.tolist() == other.rows.image_id.tolist()
    assert one.rows.landmarks == other.rows.landmarks
    assert one.rows.landmark.tolist() == other.rows.landmark.tolist()
    assert (one.index.stored == other.index.stored).all()
    assert one.index.storage == other.index.storage
    if other.rows.background is None:
        assert one.rows.background is None
    else:
        assert one.rows.background == pytest.approx(other.rows.background, abs=1e-6)
        assert one.background.image_id.tolist() == other.background.image_id.tolist()
        assert (one.background.vectors == other.background.vectors).all()
    queries = np.random.default_rng(9).normal(size=(40, D)).astype(np.float32)
    found, expected = one.search(queries, 10)[0], other.search(queries, 10)[0]
    assert (found.rows == expected.rows).all()
    assert (found.scores == expected.scores).all()
    assert (one.info.n_rows, one.info.n_landmarks, one.info.n_background) == (
        other.info.n_rows,
        other.info.n_landmarks,
        other.info.n_background,
    )


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_an_index_that_was_added_to_is_the_one_built_of_both(world, storage):
    options = replace(PLAIN, storage=storage)
    folder = grown(build(PATH, [TRAIN], options), MORE)
    assert_same(folder, build("both", [TRAIN, MORE], options))
    assert (folder.info.changes.added, folder.info.changes.n_trained) == (20, 30)


def told_of_whitening(folder):
    """What an index says of its whitening, and that info says it too."""
    lines = tell_unwhitened(folder.path, folder.info, folder.whitening)
    assert [line for line in tell_changed(folder) if "whitening" in line] == lines
    return lines


def test_images_that_a_whitening_was_not_made_for_are_told_where_it_was_learnt_from_few(world):
    small, more = store("a", 18, seed=0), store("b", 3, seed=1)  # 30 with the background, for 16 dimensions
    before = build(PATH, [small], BuildOptions())
    assert (before.whitening.n_fitted, before.whitening.matrix.shape) == (30, (16, 16))
    assert told_of_whitening(before) == []
    assert told_of_whitening(grown(before, more)) == [
        f"{before.path}: its whitening to 16 dimensions was learnt from 30 images, and 3 came since, which it does not "
        "fit, so that answers are worse than they could be; lmr build-index with all stores learns it anew"
    ]
    assert told_of_whitening(grown(build("plain", [small]), more)) == []


def test_images_that_outnumber_those_of_a_whitening_are_told(world):
    folder = build(PATH, [TRAIN], BuildOptions())  # 42 with the background
    folder = grown(folder, store("b", 42, seed=1))
    assert told_of_whitening(folder) == []
    (line,) = told_of_whitening(grown(folder, store("c", 1, seed=2)))
    assert "was learnt from 42 images, and 43 came since" in line


def test_a_whitening_of_before_is_counted_by_the_rows_that_it_was_trained_with(world):
    folder = grown(build(PATH, [store("a", 18, seed=0)], BuildOptions()), store("b", 3, seed=1))
    old = replace(folder.whitening, n_fitted=None)
    assert tell_unwhitened(folder.path, folder.info, old) == told_of_whitening(folder)


def test_an_index_that_was_removed_from_is_the_one_built_without(world):
    folder = build(PATH, [TRAIN, MORE])
    gone = [f"b{i}" for i in range(0, 20, 2)] + ["a3", "a0"]  # all of athens
    folder = changed(folder, plan_removal(folder, gone, "given"))
    stays = [~np.isin(one.image_id.tolist(), gone) for one in (TRAIN, MORE)]
    assert_same(folder, build("rest", [TRAIN.select(stays[0]), MORE.select(stays[1])]))
    assert "athens" not in folder.rows.landmarks
    assert folder.info.changes.removed == 12


def test_images_of_the_background_come_and_go(world):
    folder = grown(build(PATH, [TRAIN]), store("t", 5, seed=4, labels=("",)), background=True)
    expected = build("more", [TRAIN], background=(STREET, store("t", 5, seed=4, labels=("",))))
    assert_same(folder, expected)
    folder = changed(folder, plan_removal(folder, [f"t{i}" for i in range(5)], "given"))
    assert_same(folder, build("again", [TRAIN]))


def test_a_relabelled_index_is_the_one_built_with_those_labels(world):
    folder = build(PATH, [TRAIN, MORE])
    names = {"rome": "roma", "athens": "roma"}
    folder = changed(folder, plan_relabelling(folder, names, {"a0": "lima", "a1": "paris"}, Path("c.csv")))
    label = np.array([TRAIN.landmarks[code] for code in TRAIN.landmark], dtype=object)
    label[label == "rome"] = "roma"
    label[0], label[1] = "lima", "paris"
    kinds = tuple(sorted(set(label)))
    train = replace(TRAIN, landmarks=kinds, landmark=np.array([kinds.index(one) for one in label], np.int32))
    more = replace(MORE, landmarks=("roma",), landmark=np.zeros(20, np.int32))
    assert_same(folder, build("named", [train, more]))
    assert folder.info.changes.relabelled == 31


KINDS = ("ivf-flat", "ivf-sq8", "ivf-pq")


def approximate(kind):
    return replace(PLAIN, storage="float16", search=SearchOptions(kind, 0.9, n_lists=8))


def many(name, n, seed, source):
    """Descriptors around 20 points, one for each landmark."""
    labels = tuple(f"l{i:02d}" for i in range(20))
    given = store(name, n, seed=seed, labels=labels, source=source)
    points = np.random.default_rng(7).normal(size=(20, D)).astype(np.float32)
    return replace(given, vectors=points[given.landmark] + 0.5 * given.vectors)


LARGE = many("a", 3000, 3, "train.h5")
MIDDLE = LARGE.select(np.arange(600))
NEW = many("n", 400, 4, "more.h5")


def all_found(folder):
    """Share of the rows that the inverted file itself puts among the 30 nearest to themselves."""
    own = np.arange(len(folder.rows))
    proposed = folder.ivf.propose(folder.index.vectors(own), 30)
    return float((proposed == own[:, None]).any(axis=1).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_an_inverted_file_finds_what_came_after_something_went(world, kind):
    folder = build(PATH, [LARGE], approximate(kind), background=())
    before = all_found(folder)
    gone = [f"a{i}" for i in range(0, 3000, 3)]
    folder = changed(folder, plan_removal(folder, gone, "given"))
    folder = grown(folder, NEW)
    folder = changed(folder, plan_removal(folder, [f"n{i}" for i in range(0, 400, 7)], "given"))
    folder = grown(folder, NEW)
    assert len(folder.rows) == 2400
    assert folder.ivf is not None
    assert before > 0.95
    assert all_found(folder) > before - 0.02
    assert folder.info.search.recall > 0.88
    exact = build("exact", [LARGE], replace(PLAIN, storage="float16"), background=())
    exact = grown(changed(exact, plan_removal(exact, gone, "given")), NEW)
    wide = folder.ivf.with_settings(replace(folder.ivf.settings, n_probe=8, n_candidates=100))
    ids = [
        one.rows.image_id[one_search.search(LARGE.vectors[:50], 5).rows.ravel()]
        for one, one_search in ((folder, wide), (exact, exact.index))
    ]
    assert (ids[0] == ids[1]).mean() > 0.98


def test_an_index_without_a_sample_gets_one_when_it_changes(world):
    folder = build(PATH, [MIDDLE], approximate("ivf-sq8"), background=())
    before = read_sample(folder.path / SAMPLE, folder.index)
    (folder.path / SAMPLE).unlink()
    files = {name: listed for name, listed in folder.info.files.items() if name != SAMPLE}
    write_info(folder.path, replace(folder.info, files=files))
    folder = grown(open_folder(PATH, device="cpu"), NEW)
    after = read_sample(folder.path / SAMPLE, folder.index)
    assert (len(before.own), len(after.own)) == (200, 200)
    assert (after.own >= 600).any()
    assert folder.info.search.n_queries == 200


def test_a_change_made_again_does_nothing(world):
    folder = build(PATH, [TRAIN])
    folder = grown(folder, MORE)
    change = plan_addition(folder, "add", [images(folder, MORE)], {}, to_background=False)
    assert (change.is_nothing, change.n_there) == (True, 20)


def refusal(action, *arguments, **more):
    with pytest.raises(LmrError) as error:
        action(*arguments, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def added(folder, *stores):
    return plan_addition(folder, "add", [images(folder, one) for one in stores], {}, to_background=False)


def test_an_image_that_is_there_otherwise_is_refused(world):
    folder = build(PATH, [TRAIN])
    other = replace(store("a", 3, seed=5), source="new.h5")
    assert refusal(added, folder, other) == (
        "new.h5: image_id a0 is in landmarks already, with another descriptor; "
        "lmr index remove takes that one out first"
    )
    named = replace(TRAIN, landmark=np.roll(TRAIN.landmark, 1), source="new.h5")
    assert refusal(added, folder, named) == (
        "new.h5: image_id a0 is rome, in landmarks it is oslo; lmr index relabel changes that, or leave it out"
    )
    assert refusal(added, folder, MORE, MORE) == ("image_id b0 is there twice (more.h5); give each picture once")
    street = replace(STREET, landmark=np.zeros(12, np.int32), landmarks=("oslo",))
    assert refusal(added, folder, street) == (
        "street.h5: s0, s1, s2 and 9 more: in the background of landmarks; lmr index remove takes out of it"
    )


def test_ids_that_cannot_be_removed_are_refused(world):
    folder = build(PATH, [TRAIN])
    assert refusal(plan_removal, folder, [], "given") == ("no image_id is given; give those of the images to remove")
    assert refusal(plan_removal, folder, ["a1", "a1"], "given") == "a1 is given twice; give each image_id once"
    assert refusal(plan_removal, folder, ["-5", "a1"], "given") == (
        "-5: landmarks has no such image, nothing was removed; lmr index export lists those that it has"
    )
    assert refusal(plan_removal, folder, [f"a{i}" for i in range(30)], "given") == (
        "landmarks would have no image left; delete the folder, or remove fewer"
    )
    assert refusal(plan_removal, folder, [f"s{i}" for i in range(12)], "given") == (
        "landmarks would have no background left; lmr build-index makes one without it"
    )


class Killed(BaseException):
    """As a kill: nothing catches it."""


STEPS = {
    "links": (write, "link_files"),
    "rows": (write.RowsFile, "copy"),
    "labels": (write, "write_rows"),
    "inverted file": (write.IvfIndex, "save"),
    "sample": (write, "write_sample"),
    "background": (write, "write_background"),
    "journal": (write, "write_text"),
    "index.json": (write, "write_info"),
    "calibration": (write, "replace_calibration"),
    "the end of writing": (write, "check_files"),
    "the disk": (folders, "flush_tree"),
    "the exchange": (folders, "_put_in_place"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_leaves_the_old_index_or_the_new_one(calibrated, monkeypatch, step, when):
    folder = calibrated
    place, name = STEPS[step]
    own = getattr(place, name)

    def kill(*arguments, **words):
        if when == "after":
            own(*arguments, **words)
        raise Killed

    kill = classmethod(kill) if isinstance(vars(place).get(name), classmethod) else kill
    given = [images(folder, NEW), images(folder, STREET)]
    change = replace(
        plan_addition(folder, "add", given, {}, to_background=True), removed=np.array([1, 5], dtype=np.int64)
    )
    with monkeypatch.context() as patch:
        patch.setattr(place, name, kill)
        with pytest.raises(Killed):
            changed(folder, change)
    left = open_folder(PATH, device="cpu")
    is_new = (step, when) == ("the exchange", "after")
    assert len(left.rows) == (998 if is_new else 600)
    assert left.calibration is not None
    assert sorted(path.name for path in Path().iterdir()) == ["landmarks", "model"]
    if not is_new:
        assert left.info == folder.info
        assert len(changed(left, change).rows) == 998


@pytest.fixture
def calibrated(world):
    """An index with an inverted file, a background and a calibration."""
    folder = build(PATH, [MIDDLE], approximate("ivf-pq"), background=(store("t", 9, seed=6, labels=("",)),))
    found = folder.index.search(np.random.default_rng(3).normal(size=(12, D)).astype(np.float32), 4)
    truths = make_truths([[i % 3] if i % 4 else [] for i in range(12)])
    queries = CalibrationQueries(found, folder.rows.landmark, truths, object_array([str(i) for i in range(12)]))
    origin = Origin("val.h5", MODEL, folder.info.inputs_digest)
    grid = Grid(k=(1, 3), tau=(0.05,), r=(0.5,), beta=(0.0,))
    replace_calibration(PATH, calibrate(queries, origin, CalibrationSettings(), grid))
    return open_folder(PATH, device="cpu")


def test_a_calibration_stays_and_says_when_much_has_changed(calibrated):
    folder = grown(calibrated, NEW.select(np.arange(20)))
    assert folder.calibration.rule == calibrated.calibration.rule
    assert folder.calibration.origin.index_digest == folder.info.inputs_digest != calibrated.info.inputs_digest
    assert tell_changed(folder) == []
    folder = grown(folder, NEW.select(np.arange(20, 60)))
    assert tell_changed(folder) == [
        "landmarks: 9% of its rows changed since it was calibrated; lmr calibrate makes its confidences right again",
        "landmarks: 10% of its rows changed since its inverted file was trained; lmr index compact trains it anew",
    ]
    again = replace(folder.calibration, warnings=("another one",))
    replace_calibration(PATH, again)
    assert [line.split(":")[1][:16] for line in tell_changed(open_folder(PATH, device="cpu"))] == [" 10% of its rows"]
    folder = changed(open_folder(PATH, device="cpu"), plan_removal(folder, [f"a{i}" for i in range(3)], "given"))
    assert (folder.info.changes.since_calibration, folder.info.changes.removed) == (3, 3)


def test_the_journal_tells_every_change_and_ends_with_the_index(world):
    folder = grown(build(PATH, [TRAIN]), MORE)
    folder = changed(folder, plan_removal(folder, ["a0", "b0"], "given"))
    folder = changed(folder, plan_relabelling(folder, {"rome": "roma"}, {}, Path("c.csv")))
    lines = read_journal(folder.path)
    assert [(one.kind, one.sources, one.added, one.removed, one.relabelled, one.n_rows) for one in lines] == [
        ("add", ["more.h5"], 20, 0, 0, 50),
        ("remove", ["given"], 0, 2, 0, 48),
        ("relabel", ["c.csv"], 0, 0, 20, 48),
    ]
    assert lines[-1].index_digest == folder.info.inputs_digest
    assert verify(IndexVerifyJob(Path(PATH))).n_changes == 3


def test_what_stays_is_linked_and_what_goes_is_gone(world):
    folder = build(PATH, [TRAIN])
    numbers = {
        name: (folder.path / name).stat().st_ino for name in ("model/model.json", "index.faiss", "background.h5")
    }
    folder = changed(folder, plan_relabelling(folder, {"rome": "roma"}, {}, Path("c.csv")))
    assert {name: (folder.path / name).stat().st_ino for name in numbers} == numbers
    folder = grown(folder, MORE)
    assert (folder.path / "index.faiss").stat().st_ino != numbers["index.faiss"]
    check_files(folder.path, folder.info, "full")


def test_a_damaged_index_does_not_verify(world):
    grown(build(PATH, [TRAIN]), MORE)
    (world / PATH / "changes.jsonl").write_text("")
    assert "changes.jsonl has 0 bytes" in refusal(verify, IndexVerifyJob(Path(PATH)))


def test_folders_merge_as_their_stores_would(world):
    build(PATH, [TRAIN])
    build("other", [MORE], background=(store("t", 4, seed=8, labels=("",)),))
    report = merge(IndexMergeJob((Path("other"),), index=Path(PATH), workers=1))
    assert (report.state, report.n_added, report.n_unlabelled) == ("changed", 20, 4)
    assert_same(open_folder(PATH, device="cpu"), build("both", [TRAIN, MORE]))
    assert merge(IndexMergeJob((Path("other"),), index=Path(PATH), workers=1)).state == "unchanged"
    report = merge(IndexMergeJob((Path("other"),), index=Path(PATH), workers=1, background=True))
    assert (report.state, report.n_added, report.n_background) == ("changed", 0, 4)


def test_folders_that_do_not_fit_are_not_merged(world):
    build(PATH, [TRAIN])
    build("white", [MORE], BuildOptions(n_dimensions=D))
    told = refusal(merge, IndexMergeJob((Path("white"),), index=Path(PATH)))
    assert told == (
        "white was whitened otherwise than landmarks, so that their rows cannot be compared; lmr index add takes the "
        "stores that it was built from"
    )
    told = refusal(merge, IndexMergeJob((Path(PATH),), index=Path(PATH)))
    assert told == "landmarks is the index itself; give another folder"


def test_rows_that_borrow_from_each_other_are_not_changed_alone(world):
    folder = build(PATH, [TRAIN], replace(PLAIN, refinement=Refinement(n_augment=2)))
    told = refusal(plan_removal, folder, ["a1"], "given")
    assert told == (
        "landmarks was built with `augment`, so that its rows borrow from each other and none can be changed alone "
        "(remove); run lmr build-index again with all stores"
    )


def test_a_compacted_index_is_trained_over_the_rows_that_it_has(calibrated):
    assert compact(IndexCompactJob(index=Path(PATH))).state == "unchanged"
    folder = grown(calibrated, NEW)
    report = compact(IndexCompactJob(index=Path(PATH)))
    assert report.state == "changed"
    assert (report.info.changes.n_trained, report.info.changes.added) == (1000, 0)
    now = open_folder(PATH, device="cpu")
    assert now.rows.image_id.tolist() == folder.rows.image_id.tolist()
    assert (now.calibration is None) == report.lost
    report = compact(IndexCompactJob(index=Path(PATH), kind="flat"))
    assert (report.info.search, open_folder(PATH, device="cpu").ivf) == (None, None)
    assert compact(IndexCompactJob(index=Path(PATH))).state == "unchanged"
    assert compact(IndexCompactJob(index=Path(PATH), kind="auto")).state == "unchanged"


def noted(given, *texts):
    """The store with a column `note`, these in turn."""
    notes = [texts[i % len(texts)] for i in range(len(given))]
    return replace(given, columns={"note": Texts.of(notes)})


def test_own_columns_follow_their_rows_through_every_change(world):
    before = build(PATH, [noted(TRAIN, "x", "y")])
    more = replace(images(before, MORE), columns={"year": Texts.of(str(1900 + i) for i in range(20))})
    folder = changed(before, plan_addition(before, "add", [more], {}, to_background=False))
    folder = changed(folder, plan_removal(folder, ["a0", "b0"], "given"))
    own = {name: texts.tolist() for name, texts in folder.rows.columns.items()}
    assert folder.rows.image_id.tolist() == [f"a{i}" for i in range(1, 30)] + [f"b{i}" for i in range(1, 20)]
    assert own["note"] == ["y", "x"] * 14 + ["y"] + [""] * 19
    assert own["year"] == [""] * 29 + [str(1900 + i) for i in range(1, 20)]


def test_what_an_addition_says_of_images_that_are_there_is_taken_over(world):
    before = build(PATH, [noted(TRAIN, "x", "y")])
    some = images(before, TRAIN.select(np.arange(3)))
    again = replace(some, columns={"note": Texts.of("xzx"), "year": Texts.of(["1", "", "3"])})
    change = plan_addition(before, "add", [again], {}, to_background=False)
    assert not any(change.counts.values())
    folder = changed(before, change)
    own = {name: texts.tolist() for name, texts in folder.rows.columns.items()}
    assert own["note"][:5] == ["x", "z", "x", "y", "x"]
    assert own["year"] == ["1", "", "3"] + [""] * (len(folder.rows) - 3)
    assert plan_addition(folder, "add", [again], {}, to_background=False).is_nothing
    fresh = replace(images(folder, MORE), columns={"other": Texts.of("x" * 20)})
    assert plan_addition(folder, "add", [fresh], {}, to_background=False).columns is None
    other = replace(some, columns={"note": Texts.of("abc")})
    assert plan_addition(folder, "merge", [other], {}, to_background=False).is_nothing


def test_an_index_of_other_columns_is_another_index_that_answers_alike(world):
    build(PATH, [noted(TRAIN, "x")])
    with pytest.raises(LmrError, match=r"was built from other descriptors or options; `overwrite` replaces it$"):
        build(PATH, [noted(TRAIN, "y")])
    one = build("one", [TRAIN])
    assert open_folder(PATH, device="cpu").info.answers_digest == one.info.answers_digest
    assert one.rows.columns == {}
