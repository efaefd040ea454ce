"""Words of Spark, on a machine that has none: what they go with, and what is said to be missing."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_set import HERE, listing, misused, refused


def test_words_of_spark_go_with_it_alone() -> None:
    assert misused("embed", "--master", "local[2]") == "--master needs --engine spark"
    assert misused("embed", "--tasks", "3", "--engine", "torch") == "--tasks needs --engine spark"
    assert refused("embed", "--spark-conf", "memory=1g", "--engine", "spark") == (
        "--spark-conf memory=1g: expected spark.KEY=VALUE, such as spark.executor.memory=8g"
    )
    assert refused("embed", "--engine", "spark", "--master", "sc://127.0.0.1") == (
        "--master sc://127.0.0.1: Spark Connect does not ship files; give the cluster's own, such as spark://HOST:7077"
    )


COMMANDS = [("stats", "train.csv"), ("embed", "train.csv"), ("build-index", "train.h5"), ("submit", "test.csv")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_all_commands_know_the_words_of_spark_and_that_they_go_with_it_alone(command: tuple[str, ...]) -> None:
    assert misused(*command, "--master", "local[2]") == "--master needs --engine spark"
    assert misused(*command, "--tasks", "3", "--engine", "local") == "--tasks needs --engine spark"
    assert misused(*command, "--spark-conf", "spark.x=1") == "--spark-conf needs --engine spark"


@pytest.mark.parametrize("command", ["embed", "submit"])
def test_a_share_by_hand_does_not_go_with_spark(command: str) -> None:
    assert misused(command, "test.csv", "--shard", "1/2", "--engine", "spark") == (
        "--shard does not go with --engine spark, which makes shares by itself; leave one out"
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_without_java_one_line_says_what_is_missing_and_that_local_needs_none(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    message = refused(*command, "--engine", "spark")
    assert message.startswith("--engine spark needs ")
    assert "Java 17 or newer: " in message
    assert message.endswith("apt-get install openjdk-17-jre-headless; --engine local needs neither")
    assert listing(tmp_path) == {}


def test_the_local_engine_imports_neither_pyspark_nor_starts_java(tiny_set: Path) -> None:
    commands = [
        ["stats", "train.csv", "--images", "images", "--json", "--workers", "1"],
        ["embed", "--output", "x.h5", *HERE],
        ["build-index", "x.h5", "--output", "x", "--device", "cpu"],
        ["submit", "--index", "x", "--output", "x.csv", *HERE],
    ]
    code = "import sys; from cli.main import main\n"
    code += "".join(f"main({[*words, '--engine', 'local']}, standalone_mode=False)\n" for words in commands)
    code += "assert not [name for name in sys.modules if name.partition('.')[0] in ('pyspark', 'py4j')]"
    environment = {"PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment |= {"LMR_ENGINE": "torch", "OMP_NUM_THREADS": "1"}  # no export of the network
    made = subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert all(Path(name).exists() for name in ("x.h5", "x", "x.csv"))
