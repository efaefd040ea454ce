"""Staging: the folder beside an output that holds all that tasks of a cluster have finished of it."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from retrieval.errors import LmrError
from retrieval.files.atomic import write_error
from retrieval.files.json_file import read_signed_json, write_signed_json
from retrieval.files.lock import output_lock
from retrieval.progress import Progress

PLAN = "plan.json"
FORMAT_VERSION = 1  # of a plan, and of all files that tasks make by it: another one is not gone on with
_REMEDY = "give `overwrite`, which begins anew"


def staging_path(output: Path) -> Path:
    """The folder of an output: `train.h5` -> `.train.h5.spark`."""
    return output.with_name(f".{output.name}.spark")


class Staging:
    """The staging of an output, whose lock is held meanwhile; not that of the output, which the task takes that joins.

    folder: what tasks write to, whole files by names that only the plan gives: one that is there is done.
    """

    def __init__(self, output: Path, *, wait: bool, progress: Progress) -> None:
        self.folder = staging_path(output)
        self._lock = output_lock(self.folder, wait=wait, progress=progress)
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(self._lock)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._held.close()

    def settle(
        self, of: Mapping[str, str], count: Callable[[], int], *, asked: int | None, overwrite: bool
    ) -> tuple[int, bool]:
        """The number of shares, and whether they were begun before: those of the plan that is there, or of a new one.

        of: what they are made of, by words for people. count: how many there are to be where no plan is there. asked:
        how many were asked for. Raises LmrError for another plan, unless overwrite.
        """
        if overwrite or not (self.folder / PLAN).exists():
            self.remove()
            n = count()
            try:
                self.folder.mkdir()
            except OSError as error:
                raise write_error(self.folder, error) from error
            write_signed_json(
                self.folder / PLAN, {"format_version": FORMAT_VERSION, "made_of": dict(of), "n_shares": n}
            )
            return n, False
        plan = read_signed_json(self.folder / PLAN, FORMAT_VERSION, _REMEDY)
        for word, value in of.items():
            if plan["made_of"].get(word) != value:
                raise LmrError(
                    f"{self.folder} was begun with another {word} ({_short(plan['made_of'].get(word))}, now "
                    f"{_short(value)}); run the command that began it again, or {_REMEDY}"
                )
        if asked is not None and asked != plan["n_shares"]:
            raise LmrError(
                f"{self.folder} was begun with `tasks` {plan['n_shares']}, now {asked}; leave `tasks` out, or {_REMEDY}"
            )
        return int(plan["n_shares"]), True

    def remove(self) -> None:
        """Removes all of it; a kill meanwhile leaves what counts as nothing."""
        try:
            (self.folder / PLAN).unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)
        except OSError as error:
            raise LmrError(f"{self.folder} cannot be removed: {error.strerror}; remove it yourself") from error


def _short(value: Any) -> str:
    return f"{value!s:.12}"
