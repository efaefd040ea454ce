"""Commands, options, links and lists in the documentation and the help agree with the program."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import pytest
from documents import (
    DOCUMENTS,
    ROOT,
    anchors,
    blocks,
    code_spans,
    first_column,
    links,
    lmr_commands,
    spans_in,
    table_after,
)

from cli.main import COMMANDS, main
from lmr import Answer
from retrieval.data.formats import recognise_manifest
from retrieval.local.config import LocalCard
from retrieval.local.store import LocalColumns, LocalInfo, unknown_facts
from retrieval.local.writer import write_local
from retrieval.shard import Shard
from retrieval.texts import Texts

FORMATS = ROOT / "docs" / "formats.md"
README = ROOT / "README.md"
COMPARE = ROOT / "docs" / "compare.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
RELIABILITY = ROOT / "docs" / "reliability.md"
HEAVY = ("aiohttp", "torch", "torchvision", "faiss", "h5py", "matplotlib", "pandas", "sklearn", "jinja2", "tqdm")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_the_documents_parses(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(document):
        if block.mark[0] == "file":
            Path(block.mark[1]).write_text(block.text, encoding="utf-8")
    commands = [arguments for block in blocks(document) for arguments in lmr_commands(block.text)]
    assert [refusal for arguments in commands if (refusal := _refusal(arguments))] == []


def test_every_benchmark_is_documented_with_options_that_it_takes() -> None:
    both = [*blocks(BENCHMARKS), *blocks(RELIABILITY)]
    lines = [line for block in both for line in block.text.splitlines() if "scripts/bench/" in line]
    assert {line.split()[1] for line in lines} == {
        str(path.relative_to(ROOT))
        for path in (ROOT / "scripts" / "bench").glob("*.py")
        if "def main()" in path.read_text(encoding="utf-8")
    }
    for line in lines:
        _, script, *words = line.split()
        source = (ROOT / script).read_text(encoding="utf-8")
        assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == [], line
        if not words[:1] or not words[0].startswith("--"):
            assert not words or '"folder", nargs="?"' in source, line


def test_every_image_in_the_documents_is_there_and_drawn_by_the_script() -> None:
    shown = {
        name for path in DOCUMENTS for name in re.findall(r"!\[[^]]+\]\((?:docs/)?(\S+)\)", path.read_text("utf-8"))
    }
    script = (ROOT / "scripts" / "images.py").read_text(encoding="utf-8")
    assert shown == set(re.findall(r'DOCS / "(\S+)"', script))
    assert shown == {path.name for path in (ROOT / "docs").iterdir() if path.is_file() and path.suffix != ".md"}
    assert [name for name in shown if (ROOT / "docs" / name).stat().st_size > 150_000] == []


def test_the_documented_commands_of_the_photographs_are_those_that_the_script_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("photos", ROOT / "scripts" / "bench" / "photos.py")
    assert spec is not None
    assert spec.loader is not None
    photos = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(photos)
    ran: list[list[str]] = []

    def note(_: Path, *words: object) -> str:
        ran.append([str(word) for word in words])
        if words[0] == "score":
            raise StopIteration  # the last one that is documented
        return "{}"

    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "train.csv").touch()
    log = tmp_path / "lite0-trained" / "model" / "training.csv"
    log.parent.mkdir(parents=True)
    log.write_text("seconds\n1\n", encoding="utf-8")
    monkeypatch.setattr(photos, "lmr", note)
    monkeypatch.setattr(sys, "argv", ["photos.py", "--data", str(data), "--work", str(tmp_path), "--weights", "w"])
    with pytest.raises(StopIteration):
        photos.main()
    beside = {str(data / "images"), "--images", "--json"}  # needed from another folder, or by a program
    shown = [[Path(word).name if "/" in word else word for word in words if word not in beside] for words in ran]
    (block,) = [block for block in blocks(BENCHMARKS) if block.text.startswith("lmr train train.csv --negatives")]
    assert list(lmr_commands(block.text)) == shown


def test_the_documents_show_every_command() -> None:
    assert {words[0] for path in DOCUMENTS for block in blocks(path) for words in lmr_commands(block.text)} == set(
        COMMANDS
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_in_the_text_exists(document: Path) -> None:
    everywhere = set().union(*(_options(name) for name in COMMANDS))
    for span in code_spans(document):
        words = span.removeprefix("lmr ").split()
        if not words or not any(word.startswith("--") for word in words):
            continue
        known = _options(words[0]) if words[0] in COMMANDS else everywhere
        if words[0] in COMMANDS or words[0].startswith("--"):
            unknown = [word for word in words if word.startswith("--") and word not in known]
            assert not unknown, f"{document.name}: `{span}`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_that_parse(name: str) -> None:
    text = _command(name).help or ""
    _, found, examples = text.partition("Example:\n")
    lines = [re.sub(r"^ *torchrun --no-python .* lmr ", "lmr ", line).strip() for line in examples.splitlines()]
    lines = [line for line in lines if line]
    assert found
    assert lines
    assert [line for line in lines if not line.startswith(f"lmr {name} ") and line != f"lmr {name}"] == []
    commands = [arguments for line in lines for arguments in lmr_commands(line)]
    assert [refusal for arguments in commands if (refusal := _refusal(arguments))] == []


def test_the_commands_in_the_help_of_lmr_parse() -> None:
    lines = [line.strip() for line in (main.help or "").splitlines() if line.strip().startswith("lmr ")]
    commands = [arguments for line in lines for arguments in lmr_commands(line)]
    assert [arguments[0] for arguments in commands] == ["demo", "train", "embed", "build-index", "submit"]
    assert [refusal for arguments in commands if (refusal := _refusal(arguments))] == []


def test_every_option_has_a_help_text() -> None:
    without = [
        f"{name} {parameter.opts[0]}"
        for name in COMMANDS
        for parameter in _command(name).params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert without == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in links(document):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = document.parent / path if path else document
        assert there.is_file() or (there.is_dir() and not anchor), f"{document.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{document.name}: {target}"


def test_the_readme_names_the_two_commands() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert "    python3 scripts/run.py demo" in lines
    assert "    python3 scripts/run.py test" in lines


def test_the_readme_lists_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert first_column(README, "Extras, in the brackets") == set(project["optional-dependencies"])


def test_the_readme_lists_the_fields_of_an_answer() -> None:
    assert first_column(README, "gives one `Answer` for each") == {field.name for field in fields(Answer)}


def test_the_manifests_that_the_formats_page_lists_are_recognised() -> None:
    headers = [span for row in table_after(FORMATS, "## Manifests") for span in spans_in(row[1]) if "," in span]
    assert len(headers) >= 6
    for header in headers:
        recognise_manifest(header.split(","), "listed.csv")


def test_the_formats_page_lists_what_a_local_store_holds(tmp_path: Path) -> None:
    card = LocalCard("rootsift", 2, 640, 4, "uint8")
    none: dict[str, Any] = {"image_id": Texts.of([]), "reason": Texts.of([]), "facts": unknown_facts(0)}
    numbers = {"state": np.zeros(0, np.uint8), "n_features": np.zeros(0, np.int64), "size": np.zeros((0, 2), np.int32)}
    write_local(tmp_path / "x.local.h5", LocalInfo(card, "", Shard(1, 2)), LocalColumns(**none, **numbers), [])
    with h5py.File(tmp_path / "x.local.h5") as file:
        assert set(file) == first_column(FORMATS, "<!-- hdf5: local store -->")
        assert set(file["features"].dtype.names) == first_column(FORMATS, "<!-- fields: features -->")
        said = FORMATS.read_text(encoding="utf-8").partition("Attributes: `local_format_version`")[2]
        assert set(file.attrs) - {"local_format_version"} <= spans_in(said.partition(". Digests")[0])


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from cli.main import COMMANDS, main\n"
        "for name in ['', *COMMANDS]:\n"
        "    try: main([name, '--help'] if name else ['--help'], prog_name='lmr')\n"
        "    except SystemExit as end: assert end.code == 0, name\n"
        f"print('loaded:', *[name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "loaded:"
    assert done.stdout.count("Usage: lmr") == 1 + len(COMMANDS)


def _command(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name)
    assert command is not None, f"there is no command {name}"
    return command


def _options(name: str) -> set[str]:
    command = _command(name)
    within = command.commands.values() if isinstance(command, click.Group) else ()
    parameters = (parameter for one in (command, *within) for parameter in one.params)
    return {*(opt for parameter in parameters for opt in (*parameter.opts, *parameter.secondary_opts)), "--help"}


def _refusal(arguments: list[str]) -> str:
    """What click says against the command: unknown options, values out of range, arguments missing; '' = nothing."""
    try:
        command, parent = _command(arguments[0]), click.Context(main)
        name, *rest = arguments
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            parent = click.Context(command, info_name=name, parent=parent)
            name, command, rest = command.resolve_command(parent, rest)
            assert command is not None
        command.make_context(name, list(rest), parent=parent)
    except click.exceptions.Exit as end:
        if end.exit_code:
            return f"lmr {' '.join(arguments)}: exit code {end.exit_code}"
    except click.ClickException as error:
        return f"lmr {' '.join(arguments)}: {error.format_message()}"
    return ""


def test_the_page_on_comparing_lists_the_recipes_and_its_own_can_be_read(tmp_path: Path) -> None:
    from index.compare.plan import read_entries
    from index.compare.steps import step_options
    from retrieval.train.recipes.recipe import recipe_names

    assert first_column(COMPARE, "tells them in a line each") == set(recipe_names())
    (text,) = [block.text for block in blocks(COMPARE) if block.mark == ("file", "mine.toml")]
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    (entry,) = read_entries([str(tmp_path / "mine.toml")], {}, step_options())
    assert len(entry.recipe.members) == 3
