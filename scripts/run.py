"""Runs lmr from a checkout with nothing but Python 3.11: makes .venv, installs what is needed, runs.

python3 scripts/run.py demo [OPTIONS]    install, then lmr demo
python3 scripts/run.py test [OPTIONS]    install with the tools of development, then pytest on all cores
python3 scripts/run.py page [OPTIONS]    install those of a browser's tests too, then pytest on page and proxies
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
EXTRAS = {"demo": "report", "test": "dev", "page": "browser"}
PAGE_TESTS = ("tests/browser", "tests/deploy")


def main(arguments: list[str]) -> int:
    """Exit code of what was run; 2 for a call that is not one of these."""
    if not arguments or arguments[0] not in EXTRAS:
        print(__doc__, file=sys.stderr)
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036, the interpreter that runs this may be older
        print(f"lmr needs Python 3.11 or newer, this is {sys.version.split()[0]}: {sys.executable}", file=sys.stderr)
        return 1
    install(EXTRAS[arguments[0]])
    if arguments[0] == "demo":
        command = [str(BIN / "lmr"), "demo", *arguments[1:]]
    else:
        tests = PAGE_TESTS if arguments[0] == "page" else ()
        command = [str(BIN / "python"), "-m", "pytest", "-n", "auto", "--dist", "loadfile", *tests, *arguments[1:]]
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process of tests for each core
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def install(extra: str) -> None:
    """Installs the checkout with this extra into .venv, unless that was done for the same pyproject.toml."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    done = VENV / f"installed-{extra}"
    if done.exists() and done.read_text() == wanted:
        return
    if not (BIN / "python").exists() and not (BIN / "python.exe").exists():
        venv.create(VENV, with_pip=True)
    python = str(BIN / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"], check=True)
    with_uv = [python, "-m", "uv", "pip", "install", "--compile-bytecode", "--python", python]
    subprocess.run([*with_uv, "-e", f"{ROOT}[{extra}]"], check=True)
    done.write_text(wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
