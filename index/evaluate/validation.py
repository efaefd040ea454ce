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
from retrieval.errors import LmrError
from retrieval.texts import Texts
from retrieval.words import counted, shortened

if TYPE_CHECKING:
    import torch

    from retrieval.images.spec import ImageSpec
    from retrieval.models.network import DescriptorModel
    from retrieval.train.data import TrainingData
    from retrieval.train.job import TrainJob
    from retrieval.train.losses import LandmarkLoss
    from retrieval.train.run import Validate
    from retrieval.train.stored.rows import StoredRows

N_ROWS = 20_000  # training images in the index of a validation; more would take longer than the epoch

Answers = tuple[LongArray, IntArray | LongArray, FloatArray]  # of the readable queries: row, label and score


def make_validation(
    job: "TrainJob", data: "TrainingData", spec: "ImageSpec", device: "torch.device", n_workers: int
) -> "tuple[Validate, str]":
    """A function that gives the GAP and top-1 of a network on the validation manifest or store, and its digest.

    A linear head answers by its classes, since its features are not made for cosines; others by the default vote.
    Raises LmrError without a labelled query, and where queries and training data have no landmark in common.
    """
    assert job.val is not None
    if data.stored is not None:
        return _of_stores(job, data, data.stored)
    index_tars(job.val, job.progress)
    manifest = job.load(job.val, job.progress, job.column_names_beside)
    queries = ImageSource(manifest, images_folder(job.images, job.val, job.progress))
    truth = [frozenset(manifest.landmarks[code] for code in manifest.truths(i)) for i in range(len(manifest))]
    n_landmark_queries = sum(map(bool, truth))
    if not n_landmark_queries:
        raise LmrError(f"`val` {job.val}: no row has a landmark_id; validation needs labelled pictures")
    if not job.allow_disjoint:
        require_meeting(manifest.landmarks, data.labels, (f"`val` {job.val}", "the training data"))
    _tell_shared(job, data, manifest.image_id)
    rows = _indexed(data)

    def by_vote(model: "DescriptorModel") -> Answers:
        from retrieval.embed.torch_embedder import TorchEmbedder

        embedder = TorchEmbedder(model, spec, device, n_workers=n_workers)
        index_rows, vectors = embedder.embed_all(data.source, rows)
        query_rows, descriptors = embedder.embed_all(queries, np.arange(len(manifest)))
        return _answers(vectors, data.landmark[index_rows], descriptors, query_rows)

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


def _of_stores(job: "TrainJob", data: "TrainingData", stored: "StoredRows") -> "tuple[Validate, str]":
    """As `make_validation`, of an adapter on a store of queries."""
    from retrieval.embed.load import card_of_store
    from retrieval.train.stored.adapter import adapt_rows
    from retrieval.train.stored.rows import StoredRows, content_of, open_labelled

    assert job.val is not None
    store = open_labelled(job.val, job.progress)
    card_of_store(job.adapter.model, store)  # refuses a store of another model
    n_landmark_queries = int((store.landmark >= 0).sum())
    if not n_landmark_queries:
        raise LmrError(f"`val` {job.val}: no row has a landmark_id; validation needs labelled pictures")
    labels = [store.landmarks[code] for code in np.unique(store.landmark[store.landmark >= 0])]
    if not job.allow_disjoint:
        require_meeting(labels, data.labels, (f"`val` {job.val}", "the training data"))
    _tell_shared(job, data, store.image_id)
    codes = {label: code for code, label in enumerate(data.labels)}
    truth = np.array([*(codes.get(label, -2) for label in store.landmarks), -2])[store.landmark]
    rows, asked = _indexed(data), np.flatnonzero(store.done)
    queries = StoredRows((store,), np.zeros(len(store), np.int64), np.arange(len(store)))

    def validate(model: "DescriptorModel", loss: "LandmarkLoss") -> Mapping[str, float]:
        vectors, descriptors = adapt_rows(model, stored, rows), adapt_rows(model, queries, asked)
        query_rows, answer, score = _answers(vectors, data.landmark[rows], descriptors, asked)
        right = answer == truth[query_rows]
        figure = gap(score, right, n_landmark_queries, store.image_id[query_rows])
        return {"gap": figure, "top1": float(right.sum()) / n_landmark_queries}

    return validate, content_of(store)


def _tell_shared(job: "TrainJob", data: "TrainingData", image_id: Texts) -> None:
    """Warns of validation images that have the id of one that is trained on."""
    asked = frozenset(image_id.tolist())
    shared = [name for name in data.image_id if name in asked]
    if shared:
        job.progress.warn(
            f"`val` {job.val}: {counted(len(shared), 'image')} with the id of a training image, such as "
            f"{shortened(shared[0])}; where these are the same, GAP and top-1 say too much"
        )


def _indexed(data: "TrainingData") -> LongArray:
    """Training rows that are the index of a validation: labelled ones, N_ROWS at most."""
    return np.sort(np.random.default_rng(0).permutation(np.flatnonzero(data.landmark >= 0))[:N_ROWS])


def _answers(vectors: FloatArray, landmark: IntArray, queries: FloatArray, query_rows: LongArray) -> Answers:
    """The answers of the default vote over index rows (n, d) to queries (q, d)."""
    neighbours = FlatIndex.build(vectors).search(queries, VoteRule().k)
    return query_rows, *best(vote(neighbours, landmark, VoteRule()), len(query_rows))
