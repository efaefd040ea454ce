"""Runs lmr from a checkout with nothing but Python 3.11: makes .venv, installs what is needed, runs.

python3 scripts/run.py demo [OPTIONS]    install, then lmr demo
python3 scripts/run.py test [OPTIONS]    install with the tools of development, then pytest on all but what follows
python3 scripts/run.py page [OPTIONS]    install those of a browser's tests too, then pytest on page and proxies
python3 scripts/run.py spark [OPTIONS]   install with Spark into .venv-spark, then pytest on a Spark cluster
python3 scripts/run.py milvus [OPTIONS]  install those and a server of Milvus Lite in .venv-milvus, then pytest on both
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {"demo": "report", "test": "dev", "page": "browser", "spark": "dev,spark", "milvus": "dev"}
VENVS = {"spark": ".venv-spark"}  # of what wants other versions of packages than the rest; else .venv
TESTS = {"page": ("tests/browser", "tests/deploy"), "spark": ("tests/spark",), "milvus": ("tests/milvus",)}
AT_ONCE = {"spark": "2"}  # processes of tests, each of which has a cluster, and waits often; else one for each core
# The faiss-cpu of Milvus Lite overwrites the files of faiss-gpu: it runs as a server, from a place of its own.
MILVUS_VENV = ROOT / ".venv-milvus"
MILVUS_LITE = ("milvus-lite>=3.2,<4", "pymilvus>=2.6")


def main(arguments: list[str]) -> int:
    """Exit code of what was run; 2 for a call that is not one of these."""
    if not arguments or arguments[0] not in EXTRAS:
        print(__doc__, file=sys.stderr)
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036, the interpreter that runs this may be older
        print(f"lmr needs Python 3.11 or newer, this is {sys.version.split()[0]}: {sys.executable}", file=sys.stderr)
        return 1
    what, *options = arguments
    place = ROOT / VENVS.get(what, ".venv")
    install(place, EXTRAS[what])
    if what == "demo":
        command = [str(programs(place) / "lmr"), "demo", *options]
    else:
        if what == "milvus":
            install_milvus(programs(place) / "python")
        many = ["-n", AT_ONCE.get(what, "auto"), "--dist", "loadfile", "--no-loadscope-reorder"]  # few at a time last
        others = [f"--ignore={folder}" for folders in TESTS.values() for folder in folders]
        tests = TESTS.get(what, others)
        command = [str(programs(place) / "python"), "-m", "pytest", *many, *tests, *options]
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process of tests for each core
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def programs(place: Path) -> Path:
    """The folder of an environment's programs."""
    return place / ("Scripts" if os.name == "nt" else "bin")


def install(place: Path, extra: str) -> None:
    """Installs the checkout with these extras into an environment, unless that was done for the same pyproject.toml."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    done = place / f"installed-{extra}"
    if done.exists() and done.read_text() == wanted:
        return
    if not (programs(place) / "python").exists() and not (programs(place) / "python.exe").exists():
        venv.create(place, with_pip=True)
    python = str(programs(place) / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"], check=True)
    with_uv = [python, "-m", "uv", "pip", "install", "--compile-bytecode", "--python", python]
    subprocess.run([*with_uv, "-e", f"{ROOT}[{extra}]"], check=True)
    done.write_text(wanted)


def install_milvus(python: Path) -> None:
    """Installs Milvus Lite into .venv-milvus, unless that was done. python: of the environment that has uv."""
    done = MILVUS_VENV / "installed"
    if done.exists() and done.read_text() == " ".join(MILVUS_LITE):
        return
    with_uv = [str(python), "-m", "uv"]
    subprocess.run([*with_uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(MILVUS_VENV)], check=True)
    subprocess.run([*with_uv, "pip", "install", "--python", str(MILVUS_VENV), *MILVUS_LITE], check=True)
    done.write_text(" ".join(MILVUS_LITE))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
