"""What a run leaves: its results, and what it takes to repeat it."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
from importlib import metadata

from ..core.device import pick_device
from ..core.files import PROJECT, read_json, resolve, write_json
from ..core.settings import Settings

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "grad-cam")


def record(settings: Settings, section: str, metrics: dict, fingerprint: str, seconds: float) -> None:
    """Add a section to the run's `metrics.json`, and to `manifest.json` what it takes to repeat it.

    The manifest holds the parameters, versions, git commit, data fingerprint, device and seconds of each section.
    """
    try:
        call = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no checkout
        commit = None
    folder = resolve(settings.run_dir)
    manifest = {
        "parameters": dataclasses.asdict(settings),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "commit": commit,
        "data": fingerprint,
        "device": str(pick_device(settings.device)),
        "seconds": round(seconds, 1),
    }
    for name, content in (("metrics.json", metrics), ("manifest.json", manifest)):
        path = folder / name
        write_json(path, (read_json(path) if path.exists() else {}) | {section: content})
