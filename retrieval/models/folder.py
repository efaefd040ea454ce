"""A model folder: its card, the weights that the card names, and files that a model would replace."""

from pathlib import Path

from retrieval.errors import DamageError, LmrError
from retrieval.files.digest import sha256_file
from retrieval.files.json_file import read_json, write_json
from retrieval.models.card import Card, EnsembleCard, ModelCard, parse_card
from retrieval.models.page import PAGE, is_own_page
from retrieval.words import counted

CARD = "model.json"
STATE_NAME = "training.pt"  # of a run of lmr train; without it the folder is another model's, and no run goes on there
CLASSIFIER = "classifier.safetensors"
_ALSO = (CLASSIFIER, "training.csv", "training.png")  # what lies beside a card and its page


def write_card(folder: Path, card: Card) -> None:
    """Writes `model.json`."""
    write_json(folder / CARD, card.to_json())


def require_no_strangers(folder: Path) -> None:
    """Raises LmrError where a folder without a model, finished or begun, has a file that a model would replace."""
    if any((folder / name).exists() for name in (CARD, STATE_NAME)):
        return
    strangers = [name for name in _ALSO if (folder / name).exists()]
    if not is_own_page(folder / PAGE):
        strangers.append(PAGE)
    if strangers:
        raise LmrError(f"{folder / strangers[0]} exists and is of no model; give another folder, or `overwrite`")


def no_model(folder: Path) -> str:
    """The line for a folder without a model."""
    return f"{folder}: there is no model (no {CARD}); lmr train makes one"


def read_card(folder: Path) -> ModelCard:
    """Reads the `model.json` of one model. LmrError: as `read_any_card`, and for an ensemble."""
    card = read_any_card(folder)
    if isinstance(card, EnsembleCard):
        raise LmrError(
            f"{folder} is an ensemble of {counted(len(card.members), 'model')}; give a folder of one model here"
        )
    return card


def read_any_card(folder: Path) -> Card:
    """Reads `model.json`. LmrError: no model there, damaged, of another format version."""
    path = folder / CARD
    if not path.is_file():
        raise DamageError(no_model(folder))
    return parse_card(read_json(path, "train again or restore it"), str(path))


def require_weights(folder: Path, card: ModelCard) -> Path:
    """The weights file of the card. LmrError: missing or damaged."""
    path = folder / card.weights_name
    if not path.is_file():
        raise DamageError(f"{path} is missing; restore it beside {CARD} or train again")
    if sha256_file(path) != card.weights_sha256:
        raise DamageError(f"{path} is damaged: its sha256 is not the one in {CARD}; restore it or train again")
    return path
