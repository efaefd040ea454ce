"""The files of deploy/: what they start is a command that `lmr serve` takes, and they are sound by what reads them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
UNIT = (DEPLOY / "lmr.service").read_text(encoding="utf-8").replace("\\\n", " ")
MOST_EXPOSED = 15  # tenths, as systemd-analyze counts: 13 when this was written, 96 for a bare unit


def instruction(name: str) -> list[str]:
    """The words of the one instruction of the Dockerfile that is an array."""
    (array,) = re.findall(rf"^{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)
    words: list[str] = json.loads(array)
    return words


def compose() -> Any:
    """The compose file, as it is written."""
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def started(program: str) -> list[list[str]]:
    """The command lines of the file that starts the server so, variables and all."""
    if program == "docker run":
        return [instruction("ENTRYPOINT") + instruction("CMD")]
    if program == "docker compose":
        return [instruction("ENTRYPOINT") + compose()["services"]["lmr"]["command"]]
    return [shlex.split(line) for line in re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)]


def copied() -> set[str]:
    """The files and folders of the project that the image is made of."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
    return {source for line in lines for source in line.split()[:-1]}


@pytest.mark.parametrize("program", ["docker run", "docker compose", "systemd"])
def test_what_is_started_is_a_command_that_lmr_takes(program):
    ((name, command, *words),) = started(program)
    assert (Path(name).name, command) == ("lmr", "serve")
    import_module("cli.serve").command.make_context("serve", words)


def test_a_misspelt_option_would_be_seen():
    with pytest.raises(Exception, match="No such option"):
        import_module("cli.serve").command.make_context("serve", ["--tokenfile", "x"])


def test_the_health_check_asks_the_port_that_is_listened_on():
    words = instruction("ENTRYPOINT")
    port = words[words.index("--port") + 1]
    assert f"http://127.0.0.1:{port}/readyz" in DOCKERFILE
    assert re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE) == [port]
    assert f"lmr:{port}" in (DEPLOY / "Caddyfile").read_text(encoding="utf-8")


def test_the_image_holds_what_it_copies_and_nothing_else():
    sources = copied()
    let_in = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert sources == let_in
    assert [name for name in sources if not (ROOT / name).exists()] == []


def test_the_image_runs_as_nobody_in_particular_and_is_the_small_one_by_default():
    stages = dict(re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)[i][::-1] for i in range(6))
    assert list(stages)[-1] == "cpu"
    assert stages["cpu"] == stages["cuda"] == "run"
    run = DOCKERFILE.partition("AS run\n")[2].partition("\nFROM")[0]
    assert re.findall(r"^USER (.*)$", run, re.MULTILINE) == ["10001"]
    assert "USER" not in DOCKERFILE.partition("AS run\n")[2].partition("\nFROM")[2]


def test_no_secret_is_built_into_the_image():
    assert re.findall(r"(?i)^(?:ENV|ARG) .*(?:token|password|secret|key)", DOCKERFILE, re.MULTILINE) == []


def test_a_wheel_of_what_the_image_copies_has_every_file_of_the_packages(tmp_path):
    pytest.importorskip("setuptools")
    for name in copied() - {"deploy/processor.txt"}:
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    code = "from setuptools.build_meta import build_wheel; build_wheel('made')"
    (tmp_path / "made").mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "made").glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    for package in ("cli", "index", "retrieval"):
        assert files(tmp_path / "installed" / package) == files(ROOT / package)


def files(folder: Path) -> list[str]:
    """The files below a folder that are not made by running them."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def test_the_overrides_for_processors_keep_the_bounds_of_the_project():
    overrides = (DEPLOY / "processor.txt").read_text(encoding="utf-8").splitlines()
    (wanted,) = re.findall(r'"(faiss-cpu[^;]*);', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert [line for line in overrides if not line.startswith("#")] == ["faiss-gpu ; sys_platform == 'never'", wanted]


def test_compose_names_nothing_that_it_does_not_have():
    written = compose()
    services = written["services"]
    for service in services.values():
        assert set(service["networks"]) <= set(written["networks"])
        assert set(service.get("secrets", ())) <= set(written["secrets"])
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source.startswith("$") or source in written["volumes"] or (DEPLOY / source).exists()
    assert f"FROM run AS {services['lmr']['build']['target']}" in DOCKERFILE
    assert "ports" not in services["lmr"]
    assert [option for option in services["lmr"]["command"] if option.startswith("--trusted-proxy=")] == [
        f"--trusted-proxy={written['networks']['inside']['ipam']['config'][0]['subnet']}"
    ]


def test_docker_compose_reads_the_file():
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    variables = {"LMR_SITE": "landmarks.example.org", "LMR_TOKEN_FILE": "token", "LMR_DATA": ".", "HOME": "/tmp"}
    read = [docker, "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(read, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_dockerfile_has_nothing_that_hadolint_warns_of():
    hadolint = shutil.which("hadolint") or Path(sys.executable).with_name("hadolint")
    if not Path(hadolint).exists():
        pytest.skip("hadolint is not installed: scripts/run.py page")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture
def unit(tmp_path) -> Path:
    """The unit, whose program is one that is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "lmr.service"
    assert UNIT.count("/opt/lmr/bin/lmr serve") == 1
    path.write_text(UNIT.replace("/opt/lmr/bin/lmr serve", f"{sys.executable} serve"), encoding="utf-8")
    return path


def test_systemd_reads_the_unit(unit):
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_can_do_little(unit):
    measure = ["systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", unit]
    done = subprocess.run(measure, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
