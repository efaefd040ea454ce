"""What every test of this room stands on, and a small manifest on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_world import LABELS, jpeg

from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest, read_manifest


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The same sums in the same order, and no fight for the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network computes in float32, whatever this machine is fast in."""
    for function in ("embed.torch_embedder.fast_dtype", "train.state.training_dtype"):
        monkeypatch.setattr(f"retrieval.{function}", lambda _: torch.float32)


@pytest.fixture
def make_manifest(tmp_path: Path) -> Callable[..., tuple[Manifest, ImageSource]]:
    """Writes `n` images of three landmarks and non-landmarks in turn, and their manifest, to a folder."""

    def make(n: int = 12, *, name: str = "train.csv") -> tuple[Manifest, ImageSource]:
        images = tmp_path / "images"
        images.mkdir(exist_ok=True)
        lines = ["id,landmark_id,kind"]
        for i in range(n):
            label = i % 4 - 1
            (images / f"p{i}.jpg").write_bytes(jpeg(label, i))
            lines.append(f"p{i},{LABELS[label] if label >= 0 else ''},{'noise' if label < 0 else 'photo'}")
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        manifest = read_manifest(path)
        return manifest, ImageSource(manifest, images)

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    from tiny_training import trained

    folder = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.train.state.training_dtype", lambda _: torch.float32)
        trained(folder)
    return folder
