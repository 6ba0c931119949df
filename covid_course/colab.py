"""On Colab and Kaggle: install what the course needs and they lack, and change nothing of what they have."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

from covid_utils.core.files import PROJECT

OWN_PAGES = ("jupyterlab",)  # they show notebooks in pages of their own


def normal(name: str) -> str:
    """A package's name as the index compares it.

    >>> normal("Grad_CAM")
    'grad-cam'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def lacking(requirements: Iterable[str], installed: Iterable[str]) -> list[str]:
    """Those requirements of whose package no version is installed; what is there stays, also if it is older.

    >>> lacking(["grad-cam>=1.5.7", "numpy>=2.0", "jupyterlab>=4.2"], ["numpy"])
    ['grad-cam>=1.5.7']
    """
    there = {normal(name) for name in (*installed, *OWN_PAGES)}
    return [each for each in requirements if normal(re.match(r"[\w.-]+", each)[0]) not in there]


def install() -> None:
    """pip install what is lacking of pyproject.toml's dependencies, every installed version held as it is.

    A running notebook has loaded parts of what is installed: newer versions of these would ask for a restart, and
    PyTorch alone is several GB. Raises RuntimeError with pip's last line if it fails.
    """
    installed = {each.name: each.version for each in distributions() if each.name}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    missing = lacking(project["dependencies"], installed)
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            held = Path(folder) / "held.txt"
            held.write_text("\n".join(f"{name}=={version}" for name, version in installed.items()), encoding="utf-8")
            call = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(held), *missing]
            ended = subprocess.run(call, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"pip could not install {', '.join(missing)}: {ended.stderr.strip().splitlines()[-1]}")
        importlib.invalidate_caches()
