"""Words of Spark, on a machine that has none: what they go with, and what is said to be missing."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_set import HERE, listing, misused, refused


def test_words_of_spark_go_with_it_alone() -> None:
    assert misused("embed", "--master", "local[2]") == "--master needs --engine spark"
    assert misused("embed", "--tasks", "3", "--engine", "torch") == "--tasks needs --engine spark"
    assert misused("embed", "--shard", "1/2", "--engine", "spark") == (
        "--shard does not go with --engine spark, which makes shares by itself; leave one out"
    )
    assert refused("embed", "--spark-conf", "memory=1g", "--engine", "spark") == (
        "--spark-conf memory=1g: expected spark.KEY=VALUE, such as spark.executor.memory=8g"
    )


def test_without_java_one_line_says_what_is_missing_and_that_local_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    message = refused("embed", "--engine", "spark")
    assert message.startswith("--engine spark needs ")
    assert "Java 17 or newer: " in message
    assert message.endswith("apt-get install openjdk-17-jre-headless; --engine local needs neither")
    assert listing(tmp_path) == {}


def test_the_local_engine_imports_neither_pyspark_nor_starts_java(tiny_set: Path) -> None:
    code = "import sys; from cli.main import main; main(sys.argv[1:], standalone_mode=False)\n"
    code += "assert not [name for name in sys.modules if name.partition('.')[0] in ('pyspark', 'py4j')]"
    words = [sys.executable, "-c", code, "embed", "--output", "x.h5", "--engine", "local", *HERE]
    made = subprocess.run(words, env={"PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])}, check=False)
    assert made.returncode == 0
    assert Path("x.h5").is_file()
