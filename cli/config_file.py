"""The TOML file of --config, which may give any option of a command, and stages of training."""

import difflib
import functools
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeVar

import click

from retrieval.errors import LmrError

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
STAGE_NAMES = {"manifest": "data"}  # what a stage calls it
_STAGES = "cli.config_file.stages"  # in the context's meta


def config_option(stage_keys: AbstractSet[str] = frozenset()) -> Callable[[F], F]:
    """--config, a TOML file with the same names as the options; the command line wins over it.

    stage_keys: options that [[stage]] tables in it may give too; `read_stages` gives them.
    """
    return click.option(
        "--config",
        type=PATH,
        is_eager=True,
        expose_value=False,
        callback=functools.partial(_read_config, stage_keys=stage_keys),
        help="TOML file with the same names as the options.",
    )


def read_stages() -> list[dict[str, Any]]:
    """Values of the options of each [[stage]] of the --config of the command that runs."""
    return list(click.get_current_context().meta.get(_STAGES, []))


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None, stage_keys: AbstractSet[str]) -> None:
    if path is None:
        return
    import tomllib

    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LmrError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LmrError(f"--config {path}: not TOML: {error}") from error
    known = {long_name(parameter): parameter for parameter in ctx.command.params if parameter.name != "config"}
    stages = given.pop("stage", []) if stage_keys else []
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise LmrError(f"--config {path}: stage is a list of tables; begin each with [[stage]]")
    values = _read_table(given, known, f"--config {path}", str(ctx.info_name))
    known = {STAGE_NAMES.get(name, name): parameter for name, parameter in known.items()}
    known = {name: parameter for name, parameter in known.items() if name in stage_keys}
    ctx.meta[_STAGES] = [
        {
            parameter.name: parameter.type_cast_value(ctx, stage[parameter.name])
            for parameter in known.values()
            if parameter.name in stage
        }
        for stage in (
            _read_table(table, known, f"--config {path}: stage {number}", "a stage")
            for number, table in enumerate(stages, start=1)
        )
    ]
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _read_table(table: Mapping[str, Any], known: Mapping[str, click.Parameter], where: str, of: str) -> dict[str, Any]:
    """The values of a TOML table as they would be typed, by the names of their parameters."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"
            raise LmrError(f"{where}: {key} is not an option of {of}{hint}")
        try:
            values[str(known[name].name)] = _as_typed(known[name], value)
        except ValueError as error:
            raise LmrError(f"{where}: {key} {error}") from error
    return values


def _as_typed(parameter: click.Parameter, value: Any) -> Any:
    """A value from TOML as it would be typed. Raises ValueError with what is wrong."""
    if isinstance(value, dict):
        raise ValueError("is a table; give options as name = value")
    if isinstance(parameter, click.Option) and parameter.is_flag:
        if not isinstance(value, bool):
            raise ValueError(f"is true or false, got {value!r}")
        return value
    takes_many = parameter.nargs == -1 or (isinstance(parameter, click.Option) and parameter.multiple)
    parts = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not takes_many:
        raise ValueError(f"takes one value, got {value!r}")
    if any(isinstance(part, bool | list | dict) for part in parts):
        raise ValueError(f"takes text or a number, got {value!r}")
    return [str(part) for part in parts] if takes_many else str(value)


def long_name(parameter: click.Parameter) -> str:
    """`--backbone-rate` as `backbone-rate`; an argument by its own name."""
    longest = max(parameter.opts, key=len)
    return longest.removeprefix("--").lower().replace("_", "-")
