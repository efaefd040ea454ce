"""Saliency and class activation: which places of an image a score hangs on, by its gradient. Nine maps, in three forms.

The forms say what goes back through an activation of the backbone, given the gradient g of the score with respect to
its output: *vanilla* the true gradient, g times the activation's slope (Simonyan, Vedaldi, Zisserman 2013); *guided*
that, where it is positive (Springenberg et al. 2014); *rectified* g itself, where it is positive, whatever the slope
(the deconvolution of Zeiler and Fergus 2013). With ReLU these are the papers' rules; ReLU6, SiLU, Hardswish, GELU and
the others are treated by the same words, guided cutting what their own slope has left, also where that is negative.

    saliency              largest |gradient| of the three colours of each pixel, in each form
    Grad-CAM              ReLU of the sum over channels of alpha_c * A_c, A the last feature map, alpha_c the mean over
                          places of the gradient (Selvaraju et al. 2017, eq. 1 and 2); the forms treat A as the output
                          of an activation: guided keeps positive gradients where A > 0, rectified all positive ones
    Grad-CAM x saliency   their product, pixel by pixel; of the guided ones, guided Grad-CAM (ibid., section 3.3)

Of a class token Grad-CAM takes the tokens that enter the last block, since later ones do not reach it. Gradients are
computed by captum. Nothing of a network is changed: activations are met as they are called, so those that a network
calls as functions, or that work in place, are met too.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from retrieval.arrays import FloatArray
from retrieval.errors import LmrError
from retrieval.explain.maps import SAME_FILE, WHOLE, Area, NamedMap, Pair, join_maps
from retrieval.explain.network import ExplainedNetwork, Inputs
from retrieval.extras import require_extra
from retrieval.models.card import Member
from retrieval.models.checkpoint import load_model
from retrieval.models.device import resolve_device
from retrieval.train.classifier import load_classifier

Form = Literal["vanilla", "guided", "rectified"]
FORMS: tuple[Form, ...] = get_args(Form)
_OF_TENSORS = (torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, torch.prelu)
_OF_LAYERS = (F.relu, F.relu6, F.hardtanh, F.hardswish, F.silu, F.gelu, F.mish, F.elu, F.celu, F.selu, F.leaky_relu)
ACTIVATIONS = frozenset((*_OF_TENSORS, *_OF_LAYERS))
NO_GRADIENT = 1e-3  # length of the difference of two unit descriptors, below which it is their rounding
ABOUT = {
    "saliency": "how much the score changes with each pixel",
    "grad-cam": "the places whose features raise the score",
    "grad-cam-saliency": "the pixels that the score changes with, in the places that raise it",
}
TITLES = {"saliency": "Saliency", "grad-cam": "Grad-CAM", "grad-cam-saliency": "Grad-CAM x saliency"}

Score = Callable[[list[Tensor]], Tensor]  # of the features of all views, (b,) for b images


def saliency_maps(network: ExplainedNetwork, pair: Pair) -> tuple[NamedMap, ...]:
    """The nine maps of the similarity of two images, of each while the other stays as it is.

    A row whose image is gone, or is another one than was indexed, has none.
    Raises UnreadableError; LmrError where captum is not installed, and where the descriptors are the same: the gradient
    of a cosine is the difference of the two along the sphere, so that nothing but its rounding would be left to show.
    """
    require_captum()
    images = [pair.query] if pair.row is None else [pair.query, pair.row]
    inputs = network.inputs(images)
    row = torch.tensor(np.asarray(pair.row_vector, np.float32)[None], device=network.device)
    with torch.no_grad():
        seen = network.descriptors(network.features(inputs.tensors))
    if float((seen[0] - (row if pair.row is None else seen[1])).norm()) < NO_GRADIENT:
        raise LmrError("at a cosine of 1 there is no gradient")
    if pair.row is None:
        return _nine(network, inputs, lambda features: (network.descriptors(features) * row).sum(dim=1))
    if float(seen[1] @ row[0]) < SAME_FILE:
        return saliency_maps(network, replace(pair, row=None))
    others = seen.flip(0)
    return _nine(network, inputs, lambda features: (network.descriptors(features) * others).sum(dim=1))


@dataclass(frozen=True, slots=True)
class ClassMaps:
    """The nine maps of the score of one class, before the softmax. probability: of the class, among all."""

    label: str
    probability: float
    maps: tuple[NamedMap, ...]


class ExplainedClassifier:
    """The classifier beside a model, ready to be explained.

    LmrError: there is none, it or the model is damaged, captum is not installed.
    """

    def __init__(self, model: Path, *, device: str = "auto", threads: int | None = None) -> None:
        require_captum()
        self.model, self._classifier = model, load_classifier(model)
        net, card = load_model(model)
        self._network = ExplainedNetwork([(net, Member(card.as_trained, 1.0))], None, resolve_device(device), threads)
        self._classifier.head.to(self._network.device)

    def maps(self, query: bytes, label: str | None = None) -> ClassMaps:
        """The nine maps of a class for an image. label: None = the most probable class.

        Raises UnreadableError; LmrError for a class that it does not know.
        """
        labels, network = self._classifier.labels, self._network
        if label is not None and label not in labels:
            raise LmrError(f"the classifier of {self.model} knows no {label}; name a landmark that it was trained on")
        inputs = network.inputs([query])
        with torch.no_grad():
            logits = self._logits(network.features(inputs.tensors))[0]
            probability = torch.softmax(logits.cpu().double(), dim=0)[: len(labels)]
        at = int(probability.argmax()) if label is None else labels.index(label)
        about = f"of the class {labels[at]}, probability {float(probability[at]):.3f}"
        found = tuple(
            replace(one, name=f"class-{one.name}", title=f"{one.title}, class", about=f"{one.about}; {about}")
            for one in _nine(network, inputs, lambda features: self._logits(features)[:, at])
        )
        return ClassMaps(labels[at], float(probability[at]), found)

    def _logits(self, features: list[Tensor]) -> Tensor:
        """(b, n_outputs) of the features of the one view."""
        (model,) = self._network.models
        raw = self._classifier.wants == "raw"
        given = model.neck(model.pool(features[0])) if raw else self._network.descriptors(features)
        return cast(Tensor, self._classifier.head(given))


def require_captum() -> None:
    """Raises LmrError that names the extra where captum is not installed."""
    require_extra("saliency", "explain", "captum")


def _nine(network: ExplainedNetwork, inputs: Inputs, score: Score) -> tuple[NamedMap, ...]:
    """The maps of one or two images, by kind and form."""
    pixels = {form: _saliency(network, inputs, score, form) for form in FORMS}
    places = _activation(network, inputs, score)
    both = {
        form: [(_product(pixel, place), area) for (pixel, area), (place, _) in zip(pixels[form], of_form, strict=True)]
        for form, of_form in places.items()
    }
    kinds = {"saliency": pixels, "grad-cam": places, "grad-cam-saliency": both}
    return tuple(_named(kind, form, found[form]) for kind, found in kinds.items() for form in found)


def _named(kind: str, form: Form, images: list[tuple[FloatArray, Area]]) -> NamedMap:
    query, row = images[0], images[1] if len(images) > 1 else None
    return NamedMap(
        kind if form == "vanilla" else f"{kind}-{form}",
        TITLES[kind] if form == "vanilla" else f"{TITLES[kind]}, {form}",
        query[0].astype(np.float32),
        None if row is None else row[0].astype(np.float32),
        ABOUT[kind],
        query_area=query[1],
        row_area=WHOLE if row is None else row[1],
    )


def _saliency(network: ExplainedNetwork, inputs: Inputs, score: Score, form: Form) -> list[tuple[FloatArray, Area]]:
    """For each image: (h, w) the largest gradient of the colours of each pixel, without its sign."""

    def forward(tensors: tuple[Tensor, ...], rule: "_Activation") -> Tensor:
        with _Meeting(rule):
            features = network.features(tensors)
        return score(features)

    gradients = [of.abs().amax(dim=1).cpu().numpy() for of in _gradients(forward, inputs.tensors, form)]
    return [
        join_maps([(of[i], areas[i]) for of, areas in zip(gradients, inputs.areas, strict=True)])
        for i in range(len(gradients[0]))
    ]


def _activation(network: ExplainedNetwork, inputs: Inputs, score: Score) -> dict[Form, list[tuple[FloatArray, Area]]]:
    """For each form and image: (h, w) of the last feature map; nothing where a network has no places before its end."""
    with torch.no_grad():
        late = network.late(inputs.tensors)
    if late is None:
        return {}
    gradients = _gradients(
        lambda given, _: score(network.features_of_late(inputs.tensors, given)), tuple(late), "vanilla"
    )
    found: dict[Form, list[tuple[FloatArray, Area]]] = {}
    for form in FORMS:
        of_views = []
        for view, features, gradient in zip(network.views, late, gradients, strict=True):
            model = network.models[view.member]
            a, g = model.as_map(features), model.as_map(gradient)
            g = g if form == "vanilla" else g.clamp(min=0) * (a > 0 if form == "guided" else 1)
            cam = (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1).clamp(min=0)
            of_views.append((cam.flip(2) if view.is_mirrored else cam).cpu().numpy())
        found[form] = [
            join_maps([(of[i], inputs.areas[view.spec][i]) for of, view in zip(of_views, network.views, strict=True)])
            for i in range(len(inputs.areas[0]))
        ]
    return found


def _product(pixels: FloatArray, places: FloatArray) -> FloatArray:
    """Pixels times the places that they lie in, smooth between the middles of places."""
    given = torch.from_numpy(np.asarray(places, np.float64))[None, None]
    wide = F.interpolate(given, size=pixels.shape, mode="bilinear", align_corners=False)
    product: FloatArray = wide[0, 0].numpy() * pixels
    return product


def _gradients(
    forward: Callable[[tuple[Tensor, ...], "_Activation"], Tensor], tensors: tuple[Tensor, ...], form: Form
) -> tuple[Tensor, ...]:
    """Gradients of the sum of scores with respect to each tensor, in a form."""
    from captum.attr import Deconvolution, GuidedBackprop, Saliency

    scored = _Scored(forward)
    given = tuple(of.detach().clone() for of in tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what captum says of its hooks, which it removes
        if form == "vanilla":
            return cast(tuple[Tensor, ...], Saliency(scored).attribute(given, abs=False))
        return cast(
            tuple[Tensor, ...], {"guided": GuidedBackprop, "rectified": Deconvolution}[form](scored).attribute(given)
        )


class _Activation(nn.ReLU):
    """The one module that captum finds: whatever activation a backbone calls passes through it."""

    is_in_place = False

    def forward(self, x: Tensor, *, function: Callable[[Tensor], Tensor] = torch.relu) -> Tensor:
        """The activation's output."""
        y = function(x)
        self.is_in_place = y.data_ptr() == x.data_ptr()
        return y


class _Scored(nn.Module):
    """A score as captum wants it; the network is not part of it, so that nothing is hooked to that."""

    def __init__(self, score: Callable[[tuple[Tensor, ...], _Activation], Tensor]) -> None:
        super().__init__()
        self.activation = _Activation()
        self._score = score

    def forward(self, *tensors: Tensor) -> Tensor:
        """(b,) of tensors of b images."""
        return self._score(tensors, self.activation)


class _Meeting(TorchFunctionMode):
    """Leads every activation that is called within, as a module or a function, through one module."""

    def __init__(self, activation: _Activation) -> None:
        super().__init__()
        self._activation = activation

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What the function returns; one that works in place changes its argument as ever."""
        kwargs = kwargs or {}
        if func not in ACTIVATIONS or not args:
            return func(*args, **kwargs)
        x, *others = args
        y = self._activation(x.clone(), function=lambda given: func(given, *others, **kwargs))
        return x.copy_(y) if self._activation.is_in_place else y
