"""`lmr embed --local`: local features beside the descriptors, killed and gone on with, told, verified and joined."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, NETWORK, done, flip_byte, n_file_operations, refused, run_and_die, run_apart

pytest.importorskip("cv2", reason="needs the extra local")

EMBED = ["embed", *HERE, "--local", "rootsift", "--keypoints", "30"]
LOCAL = Path("train.local.h5")
PARTIAL = Path("train.local.h5.partial")


def test_local_features_lie_beside_the_descriptors(tiny_set):
    (tiny_set / "images/train-arch-3.jpg").write_bytes(b"no picture")
    result = done(*EMBED, "--json")
    document = json.loads(result.stdout)
    local = document.pop("local")
    assert document["state"] == "updated"
    assert (local["store"], local["state"], local["pictures"], local["unreadable"]) == ("train.local.h5", "made", 44, 1)
    assert local["bytes"] == LOCAL.stat().st_size
    facts = json.loads(done("info", LOCAL, "--json").stdout)
    assert facts["what"] == "store of local features"
    assert (facts["pictures"], facts["done"], facts["to do"], facts["unreadable"]) == (44, 43, 0, 1)
    assert facts["local features"] == local["features"]
    assert (facts["kind"], facts["n_keypoints"], facts["long_side"], facts["d"]) == ("rootsift", 30, 640, 128)
    assert facts["projection"] == "none"
    assert facts["unreadable pictures"] == {"train-arch-3": "not a picture in a known format"}
    assert done(*EMBED).stdout == (
        "train.h5: finished already, nothing to do (44 pictures)\n"
        "train.local.h5: finished already, nothing to do (44 pictures)\n"
    )
    LOCAL.unlink()
    n_bytes, n_features = local["bytes"], local["features"]
    assert done(*EMBED).stdout == (
        "train.h5: finished already, nothing to do (44 pictures)\n"
        f"train.local.h5: {n_features:,} local features of 43 pictures, 1 unreadable; {n_bytes / 43_000:,.0f} KB a "
        "picture\n"
    )


def test_other_settings_are_refused_before_anything_is_embedded(tiny_set):
    done(*EMBED)
    (tiny_set / "train.h5").unlink()
    assert refused(*EMBED, "--long-side", "64") == (
        "train.local.h5 was made with another long side (640, now 64); give --overwrite or another file name"
    )
    assert refused("embed", *HERE, "--long-side", "64") == "--local is missing; give rootsift, aliked or xfeat"
    assert refused(*EMBED, "--local-weights", "nope.pth", "--overwrite") == (
        "--local-weights nope.pth: RootSIFT has no weights, only ALIKED and XFeat have; leave it out"
    )
    assert not (tiny_set / "train.h5").exists()


def test_a_kill_at_any_write_ends_as_if_it_had_not_been(tiny_set, monkeypatch):
    folders = [Path(shutil.copytree(tiny_set, tiny_set.parent / f"set-{i}")) for i in range(3)]
    n = n_file_operations(folders[0], EMBED)
    whole = (folders[0] / LOCAL).read_bytes()
    for folder, at in zip(folders[1:], (n - 1, n // 2), strict=True):
        run_and_die(folder, EMBED, at)
        monkeypatch.chdir(folder)
        done(*EMBED)
        assert LOCAL.read_bytes() == whole
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".") or "partial" in path.name]


@pytest.mark.parametrize("share", [0.2, 0.97])
def test_a_full_disk_is_one_line_and_the_run_goes_on(tiny_set, share):
    done(*EMBED)
    whole = LOCAL.read_bytes()
    LOCAL.unlink()
    code, said = run_apart(tiny_set, EMBED, file_bytes=int(share * len(whole)))
    assert code == 1
    where = PARTIAL if share < 0.5 else LOCAL
    assert said.splitlines()[-1] == (
        f"Error: {where} cannot be written: File too large; choose another place or make room"
    )
    assert not LOCAL.exists()
    done(*EMBED)
    assert LOCAL.read_bytes() == whole
    assert not [path.name for path in tiny_set.iterdir() if path.name.startswith(".") or "partial" in path.name]


def test_an_unfinished_store_is_told_and_verified(tiny_set):
    n = n_file_operations(Path(shutil.copytree(tiny_set, tiny_set.parent / "counted")), EMBED)
    at = n
    while not PARTIAL.exists():
        LOCAL.unlink(missing_ok=True)
        run_and_die(tiny_set, EMBED, at)
        at -= 1
    facts = json.loads(done("info", PARTIAL, "--verify", "--json").stdout)
    assert (facts["what"], facts["pictures"], facts["done"]) == ("store of local features", 44, 44)
    assert facts["verified"] == "what was written of it is as it was written, the rest is to do"
    whole = PARTIAL.read_bytes()
    PARTIAL.write_bytes(whole[:-7])
    assert json.loads(done("info", PARTIAL, "--verify", "--json").stdout)["verified"].startswith(
        "what was written of it is as it was written, the rest is to do, "
    )
    done(*EMBED)
    assert not PARTIAL.exists()


def test_a_changed_byte_is_found_by_verify(tiny_set):
    done(*EMBED)
    assert json.loads(done("info", LOCAL, "--verify", "--json").stdout)["verified"] == "every byte is as it was written"
    flip_byte(LOCAL, 0.98)
    done("info", LOCAL)
    assert refused("info", LOCAL, "--verify").startswith("train.local.h5 is damaged (its bytes ")
    assert "train.local.h5 is damaged" in refused("info", tiny_set, "--verify")
    flip_byte(LOCAL, 0.98)
    flip_byte(LOCAL, 0.1)
    assert refused("info", LOCAL).startswith("train.local.h5 is damaged (")


def test_shares_are_joined_to_the_store_of_the_whole(tiny_set):
    done(*EMBED)
    for i in (1, 2):
        done(*EMBED, "--shard", f"{i}/2")
    parts = ("train-1-of-2.local.h5", "train-2-of-2.local.h5")
    assert done("join", *parts, "--output", "j.local.h5").stdout == "j.local.h5: 44 images of 2 shares\n"
    assert Path("j.local.h5").read_bytes() == LOCAL.read_bytes()
    assert done("join", *reversed(parts), "--output", "j.local.h5").stdout == (
        "j.local.h5: finished already, nothing to do (44 images)\n"
    )
    assert refused("join", parts[0], "--output", "k.local.h5") == (
        "share 2/2 is missing; give its file too, or make it first by the same command with --shard 2/2"
    )
    assert refused("join", LOCAL, parts[1], "--output", "k.local.h5") == (
        "train.local.h5 is no share, it holds all rows; give what was made with --shard"
    )
    assert refused("join", parts[0], "train-2-of-2.h5", "--output", "k.local.h5") == (
        "train-2-of-2.h5 and train-1-of-2.local.h5 do not go together; give stores of local features alone"
    )
    done(*EMBED[:-1], "20", "--shard", "2/2", "--overwrite")
    assert refused("join", *parts, "--output", "j.local.h5") == (
        "train-2-of-2.local.h5 was made with another number of keypoints (20, now 30) than train-1-of-2.local.h5; give "
        "shares of one manifest with one kind of local features"
    )


def test_local_features_are_no_descriptors(tiny_set):
    done(*EMBED)
    assert refused("build-index", LOCAL, "--output", "x") == (
        "train.local.h5 is an HDF5 file but not a descriptor store; lmr embed makes one"
    )


def test_the_network_of_a_bare_set_is_made_once(images):
    assert done("embed", *NETWORK, *HERE, *EMBED[len(HERE) + 1 :]).stdout.startswith(
        "train.h5: 44 descriptors, 0 unreadable\ntrain.local.h5: "
    )
