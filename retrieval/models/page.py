"""README.md of a model folder: what the model is, for the person who finds it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from retrieval.words import counted

PAGE = "README.md"
_BEGINNING = "# A model of lmr: "


def model_page(card: Mapping[str, Any]) -> str:
    """Markdown of a model card, as `model.json` holds it: network, data, recipe, numbers, licence of the weights.

    Of an ensemble all of that for each of its members.
    """
    members = card.get("members", [])
    name = f"an ensemble of {len(members)}" if members else card["config"]["backbone"]
    lines = [
        f"{_BEGINNING}{name}",
        "",
        "It turns a picture into a descriptor; pictures of one landmark have descriptors that are near to each other.",
        "`lmr embed` and `lmr info` take this folder.",
        "",
        f"Fingerprint: `{card['fingerprint']}`.",
        "",
    ]
    for i, member in enumerate(members, 1):
        lines += [f"# Member {i}: {member['config']['backbone']}, weight {member['weight']:.3g}", "", *_network(member)]
    if not members:
        lines += _network(card)
    return "\n".join(lines).rstrip() + "\n"


def is_own_page(path: Path) -> bool:
    """True if there is no such file, or one that `model_page` made."""
    try:
        with path.open("rb") as file:
            return file.read(len(_BEGINNING)) == _BEGINNING.encode()
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _network(card: Mapping[str, Any]) -> list[str]:
    """Lines on one network."""
    config, spec, made_by = card["config"], card["image_spec"], card["made_by"]
    d = config["n_dimensions"]
    return [
        "| | |",
        "|---|---|",
        f"| network | {config['backbone']}, {config['pooling']} pooling, "
        + (f"a neck of {counted(d, 'dimension')} |" if d else "no neck |"),
        *_adapter(config.get("adapter")),
        f"| pictures | {spec['size']} x {spec['size']} pixels, {spec['fit']} |",
        f"| weights | `{card['weights_sha256']}` (sha256) |",
        "",
        *_origin(made_by),
        *_training(made_by),
    ]


def _adapter(config: Mapping[str, Any] | None) -> list[str]:
    """Line of a table on what follows the descriptors of a network."""
    if config is None:
        return []
    hidden = f", a hidden layer of {counted(config['n_hidden'], 'unit')}" if config["n_hidden"] else ", linear"
    return [f"| adapter | of {config['n_given']:,} numbers to {counted(config['n_dimensions'], 'dimension')}{hidden} |"]


def _origin(made_by: Mapping[str, Any]) -> list[str]:
    """Origin of the weights, and their terms."""
    started: Mapping[str, str] = made_by.get("started_from") or {}
    where = started.get("weights", "not recorded")
    terms = started.get("licence", "not recorded; ask whoever made them")
    return [
        "## Weights",
        "",
        f"Started from: {where}.",
        f"Licence of those weights: {terms}.",
        "",
        "The licence of lmr is that of the program. It says nothing about weights or about the pictures that they were",
        "trained on; both may be under terms of their own.",
        "",
    ]


def _training(made_by: Mapping[str, Any]) -> list[str]:
    """Data, recipe and numbers, of each stage where there were several."""
    if not made_by.get("training"):
        return ["## Training", "", "None by lmr.", ""]
    stages = [*made_by.get("earlier_stages", ()), made_by]
    if len(stages) == 1:
        return _stage(made_by, "##")
    return [
        line
        for i, stage in enumerate(stages, 1)
        for line in (f"## Stage {i} of {len(stages)}", "", *_stage(stage, "###"))
    ]


def _stage(stage: Mapping[str, Any], heading: str) -> list[str]:
    """heading: the marks before the headings."""
    what = "Stores" if "adapted_from" in stage else "Manifests"
    lines = [f"{heading} Data", "", f"{what} with the digest `{stage.get('data', '')}` (sha256)."]
    if "n_pictures" in stage:
        images, landmarks = counted(stage["n_pictures"], "picture"), counted(stage["n_landmarks"], "landmark")
        lines.append(f"{images}, of {landmarks} and {stage['n_non_landmarks']:,} of none.")
    if "adapted_from" in stage:
        lines.append(f"An adapter learned from the descriptors of the model `{stage['adapted_from']}` (fingerprint).")
    if "teacher" in stage:
        lines.append(f"It learned to imitate the descriptors of the model `{stage['teacher']}` (fingerprint).")
    size = {"size": stage["size"]} if "size" in stage else {}
    recipe = tomli_w.dumps(_plain(size | stage["training"]))
    lines += ["", f"{heading} Recipe", "", "```toml", *recipe.splitlines(), "```", ""]
    return lines + _numbers(stage.get("log") or [], heading)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their options' names; what has no value is left out."""
    return {
        key.replace("_", "-"): _plain(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }


def _numbers(log: list[Mapping[str, float]], heading: str) -> list[str]:
    if not log:
        return []
    columns = list(dict.fromkeys(name for row in log for name in row))
    rows = [[f"{row[name]:.4g}" if name in row else "" for name in columns] for row in log]
    header = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    about = "Of each epoch; `gap` and `top1` are on the validation pictures, `seconds` from the beginning."
    kept = "The weights are those after epoch {epoch:g}.".format(**log[-1])
    return [f"{heading} Numbers", "", about, kept, "", *header, *(f"| {' | '.join(row)} |" for row in rows), ""]
