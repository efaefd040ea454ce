"""A Spark job over a Parquet table of pictures of Open Images, step by step; docs/open-images-on-spark.md explains it.

python3 scripts/open_images_on_spark.py PICTURES LABELS --work FOLDER [OPTIONS]
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lmr
from retrieval.progress import SILENT
from retrieval.spark.cluster import Cluster
from retrieval.spark.config import SparkJob

SIZE = 224  # pixels that MobileNet looks at
CHECKED = 0.99  # least confidence of a label that somebody confirmed
N_CLASSES = 1000  # of the weights that torchvision gives, ImageNet's
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the colours there
N_FOUND = 5


def main(arguments: Sequence[str]) -> int:
    """Does all steps that are not done yet, and prints what they found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", help="Parquet table with the columns ImageID and image (bytes)")
    parser.add_argument("labels", help="CSV file of labels: ImageID,Source,LabelName,Confidence")
    parser.add_argument("--work", type=Path, required=True, help="folder of all results, seen by all executors")
    parser.add_argument("--master", help="of the Spark cluster; as Spark is configured where it is not given")
    parser.add_argument("--weights", type=Path, help="state of torchvision's mobilenet_v3_small; random without it")
    parser.add_argument("--classes", type=Path, help="CSV file: number,LabelName of each class of the network")
    parser.add_argument("--backbone", default="mobilenet_v3_small", help="network of the descriptors")
    parser.add_argument("--pretrained", action="store_true", help="give it torchvision's weights, which are fetched")
    parser.add_argument("--query", help="picture to look for; that of most pixels per inch without it")
    parser.add_argument("--clusters", type=int, default=10)
    given = parser.parse_args(arguments)
    given.work.mkdir(exist_ok=True)
    on_spark: dict[str, Any] = {"engine": "spark", **({"master": given.master} if given.master else {})}
    with Cluster(SparkJob(**on_spark), SILENT):  # one session, which every step joins
        found = {
            "labels": label_statistics(given.labels, given.work),
            "pixels_per_inch": rank_by_resolution(given.pictures, given.work, on_spark),
            "predictions": predict(given.pictures, given.work / "predictions.parquet", given.weights),
            "accuracy": accuracy_of_labels(given.work / "predictions.parquet", given.labels, given.classes),
            **search_and_cluster(given, on_spark),
        }
    print(json.dumps(found, indent=1))
    return 0


def label_statistics(labels: str, work: Path) -> list[dict[str, Any]]:
    """The most frequent labels; all that is known of them is in labels.json."""
    found = lmr.stats(labels, min_label_confidence=CHECKED)
    (work / "labels.json").write_text(json.dumps(found.to_json(), indent=1))
    return [{"label": row.landmark_id, "pictures": row.pictures} for row in found.data.most_frequent]


def rank_by_resolution(pictures: str, work: Path, on_spark: dict[str, Any]) -> list[str]:
    """The pictures of most pixels per inch, measured by executors; all of them are in pictures.csv, best first."""
    found = lmr.stats(pictures, facts=work / "picture-facts.sqlite", **on_spark)
    lines = list(found.image_lines())
    (work / "pictures.csv").write_text("".join(lines))
    return [line.split(",")[0] for line in lines[1 : N_FOUND + 1]]


def predict(pictures: str, output: Path, weights: Path | None) -> int:
    """The class of each picture by MobileNet, as a Parquet table that Spark writes: ImageID, class, probability."""
    spark = session()
    if weights is not None:
        spark.sparkContext.addFile(whole(weights))
    if not (output / "_SUCCESS").exists():
        table = spark.read.parquet(whole(pictures)).select("ImageID", "image")
        schema = "ImageID string, class int, probability double, problem string"
        predicted = table.mapInPandas(predictor(weights.name if weights else None), schema)
        predicted.write.mode("overwrite").parquet(whole(output))
    return int(spark.read.parquet(whole(output)).where("problem IS NULL").count())


def predictor(weights: str | None) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A function for mapInPandas. weights: name of the file that Spark shipped, None = random ones."""
    size, n_classes, mean, deviation = SIZE, N_CLASSES, MEAN, DEVIATION  # a closure goes to the executors by value

    def predict_batches(batches: Iterator[Any]) -> Iterator[Any]:
        import numpy as np
        import pandas as pd
        import torch
        import torchvision
        from pyspark import SparkFiles

        from retrieval.errors import UnreadableError
        from retrieval.images.preprocess import prepare
        from retrieval.images.spec import ImageSpec

        torch.manual_seed(0)
        network = torchvision.models.mobilenet_v3_small(weights=None, num_classes=n_classes).eval()
        if weights is not None:
            network.load_state_dict(torch.load(SparkFiles.get(weights), weights_only=True))
        spec = ImageSpec(size=size)
        for batch in batches:
            rows = []
            for image_id, data in zip(batch["ImageID"], batch["image"], strict=True):
                try:
                    pixels = (prepare(bytes(data), spec) / 255 - mean) / deviation
                except UnreadableError as error:
                    rows.append((image_id, None, None, str(error)))
                    continue
                with torch.no_grad():
                    logits = network(torch.from_numpy(np.moveaxis(pixels, 2, 0)[None]).float())[0]
                probability, number = logits.softmax(0).max(0)
                rows.append((image_id, int(number), float(probability), None))
            yield pd.DataFrame(rows, columns=["ImageID", "class", "probability", "problem"])

    return predict_batches


def accuracy_of_labels(predictions: Path, labels: str, classes: Path | None) -> list[dict[str, Any]]:
    """Of the pictures of each checked label the share whose predicted class is that label."""
    spark = session()
    spark.read.parquet(whole(predictions)).createOrReplaceTempView("predictions")
    spark.read.csv(whole(labels), header=True, inferSchema=True).createOrReplaceTempView("labels")
    if classes is None:
        spark.sql("SELECT 0 AS number, '' AS LabelName WHERE false").createOrReplaceTempView("classes")
    else:
        spark.read.csv(whole(classes), header=True, inferSchema=True).createOrReplaceTempView("classes")
    rows = spark.sql(
        f"""
        SELECT labels.LabelName AS label, count(*) AS pictures,
               avg(CASE WHEN classes.LabelName = labels.LabelName THEN 1.0 ELSE 0.0 END) AS accuracy
        FROM labels JOIN predictions ON labels.ImageID = predictions.ImageID
        LEFT JOIN classes ON classes.number = predictions.class
        WHERE labels.Confidence >= {CHECKED} AND predictions.problem IS NULL
        GROUP BY labels.LabelName ORDER BY label
        """
    ).collect()
    return [{"label": row.label, "pictures": row.pictures, "accuracy": float(row.accuracy)} for row in rows]


def search_and_cluster(given: argparse.Namespace, on_spark: dict[str, Any]) -> dict[str, Any]:
    """The pictures most like the one looked for, and clusters of all; each picture's cluster is in clusters.csv."""
    work, store, index, model = given.work, given.work / "pictures.h5", given.work / "index", given.work / "model"
    network = {"backbone": given.backbone, "pretrained": given.pretrained, "size": SIZE}
    lmr.embed(given.pictures, output=store, model=model, **network, **on_spark)
    lmr.build_index([store], output=index, model=model, **on_spark)
    known = None if given.query else first_of(work / "pictures.csv")
    page = lmr.open_index(index).search(given.query, image_id=known, n=N_FOUND)
    facts = work / "picture-facts.sqlite"
    found = lmr.stats(given.pictures, facts=facts, store=store, clusters=given.clusters, **on_spark)
    (work / "clusters.csv").write_text("".join(found.cluster_lines()))
    assert found.clusters is not None, "clusters were asked for"
    return {
        "similar": [item.neighbour.image_id for item in page.items],
        "clusters": [cluster.pictures for cluster in found.clusters.clusters],
        "purity": found.clusters.purity,
    }


def first_of(table: Path) -> str:
    """The first picture of a CSV file."""
    return table.read_text().splitlines()[1].split(",")[0]


def whole(path: str | Path) -> str:
    """A path that does not depend on the folder in which Spark was started; a URL as it is."""
    return str(path) if "://" in str(path) else str(Path(path).absolute())


def session() -> Any:
    """The session of Spark that runs."""
    from pyspark.sql import SparkSession

    return SparkSession.getActiveSession()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
