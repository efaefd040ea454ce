"""Systems of a comparison, made: networks, descriptors, index folders, answers; what is finished is kept.

Each step is a job of lmr with a configuration file, so that it can be run again by hand. A folder is named by what
goes into it; `models/` holds trained networks, `stores/` their descriptors, `systems/` what answers with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from index.compare.folders import FACTS, FINISHED, Workshop, described_folder, in_data, model_folder, system_folder
from index.compare.plan import Entry
from index.compare.ready import Ready, calibration_settings, classifier, index_system
from index.compare.steps import run_step
from retrieval.errors import LmrError
from retrieval.train.recipes.recipe import Options, Recipe, members, settle
from retrieval.train.record import read_log

if TYPE_CHECKING:
    from index.compare.measure import Answered


import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from index.compare.measure import Answered


_REMEDY = "remove it and run the same command again"  # what is kept can be made again


def write_answers(path: Path, answered: "Answered") -> None:
    """Replaces the file. LmrError when it cannot be written."""
    from retrieval.files.atomic import write_bytes
    from retrieval.files.sealed_zip import seal

    buffer = io.BytesIO()
    votes = answered.votes
    np.savez_compressed(
        buffer,
        query=votes.query,
        landmark=votes.landmark,
        score=votes.score,
        key=answered.key,
        threshold=answered.threshold,
    )
    write_bytes(path, seal(buffer.getvalue()))


def read_answers(path: Path, n: int | None = None) -> "Answered":
    """Answers to n queries, None = any number, that `write_answers` wrote.

    LmrError when the file is damaged or cannot be read.
    """
    from index.compare.measure import Answered
    from index.vote import Votes
    from retrieval.files.sealed_zip import require_sealed

    try:
        data = path.read_bytes()
        require_sealed(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as kept:
            votes = Votes(kept["query"], kept["landmark"], kept["score"])
            answered = Answered(votes, kept["key"], kept["threshold"])
        found = len(answered.key)
        if n not in (None, found) or (len(votes.query) and not 0 <= votes.query.min() <= votes.query.max() < found):
            raise ValueError(f"it is not of {found if n is None else n:,} queries")
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "not enough memory"
        raise LmrError(f"{path} cannot be read: {reason}; try again, the file may be whole") from error
    except Exception as error:  # whatever a damaged archive makes numpy say
        reason = (str(error).splitlines() or ["no archive"])[0][:100]
        raise LmrError(f"{path} is damaged ({reason}); {_REMEDY}") from error
    return answered


def write_facts(path: Path, facts: Mapping[str, float | None]) -> None:
    """Writes figures as JSON with their digest. LmrError when the file cannot be written."""
    from retrieval.files.json_file import signed, write_json

    write_json(path, signed(facts))


def read_facts(path: Path) -> dict[str, float | None]:
    """The figures in a JSON file. LmrError when it is damaged."""
    from retrieval.files.json_file import convert, read_json, require_signed

    content = require_signed(read_json(path, _REMEDY), str(path), _REMEDY, may_lack=True)
    return convert(content, dict[str, float | None], str(path), _REMEDY)


@dataclass(frozen=True, slots=True)
class Made:
    """A system's answers to a part.

    logs: training.csv of each member and stage, by name. facts: training_s, pictures_per_s and descriptor_bytes, None
    where nothing was trained, or the system keeps no descriptors.
    """

    answered: "Answered"
    logs: dict[str, Path]
    facts: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Group:
    """A system's members, maybe one. models: where their networks are, None where nothing is trained."""

    label: str
    parts: Sequence[Recipe]
    models: Sequence[Path | None]
    folder: Path

    @property
    def members(self) -> "list[Group]":
        """Each member as a system of its own."""
        pairs = enumerate(zip(self.parts, self.models, strict=True))
        return [Group(self.label, [part], [model], self.folder / f"member-{i}") for i, (part, model) in pairs]


def require_files(shop: Workshop, entry: Entry, options: Options) -> None:
    """LmrError where a file or a manifest that a system's recipe names is not there, before others are trained."""
    try:
        for member in members(settle(entry.recipe, options), 0, options):
            system_folder(shop, entry.label, [member], [model_folder(shop, entry.label, member)])
    except LmrError as error:
        raise LmrError(f"{entry.label}: {error.lines[0]}", *error.lines[1:]) from error


def make_system(shop: Workshop, label: str, parts: Sequence[Recipe], part: str) -> Made:
    """Trains and builds a system of these members, or finds it finished, and answers a part.

    LmrError names the system by its label.
    """
    try:
        models = [model_folder(shop, label, member) for member in parts]
        folder = system_folder(shop, label, parts, models)
        for place in (folder, *(model for model in models if model is not None)):
            shop.clear(place)
        for member, model in zip(parts, models, strict=True):
            if model is not None:
                _train(shop, member, model)
        group = Group(label, parts, models, folder)
        answered, facts = _answers(shop, group, part)
        seconds = [_training_s(model / FINISHED) for model in models if model is not None]
    except LmrError as error:
        raise LmrError(f"{label}: {error.lines[0]}", *error.lines[1:]) from error
    return Made(answered, _logs(models), {"training_s": sum(seconds) if seconds else None, **facts})


def _training_s(path: Path) -> float:
    """Seconds that a finished training took."""
    seconds = read_facts(path).get("training_s")
    if seconds is None:
        raise LmrError(f"{path} is damaged (no training_s); remove it and run the same command again")
    return seconds


def _logs(models: Sequence[Path | None]) -> dict[str, Path]:
    """The logs of all trainings, by member where there are several and by stage."""
    found = {}
    for i, model in enumerate(models, start=1):
        for path in sorted(model.rglob("training.csv")) if model is not None else ():
            parts = [f"member {i}"] if len(models) > 1 else []
            parts += [path.parent.name] if path.parent.name.startswith("stage-") else []
            found[", ".join(parts)] = path
    return found


def _train(shop: Workshop, recipe: Recipe, folder: Path) -> None:
    """Trains a network, or goes on, unless that is finished."""
    if (folder / FINISHED).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    table, stages = in_data(shop, recipe.tables["train"]), [in_data(shop, stage) for stage in recipe.stages]
    output = folder / "model"
    run_step(shop, "train", shop.data.train, folder / "train.toml", table, stages=stages, output=output)
    seconds = sum(read_log(path)[-1]["seconds"] for path in output.rglob("training.csv"))  # of every stage
    write_facts(folder / FINISHED, {"training_s": seconds})


def _answers(shop: Workshop, group: Group, part: str) -> "tuple[Answered, dict[str, float | None]]":
    """The answers to a part, kept in the system's folder."""
    from index.compare.systems import answers_of

    asked = {name: asked for name, (_, _, asked) in shop.queries.items()}
    kept = group.folder / f"answers-{part}-{shop.data.digest(shop.data.parts[part])[:12]}.npz"
    facts_path = group.folder / FACTS
    if kept.exists() and facts_path.exists():
        return read_answers(kept, len(asked[part])), read_facts(facts_path)
    ready = _make(shop, group)
    answered = answers_of(ready.system, asked["val"], asked.get("test") if part == "test" else None)
    facts = {"pictures_per_s": ready.pictures_per_s, "descriptor_bytes": ready.descriptor_bytes}
    write_facts(facts_path, facts)
    write_answers(kept, answered)
    return answered, facts


def _make(shop: Workshop, group: Group) -> Ready:
    """The system itself: the index or the classes of one network, the index of several joined, or joined answers."""
    first, joined = group.parts[0], group.parts[0].answering.combine == "mean"
    by_class = first.answering.by == "classifier"
    if len(group.parts) > 1 and (by_class or not joined):
        return _join(shop, group, [_make(shop, member) for member in group.members])
    group.folder.mkdir(parents=True, exist_ok=True)
    if by_class:
        return classifier(shop, first, group.models[0])
    described = described_folder(shop, group.label, group.parts, group.models)
    shop.clear(described)
    return index_system(shop, group.parts, group.models, stores=described, folder=group.folder)


def _join(shop: Workshop, group: Group, ready: Sequence[Ready]) -> Ready:
    """Members that answer as one: the majority of their answers, or the mean of their probabilities."""
    from index.compare.measure import mean_probabilities
    from index.compare.systems import Classes, Majority

    rate = 1 / sum(1 / member.pictures_per_s for member in ready)
    sizes = [member.descriptor_bytes for member in ready if member.descriptor_bytes is not None]
    systems = [member.system for member in ready]
    precision = calibration_settings(group.parts[0]).precision
    if group.parts[0].answering.combine == "majority":
        return Ready(Majority(systems, precision), rate, sum(sizes) if sizes else None)
    tables = [system.tables for system in systems if isinstance(system, Classes)]  # all are, `read_entries` has seen
    n_landmarks = len(shop.data.landmarks)
    mean = {name: mean_probabilities([table[name] for table in tables], n_landmarks) for name in shop.queries}
    return Ready(Classes(mean, precision), rate, None)
