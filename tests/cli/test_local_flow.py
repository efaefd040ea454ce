"""Local features from images to the index folder and through its changes, by RootSIFT; and kills on the way."""

import json
import re
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from local_world import CARD, write_local_store
from PIL import Image
from tiny_set import (
    HERE,
    another_process,
    done,
    n_file_operations,
    refused,
    run_and_die,
    run_there,
    write_csv,
)

from index.folder.folder import open_folder
from retrieval.errors import LmrError
from retrieval.local.features import LocalFeatures
from retrieval.local.store import open_local

LOCAL = ("--local", "rootsift", "--keypoints", "30")
PLAIN = ("--device", "cpu", "--engine", "torch", "--whitening-power", "0", "--thumbnails", "0")


def draw(path: str | Path, seed: int) -> None:
    """A patchwork, whose corners are keypoints."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    patches = np.random.default_rng(seed).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    Image.fromarray(patches).resize((96, 96), Image.Resampling.NEAREST).save(path, quality=92)


@pytest.fixture
def photos(tiny_set) -> Path:
    """A folder of two landmarks with its stores, and an index of it that has local features."""
    for i, label in enumerate(("arch", "dome")):
        for j in range(4):
            draw(Path("photos", label, f"{label}-{j}.jpg"), 10 * i + j)
    for i in range(2):
        draw(f"images/more-{i}.jpg", 100 + i)
        write_csv(Path(f"more-{i}.csv"), "id,landmark_id", [f"more-{i},arch"])
    shutil.rmtree("landmarks")
    done("embed", "photos", *LOCAL, *HERE)
    done("build-index", "photos.h5", "--local", *PLAIN)
    return Path("photos")


def found(index: str = "landmarks") -> dict[str, str | None]:
    """Digest of the local features of each row, by image_id."""
    folder = open_folder(index, device="cpu")
    assert folder.local is not None
    features = map(folder.local.features, range(len(folder.rows)))
    digests = [None if one is None else digest_of(one) for one in features]
    return dict(zip(folder.rows.image_id.tolist(), digests, strict=True))


def digest_of(features: LocalFeatures) -> str:
    assert len(features)
    return sha256(features.points.tobytes() + features.descriptors.tobytes()).hexdigest()


def extracted() -> dict[str, str]:
    """The same of the images in the folder as they are now."""
    folder = open_folder("landmarks", device="cpu")
    assert folder.local is not None
    extractor = folder.local.open_extractor("cpu", 1)
    paths = Path("photos").glob("*/*.jpg")
    return {path.stem: digest_of(extractor.extract(extractor.decode(path.read_bytes()))) for path in paths}


def test_an_index_has_the_features_of_its_images(photos):
    assert found() == extracted()
    facts = json.loads(done("info", "landmarks", "--json").stdout)
    assert facts["local"] == {"kind": "rootsift", "images": 8, "stores": 1, "MB": facts["local"]["MB"]}
    assert json.loads(done("index", "info", "landmarks", "--json").stdout)["local"] == facts["local"]
    assert (
        done("info", "landmarks", "--verify")
        .stdout.splitlines()[-1]
        .endswith("as they were written, and fit each other")
    )


def test_a_folder_that_changed_gets_local_features_of_new_images(photos):
    draw(photos / "arch" / "new.jpg", 900)
    draw(photos / "arch" / "arch-0.jpg", 901)  # replaced
    (photos / "arch" / "arch-1.jpg").rename(photos / "dome" / "arch-1.jpg")
    (photos / "arch" / "arch-2.jpg").rename(photos / "arch" / "renamed.jpg")
    (photos / "dome" / "dome-3.jpg").unlink()
    told = done("sync", "photos", *HERE)
    assert told.stdout.splitlines()[-1].startswith("landmarks: local features of 8 of 8 images: rootsift, ")
    assert found() == extracted()
    assert {path.name for path in Path().glob("*photos*")} == {"photos", "photos.h5", "photos.local.h5"}
    done("index", "verify")
    assert "nothing to do" in done("sync", "photos", *HERE).stdout


def test_a_folder_without_local_features_gets_those_of_all_its_images_once_the_index_has_some(photos):
    done("build-index", "photos.h5", "--overwrite", *PLAIN)
    draw(photos / "arch" / "new.jpg", 900)
    done("sync", "photos", *HERE)
    assert open_folder("landmarks", device="cpu").local is None
    write_local_store(Path("other.h5"), ["arch-0"], card=open_local(Path("photos.local.h5")).card)
    done("index", "add", "photos.h5", "--local-store", "other.h5")
    told = done("sync", "photos", *HERE)
    assert told.stdout.splitlines()[0] == "landmarks: local features of 8 images taken: 9 images of 2 landmarks now"
    own = extracted()
    assert {name: one for name, one in found().items() if name != "arch-0"} == {
        name: one for name, one in own.items() if name != "arch-0"
    }


def test_images_of_an_unreadable_file_have_no_local_features(photos):
    (photos / "arch" / "arch-0.jpg").write_bytes(b"no image")
    done("embed", "photos", *LOCAL, "--overwrite", *HERE)
    done("build-index", "photos.h5", "--local", "--overwrite", *PLAIN)
    assert None not in found().values()
    assert len(found()) == 7


def test_local_features_of_other_settings_are_refused_at_every_stage(photos):
    assert refused("embed", "photos", "--local", "rootsift", "--keypoints", "20", *HERE) == (
        "photos.local.h5 was made with another number of keypoints (30, now 20); give --overwrite or another file name"
    )
    done("embed", "photos", "--local", "rootsift", "--keypoints", "20", "--overwrite", *HERE)
    assert refused("build-index", "photos.h5", "--local", *PLAIN) == (
        "landmarks exists and was built with other local features; --overwrite replaces it"
    )
    done("build-index", "photos.h5", "--output", "other", "--local", *PLAIN)
    assert refused("index", "merge", "other") == (
        "the local features of other do not fit those of landmarks: another number of keypoints (30, now 20); make "
        "both with the same settings of lmr embed --local"
    )
    before = found()
    draw(photos / "arch" / "new.jpg", 900)
    done("sync", "photos", *HERE)  # by the settings of the index
    assert {name: one for name, one in found().items() if name != "new"} == before
    assert found()["new"] == extracted()["new"]


def test_the_weights_of_a_network_go_with_the_index(photos):
    Path("mine.pth").write_bytes(b"weights")
    digest = sha256(b"weights").hexdigest()
    names = [f"{label}-{i}" for label in ("arch", "dome") for i in range(4)]
    card = replace(CARD, kind="aliked", dtype="float16", weights_sha256=digest)
    write_local_store(Path("learnt.h5"), names, card=card)
    given = ["build-index", "photos.h5", "--local-store", "learnt.h5", "--output", "learnt", *PLAIN]
    Path("others.pth").write_bytes(b"other weights")
    assert refused(*given, "--local-weights", "others.pth") == (
        f"others.pth has weights {sha256(b'other weights').hexdigest():.8}, the local features were made with "
        f"{digest:.8}; give those as --local-weights"
    )
    done(*given, "--local-weights", "mine.pth")
    Path("mine.pth").unlink()
    done("index", "remove", "arch-0", "--index", "learnt")
    done("index", "compact", "--index", "learnt")
    folder = open_folder("learnt", device="cpu")
    assert folder.local is not None
    assert folder.local.weights == Path("learnt/local/mine.pth")
    assert folder.local.weights.read_bytes() == b"weights"
    done("index", "verify", "learnt")


CHANGES = {
    "build": ["build-index", "photos.h5", "--local", "--overwrite", "--storage", "float16", *PLAIN],
    "add": ["index", "add", "more-0.h5", "--workers", "1"],
    "compact": ["index", "compact", "--workers", "1"],
    "sync": ["sync", "photos", *HERE],
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_killed_at_any_write_has_the_local_features_of_before_or_after(photos, monkeypatch, kind):
    done("embed", "more-0.csv", *LOCAL, *HERE)
    if kind == "compact":
        done("index", "add", "more-0.h5")
        done("index", "remove", "arch-1")
    if kind == "sync":
        draw(photos / "arch" / "new.jpg", 900)
        draw(photos / "arch" / "arch-0.jpg", 901)
    here, before, arguments = Path.cwd(), found(), CHANGES[kind]
    counted = Path(shutil.copytree(here, here.parent / "counted"))
    n = n_file_operations(counted, arguments)
    monkeypatch.chdir(counted)
    after = found()
    for at in sorted({n // 2, n - 3}):
        folder = Path(shutil.copytree(here, here.parent / f"killed-{at}"))
        run_and_die(folder, arguments, at)
        monkeypatch.chdir(folder)
        assert found() in (before, after)
        done(*arguments)
        assert found() == after
        done("index", "verify")
        assert sorted(path.name for path in Path().iterdir()) == sorted(path.name for path in counted.iterdir())


def test_two_processes_that_add_to_one_index_both_bring_their_local_features(photos):
    for i in range(2):
        done("embed", f"more-{i}.csv", *LOCAL, *HERE)
    before = found()
    words = [["index", "add", f"more-{i}.h5", "--wait", "--workers", "1"] for i in range(2)]
    with (
        another_process(run_there, str(Path.cwd()), words[0], {}) as one,
        another_process(run_there, str(Path.cwd()), words[1], {}) as two,
    ):
        one.join(120)
        two.join(120)
        assert (one.exitcode, two.exitcode) == (0, 0)
    assert found().keys() == {*before, "more-0", "more-1"}
    assert None not in found().values()
    done("index", "verify")


def test_a_share_of_local_features_is_not_taken_for_all(photos):
    done("embed", "photos", "--output", "part.h5", "--shard", "1/2", *LOCAL, *HERE)
    given = ["build-index", "photos.h5", "--local-store", "part-1-of-2.local.h5", "--output", "other", *PLAIN]
    assert refused(*given) == (
        "part-1-of-2.local.h5 holds share 1/2 of the rows alone; join all 2 shares with lmr join, and give what that "
        "makes"
    )
    done("embed", "photos", "--output", "part.h5", "--shard", "2/2", *LOCAL, *HERE)
    done("join", "part-1-of-2.local.h5", "part-2-of-2.local.h5", "--output", "part.local.h5")
    given[given.index("part-1-of-2.local.h5")] = "part.local.h5"
    done(*given)
    assert found("other") == found()


def test_local_features_that_are_open_stay_those_of_their_index(photos):
    before = found()
    opened, lazy = (open_folder("landmarks", device="cpu", with_local=one) for one in (True, False))
    shutil.rmtree("photos/arch")
    draw("photos/arch/arch-0.jpg", 900)
    done("sync", "photos", *HERE)
    assert opened.local is not None
    features = [opened.local.features(row) for row in range(8)]
    assert [None if one is None else digest_of(one) for one in features] == list(before.values())
    assert lazy.local is not None
    with pytest.raises(LmrError) as caught:
        lazy.local.features(0)
    assert str(caught.value) == (
        "landmarks/local-rows.h5 is not that of the index which was opened: that was replaced meanwhile, or this is "
        "damaged; run the command again, then copy the whole folder or run lmr build-index again"
    )


def test_projections_that_two_manifests_learnt_are_told_apart(photos):
    short = ("--local-dimensions", "8")
    done("embed", "photos", *LOCAL, *short, "--overwrite", *HERE)
    done("build-index", "photos.h5", "--local", "--overwrite", *PLAIN)
    done("embed", "more-0.csv", *LOCAL, *short, *HERE)
    told = refused("index", "add", "more-0.h5")
    assert re.sub(r"\(\S+, now \S+\)", "(one, now other)", told) == (
        "the local features of more-0.h5 do not fit those of landmarks: another projection (one, now other); each "
        "manifest learns its own, so make them of one manifest, or without --local-dimensions"
    )
    draw(photos / "arch" / "new.jpg", 900)
    done("sync", "photos", *HERE)  # by the projection of the index
    assert found() == extracted()
