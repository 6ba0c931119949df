"""On Colab and Kaggle: install what the course needs and they lack, and change nothing of what they have."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from covid_utils.core.files import PROJECT

OWN_PAGES = {"jupyterlab"}  # they show notebooks in pages of their own


def install() -> None:
    """pip install what is lacking of pyproject.toml's dependencies, every installed version held as it is.

    A running notebook has loaded parts of what is installed: newer versions of these would ask for a restart, and
    PyTorch alone is several GB. Raises RuntimeError with pip's last line if it fails.
    """
    found = [each for each in distributions() if each.name]
    held, there = [f"{each.name}=={each.version}" for each in found], {canonicalize_name(each.name) for each in found}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    missing = [each for each in project["dependencies"] if Requirement(each).name not in there | OWN_PAGES]
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "held.txt"
            constraints.write_text("\n".join(held), encoding="utf-8")
            call = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints), *missing]
            ended = subprocess.run(call, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"pip could not install {', '.join(missing)}: {ended.stderr.strip().splitlines()[-1]}")
        importlib.invalidate_caches()
