"""An exported model in place of weights: every command takes it, and none of those that answer imports torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_onnx import MEANS, write_means
from tiny_set import HERE, done, refused

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from cli.main import main; main(sys.argv[1:])"


def done_without_torch(*arguments: str) -> str:
    """stdout of an `lmr` in a process where torch cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_whole_way_needs_no_torch(images):
    write_means(Path("m.onnx"))
    done_without_torch("embed", "train.csv", "--model", "m.onnx", *HERE)
    done_without_torch("build-index", "--model", "m.onnx", "--device", "cpu")
    assert sorted(path.name for path in Path("landmarks/model").iterdir()) == ["model.json", "model.onnx"]
    Path("m.onnx").unlink()
    content = json.loads(done_without_torch("evaluate", "val.csv", "--json", *HERE))
    assert content["top1"] > 0.5
    done_without_torch("submit", "test.csv", *HERE)
    said = done_without_torch("query", "images/test-arch-0.jpg", "--json", *HERE)
    (answer,) = json.loads(said)
    assert answer["landmarks"][0]["landmark_id"] == "arch"
    assert json.loads(done_without_torch("info", "landmarks", "--json"))["fingerprint"] == MEANS.fingerprint


def test_what_needs_torch_says_so_in_one_line(images):
    command = [sys.executable, "-c", WITHOUT_TORCH, "train", "train.csv", "--backbone", "plain-cnn"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [
        "train.csv: 44 images of 4 landmarks, 12 without",
        "Error: torch is not installed; without it only models of lmr export work",
    ]
    assert (result.returncode, result.stderr.splitlines()) == (1, lines)


def test_options_that_an_exported_model_cannot_follow_are_refused(images):
    write_means(Path("m.onnx"))
    expected = "m.onnx describes pictures as it was exported; run lmr export with the same options"
    assert refused("embed", "--model", "m.onnx", "--flip", *HERE) == expected
    assert refused("embed", "--model", "m.onnx", "--size", "32", *HERE) == expected
    done("embed", "--model", "m.onnx", "--size", "16", *HERE)
    assert refused("export", "m.onnx", "n.onnx") == (
        "m.onnx is exported already; give the model folder that it was made of"
    )


def test_an_index_says_that_its_exported_model_was_changed(images):
    write_means(Path("m.onnx"))
    done("embed", "--model", "m.onnx", *HERE)
    done("build-index", "--model", "m.onnx", "--device", "cpu")
    model = Path("landmarks/model/model.onnx")
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    assert refused("query", "images/test-arch-0.jpg", *HERE) == (
        "landmarks/model/model.onnx was changed or damaged: its sha256 is not that of index.json; "
        "copy the folder again or run lmr build-index again"
    )


@pytest.mark.parametrize(("arguments", "message"), [
    (["model", "m.txt"], "m.txt: the name of an exported model ends in .onnx"),
    (["nowhere", "m.onnx"], "nowhere: there is no model (no model.json); lmr train makes one"),
    (["model", "m.onnx", "--scales", "1,x"],
     "--scales 1,x: expected numbers above 0 up to 8 with commas, such as 0.707,1,1.414"),
])  # fmt: skip
def test_an_export_that_cannot_be_is_one_line(tiny_set, arguments, message):
    assert refused("export", *arguments) == message
    assert not Path("m.onnx").exists()


def test_an_export_that_is_there_is_nothing_to_do_and_anything_else_is_refused(tiny_set):
    from retrieval.models.folder import read_card

    write_means(Path("m.onnx"), read_card(Path("model")))
    data = Path("m.onnx").read_bytes()
    assert done("export", "model", "m.onnx").stdout == "m.onnx: unchanged, nothing to do\n"
    assert refused("export", "model", "m.onnx", "--flip") == (
        "m.onnx exists and is another model; --overwrite replaces it"
    )
    assert Path("m.onnx").read_bytes() == data
    Path("m.onnx").write_bytes(b"")
    message = refused("export", "model", "m.onnx")
    assert message.startswith("m.onnx cannot be opened as ONNX by onnxruntime ")
    assert message.endswith("; give another file, or make one with lmr export; or give another OUTPUT")
    assert Path("m.onnx").read_bytes() == b""


def test_an_export_with_a_flipped_bit_is_neither_unchanged_nor_used(tiny_set):
    from retrieval.embed.onnx_digest import with_digest
    from retrieval.models.folder import read_card

    path = write_means(Path("m.onnx"), read_card(Path("model")))
    path.write_bytes(with_digest(path.read_bytes()))
    assert done("export", "model", "m.onnx").stdout == "m.onnx: unchanged, nothing to do\n"
    data = bytearray(path.read_bytes())
    data[data.index(b"axes")] ^= 1
    path.write_bytes(data)
    damaged = (
        "m.onnx is damaged: its sha256 is not the one at its end; copy it again if it is a copy, else run lmr export "
        "--overwrite"
    )
    assert refused("export", "model", "m.onnx") == f"{damaged}; or give another OUTPUT"
    assert refused("embed", "train.csv", "--model", "m.onnx", "--output", "x.h5", *HERE) == damaged
    assert refused("info", "m.onnx") == damaged
    assert path.read_bytes() == data
