"""The example of docs/open-images-on-spark.md, on a small table of pictures and two executors."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torchvision
from made_table import LABELS, N_OF_LABEL, write_labels, write_table

from retrieval.spark.cluster import Cluster

MASTER = "local-cluster[2,1,1024]"
N = len(LABELS) * N_OF_LABEL


@pytest.fixture(scope="module")
def example() -> Any:
    path = Path(__file__).parents[2] / "scripts" / "open_images_on_spark.py"
    spec = importlib.util.spec_from_file_location("open_images_on_spark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def here(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pictures.parquet, labels.csv, classes.csv and weights of a MobileNet that says class 1 of every picture."""
    monkeypatch.chdir(tmp_path)
    write_table(Path("pictures.parquet"))
    write_labels(Path("labels.csv"))
    lines = [f"{number},{label}" for number, label in enumerate(LABELS)]
    Path("classes.csv").write_text("\n".join(["number,LabelName", *lines]) + "\n")
    network = torchvision.models.mobilenet_v3_small(weights=None)
    with torch.no_grad():
        network.classifier[3].weight.zero_()
        network.classifier[3].bias.copy_(torch.eye(1000)[1])
    torch.save(network.state_dict(), "mobilenet.pth")
    return tmp_path


def test_all_steps_of_the_job_give_what_they_should(
    here: Path, example: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--weights", "mobilenet.pth", "--classes", "classes.csv", "--clusters", "3", "--master", MASTER]
    words += ["--backbone", "shufflenet_v2_x0_5"]
    assert example.main(["pictures.parquet", "labels.csv", "--work", "work", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == [{"label": label, "pictures": N_OF_LABEL} for label in LABELS]
    assert found["pixels_per_inch"] == ["0-11", "1-11", "0-10", "1-10", "2-10"]  # the largest; 2-11 is broken
    assert found["predictions"] == N - 1
    predicted = pd.read_parquet("work/predictions.parquet")
    assert predicted[predicted.problem.isna()]["class"].unique().tolist() == [1]
    assert predicted[predicted.problem.notna()].ImageID.tolist() == ["2-11"]
    counts = [N_OF_LABEL, N_OF_LABEL, N_OF_LABEL - 1]
    assert found["accuracy"] == [
        {"label": label, "pictures": n, "accuracy": float(label == LABELS[1])}
        for label, n in zip(LABELS, counts, strict=True)
    ]
    assert len(found["similar"]) == 5
    assert {name[0] for name in found["similar"]} == {"0"}  # of the label of the first of pictures.csv, 0-11
    assert sum(found["clusters"]) == N - 1
    assert len(Path("work/clusters.csv").read_text().splitlines()) == N
    assert len(Path("work/pictures.csv").read_text().splitlines()) == N + 1
