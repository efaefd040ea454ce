"""`lmr embed`: what a store holds, what is resumed, and what an unreadable image does to it."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_set import HERE, NETWORK, cut_short, done, drop_digests, hear, listing, misused, refused, write_csv

from retrieval.embed.store_name import store_name
from retrieval.errors import LmrError
from retrieval.parallel import count_workers
from retrieval.progress import SILENT
from retrieval.store.store import read_store


def test_options_of_a_network_need_one(tiny_set):
    assert refused("embed", "--flip", "--pooling", "avg") == (
        "--pooling needs --backbone; without it the network is the one in --model model"
    )


def test_rows_are_in_the_order_of_the_manifest(tiny_set):
    store = read_store("train.h5")
    lines = [line.split(",") for line in Path("train.csv").read_text().splitlines()[1:]]
    assert store.image_id.tolist() == [image_id for image_id, _ in lines]
    labels = [*store.landmarks, ""]
    assert [labels[code] for code in store.landmark] == [label for _, label in lines]
    assert all(Path(path).is_file() and Path(path).is_absolute() for path in store.path)
    np.testing.assert_allclose(np.linalg.norm(store.vectors.astype(float), axis=1), 1, atol=2e-3)


def test_a_finished_store_is_left_alone_and_said_so(tiny_set):
    files = listing(tiny_set)
    for options in ([], list(NETWORK)):
        assert done("embed", *options, *HERE).stdout == "train.h5: finished already, nothing to do (44 pictures)\n"
    assert listing(tiny_set) == files
    before = read_store("train.h5")
    assert done("embed", "--overwrite", *HERE).stdout == "train.h5: 44 descriptors, 0 unreadable\n"
    assert np.array_equal(read_store("train.h5").vectors, before.vectors)


def test_unreadable_images_are_listed_and_can_be_tried_again(tiny_set):
    Path("images/train-arch-0.jpg").unlink()
    cut_short(Path("images/train-dome-3.jpg"))
    result = done("embed", "--output", "x.h5", *HERE)
    assert result.stdout == "x.h5: 42 descriptors, 2 unreadable\n"
    assert result.stderr == (
        "unreadable: train-arch-0: not found: tried images/train-arch-0.jpg and 23 other places\n"
        "unreadable: train-dome-3: broken JPEG: cut short\n"
        "2 of 44 pictures are unreadable and have no descriptor\n"
    )
    facts = json.loads(done("info", "x.h5", "--json").stdout)
    assert (facts["done"], facts["unreadable"]) == (42, 2)
    assert facts["unreadable pictures"]["train-dome-3"] == "broken JPEG: cut short"
    report = done("build-index", "x.h5", "--output", "l", "--device", "cpu").stdout
    assert report.startswith("l: built: 30 pictures of 4 landmarks, 12 in the background")
    assert report.endswith(", 2 rows without a descriptor left out\n")
    shutil.copy("images/train-arch-1.jpg", "images/train-arch-0.jpg")
    again = done("embed", "--output", "x.h5", *HERE)
    assert again.stdout == "x.h5: 43 descriptors, 1 unreadable\n"
    assert again.stderr.splitlines()[0] == "1 of 44 pictures there that were not there before, embedded: train-arch-0"
    again = done("embed", "--output", "x.h5", *HERE)
    assert again.stdout == "x.h5: finished already, nothing to do (44 pictures)\n"
    assert again.stderr == (
        "1 of 44 pictures is unreadable and has no descriptor\n"
        "--retry-unreadable tries the unreadable ones again; pictures that changed are tried without it\n"
    )
    again = done("embed", "--output", "x.h5", "--retry-unreadable", *HERE)
    assert again.stdout == "x.h5: 43 descriptors, 1 unreadable\n"


def test_an_unreadable_image_of_a_folder_is_named_by_its_path(tiny_set):
    for label in ("Old Mill", "Red Barn"):
        Path("photos", label).mkdir(parents=True)
        shutil.copy("images/train-arch-1.jpg", Path("photos", label, f"{label}.jpg"))
    Path("photos/Red Barn/empty.jpg").touch()
    result = done("embed", "photos", *HERE)
    path = Path("photos/Red Barn/empty.jpg").absolute()
    assert f"unreadable: empty ({path}): empty file" in result.stderr.splitlines()


def test_a_replaced_image_is_said_and_embedded_again(tiny_set):
    before = read_store("train.h5")
    shutil.copy("images/train-dome-0.jpg", "images/train-arch-0.jpg")
    Path("images/train-dome-1.jpg").unlink()
    result = done("embed", "--check", "content", *HERE)
    assert result.stdout == "train.h5: 44 descriptors, 0 unreadable\n"
    assert result.stderr == (
        "1 of 44 pictures replaced since they were embedded, embedded again: train-arch-0\n"
        "1 of 44 pictures gone or not readable any more, their descriptors stay: train-dome-1\n"
    )
    after = read_store("train.h5")
    changed = [row for row in range(44) if not np.array_equal(before.vectors[row], after.vectors[row])]
    assert after.image_id[changed].tolist() == ["train-arch-0"]


def test_a_store_that_does_not_say_what_its_images_were_is_taken_as_it_is(tiny_set):
    drop_digests(Path("train.h5"))
    with h5py.File("train.h5", "r+") as file:
        for name in ("size", "mtime_ns", "sha256"):
            del file[name]
    shutil.copy("images/train-dome-0.jpg", "images/train-arch-0.jpg")
    result = done("embed", *HERE)
    assert result.stdout == "train.h5: finished already, nothing to do (44 pictures)\n"
    assert result.stderr == (
        "train.h5 does not say what its pictures were (it is of an earlier lmr): all count as unchanged\n"
    )


@pytest.mark.parametrize("n", [1, 16, 17])
def test_any_number_of_images_is_embedded(tiny_set, n):
    rows = Path("train.csv").read_text().splitlines()[1 : n + 1]
    write_csv(Path("few.csv"), "id,landmark_id", rows)
    assert done("embed", "few.csv", *HERE).stdout == f"few.h5: {n} descriptor{'s' if n > 1 else ''}, 0 unreadable\n"
    assert np.allclose(read_store("few.h5").vectors, read_store("train.h5").vectors[:n], atol=2e-3)


def test_the_store_lies_beside_the_manifest(tiny_set):
    Path("parts").mkdir()
    rows = [row for row in Path("train.csv").read_text().splitlines()[1:] if not row.endswith(",")][:8]
    write_csv(Path("parts/few.csv"), "id,landmark_id", rows)
    images = ["--images", "images"]
    assert done("embed", "parts/few.csv", *images, *HERE).stdout == "parts/few.h5: 8 descriptors, 0 unreadable\n"
    assert done("build-index", "parts/few.h5", "--output", "l", "--device", "cpu").exit_code == 0
    assert not Path("few.h5").exists()
    Path("sets/photos/tower").mkdir(parents=True)
    shutil.copy("images/train-dome-0.jpg", "sets/photos/tower/2.jpg")
    assert done("embed", "sets/photos/", *HERE).stdout == "sets/photos.h5: 1 descriptor, 0 unreadable\n"


def test_queries_and_submissions_find_the_store_beside_their_manifest(tiny_set):
    images = ["--images", "images"]
    for folder, command in (("a", "evaluate"), ("b", "submit")):
        Path(folder).mkdir()
        shutil.copy("val.csv", folder)
        done(command, f"{folder}/val.csv", *images, *HERE)
        assert Path(folder, "val.h5").exists()


def test_a_store_of_the_name_where_the_command_runs_is_told_of(tiny_set):
    Path("parts").mkdir()
    shutil.copy("train.csv", "parts/train.csv")
    images = ["--images", "images"]
    told = (
        "train.h5 is there, but stores lie beside their manifests: parts/train.h5 is made; --output train.h5 takes it\n"
    )
    assert told in done("embed", "parts/train.csv", *images, *HERE).stderr
    assert told not in done("embed", "parts/train.csv", *images, *HERE).stderr


def test_the_store_of_standard_input_has_a_name():
    assert store_name(Path("-"), "output") == Path("stdin.h5")
    assert store_name(Path("/dev/fd/63"), "output") == Path("stdin.h5")


def test_stores_of_manifests_whose_names_hold_points_do_not_meet(tmp_path):
    (tmp_path / "photos.2.csv").mkdir()
    names = {
        "a.1.csv": "a.1.h5",
        "a.2.csv": "a.2.h5",
        "a.csv.gz": "a.h5",
        "a.tar.gz": "a.h5",
        "v1.5.parquet": "v1.5.h5",
        "A.CSV": "A.h5",
        ".csv": ".csv.h5",
        "photos.2.csv": "photos.2.csv.h5",
        "notes.final": "notes.final.h5",
    }
    assert {name: store_name(tmp_path / name, "output").name for name in names} == names


def test_where_nothing_can_be_written_beside_the_manifest_the_option_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    for word in ("output", "store"):
        with pytest.raises(LmrError) as caught:
            store_name(tmp_path / "a.csv", word)
        assert str(caught.value) == f"{tmp_path}: nothing can be written beside a.csv; give `{word}` STORE.h5"


def test_workers_change_nothing(tiny_set):
    done("embed", "--output", "x.h5", "--workers", "3", "--threads", "1", "--device", "cpu")
    assert np.array_equal(read_store("x.h5").vectors, read_store("train.h5").vectors)


def test_a_folder_of_folders_is_a_manifest(tiny_set):
    for label in ("my house", "tower"):
        Path("mine", label).mkdir(parents=True)
    shutil.copy("images/train-arch-0.jpg", "mine/my house/1.jpg")
    shutil.copy("images/train-dome-0.jpg", "mine/tower/2.jpg")
    shutil.copy("images/train-other-0.jpg", "mine/3.jpg")
    assert done("embed", "mine", *HERE).stdout == "mine.h5: 3 descriptors, 0 unreadable\n"
    store = read_store("mine.h5")
    assert store.landmarks == ("my_house", "tower")
    assert store.names == {"my_house": "my house"}
    shutil.move("mine", "elsewhere")
    assert done("embed", "elsewhere", "--output", "mine.h5", *HERE).stdout == (
        "mine.h5: finished already, nothing to do (3 pictures)\n"
    )


def test_flip_and_size_change_descriptors_and_the_fingerprint(tiny_set):
    done("embed", "--flip", "--dtype", "float32", "--output", "flip.h5", *HERE)
    done("embed", "--size", "48", "--output", "large.h5", *HERE)
    stores = [read_store(name) for name in ("train.h5", "flip.h5", "large.h5")]
    assert len({store.info.fingerprint for store in stores}) == 3
    assert [store.vectors.dtype.name for store in stores] == ["float16", "float32", "float16"]
    assert not np.allclose(stores[0].vectors, stores[1].vectors, atol=1e-3)


def test_a_descriptor_of_neck_and_pooled_features_goes_all_the_way(tiny_set):
    assert refused("embed", "--descriptor", "both", "--output", "b.h5", *HERE) == (
        "--descriptor both: this network has no neck, its descriptors are the pooled features; "
        "leave it out, or make the network with --dimensions"
    )
    assert not Path("b.h5.partial").exists()
    both = ["--descriptor", "both", "--model", "m"]
    done("embed", *NETWORK, "--dimensions", "16", *both, "--output", "b.h5", *HERE)
    assert read_store("b.h5").vectors.shape[1] == 16 + 1024
    done("embed", "--model", "m", "--output", "again.h5", *HERE)  # the model remembers
    assert read_store("again.h5").info == read_store("b.h5").info
    done("build-index", "b.h5", "--model", "m", "--output", "l", "--device", "cpu")
    (answer,) = json.loads(done("query", "images/train-arch-0.jpg", "--index", "l", "--json", *HERE).stdout)
    assert answer["in_index"] == "train-arch-0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backbone", "shufflenet_v2_x05"], "--backbone shufflenet_v2_x05: torchvision has no such network; did you "
         "mean shufflenet_v2_x0_5, shufflenet_v2_x2_0, shufflenet_v2_x1_5?"),
        ([*NETWORK, "--backbone-option", "widht=1"], "--backbone shufflenet_v2_x0_5: ShuffleNetV2.__init__() got an "
         "unexpected keyword argument 'widht'; check --backbone-option {{\"widht\": 1}}"),
        ([*NETWORK, "--backbone-option", "x"], "--backbone-option x: expected NAME=VALUE, such as pad_type=same"),
        ([*NETWORK, "--mean", "2,2,2"], "--mean must be three numbers in [0, 1], got (2.0, 2.0, 2.0)"),
        ([*NETWORK, "--std", "0,1,1"], "--std must be three positive numbers, got (0.0, 1.0, 1.0)"),
        ([*NETWORK, "--std", "1,1"], "--std 1,1: expected three numbers with commas, such as 0.5,0.5,0.5"),
        ([*NETWORK, "--gem-p", "inf"], "--gem-p must be positive, got inf"),
        ([*NETWORK, "--pretrained", "--weights", "x.pt"],
         "--pretrained and --weights exclude each other; give one (in a recipe: pretrained=false)"),
        ([*NETWORK, "--device", "cuda:99"],
         "--device cuda:99: this machine has {n_gpus} CUDA devices; use --device cpu"),
        ([*NETWORK, "--device", "tpu"], "--device tpu: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps"),
        ([*NETWORK, "--threads", "0"], "--threads must be at least 1, got 0"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_network_that_cannot_be_made_leaves_nothing(images, options, message):
    import torch

    files = listing(images)
    assert refused("embed", *options) == message.format(n_gpus=torch.cuda.device_count())
    assert {name: digest for name, digest in listing(images).items() if not name.startswith("model/")} == files


def test_a_network_is_not_saved_when_its_store_would_be_refused(tiny_set):
    files = listing(tiny_set)
    assert refused("embed", *NETWORK, "--pooling", "avg", "--model", "new", *HERE).startswith(
        "train.h5 was made with another model ("
    )
    assert listing(tiny_set) == files


def test_a_misspelt_option_names_the_right_one(images):
    said = misused("embed", "--flipp")  # and perhaps others, as click's release has it
    assert said.startswith("No such option '--flipp'.")
    assert "'--flip'" in said
    assert misused("embed", "--dtype", "float61").startswith("Invalid value for '--dtype': 'float61' is not one of ")


def test_a_store_holds_what_made_it(tiny_set):
    with h5py.File("train.h5") as file:
        assert file.attrs["format_version"] == 1
        assert json.loads(file.attrs["model"])["config"]["backbone"] == "shufflenet_v2_x0_5"
        assert json.loads(file.attrs["image_spec"])["size"] == 32


def test_a_profile_tells_where_the_time_went(tiny_set):
    result = done("embed", "--output", "x.h5", "--profile", "--json", "--workers", "2", "--threads", "1")
    document = json.loads(result.stdout)
    profile = document.pop("profile")
    made = {"store": "x.h5", "state": "made", "pictures": 44, "unreadable": 0, "unreadable_table": None, "local": None}
    assert document == made
    assert list(profile["stages"]) == ["read", "decode", "resize", "wait", "transfer", "forward", "write"]
    assert [stage["threads"] for stage in profile["stages"].values()] == [2, 2, 2, 1, 1, 1, 1]
    assert profile["images"] == 44
    assert profile["images_per_s"] == pytest.approx(44 / profile["seconds"])
    for name, stage in profile["stages"].items():
        assert 0 < stage["seconds"] <= stage["threads"] * profile["seconds"], name
        assert stage["share"] == pytest.approx(stage["seconds"] / (stage["threads"] * profile["seconds"]))
        if name != "wait":
            assert stage["images_per_s"] == pytest.approx(stage["threads"] * 44 / stage["seconds"])
    batches = ("wait", "transfer", "forward", "write")
    assert sum(profile["stages"][name]["seconds"] for name in batches) <= profile["seconds"]
    assert np.array_equal(read_store("x.h5").vectors, read_store("train.h5").vectors)
    text = done("embed", "--output", "y.h5", "--profile", *HERE).stdout.splitlines()
    assert text[0] == "y.h5: 44 descriptors, 0 unreadable"
    assert text[1].split() == ["stage", "threads", "seconds", "share", "images/s"]
    assert [line.split()[0] for line in text[2:-1]] == [*profile["stages"], "all"]
    assert text[-1].startswith("bound by: ")
    again = done("embed", "--output", "y.h5", "--profile", *HERE).stdout
    assert again == "y.h5: finished already, nothing to do (44 pictures)\n"


def test_what_is_chosen_from_the_machine_is_said_once(tiny_set):
    said = hear("embed", "--output", "x.h5", "--device", "cpu", "--threads", "1").stderr.splitlines()
    told = [line for line in said if line.startswith("computing in ")]
    n = count_workers(None, SILENT)
    assert len(told) == 1
    assert re.fullmatch(
        r"computing in (float32|bfloat16) on cpu with 1 thread, 16 images at once; "
        rf"decoding with {n} threads? \(one for each core\)",
        told[0],
    )
    assert not [line for line in hear("embed", "--output", "x.h5").stderr.splitlines() if "computing" in line]


def test_openvino_computes_where_it_is_asked_for(tiny_set):
    pytest.importorskip("openvino")
    result = hear("embed", "--engine", "openvino", "--output", "x.h5", *HERE)
    assert result.stdout == "x.h5: 44 descriptors, 0 unreadable\n"
    assert re.search(r"computing in (float32|bfloat16) by OpenVINO on cpu with 1 thread, 16 images", result.stderr)
    given, expected = read_store("x.h5"), read_store("train.h5")
    assert given.info.fingerprint == expected.info.fingerprint
    assert given.vectors == pytest.approx(expected.vectors, abs=0.02)


def test_openvino_is_refused_where_it_cannot_be(tiny_set, monkeypatch):
    pytest.importorskip("openvino")
    done("export", "model", "x.onnx")
    assert refused("embed", "--model", "x.onnx", "--engine", "openvino", "--output", "x.h5", *HERE) == (
        "--engine openvino: x.onnx has no weights, it is of lmr export, which onnxruntime computes"
    )
    assert refused("embed", "--engine", "openvino", "--device", "mps", "--output", "x.h5") == (
        "--engine openvino computes on the CPU, not on --device mps; leave one of them out"
    )
    monkeypatch.setattr("retrieval.extras.find_spec", lambda name: None)
    said = refused("embed", "--engine", "openvino", "--output", "x.h5", *HERE)
    assert said.startswith("--engine openvino needs openvino; pip install ")
    assert "[openvino]" in said
    assert not Path("x.h5").exists()
