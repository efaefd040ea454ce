"""Where the systems of a comparison are made, and how a step is run: as a command of lmr with a configuration file."""

import contextlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.compare.data import ComparisonData
from cli.compare.plan import step_command
from cli.options import is_waiting, warn
from cli.terminal import command_line
from retrieval.errors import LmrError
from retrieval.train.recipe import to_toml

if TYPE_CHECKING:
    from index.compare.measure import Asked
    from index.queries import Queries
    from retrieval.data.manifest import Manifest

FINISHED, FACTS = "finished.json", "facts.json"  # what is written last, for a model and for a system


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where systems are made, and how. queries: of each part, manifest and labels. values: options of the command.

    fresh: folders that were made anew in this call, where `overwrite` asks for that.
    """

    data: ComparisonData
    queries: "Mapping[str, tuple[Manifest, Queries, Asked]]"
    output: Path
    values: Mapping[str, Any]
    fresh: set[Path] = field(default_factory=set)

    def clear(self, folder: Path) -> None:
        """Removes a folder that is to be made anew and was not yet."""
        if self.values["overwrite"] and folder not in self.fresh:
            for done in (FINISHED, FACTS):  # first, so that what a kill leaves behind does not look whole
                (folder / done).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            self.fresh.add(folder)

    def arguments(self, step: str) -> list[str]:
        """Options that every command gets, as far as it has them."""
        known = {parameter.name for parameter in step_command(step).params}
        given = {name: self.values.get(name) for name in ("device", "threads", "workers")}
        given["images"] = str(self.data.images)
        words = [
            word
            for name, value in given.items()
            if name in known and value is not None
            for word in (f"--{name}", str(value))
        ]
        return [*words, "--wait"] if is_waiting() else words


def run_step(step: str, arguments: Sequence[object]) -> None:
    """A command of lmr, shown as it would be typed; what it prints goes to stderr. LmrError for what it refuses."""
    words = [str(word) for word in arguments]
    warn(command_line("lmr", step, *words))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            step_command(step).main(words, prog_name=f"lmr {step}", standalone_mode=False)
    except click.UsageError as error:
        raise LmrError(f"lmr {step}: {error.format_message()}") from error
    except click.Abort as error:  # what click makes of it
        raise KeyboardInterrupt from error


def write_config(path: Path, table: Mapping[str, Any], stages: Sequence[Mapping[str, Any]] = ()) -> Path:
    from retrieval.files.atomic import write_text

    write_text(path, [to_toml(table, stages)])
    return path
