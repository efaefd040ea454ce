"""Installs programs that tests use beside Python, with the package manager of Debian or Ubuntu.

python3 scripts/debian.py chromium nginx caddy java    what is there already stays as it is; java: any of 17 or newer

Elsewhere, or without the right to, it says in one line what to install.
"""

import os
import re
import shutil
import subprocess
import sys

PACKAGES = {"chromium": "chromium", "nginx": "nginx-light", "caddy": "caddy", "java": "openjdk-17-jre-headless"}
LEAST_JAVA = 17
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")  # any of them is one
SYSTEM_FOLDERS = os.pathsep.join(("/usr/sbin", "/sbin"))  # where programs of services lie, in nobody's PATH


def main(programs: list[str]) -> int:
    """Exit code: 0 when all are there, 1 when one could not be installed, 2 for a call that names none of them."""
    if not programs or set(programs) - PACKAGES.keys():
        print(__doc__, file=sys.stderr)
        return 2
    wanting = [name for name in programs if find(name) is None]
    if not wanting:
        return 0
    packages = [PACKAGES[name] for name in wanting]
    by_hand = f"apt-get install {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        print(f"{' and '.join(wanting)} not found: this is no Debian or Ubuntu, install them yourself", file=sys.stderr)
        return 1
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and (not shutil.which("sudo") or subprocess.run([*as_root, "true"], capture_output=True).returncode):
        print(f"{' and '.join(wanting)} not found: run `sudo {by_hand}`", file=sys.stderr)
        return 1
    apt = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    subprocess.run([*apt, "update"], check=False, stdout=sys.stderr)  # an old list may do
    command = [*apt, "install", "--no-install-recommends", *packages]
    return subprocess.run(command, check=False, stdout=sys.stderr).returncode


def find(program: str) -> str | None:
    """The path of a program, or None. A Java that is too old is none."""
    path = os.environ.get("PATH", os.defpath) + os.pathsep + SYSTEM_FOLDERS
    names = BROWSERS if program == "chromium" else (program,)
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    return None if program == "java" and found and java_version(found) < LEAST_JAVA else found


def java_version(java: str) -> int:
    """The first number of a Java's version, 8 of `1.8.0`; 0 where it says none."""
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(version[1]) if version else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
