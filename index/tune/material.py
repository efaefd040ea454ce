"""What spaces are compared on: rows, background and held-out queries, drawn from stores and found in each space."""

from dataclasses import dataclass, replace

import numpy as np

from index.calibrate.queries import CalibrationQueries
from index.calibrate.selection import Grid, Judge, drawn_queries, make_folds
from index.copies import leave_out_copies, refuse_known
from index.folder.inputs import Gathered
from index.folder.sums import MatrixSums
from index.folder.vectors import pairs_of
from index.metrics import Truths, truths_of
from index.queries import Queries
from index.search.faiss_io import limited_blas
from index.search.flat import FlatIndex
from index.thresholds import non_landmark_weight
from index.tune.spaces import DIMENSIONS, Choices, Parts, Space, parts_of
from index.vote import background_similarity
from index.vote_rule import VoteRule
from index.whitening import Moments, Whitening, moments_of
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, ObjArray
from retrieval.errors import LmrError
from retrieval.store.info import model_difference
from retrieval.store.store import Descriptors
from retrieval.store.stored import to_unit
from retrieval.words import counted

MOST_ROWS = 20_000  # of the index, that queries are compared with
MOST_BACKGROUND = 5_000


@dataclass(frozen=True, slots=True)
class Material:
    """What spaces are compared on.

    rows (n, d), background (b, d), queries (q, d): float32 of unit length, as stored; landmark: (n,) of the rows.
    truths, image_id: of the queries, which are in the order of their image_id. weight: how often a non-landmark counts,
    None = once. n_rows, n_queries: from how many these were drawn.
    """

    rows: FloatArray
    landmark: IntArray
    background: FloatArray
    queries: FloatArray
    truths: Truths
    image_id: ObjArray
    parts: Parts
    weight: float | None
    n_rows: int
    n_queries: int

    def choices(self, *, may_leave_background: bool) -> Choices:
        """What there is to choose from. may_leave_background: an index of these rows may have none."""
        there = len(self.background) > 0
        _, counts = np.unique(self.landmark, return_counts=True)
        return Choices(
            parts=self.parts,
            d=self.rows.shape[1],
            n=len(self.rows) + len(self.background),
            has_pairs=bool((counts > 1).any()),
            backgrounds=(True, False) if there and may_leave_background else (there,),
        )

    def without(self, left_out: BoolArray) -> "Material":
        """The same without some of the queries. left_out: (q,)."""
        place = np.cumsum(~left_out) - 1
        kept = ~left_out[self.truths.query]
        truths = Truths(place[self.truths.query[kept]], self.truths.landmark[kept], int((~left_out).sum()))
        return replace(self, queries=self.queries[~left_out], image_id=self.image_id[~left_out], truths=truths)


def draw_material(
    gathered: Gathered, first: Descriptors, store: Descriptors, queries: Queries, share: float | None, seed: int
) -> Material:
    """The rows, background and queries to compare spaces on; a part of each where there are many.

    gathered: of the index. first: one of its stores. store: of the queries. share: of non-landmarks to expect, None =
    as they are. Raises LmrError for queries of another model, without a descriptor or a landmark, and for those that
    are also in the index or its background.
    """
    if store.info.fingerprint != first.info.fingerprint:
        what = model_difference(store.info.made_by, first.info.made_by)
        raise LmrError(f"{store.source} does not fit {first.source}: {what}; embed with the same model")
    done = np.flatnonzero(store.done)
    if not len(done):
        raise LmrError(f"{store.source}: none of the {counted(len(store), 'query')} has a descriptor")
    names = store.image_id.select(done)
    vectors = store.select(done).vectors
    refuse_known(names, vectors, gathered.image_id, gathered.vectors.__getitem__, "the index")
    refuse_known(names, vectors, gathered.background_id, gathered.background.__getitem__, "the background")
    of_all, _ = truths_of(queries.landmarks.select(done), gathered.landmarks)
    if not of_all.known.any():
        raise LmrError(f"{store.source}: tuning needs queries with a known landmark; all of these are blank")
    drawn, kept_share = drawn_queries(of_all.known, seed)
    drawn = done[drawn[np.argsort(names[drawn], kind="stable")]]
    truths, _ = truths_of(queries.landmarks.select(drawn), gathered.landmarks)
    rows = _drawn_rows(gathered.landmark, truths.landmark, seed)
    others = _some(np.arange(len(gathered.background)), MOST_BACKGROUND, seed)
    return Material(
        rows=gathered.vectors[rows],
        landmark=gathered.landmark[rows],
        background=gathered.background[others],
        queries=to_unit(store.vectors[drawn], store.image_id.select(drawn), store.source),
        truths=truths,
        image_id=store.image_id[drawn],
        parts=parts_of(first.info),
        weight=_weight(of_all.known, share, kept_share),
        n_rows=len(gathered.landmark),
        n_queries=len(done),
    )


def _drawn_rows(landmark: IntArray, shown: IntArray, seed: int) -> LongArray:
    """Rows of the index, ascending: at most MOST_ROWS, those of the landmarks that queries show before others."""
    asked = np.isin(landmark, shown)
    drawn = _some(np.flatnonzero(asked), MOST_ROWS, seed)
    return np.sort(np.append(drawn, _some(np.flatnonzero(~asked), MOST_ROWS - len(drawn), seed)))


def _some(rows: LongArray, most: int, seed: int) -> LongArray:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def _weight(known: BoolArray, share: float | None, kept_share: float) -> float | None:
    """How often a non-landmark counts that was drawn. known: (q,) of all queries. kept_share: as of `drawn_queries`."""
    weight = None if share is None else non_landmark_weight(int(known.sum()), int((~known).sum()), share)
    return weight if kept_share == 1 else kept_share * (1.0 if weight is None else weight)


class Finder:
    """Finds what the queries meet in one space after another; keeps what spaces have in common.

    first: the space in which copies are told and folds are made. warnings: of queries that were left out.
    """

    def __init__(self, material: Material, first: Space, seed: int, threads: int | None = None) -> None:
        self._moments: dict[tuple[str, bool], Moments] = {}
        self._last: tuple[Space, list[FloatArray]] | None = None
        self._threads = threads
        self._material = material
        rows, background, asked = self.vectors(first)
        known = FlatIndex.build(np.concatenate([rows, background]), device="cpu", threads=threads)
        kept, self.warnings = leave_out_copies(material.image_id, known.search(asked, 1).scores[:, 0])
        self._last, self._material = None, material.without(~kept)
        self._fold = make_folds(self._find(first), VoteRule(), seed)

    @property
    def n_folds(self) -> int:
        """Folds of the queries."""
        return int(self._fold.max()) + 1

    @property
    def material(self) -> Material:
        """What is compared."""
        return self._material

    def judge(self, space: Space, *, with_rows: bool = False) -> Judge:
        """The queries in a space. with_rows: rows are compared with the background too."""
        return Judge(self._find(space, with_rows=with_rows), self._fold, self._material.weight)

    def vectors(self, space: Space) -> list[FloatArray]:
        """Rows, background and queries in a space."""
        longest = replace(space, n_dimensions=0)
        if self._last is None or self._last[0] != longest:
            self._last = longest, self._whitened(space)
        if space.whitening == "none":
            return self._last[1]
        return [_unit(vectors[:, : space.n_dimensions]) for vectors in self._last[1]]

    def _find(self, space: Space, *, with_rows: bool = False) -> CalibrationQueries:
        material, m = self._material, VoteRule().m
        rows, background, asked = self.vectors(space)
        there = space.background
        with limited_blas(1):
            index = FlatIndex.build(rows, device="cpu", threads=self._threads)
            return CalibrationQueries(
                neighbours=index.search(asked, max(Grid().k)),
                landmark=material.landmark,
                truths=material.truths,
                image_id=material.image_id,
                background=background_similarity(asked, background, m) if there else None,
                row_background=background_similarity(rows, background, m) if there and with_rows else None,
                m=m,
            )

    def _whitened(self, space: Space) -> list[FloatArray]:
        """Rows, background and queries in a space, of all the dimensions that any space keeps."""
        material, columns = self._material, self._material.parts[space.descriptor]
        given = [_unit(part[:, columns]) for part in (material.rows, material.background, material.queries)]
        if space.whitening == "none":
            return given
        fitted = np.concatenate(given[:2]) if space.background else given[0]
        whitening = self._whitening(space, fitted)
        with limited_blas(1):
            return [whitening.apply(part) for part in given]

    def _whitening(self, space: Space, fitted: FloatArray) -> Whitening:
        key = (space.descriptor, space.background)
        if key not in self._moments:
            pairs = pairs_of(self._material.landmark, len(fitted))
            self._moments[key] = moments_of(MatrixSums(fitted, pairs), "supervised" if pairs.n_blocks else "pca")
        assert space.whitening != "none"
        longest = min(fitted.shape[1], max(DIMENSIONS))
        return self._moments[key].whitening(space.whitening, space.whitening_power, longest)


def _unit(vectors: FloatArray) -> FloatArray:
    """Vectors (n, d) of unit length; zero stays zero."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    unit: FloatArray = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
    return unit
