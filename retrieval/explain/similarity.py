"""Similarity maps: what each place of an image adds to the cosine of two images. They sum to it, exactly.

A descriptor is a chain of steps. Each is affine once the factor that it applies to this image is known: a division by
a length, the gain of a PReLU or ReLU (1, or its weight or 0, by the sign of the component), GeM's f_c ** (1 - p). So
the score, linear in the last descriptor, is taken back through the steps to a weight of every pooled feature; constants
that the steps add (shifts of batch norm, the mean of a whitening) are collected on the way as the rest. Pooled features
are sums over places: of x_i / n for the mean; of x_i for the maximum, where x_i is it; and for GeM
(Radenovic et al. 2018, eq. 3), since f_c ** p = sum_i x_i ** p / n,

    f_c = f_c ** p / f_c ** (p - 1) = sum_i x_i ** p / (n * f_c ** (p - 1)).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.arrays import FloatArray
from retrieval.explain.maps import SAME_FILE, WHOLE, Area, Maps, NamedMap, Pair, join_maps
from retrieval.explain.network import ExplainedNetwork
from retrieval.models.adapter import Adapter
from retrieval.models.config import DescriptorPart
from retrieval.models.network import GEM_EPSILON, DescriptorModel

SMALLEST_LENGTH = 1e-12  # of a vector, as in torch's normalize
CLASS_TOKEN = (
    "no similarity map: the descriptor is the class token of a transformer, which has no place in the image; the class "
    "activation maps show where it looks"
)


def similarity_maps(network: ExplainedNetwork, pair: Pair) -> Maps:
    """The similarity of two images, and what each place of either adds to it. Raises UnreadableError.

    The map of an image takes the other one as it is: the query's, and the row's, each sums to the score with its rest.
    A row whose image is gone, or is another one than was indexed, has no map.
    """
    notes: list[str] = []
    query, other = _see(network, pair.query), torch.tensor(pair.row_vector, dtype=torch.float64)
    row = None if pair.row is None else _see(network, pair.row)
    if row is not None and float(row.unit @ other) < SAME_FILE:
        notes.append("the image of the index row is not the one that was indexed, so it has no map")
        row = None
    other = other if row is None else row.unit
    score = float(query.unit @ other)
    if any(card.config.pooling == "cls" for card in network.cards):
        return Maps(score, (), (*notes, CLASS_TOKEN))
    mine = _shares(network, query, other)
    theirs = None if row is None else _shares(network, row, query.unit)
    found = NamedMap(
        "similarity",
        "Similarity",
        mine.values,
        None if theirs is None else theirs.values,
        "what each place adds to the similarity; together with what belongs to no place it is the similarity",
        is_signed=True,
        query_area=mine.area,
        row_area=WHOLE if theirs is None else theirs.area,
        query_rest=mine.rest,
        row_rest=None if theirs is None else theirs.rest,
    )
    return Maps(score, (found,), tuple(notes))


@dataclass(frozen=True, slots=True)
class _Seen:
    """An image as the network sees it, float64.

    places: for each view (n, c), what each place adds to the pooled features. grids: (h, w) of them. areas: what they
    cover. factors: of the steps after pooling. unit: (d,) the descriptor.
    """

    places: list[Tensor]
    grids: list[torch.Size]
    areas: list[Area]
    factors: "_Factors"
    unit: Tensor


@dataclass(frozen=True, slots=True)
class _Shares:
    """What the places of an image add to a score, and what belongs to none."""

    values: FloatArray
    area: Area
    rest: float


class _Factors:
    """The factors by which steps that are not linear multiply the components of one image: taken once, then kept."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []
        self._next: Iterator[Tensor] | None = None

    def again(self) -> "_Factors":
        """The same, to be applied from the first on."""
        self._next = iter(self._kept)
        return self

    def apply(self, x: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
        """x times its factor, or times the one that was kept for this step."""
        if self._next is not None:
            return x * next(self._next)
        self._kept.append(factor(x).detach())
        return x * self._kept[-1]


def _see(network: ExplainedNetwork, data: bytes) -> _Seen:
    inputs = network.inputs([data])
    with torch.inference_mode():
        features = [given[0].cpu().double() for given in network.features(inputs.tensors)]
    places = [_places(network.models[v.member], given) for v, given in zip(network.views, features, strict=True)]
    factors = _Factors()
    unit = _descriptor(network, [of.sum(dim=0) for of in places], factors)
    grids = [
        network.models[v.member].as_map(given[None]).shape[2:] for v, given in zip(network.views, features, strict=True)
    ]
    return _Seen(places, grids, [inputs.areas[view.spec][0] for view in network.views], factors, unit)


def _shares(network: ExplainedNetwork, seen: _Seen, other: Tensor) -> _Shares:
    """What an image's places add to the inner product of its descriptor and another one."""
    pooled = [of.sum(dim=0).requires_grad_() for of in seen.places]
    score = _descriptor(network, pooled, seen.factors.again()) @ other
    weights = torch.autograd.grad(score, pooled)
    rest = _descriptor(network, [torch.zeros_like(of) for of in pooled], seen.factors.again()) @ other
    parts = []
    for view, of, weight, grid, area in zip(network.views, seen.places, weights, seen.grids, seen.areas, strict=True):
        values = (of @ weight).reshape(grid).numpy()
        parts.append((values[:, ::-1] if view.is_mirrored else values, area))
    values, area = join_maps(parts)
    return _Shares(values.astype(np.float32), area, float(rest))


def _places(model: DescriptorModel, features: Tensor) -> Tensor:
    """(n, c): what each place of a map (c, h, w) or of tokens (n, c) adds to the pooled features.

    A class token is the only place of its network.
    """
    if model.config.pooling == "cls":
        return features[:1]
    x = features[model.n_prefix_tokens :] if features.ndim == 2 else features.flatten(1).T
    if model.gem is not None:
        p = model.gem.p.detach().cpu().double()
        x = x.clamp(min=GEM_EPSILON)
        top = x.amax(dim=0)
        f = top * (x / top).pow(p).mean(dim=0).pow(1 / p)
        return f * (x / f).pow(p) / len(x)
    if model.config.pooling == "max":
        is_top = (x == x.amax(dim=0)).double()
        return x * is_top / is_top.sum(dim=0)
    return x / len(x)


def _descriptor(network: ExplainedNetwork, pooled: Sequence[Tensor], factors: _Factors) -> Tensor:
    """(d,) descriptor in the space of the index, of the pooled features of all views; affine with kept factors."""
    parts = []
    for m, (model, card, root) in enumerate(zip(network.models, network.cards, network.roots, strict=True)):
        own = [of for of, view in zip(pooled, network.views, strict=True) if view.member == m]
        described = torch.stack([_described(model, card.descriptor, of, factors) for of in own]).sum(dim=0)
        described = _unit(described, factors) if len(own) > 1 else described
        parts.append(root * (described if model.adapter is None else _adapted(model.adapter, described, factors)))
    joined = _unit(torch.cat(parts), factors)
    if network.space is None:
        return joined
    return _unit((joined - torch.tensor(network.space.mean)) @ torch.tensor(network.space.matrix), factors)


def _described(model: DescriptorModel, part: DescriptorPart, pooled: Tensor, factors: _Factors) -> Tensor:
    """(d,) descriptor of one view, as DescriptorModel.described."""
    if part == "pooled":
        return _unit(pooled, factors)
    x = pooled
    for layer in model.neck if isinstance(model.neck, nn.Sequential) else ():
        x = _through(layer, x, factors)
    x = _unit(x, factors)
    return x if part == "neck" else _unit(torch.cat([x, _unit(pooled, factors)]), factors)


def _adapted(adapter: Adapter, x: Tensor, factors: _Factors) -> Tensor:
    """(d,) descriptor behind an adapter, as DescriptorModel.adapted."""
    y = adapter.matrix.cpu().double() @ (x - adapter.mean.cpu().double())
    changed = y
    for layer in adapter.change:
        changed = _through(layer, changed, factors)
    return _unit(y + changed, factors)


def _through(layer: nn.Module, x: Tensor, factors: _Factors) -> Tensor:
    """x behind a layer of a neck or an adapter, in evaluation mode."""
    state: dict[str, Tensor] = {name: value.cpu().double() for name, value in layer.state_dict().items()}
    if isinstance(layer, nn.Linear):
        return state["weight"] @ x
    if isinstance(layer, nn.BatchNorm1d):
        length = torch.sqrt(state["running_var"] + layer.eps)
        return (x - state["running_mean"]) * state["weight"] / length + state["bias"]
    if isinstance(layer, nn.PReLU):
        return factors.apply(x, lambda given: torch.where(given >= 0, 1.0, state["weight"]))
    if isinstance(layer, nn.ReLU):
        return factors.apply(x, lambda given: (given > 0).double())
    raise ValueError(f"a neck of {type(layer).__name__} cannot be taken apart")


def _unit(x: Tensor, factors: _Factors) -> Tensor:
    return factors.apply(x, lambda given: 1 / given.norm().clamp(min=SMALLEST_LENGTH))
