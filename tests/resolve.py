"""Do the tested versions fit together on every system and Python, and does each come as a wheel? Before a release:

    make resolve

For each, uv chooses from the index what `pip install -c constraints.txt` would install there; nothing is installed, no
file is written. The table names what keeps a combination from working; exit code 1 if anything does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11.2", "3.12", "3.13", "3.14")  # 3.11.2 is Debian 12's
SYSTEMS = {  # what uv calls them
    "Linux x86_64": "x86_64-manylinux_2_28",
    "macOS arm64": "aarch64-apple-darwin",
    "Windows x86_64": "x86_64-pc-windows-msvc",
}
SOURCE_ONLY = ("grad-cam",)  # plain Python that its authors publish without a wheel: pip builds it anywhere
UNPINNED = ("nvidia-", "cuda-", "triton")  # what PyTorch brings along for a GPU; which ones depends on the machine


def compile_(requirements: str, system: str, python: str, *options: str) -> subprocess.CompletedProcess:
    """uv's answer to these requirements (lines of a requirements file) on that system: pins, or why there are none."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise SystemExit("This needs uv: run 'make resolve', or 'pip install uv' first.")
    call = [uv, *"pip compile - --quiet --no-header --no-annotate --no-emit-package=covid-utils".split()]
    call += ["--python-platform", SYSTEMS[system], "--python-version", python, *options]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}  # PyTorch's wheels for a Mac want macOS 14
    return subprocess.run(call, cwd=PROJECT, input=requirements, env=environment, capture_output=True, text=True)


def plain(pin: str) -> str:
    """A pin in the index's spelling."""
    return re.sub(r"[-_.]+", "-", pin).lower()


def verdict(system: str, python: str) -> str:
    """ "ok", or what is wrong there: no solution, versions that nobody has tested, wheels that are missing."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = ",".join(project["optional-dependencies"])
    ended = compile_(f".[{extras}]", system, python, "--constraint=constraints.txt")
    if ended.returncode:
        return f"no solution: {' '.join(ended.stderr.split())}"
    pins = [line.split(";")[0].strip() for line in ended.stdout.splitlines() if "==" in line]
    tested = {plain(line) for line in (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    loose = [pin for pin in pins if plain(pin) not in tested and not pin.startswith(UNPINNED)]
    if loose:
        return f"not in constraints.txt: {', '.join(loose)}"
    pins = [pin for pin in pins if not pin.startswith(SOURCE_ONLY)]
    ended = compile_("\n".join(pins), system, python, "--no-deps", "--only-binary=:all:")
    return f"no wheel: {' '.join(ended.stderr.split())}" if ended.returncode else "ok"


def main() -> int:
    print("| system | Python | |\n| --- | --- | --- |")
    verdicts = []
    for system in SYSTEMS:
        for python in PYTHONS:
            verdicts.append(verdict(system, python))
            print(f"| {system} | {python} | {verdicts[-1]} |", flush=True)
    print(f"\nBuilt from source everywhere: {', '.join(SOURCE_ONLY)}.")
    return any(each != "ok" for each in verdicts)


if __name__ == "__main__":
    sys.exit(main())
