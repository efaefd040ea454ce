"""Index folders whose content is a version in them, as where two names cannot be exchanged in one step."""

import json
from pathlib import Path

import pytest
from tiny_set import done, flip_byte, refused, write_csv

from retrieval.files import folders


@pytest.fixture
def version(tiny_set, monkeypatch):
    """The version that holds the calibrated index."""
    monkeypatch.setattr(folders, "exchange", lambda *_: False)
    done("build-index", "--names", "names.csv", "--overwrite", "--device", "cpu")
    version = folders.current_folder(Path("landmarks"))
    assert version != Path("landmarks")
    return version


def test_its_calibration_is_kept(version):
    write_csv(Path("names.csv"), "landmark_id,name", ["arch,Yet Another Arch"])
    result = done("build-index", "--names", "names.csv", "--overwrite", "--device", "cpu")
    assert result.stderr.splitlines()[-1] == (
        "landmarks: its calibration from val.h5 is kept; the new index answers alike"
    )


def test_its_calibration_is_made_again_where_that_is_asked(version):
    result = done("build-index", "--whitening-power", "0.25", "--overwrite", "--recalibrate", "--device", "cpu")
    assert result.stderr.splitlines()[-1].startswith("landmarks: calibrated again on val.h5: GAP ")


def test_verify_reads_it(version):
    verified = json.loads(done("info", "landmarks", "--verify", "--json").stdout)["verified"]
    assert verified.endswith(" files are as they were written, and fit each other")
    flip_byte(version / "rows.h5")
    assert refused("info", "landmarks", "--verify") == (
        f"{version}/rows.h5 was changed or damaged: its sha256 is not that of index.json; "
        "copy the folder again or run lmr build-index again"
    )
