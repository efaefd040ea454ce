"""The exported network beside the weights of an index: made by build-index, taken by what asks the index, and told."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_imports import require_no_more
from tiny_set import HERE, done, hear, make_images, refused, run

import lmr
from retrieval.embed.onnx_embedder import OnnxEmbedder
from retrieval.embed.onnx_export import Exported, NotExportableError
from retrieval.extras import install_hint

NETWORK = ("--backbone", "plain-cnn", "--size", "32")
BUILD = ("build-index", "--device", "cpu", "--workers", "1")
ASKED = ("query", "images/test-arch-0.jpg", "images/val-dome-0.jpg", "--json", *HERE)


@pytest.fixture(scope="module")
def exported_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, stores, an index with an exported network, and its calibration; not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    make_images(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done("embed", *NETWORK, *HERE)
        assert done(*BUILD, "--engine", "onnx").stderr == (
            "exporting the network to ONNX, by which queries start sooner; --engine torch leaves that out\n"
        )
        done("calibrate", "val.csv", *HERE)
    return folder


@pytest.fixture
def exported(exported_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that is the working folder."""
    folder = shutil.copytree(exported_set, tmp_path / "set")
    monkeypatch.chdir(folder)
    return Path(folder)


@pytest.fixture
def stored(exported: Path) -> Path:
    """The same before the index was built."""
    shutil.rmtree("landmarks")
    return exported


def export_of(index: str = "landmarks") -> dict[str, object]:
    content: dict[str, dict[str, object]] = json.loads(Path(index, "index.json").read_text())
    return content["export"]


def test_build_index_exports_the_network_beside_its_weights(exported):
    names = sorted(path.name for path in Path("landmarks/model").iterdir())
    (weights,) = (name for name in names if name.startswith("weights-"))
    assert names == ["model.json", "model.onnx", weights]
    told = export_of()
    (sha256,) = told["weights_sha256"]
    assert weights == f"weights-{sha256[:12]}.safetensors"
    assert 0 <= told["difference"] < told["tolerance"] == 1e-4
    assert (told["n_rows"], told["refused"]) == (16, "")
    assert 0.999 < told["least_cosine"] < 1.0001
    done("index", "verify", "landmarks")
    before = Path("landmarks/index.json").read_bytes()
    again = done(*BUILD, "--engine", "onnx")
    assert again.stdout.splitlines()[0].startswith("landmarks: unchanged, nothing to do: ")
    assert again.stdout.splitlines()[1].startswith("landmarks: its network is exported beside its weights: within ")
    assert (again.stderr, Path("landmarks/index.json").read_bytes()) == ("", before)


def test_both_engines_give_the_same_answers(exported):
    by_torch, by_onnx = (json.loads(done(*ASKED, "--engine", engine).stdout) for engine in ("torch", "onnx"))
    assert [answer["landmark_id"] for answer in by_onnx] == [answer["landmark_id"] for answer in by_torch]
    for one, other in zip(by_onnx, by_torch, strict=True):
        near = [[row["image_id"] for row in answer["neighbours"]] for answer in (one, other)]
        assert near[0][0] == near[1][0]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=0.01)


@pytest.mark.parametrize(
    "line",
    [
        ("submit", "test.csv", "--overwrite"),
        ("calibrate", "val.csv", "--overwrite", "--store", "new.h5"),
        ("evaluate", "solution.csv", "--store", "new.h5"),
        ("sync", "images", "--store", "new.h5"),
    ],
    ids=lambda line: line[0],
)
def test_what_embeds_for_an_index_says_by_which_engine(exported, line):
    Path("test.h5").unlink(missing_ok=True)
    assert "computing in onnxruntime on cpu with 1 thread" in hear(*line, *HERE, "--engine", "onnx").stderr


def test_a_query_by_onnx_waits_for_nothing_that_it_does_not_use(exported):
    require_no_more(exported, 0, frozenset({"onnxruntime", "faiss", "h5py"}), " ".join((*ASKED, "--engine", "onnx")))


def test_python_opens_an_index_with_an_engine(exported):
    by_onnx = lmr.open_index("landmarks", device="cpu", threads=1, engine="onnx")
    assert isinstance(by_onnx.embedder, OnnxEmbedder)
    assert by_onnx.warnings == []
    by_torch = lmr.open_index("landmarks", device="cpu", threads=1, engine="torch")
    paths = ["images/test-arch-0.jpg", "images/val-dome-0.jpg"]
    (one, _), (other, _) = by_onnx.embed(paths), by_torch.embed(paths)
    assert np.einsum("qd,qd->q", one, other) == pytest.approx([1, 1], abs=1e-3)


def test_an_exported_network_that_is_damaged_is_not_used_and_that_is_said(exported, monkeypatch):
    monkeypatch.setenv("LMR_ENGINE", "auto")
    monkeypatch.delenv("LMR_PRECISION", raising=False)
    path = Path("landmarks/model/model.onnx")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    damaged = (
        f"{path} is damaged: its sha256 is not the one at its end; copy it again if it is a copy, else run lmr export "
        "--overwrite"
    )
    assert done(*ASKED).stderr == f"warning: {damaged}; torch computes in its place\n"
    assert refused(*ASKED, "--engine", "onnx") == damaged
    assert refused("index", "verify", "landmarks").startswith(f"{path} was changed or damaged: its sha256 is not ")


def test_info_tells_of_the_export_and_of_the_engine(exported, monkeypatch):
    monkeypatch.delenv("LMR_PRECISION", raising=False)
    for engine in ("torch", "onnx"):
        monkeypatch.setenv("LMR_ENGINE", engine)
        facts = json.loads(done("info", "landmarks", "--json").stdout)
        assert (facts["engine"], facts["export"]) == (engine, export_of())
        facts = json.loads(done("index", "info", "landmarks", "--json").stdout)
        assert (facts["engine"], facts["export"]) == (engine, export_of())


def test_an_index_that_is_changed_keeps_its_exported_network(exported):
    before = export_of()
    done("index", "remove", "train-arch-0")
    assert export_of() == before
    assert isinstance(lmr.open_index("landmarks", device="cpu", engine="onnx").embedder, OnnxEmbedder)


def test_a_network_that_cannot_be_exported_is_asked_by_torch_and_tried_once(stored, monkeypatch):
    tried = []

    def refuse(*_: object) -> None:
        tried.append(1)
        raise NotExportableError("this network cannot be exported to ONNX: no such operator; serve it with torch")

    monkeypatch.setattr("retrieval.embed.onnx_export.export_onnx", refuse)
    monkeypatch.setenv("LMR_ENGINE", "auto")
    line = (
        "landmarks: its network is not exported, torch answers: this network cannot be exported to ONNX: no such "
        "operator; serve it with torch"
    )
    for n_tried, more in ((1, ()), (1, ()), (2, ("--engine", "onnx"))):
        assert done(*BUILD, *more).stdout.splitlines()[-1] == line
        assert len(tried) == n_tried
    assert export_of()["refused"].startswith("this network cannot be exported to ONNX: no such operator")
    assert not Path("landmarks/model/model.onnx").exists()
    done(*ASKED)
    assert refused(*ASKED, "--engine", "onnx") == (
        "--engine onnx: landmarks/model has no exported network; run the same lmr build-index again, which adds it or "
        "says why it cannot be"
    )


def test_by_torch_or_without_the_extra_an_index_is_as_it_was(stored, monkeypatch):
    def begin(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("retrieval.embed.export.export_like_rows", begin)
    done(*BUILD, "--engine", "torch")
    assert export_of() is None
    monkeypatch.setattr("retrieval.extras.find_spec", lambda _: None)
    monkeypatch.setenv("LMR_ENGINE", "auto")
    assert done(*BUILD, "--overwrite").stdout == (
        "landmarks: built: 32 pictures of 4 landmarks, 12 in the background, d = 43\n"
    )
    assert export_of() is None
    monkeypatch.setattr("index.folder.build.build_folder", begin)
    wanting = f"--engine onnx needs onnx and onnxscript and onnxruntime; {install_hint('onnx')}"
    assert refused(*BUILD, "--engine", "onnx", "--overwrite") == wanting
    assert run(*ASKED, "--engine", "fast").exit_code == 2


@pytest.mark.parametrize("killed_in", ["retrieval.embed.export.export_like_rows", "index.folder.info.write_info"])
def test_a_kill_before_the_export_is_in_place_leaves_a_whole_index_and_the_next_build_adds_it(
    exported_set, stored, monkeypatch, killed_in
):
    class KilledError(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise KilledError

    made = exported_set / "landmarks/model/model.onnx"

    def export(_: Path, __: object, output: Path) -> Exported:
        shutil.copyfile(made, output)
        return Exported(1e-7, 128, made.stat().st_size)

    monkeypatch.setattr("retrieval.embed.onnx_export.export_onnx", export)
    done(*BUILD, "--engine", "torch")
    whole = Path("landmarks/index.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(killed_in, kill)
        with pytest.raises(KilledError):
            run(*BUILD, "--engine", "onnx")
    assert Path("landmarks/index.json").read_bytes() == whole
    done("index", "verify", "landmarks")
    done(*ASKED)
    done(*BUILD, "--engine", "onnx")
    assert export_of()["difference"] == 1e-7
    assert Path("landmarks/model/model.onnx").read_bytes() == made.read_bytes()
    done("index", "verify", "landmarks")
