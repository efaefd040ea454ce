"""The scripts and manifests for Slurm and Kubernetes do what one run does, by stand-ins for sbatch and kubectl."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cli.main import main
from retrieval.store.store import read_store

ROOT = Path(__file__).parents[2]
SLURM, KUBERNETES = ROOT / "deploy" / "slurm", ROOT / "deploy" / "kubernetes"
SCRIPTS = [*SLURM.glob("*.sh"), *KUBERNETES.glob("*.sh")]
STEPS = ("embed", "index", "submit", "join")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")

LMR = f"""#!/bin/sh
exec '{sys.executable}' -c 'from cli.main import main; main()' "$@"
"""
# Runs each job at once; one whose dependency failed is cancelled. State: ok or failed, by number.
SBATCH = f"""#!{sys.executable}
import json, os, subprocess, sys
from pathlib import Path

known = Path(os.environ["QUEUE"])
states = json.loads(known.read_text()) if known.exists() else {{}}
words, options = sys.argv[1:], {{}}
while words and words[0].startswith("--"):
    name, _, value = words.pop(0)[2:].partition("=")
    options[name] = value
unknown = options.keys() - set("parsable array dependency kill-on-invalid-dep job-name cpus-per-task mem wrap".split())
assert not unknown, unknown
number = str(len(states) + 101)
kind, _, before = options.get("dependency", "").partition(":")
first, _, last = options.get("array", "0-0").partition("-")
indices = range(int(first), int(last or first) + 1)
codes = []
if not before or states[before] == "ok":
    command = ["bash", "-c", options["wrap"]] if "wrap" in options else ["bash", *words]
    for index in indices:
        array = {{"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_TASK_COUNT": str(len(indices))}}
        own = os.environ | (array if "array" in options else {{}})
        codes.append(subprocess.run(command, env=own, stdout=sys.stderr).returncode)
states[number] = "ok" if codes and not any(codes) else "failed"
known.write_text(json.dumps(states))
print(f"{{number}};cluster" if "parsable" in options else f"Submitted batch job {{number}}")
"""
# Runs each Job at once, every index of it, in the folder that stands for the volume.
KUBECTL = f"""#!{sys.executable}
import json, os, subprocess, sys
from pathlib import Path
import yaml

known = Path(os.environ["QUEUE"])
states = json.loads(known.read_text()) if known.exists() else {{}}
if sys.argv[1:3] == ["apply", "-f"]:
    job = yaml.safe_load(Path(sys.argv[3]).read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    given = {{item["name"]: item["value"] for item in container["env"] if item["name"] != "HOME"}}
    for index in range(job["spec"].get("completions", 1)):
        own = {{"JOB_COMPLETION_INDEX": str(index)}} if job["spec"].get("completionMode") == "Indexed" else {{}}
        code = subprocess.run(container["command"], env=os.environ | given | own, cwd=os.environ["VOLUME"]).returncode
        if code or states.get(job["metadata"]["name"]) == "Failed":
            states[job["metadata"]["name"]] = "Failed"
        else:
            states[job["metadata"]["name"]] = "Complete"
    known.write_text(json.dumps(states))
elif sys.argv[1:3] == ["get", "job"]:
    print(states[sys.argv[3]], end="")
elif sys.argv[1] == "wait":
    sys.exit(states[sys.argv[-1].removeprefix("job/")] != "Complete")
else:
    sys.exit(f"unknown: {{sys.argv}}")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and programs that stand for lmr, sbatch and kubectl."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("lmr", LMR), ("sbatch", SBATCH), ("kubectl", KUBECTL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("QUEUE", str(tmp_path / "queue.json"))
    monkeypatch.setenv("VOLUME", str(tmp_path / "volume"))
    return tmp_path


@pytest.fixture
def volume(place: Path, finished_set: Path) -> Path:
    """The images, manifests and model of the tiny set."""
    (place / "volume").mkdir()
    return begin(finished_set, place / "volume")


def begin(finished_set: Path, folder: Path) -> Path:
    for name in ("images", "model"):
        shutil.copytree(finished_set / name, folder / name)
    for name in ("train.csv", "test.csv"):
        shutil.copy(finished_set / name, folder)
    return folder


def start(*words: object, folder: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        list(map(str, words)), cwd=folder, env=os.environ | more, capture_output=True, text=True, check=False
    )


def states(place: Path) -> list[str]:
    return list(json.loads((place / "queue.json").read_text()).values())


@pytest.fixture(scope="module")
def whole(finished_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands make without shares."""
    folder = tmp_path_factory.mktemp("whole")
    begin(finished_set, folder)
    with chdir(folder):
        for words in (("embed", "train.csv"), ("build-index",), ("submit", "test.csv")):
            said = CliRunner().invoke(main, [*words, "--device", "cpu"])
            assert said.exit_code == 0, said.output
    return folder


def require_as_one_run(folder: Path, whole: Path) -> None:
    """The store, the index and the answers are those of the commands without shares."""
    found, expected = (read_store(place / "train.h5") for place in (folder, whole))
    assert found.image_id.tolist() == expected.image_id.tolist()
    assert np.array_equal(found.vectors[:], expected.vectors[:])
    for name in ("landmarks/index.faiss", "submission.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def manifest(name: str) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text(encoding="utf-8"))


def of_two(folder: Path) -> Path:
    """A copy of the manifests for two shares, as a reader would change them."""
    shutil.copytree(KUBERNETES, folder)
    for path in folder.glob("*.yaml"):
        text = re.sub(r"(completions|parallelism): 16", r"\1: 2", path.read_text(encoding="utf-8"))
        path.write_text(text.replace('value: "16"', 'value: "2"'), encoding="utf-8")
    return folder


def test_shares_of_an_array_of_slurm_are_joined_to_what_one_run_makes(place: Path, volume: Path, whole: Path) -> None:
    said = start(SLURM / "all.sh", "2", folder=volume)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["105"]
    assert states(place) == ["ok"] * 5
    assert sorted(path.name for path in volume.glob("[!.]*-of-2*")) == [
        *(f"submission-{i}-of-2.json" for i in (1, 2)),
        *(f"test-{i}-of-2.h5" for i in (1, 2)),
        *(f"train-{i}-of-2.h5" for i in (1, 2)),
    ]
    require_as_one_run(volume, whole)


def test_indexed_jobs_of_kubernetes_are_joined_to_what_one_run_makes(place: Path, volume: Path, whole: Path) -> None:
    pytest.importorskip("yaml")
    said = start(of_two(place / "manifests") / "all.sh", folder=volume)
    assert said.returncode == 0, said.stderr
    assert states(place) == ["Complete"] * 4
    require_as_one_run(volume, whole)


def test_after_a_share_that_failed_nothing_more_is_begun(place: Path) -> None:
    (place / "bin" / "lmr").write_text('#!/bin/sh\necho "$@" >> said\nexit 1\n')
    assert start(SLURM / "all.sh", "2", folder=place).returncode == 0
    assert states(place) == ["failed"] * 5
    said = ["embed train.csv --shard 1/2", "embed train.csv --shard 2/2"]
    assert (place / "said").read_text().splitlines() == said
    (place / "queue.json").unlink()
    pytest.importorskip("yaml")
    (place / "volume").mkdir()
    assert start(of_two(place / "manifests") / "all.sh", folder=place).returncode == 1
    assert states(place) == ["Failed"]
    assert (place / "volume" / "said").read_text().splitlines() == said


@pytest.mark.parametrize(("end", "code", "n"), [("kill -SEGV $$", 139, 3), ("exit 1", 1, 1), ("exit 0", 0, 1)])
def test_only_a_share_that_was_killed_is_run_again(place: Path, end: str, code: int, n: int) -> None:
    """As after a picture that crashes its decoder, which the next run names."""
    (place / "bin" / "lmr").write_text(f'#!/bin/sh\necho "$@" >> said\n{end}\n')
    task = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "1", "N_SHARES": "16"}
    said = start("bash", SLURM / "share.sh", "embed", "train.csv", folder=place, **task)
    assert said.returncode == code
    assert (place / "said").read_text().splitlines() == ["embed train.csv --shard 7/16"] * n


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_scripts_are_sound_bash(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], capture_output=True, check=False).stderr == b""
    checker = shutil.which("shellcheck")
    if checker is not None:
        found = subprocess.run([checker, script], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", ["embed", "submit"])
def test_as_many_pods_are_completed_as_there_are_shares(name: str) -> None:
    spec = manifest(name)["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["backoffLimitPerIndex"] >= 2  # the second pod names a picture that crashed the first
    (container,) = spec["template"]["spec"]["containers"]
    given = {item["name"]: item["value"] for item in container["env"]}
    assert given["N_SHARES"] == str(spec["completions"])
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["Ignore", "FailIndex"]
    assert spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["containerName"] == container["name"]


@pytest.mark.parametrize("name", STEPS)
def test_every_pod_sees_the_volume_and_may_do_nothing_else(name: str) -> None:
    job = manifest(name)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    claim = manifest("volume")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert job["metadata"]["name"] == f"lmr-{name}"
    assert pod["restartPolicy"] == "Never"  # as retries for each index need
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"data": container["workingDir"], "tmp": "/tmp"}
    assert container["resources"]["requests"] == container["resources"]["limits"]
    user = re.findall(r"^USER (\d+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert user == [str(pod["securityContext"]["runAsUser"])]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not pod["automountServiceAccountToken"]


def test_the_commands_of_the_manifests_are_commands_of_lmr() -> None:
    text = " ".join(manifest(name)["spec"]["template"]["spec"]["containers"][0]["command"][-1] for name in STEPS)
    names = set(re.findall(r"\blmr ([a-z-]+)", text))
    assert names == {"embed", "join", "build-index", "submit"}
    for name in names:
        assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0
