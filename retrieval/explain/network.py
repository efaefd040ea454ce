"""A network or ensemble with the space of an index behind it, taken apart: views, feature maps, the rest."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.embed.torch_embedder import REMEDY
from retrieval.explain.maps import Area, Space, covered_area
from retrieval.images.preprocess import decode_for, fit
from retrieval.images.spec import ImageSpec
from retrieval.models.card import Member
from retrieval.models.device import explained, limit_threads, place
from retrieval.models.network import DescriptorModel, to_input


@dataclass(frozen=True, slots=True)
class View:
    """One of the passes that a descriptor is the mean of. member, spec: numbers of them."""

    member: int
    spec: int
    is_mirrored: bool


@dataclass(frozen=True, slots=True)
class Inputs:
    """Images ready for the network: for each spec (b, 3, h, w), and what of each image it covers (b areas)."""

    tensors: tuple[Tensor, ...]
    areas: tuple[tuple[Area, ...], ...]


class ExplainedNetwork:
    """Networks whose joined descriptors an index compares, in float32, differentiable, each part by itself.

    members: each network and its card. space: of the index. threads: of the CPU, None = as torch has them.
    lock: is held by those who may share it with other threads.
    """

    def __init__(
        self,
        members: Sequence[tuple[DescriptorModel, Member]],
        space: Space | None,
        device: torch.device,
        threads: int | None = None,
    ) -> None:
        self.models = [model for model, _ in members]
        self.cards = [member.card for _, member in members]
        self.roots = [float(np.sqrt(member.weight)) for _, member in members]
        self.space, self.device, self.threads = space, device, threads
        self.lock = threading.Lock()
        self.specs: list[ImageSpec] = list(dict.fromkeys(spec for card in self.cards for spec in card.specs))
        self.views = [
            View(m, self.specs.index(spec), is_mirrored)
            for m, card in enumerate(self.cards)
            for spec in card.specs
            for is_mirrored in ((False, True) if card.flip else (False,))
        ]
        for model, card in zip(self.models, self.cards, strict=True):
            for spec in card.specs:
                model.require_size(spec.size)
            place(model, device)
        self._mean = None if space is None else torch.tensor(space.mean, dtype=torch.float32, device=device)
        self._matrix = None if space is None else torch.tensor(space.matrix, dtype=torch.float32, device=device)

    def inputs(self, images: Sequence[bytes]) -> Inputs:
        """Encoded images as the network takes them. Raises UnreadableError with the reason."""
        tensors, areas = [], []
        for spec in self.specs:
            decoded = [decode_for(data, spec) for data in images]
            areas.append(tuple(covered_area(image.size, spec) for image in decoded))
            stacked = np.stack([np.array(fit(image, spec)) for image in decoded])
            tensors.append(to_input(torch.from_numpy(stacked).permute(0, 3, 1, 2), spec, self.device))
        return Inputs(tuple(tensors), tuple(areas))

    def features(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the backbones give for each view: maps (b, c, h, w) or tokens (b, n, c), float32."""
        found = []
        with limit_threads(self.threads), torch.autocast(self.device.type, enabled=False):
            for view in self.views:
                x = tensors[view.spec]
                with explained(self.device, len(x), x.shape[2], REMEDY):
                    found.append(self.models[view.member].backbone(x.flip(3) if view.is_mirrored else x))
        return found

    def late(self, tensors: Sequence[Tensor]) -> list[Tensor] | None:
        """The last values of each view that have places and that the descriptor depends on.

        They are the features, and of a network whose descriptor is its class token the tokens that enter its last
        block; None where it has no row of blocks.
        """
        caught: list[Tensor] = []
        with self._at_last_blocks(lambda tokens: caught.append(tokens)) as is_there:
            features = self.features(tensors)
        if not is_there:
            return None
        inside = iter(caught)
        return [next(inside) if self._is_cls(view) else of for view, of in zip(self.views, features, strict=True)]

    def features_of_late(self, tensors: Sequence[Tensor], late: Sequence[Tensor]) -> list[Tensor]:
        """The features that follow from those of `late`. tensors: the images that they are of."""
        if not any(map(self._is_cls, self.views)):
            return list(late)
        given = iter([of for view, of in zip(self.views, late, strict=True) if self._is_cls(view)])
        with self._at_last_blocks(lambda _: next(given)):
            features = self.features(tensors)
        return [of if self._is_cls(view) else own for view, of, own in zip(self.views, features, late, strict=True)]

    @contextmanager
    def _at_last_blocks(self, replaced: Callable[[Tensor], Tensor | None]) -> Iterator[bool]:
        """Calls a function with the tokens that enter the last blocks; what it returns enters in their place."""
        blocks = [_last_block(m.backbone) for m in self.models if m.config.pooling == "cls"]
        hooks = [
            block.register_forward_pre_hook(lambda _, given: replaced(given[0]))
            for block in blocks
            if block is not None
        ]
        try:
            yield None not in blocks
        finally:
            for hook in hooks:
                hook.remove()

    def _is_cls(self, view: View) -> bool:
        return self.cards[view.member].config.pooling == "cls"

    def descriptors(self, features: Sequence[Tensor]) -> Tensor:
        """(b, d) unit descriptors in the space of the index, of the features of all views."""
        parts = []
        for m, (model, card, root) in enumerate(zip(self.models, self.cards, self.roots, strict=True)):
            own = [given for given, view in zip(features, self.views, strict=True) if view.member == m]
            described = [model.described(model.pool(given), card.descriptor) for given in own]
            mean = described[0] if len(described) == 1 else F.normalize(torch.stack(described).sum(dim=0), dim=1)
            parts.append(root * model.adapted(mean))
        joined = F.normalize(torch.cat(parts, dim=1), dim=1)
        if self._mean is None or self._matrix is None:
            return joined
        return F.normalize((joined - self._mean) @ self._matrix, dim=1)


def _last_block(backbone: nn.Module) -> nn.Module | None:
    """The last of a transformer's blocks, as torchvision and timm name them; None where there is no row of them."""
    for row in ("encoder.layers", "network.blocks"):
        try:
            blocks = list(backbone.get_submodule(row).children())
        except AttributeError:
            continue
        if blocks:
            return blocks[-1]
    return None
