"""State of a training run: what changes at each step, what of it is saved, and how a run goes on after a kill."""

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from retrieval.arrays import LongArray
from retrieval.errors import LmrError
from retrieval.files.atomic import write_bytes
from retrieval.files.json_file import convert, require_type
from retrieval.files.sealed_zip import require_sealed, seal
from retrieval.models.device import DTYPES, place, training_dtype
from retrieval.models.folder import STATE_NAME as STATE_NAME
from retrieval.models.network import DescriptorModel
from retrieval.train.config import TrainConfig
from retrieval.train.losses import Distillation, LandmarkLoss
from retrieval.train.optim import average_of, freeze, make_optimizer

AVERAGED_LOSS = "module.1."  # how the names of the loss begin in the state of an average
LOG_NAME = "training.csv"
_REMEDY = "start again with `overwrite`"


@dataclass(frozen=True, slots=True)
class Parts:
    """Modules that change at each step and are saved with the state.

    average: of the weights of model and loss over the steps. distillation: from a teacher's descriptors.
    """

    model: DescriptorModel
    loss: LandmarkLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None = None
    distillation: Distillation | None = None

    @property
    def result(self) -> DescriptorModel:
        """The network that is validated and saved."""
        return self.model if self.average is None else cast(DescriptorModel, self._averaged[0])

    @property
    def result_loss(self) -> LandmarkLoss:
        """The loss whose head belongs to that network."""
        return self.loss if self.average is None else cast(LandmarkLoss, self._averaged[1])

    @property
    def averaged_from(self) -> nn.ModuleList:
        """The modules of which the average is taken."""
        return nn.ModuleList([self.model, self.loss])

    @property
    def _averaged(self) -> nn.ModuleList:
        assert self.average is not None
        return cast(nn.ModuleList, self.average.module)

    @property
    def losses(self) -> nn.ModuleList:
        """All modules that only training needs."""
        return nn.ModuleList([part for part in (self.loss, self.distillation) if part is not None])

    def by_name(self) -> dict[str, Any]:
        """Each has state_dict and load_state_dict."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: part for name, part in parts.items() if part is not None}


def make_parts(
    model: DescriptorModel, counts: LongArray, config: TrainConfig, device: torch.device, d_teacher: int = 0
) -> Parts:
    """The network on its device, and all that trains it.

    counts: images of each class. d_teacher: length of a teacher's descriptors, 0 = there is none.
    """
    loss = LandmarkLoss(config.loss, model.d, counts)
    place(model, device)
    loss.to(device)
    distillation = Distillation(config.distillation, model.d, d_teacher).to(device) if d_teacher else None
    freeze(model, config.freeze)
    trained = loss if distillation is None else nn.ModuleList([loss, distillation])
    optimizer = make_optimizer(model, trained, config)
    loss.attach(optimizer)
    scaler = torch.amp.GradScaler(device.type, enabled=network_dtype(config, device) == torch.float16)
    average = average_of(nn.ModuleList([model, loss]), config.ema) if config.ema else None
    return Parts(model, loss, optimizer, scaler, average, distillation)


def take_over(loss: LandmarkLoss, head: Mapping[str, Tensor]) -> None:
    """Begins with the weights of another loss, if they all fit; what depends on margins and counts stays."""
    own: dict[str, Tensor] = dict(loss.named_parameters())
    if loss.bank is not None:
        own["bank.rows"] = loss.bank.rows
    if all(name in head and head[name].shape == weights.shape for name, weights in own.items()):
        with torch.no_grad():
            for name, weights in own.items():
                weights.copy_(head[name])


def network_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The number format that the network computes in."""
    return training_dtype(device) if config.precision == "auto" else DTYPES[config.precision]


@dataclass(slots=True)
class TrainingState:
    """Values besides the weights that a resumed run needs.

    loss_sum, n_losses: of this epoch's steps that had images. log: one row an epoch. unreadable: row -> reason.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    n_losses: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    log: list[dict[str, float]] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Mean over this epoch's steps so far."""
        return self.loss_sum / max(1, self.n_losses)


def save_state(folder: Path, parts: Parts, identity: Mapping[str, Any], state: TrainingState) -> None:
    """Replaces the state in a folder. LmrError when the disk is full."""
    buffer = io.BytesIO()
    states = {name: part.state_dict() for name, part in parts.by_name().items()}
    torch.save({"identity": dict(identity), "state": asdict(state), "parts": states}, buffer)
    write_bytes(folder / STATE_NAME, seal(buffer.getvalue()))


def resume(folder: Path, parts: Parts, identity: Mapping[str, Any]) -> TrainingState:
    """Puts the state in a folder into the parts; a new state when there is none, or nothing was
    trained yet. LmrError: it is of another run."""
    content = _read_state_file(folder / STATE_NAME)
    if content is None or not (content["state"]["epoch"] or content["state"]["step"]):
        return TrainingState()
    for what, value in identity.items():
        before = content["identity"].get(what)
        if before != value:
            told = f"{what}{_difference(before, value)}"
            raise LmrError(f"{folder} holds a run with another {told}; go on with that one, or give `overwrite`")
    for name, part in parts.by_name().items():
        try:
            if content["parts"][name]:  # that of a scaler is empty where the number format needed none
                part.load_state_dict(content["parts"][name])
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise LmrError(f"{folder / STATE_NAME} is damaged (its {name} does not fit the run); {_REMEDY}") from error
    return TrainingState(**content["state"])


def _difference(before: Any, now: Any, place: str = "") -> str:
    """The first entry of two configurations that differs, with both values; '' where they have no entries."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return ""
    for name, value in now.items():
        other = before.get(name)
        if other != value:
            return _difference(other, value, f"{place}{name} ") or f" ({place}{name} was {other}, is {value})"
    return ""


def read_state(folder: Path) -> tuple[dict[str, Any], TrainingState] | None:
    """Identity and state of the run in a folder, None when there is none. LmrError when it is damaged."""
    content = _read_state_file(folder / STATE_NAME)
    return None if content is None else (content["identity"], TrainingState(**content["state"]))


def read_head(folder: Path) -> dict[str, Tensor]:
    """The weights of the loss in a folder where a run was saved: averaged, where those of its network are."""
    content = _read_state_file(folder / STATE_NAME)
    if content is None:
        return {}
    parts = content["parts"]
    weights, prefix = (parts["average"], AVERAGED_LOSS) if "average" in parts else (parts["loss"], "")
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix) and isinstance(value, Tensor)
    }


def write_log(folder: Path, log: list[dict[str, float]]) -> None:
    """Writes the epochs as CSV, a column for each metric."""
    columns = list(dict.fromkeys(name for row in log for name in row))
    lines = [",".join(columns)] + [",".join(f"{row[c]:g}" if c in row else "" for c in columns) for row in log]
    write_bytes(folder / LOG_NAME, ("\n".join(lines) + "\n").encode())


def require_state(folder: Path) -> bool:
    """Reads the state in a folder. False where it carries no digest, as one of an earlier lmr.

    LmrError: damaged, cannot be read.
    """
    read_state(folder)
    return _is_sealed(folder / STATE_NAME, _bytes_of(folder / STATE_NAME))


class _Content(TypedDict):
    """Content of a state file."""

    identity: dict[str, Any]
    state: dict[str, Any]
    parts: dict[str, Any]


def _read_state_file(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    data = _bytes_of(path)
    _is_sealed(path, data)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise LmrError(f"{path} cannot be read: not enough memory for its {len(data):,} bytes") from error
    except Exception as error:  # whatever a damaged pickle or archive makes torch say
        raise LmrError(f"{path} is damaged; {_REMEDY}") from error
    if not isinstance(content, dict):
        raise LmrError(f"{path} is damaged (it holds no state); {_REMEDY}")
    parts, plain = content.get("parts"), {**content, "parts": {}}
    require_type(plain, _Content, str(path), _REMEDY)
    convert(plain["state"], TrainingState, str(path), _REMEDY)
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        raise LmrError(f"{path} is damaged (it holds no parts); {_REMEDY}")
    return content


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror or error}; try again, the file may be whole") from error


def _is_sealed(path: Path, data: bytes) -> bool:
    try:
        return require_sealed(data)
    except ValueError as error:
        raise LmrError(f"{path} is damaged ({error}); {_REMEDY}") from error
