"""Validation of a network while it is trained: GAP and top-1 of its answers to labelled images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from index.metrics import gap
from index.search.flat import FlatIndex
from index.vote import best, vote
from index.vote_rule import VoteRule
from retrieval.arrays import FloatArray, IntArray, LongArray
from retrieval.data.image_source import ImageSource, images_folder, index_tars
from retrieval.data.labels import require_meeting
from retrieval.data.overview import load_manifest
from retrieval.errors import LmrError

if TYPE_CHECKING:
    import torch

    from retrieval.images.spec import ImageSpec
    from retrieval.models.network import DescriptorModel
    from retrieval.train.data import TrainingData
    from retrieval.train.job import TrainJob
    from retrieval.train.losses import LandmarkLoss
    from retrieval.train.run import Validate

N_ROWS = 20_000  # training images in the index of a validation; more would take longer than the epoch

Answers = tuple[LongArray, IntArray | LongArray, FloatArray]  # of the readable queries: row, label and score


def make_validation(
    job: "TrainJob", data: "TrainingData", spec: "ImageSpec", device: "torch.device", n_workers: int
) -> "tuple[Validate, str]":
    """A function that gives the GAP and top-1 of a network on the validation manifest, and the manifest's digest.

    A linear head answers by its classes, since its features are not made for cosines; others by the default vote.
    Raises LmrError without a labelled query, and where queries and training data have no landmark in common.
    """
    assert job.val is not None
    index_tars(job.val, job.progress)
    manifest = load_manifest(job.val, job.progress)
    queries = ImageSource(manifest, images_folder(job.images, job.val, job.progress))
    truth = [frozenset(manifest.landmarks[code] for code in manifest.truths(i)) for i in range(len(manifest))]
    n_landmark_queries = sum(map(bool, truth))
    if not n_landmark_queries:
        raise LmrError(f"`val` {job.val}: no row has a landmark_id; validation needs labelled pictures")
    if not job.allow_disjoint:
        require_meeting(manifest.landmarks, data.labels, (f"`val` {job.val}", "the training data"))
    rows = np.sort(np.random.default_rng(0).permutation(np.flatnonzero(data.landmark >= 0))[:N_ROWS])

    def by_vote(model: "DescriptorModel") -> Answers:
        from retrieval.embed.torch_embedder import TorchEmbedder

        embedder = TorchEmbedder(model, spec, device, n_workers=n_workers)
        index_rows, vectors = embedder.embed_all(data.source, rows)
        query_rows, descriptors = embedder.embed_all(queries, np.arange(len(manifest)))
        neighbours = FlatIndex.build(vectors).search(descriptors, VoteRule().k)
        return query_rows, *best(vote(neighbours, data.landmark[index_rows], VoteRule()), len(query_rows))

    def by_class(model: "DescriptorModel", head: Any) -> Answers:
        from retrieval.train.classifier import most_probable_raw

        wanted = np.arange(len(manifest))
        return most_probable_raw(
            model, head, data.labels, queries, wanted, spec=spec, device=device, n_workers=n_workers
        )

    def validate(model: "DescriptorModel", loss: "LandmarkLoss") -> Mapping[str, float]:
        query_rows, answer, score = by_class(model, loss.head()) if loss.config.name == "linear" else by_vote(model)
        right = np.array([data.labels[a] in truth[row] for a, row in zip(answer, query_rows, strict=True)], dtype=bool)
        figure = gap(score, right, n_landmark_queries, manifest.image_id[query_rows])
        return {"gap": figure, "top1": float(right.sum()) / n_landmark_queries}

    return validate, manifest.digest
