"""`lmr tune`: what it tells, what it builds, and what it refuses."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from tiny_set import HERE, done, listing, refused, write_csv

from cli.tune import _values
from index.tune import rounds, spaces
from index.tune.spaces import Space
from index.vote_rule import VoteRule
from retrieval.store.store import read_store

QUICK = ("--tries", "4", *HERE)
INDEX = Path("landmarks/index.json")


@pytest.fixture(autouse=True)
def few_rules(monkeypatch):
    """Two rules of the vote for each space."""
    monkeypatch.setattr(rounds, "FIRST_RULES", rounds.FIRST_RULES[:2])


def test_what_was_tried_is_a_table_and_the_commands_build_what_was_chosen(tiny_set):
    result = done("tune", "val.csv", *QUICK, "--json")
    content = json.loads(result.stdout)
    assert (content["n_queries"], content["n_landmark_queries"], content["n_rows"]) == (22, 16, 32)
    assert (content["n_tries"], len(content["trials"])) == (4, 2)
    assert content["warnings"] == ["only 22 queries, fewer than 100: the figures and what was chosen by them are rough"]
    lines = done("tune", "val.csv", *QUICK).stdout.splitlines()
    assert lines[0].startswith("val.csv: 22 queries, 6 of them non-landmarks, against 32 rows; 4 settings tried of ")
    assert [line.strip() for line in lines[-2:]] == content["commands"]
    for command in content["commands"]:
        _, *words = shlex.split(command)
        done(*words, "--overwrite", *HERE)
    options = json.loads(INDEX.read_text())["options"]
    chosen = content["chosen"]
    assert (options["whitening"], options["whitening_power"]) == (chosen["whitening"], chosen["whitening_power"])


def test_applied_the_index_is_built_and_calibrated(tiny_set):
    files = listing(tiny_set)
    assert refused("tune", "val.csv", *QUICK, "--apply") == (
        "landmarks exists; give --overwrite to replace it by what is chosen, or another --output"
    )
    assert listing(tiny_set) == files
    content = json.loads(done("tune", "val.csv", *QUICK, "--apply", "--output", "tuned", "--json").stdout)
    calibration = json.loads(Path("tuned/calibration.json").read_text())
    assert content["applied"] == calibration["cross_validated"]
    assert calibration["origin"]["source"] == "val.h5"
    done("query", "images/test-arch-0.jpg", "--index", "tuned", *HERE)


def test_applied_with_verification_the_index_verifies(tiny_set):
    for part in ("train", "val"):
        done("embed", f"{part}.csv", "--local", "rootsift", *HERE)
    done("tune", "val.csv", *QUICK, "--apply", "--verify", "--output", "tuned", "--json")
    assert json.loads(Path("tuned/calibration.json").read_text())["verified"]["cross_validated"]["gap"] > 0
    done("query", "images/test-arch-0.jpg", "--index", "tuned", "--verify", *HERE)


@pytest.fixture
def both(tiny_set, monkeypatch):
    """Stores of neck and pooled features, mirrored images among them, in the place of those of the set."""
    made = ("--backbone", "shufflenet_v2_x0_5", "--size", "32", "--dimensions", "16", "--descriptor", "both", "--flip")
    done("embed", "train.csv", *made, "--model", "wide", "--output", "wide.h5", *HERE)
    done("embed", "val.csv", "--model", "wide", "--output", "asked.h5", *HERE)
    return tiny_set


@pytest.mark.parametrize("part", ["neck", "pooled"])
def test_a_part_of_a_store_of_both_is_the_store_that_the_images_make(both, part):
    said = done("embed", "asked.h5", "--model", "wide", "--descriptor", part).stdout
    assert said.startswith(f"asked-{part}.h5: ")
    done("embed", "val.csv", "--model", "wide", "--descriptor", part, "--output", "whole.h5", *HERE)
    taken, whole = read_store(f"asked-{part}.h5"), read_store("whole.h5")
    assert taken.info == whole.info
    assert taken.image_id == whole.image_id
    np.testing.assert_allclose(taken.vectors, whole.vectors, rtol=0, atol=2e-3)
    again = done("embed", "asked.h5", "--model", "wide", "--descriptor", part).stdout
    assert "finished already, nothing to do" in again


def test_a_part_is_tuned_applied_and_spelt_as_commands(both, monkeypatch):
    chosen = Space("pooled", "none", 0.0, 0, background=True)
    usual = Space("both", "pca", 0.5, 43, background=True)
    monkeypatch.setattr(spaces, "spaces_of", lambda _: [usual, chosen])
    monkeypatch.setattr(rounds.Judged, "best_setting", lambda *_: rounds.Setting(chosen, VoteRule()))
    monkeypatch.setattr(rounds, "difference", lambda *_: (0.5, 0.1))
    words = ("tune", "asked.h5", "wide.h5", "--model", "wide", "--output", "tuned", *QUICK)
    content = json.loads(done(*words, "--apply", "--json").stdout)
    assert content["commands"] == [
        "lmr embed wide.h5 --descriptor pooled --model wide",
        "lmr embed asked.h5 --descriptor pooled --model wide",
        "lmr build-index wide-pooled.h5 --whitening-power 0 --model wide --output tuned",
        "lmr calibrate asked-pooled.h5 --index tuned",
    ]
    for command in content["commands"]:
        assert "othing to do" in done(*shlex.split(command)[1:], *HERE).output
    done("query", "images/test-arch-0.jpg", "--index", "tuned", *HERE)


def test_a_mapping_of_the_queries_is_used_and_spelt_where_a_manifest_is_asked(both, monkeypatch):
    rows = Path("val.csv").read_text().splitlines()
    write_csv(Path("shown.csv"), "id,what,kind", rows[1:])
    mapped = ("--column", "landmark_id=what")
    words = ("tune", "shown.csv", "wide.h5", "--model", "wide", *mapped, "--store", "seen.h5", *QUICK)
    *_, command = json.loads(done(*words, "--json").stdout)["commands"]
    assert command == "lmr calibrate shown.csv --column landmark_id=what --store seen.h5"
    chosen = Space("pooled", "none", 0.0, 0, background=True)
    monkeypatch.setattr(spaces, "spaces_of", lambda _: [Space("both", "pca", 0.5, 43, background=True), chosen])
    monkeypatch.setattr(rounds.Judged, "best_setting", lambda *_: rounds.Setting(chosen, VoteRule()))
    monkeypatch.setattr(rounds, "difference", lambda *_: (0.5, 0.1))
    content = json.loads(done(*words, "--apply", "--output", "tuned", "--json").stdout)
    assert content["commands"][-1] == "lmr calibrate seen-pooled.h5 --index tuned"
    assert read_store("seen-pooled.h5").info.mapped == ("landmark_id=what",)


def test_what_is_not_of_both_has_no_parts(tiny_set):
    assert refused("embed", "val.h5", "--descriptor", "neck") == (
        "--descriptor neck: val.h5 does not hold neck and pooled features; give a manifest"
    )


def test_each_value_of_a_choice_is_spelt_as_it_is():
    rows = [{"value": value, "gap": 0.5} for value in (True, False, 1.0, 0.25, 1, "pca")]
    assert _values(rows) == "yes 0.5000, no 0.5000, 1 0.5000, 0.25 0.5000, 1 0.5000, pca 0.5000"


def test_a_report_has_the_table_and_escapes_what_comes_from_data(tiny_set):
    Path("val.csv").rename("<b>val.csv")
    done("tune", "<b>val.csv", *QUICK, "--store", "val.h5", "--report", "tuning.html")
    page = Path("tuning.html").read_text()
    assert "&lt;b&gt;val.csv" in page
    assert "<b>val" not in page
    assert '<th scope="col">gain</th>' in page


def test_a_solution_the_rows_themselves_and_an_unbuilt_index_are_refused(tiny_set):
    write_csv(Path("solution.csv"), "id,landmarks,Usage", ["test-arch-0,arch,Public", "test-dome-0,dome,Private"])
    assert refused("tune", "solution.csv", *QUICK) == (
        "solution.csv has a Usage column: it is the solution of a test, and what is chosen on it would be too good "
        "there; give held-out training pictures, as lmr split makes them"
    )
    assert refused("tune", "train.h5", *QUICK) == (
        "train.h5 is given as the queries and for the index; give other pictures for one of them"
    )
    assert refused("tune", "val.csv", *QUICK, "--verify") == (
        "--verify needs --apply: answers are verified by an index that is built"
    )
    assert refused("tune", "no.csv", *QUICK) == "no.csv: there is no such file or folder"


def test_queries_that_are_rows_too_are_refused_by_their_names(tiny_set):
    rows = Path("train.csv").read_text().splitlines()
    write_csv(Path("asked.csv"), rows[0], rows[1:3])
    assert refused("tune", "asked.csv", *QUICK).endswith("leave them out of one or the other")
