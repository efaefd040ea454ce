"""The options that commands share, and the TOML file that may give any of them."""

import json
import os
from pathlib import Path

import click
import pytest
from tiny_set import HERE, done, listing, misused, refused, run

from cli.main import COMMANDS, main


def configured(text: str) -> tuple[str, str]:
    """--config and a file of this text."""
    Path("c.toml").write_text(text)
    return "--config", "c.toml"


def test_a_config_gives_the_same_as_the_options(tiny_set):
    given = configured('output = "x.h5"\nflip = true\nsize = 40\nworkers = 1\nthreads = 1\ndevice = "cpu"\n')
    done("embed", *given)
    done("embed", "--flip", "--size", "40", "--output", "y.h5", *HERE)
    facts = [json.loads(done("info", name, "--json").stdout) for name in ("x.h5", "y.h5")]
    assert facts[0] == facts[1]
    assert facts[0]["image_spec"]["size"] == 40


def test_the_command_line_wins_over_the_config(tiny_set):
    done("embed", *configured('output = "x.h5"\nsize = 40\n'), "--size", "48", *HERE)
    assert json.loads(done("info", "x.h5", "--json").stdout)["image_spec"]["size"] == 48


def test_arguments_and_options_that_repeat_are_lists_or_one_value(tiny_set):
    for images in ('["images/test-arch-0.jpg"]', '"images/test-arch-0.jpg"'):
        given = configured(f'pictures = {images}\njson = true\nworkers = 1\nthreads = 1\ndevice = "cpu"\n')
        (answer,) = json.loads(done("query", *given).stdout)
        assert answer["image"] == "images/test-arch-0.jpg"
    for option in ('"a=b"', '["a=b"]'):
        said = refused("embed", "--backbone", "shufflenet_v2_x0_5", *configured(f"backbone-option = {option}\n"))
        assert said.endswith('check --backbone-option {"a": "b"}')


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("train", "epohcs = 3", "epohcs is not an option of train; did you mean epochs?"),
        ("train", "batch_sizes = 3", "batch_sizes is not an option of train; did you mean batch-size?"),
        ("calibrate", "precison = 0.9", "precison is not an option of calibrate; did you mean precision?"),
        ("query", "zzz = 1", "zzz is not an option of query; known are allow-private, classifier, csv, device, engine, "
         "explain, index, json, matcher, mode, overwrite, pictures, save, server, sort-into, threads, threshold, top, "
         "undo-moves, verify, verify-top, wait, workers"),
        ("embed", "[embed]\nsize = 3", "embed is not an option of embed; known are backbone, backbone-option, "
         "batch-size, cells, check, colors, column, descriptor, device, dimensions, dtype, engine, fit, flip, gem-p, "
         "images, json, keypoints, last-layer, local, local-dimensions, local-weights, long-side, manifest, master, "
         "mean, model, output, overwrite, pooling, prelu, pretrained, profile, retry-unreadable, scales, shard, size, "
         "spark-conf, std, tasks, threads, wait, weights, workers"),
        ("embed", "[size]\na = 3", "size is a table; give options as name = value"),
        ("embed", "size = [3]", "size takes one value, got [3]"),
        ("embed", "size = true", "size takes text or a number, got True"),
        ("embed", "overwrite = 5", "overwrite is true or false, got 5"),
        ("embed", 'flip = "yes"', "flip is true or false, got 'yes'"),
        ("embed", "= 3", "not TOML: Invalid statement (at line 1, column 1)"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)  # fmt: skip
def test_a_config_that_cannot_be_is_one_line_that_names_the_key(tiny_set, command, text, message):
    arguments = {"train": ["train.csv"], "calibrate": ["val.csv"], "query": ["images"]}.get(command, [])
    given = configured(text)
    files = listing(tiny_set)
    assert refused(command, *arguments, *given) == f"--config c.toml: {message}"
    assert listing(tiny_set) == files


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("train", 'epochs = "three"', "Invalid value for '--epochs': 'three' is not a valid integer."),
        ("train", "epochs = 1.5", "Invalid value for '--epochs': '1.5' is not a valid integer."),
        ("embed", 'dtype = "float33"', "Invalid value for '--dtype': 'float33' is not one of 'float16', 'float32'."),
        ("submit", "threshold = nan", "Invalid value for '--threshold': nan is not a number"),
        ("submit", "threshold = 7", "Invalid value for '--threshold': 7.0 is not in the range 0<=x<=1."),
        ("query", "pictures = []", "Missing argument 'PICTURES...'."),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_a_value_in_a_config_is_held_to_what_the_option_takes(tiny_set, command, text, message):
    arguments = ["train.csv"] if command == "train" else []
    assert misused(command, *arguments, *configured(text)) == message


def test_a_config_that_is_no_text_is_one_line(tiny_set):
    Path("c.toml").write_bytes(b"\xff\xfe")
    assert refused("embed", "--config", "c.toml").startswith("--config c.toml: not TOML: 'utf-8' codec can't decode ")
    assert refused("embed", "--config", "images") == "--config images: Is a directory"


def test_a_misspelt_command_names_the_right_one(tiny_set):
    assert misused("embd") == "No such command 'embd'. Did you mean 'embed'?"
    assert misused("xyzzy") == "No such command 'xyzzy'."


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_how_it_is_used(command):
    text = done(command, "--help").stdout
    assert text.startswith(f"Usage: main {command}")
    assert "Example:" in text


def test_help_lists_every_command():
    text = done("--help").stdout
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line.split()[0] in COMMANDS] == [
        *COMMANDS
    ]
    assert run("--version").stdout.startswith("lmr, version ")


@pytest.mark.parametrize("command", ["embed", "train", "calibrate", "evaluate", "query", "submit"])
def test_every_command_that_computes_checks_device_and_threads(tiny_set, command):
    arguments = {
        "train": ["train.csv", "--output", "m"],
        "calibrate": ["val.csv"],
        "evaluate": ["val.csv"],
        "query": ["images/test-arch-0.jpg"],
        "embed": ["--output", "x.h5"],
    }.get(command, [])
    files = listing(tiny_set)
    assert refused(command, *arguments, "--device", "abacus").startswith("--device abacus: not a device; ")
    assert refused(command, *arguments, "--threads", "0") == "--threads must be at least 1, got 0"
    assert refused(command, *arguments, "--threads", "100000") == (
        "--threads must be at most 1,024, got 100000; more than the cores gain nothing"
    )
    assert listing(tiny_set) == files


def test_waiting_threads_leave_the_cores_to_others_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    main.get_command(click.Context(main), "info")
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    main.get_command(click.Context(main), "info")
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
