"""Is this machine ready for the course? Each check says what was found, whether it suffices, and what to do if not.

Only the standard library and `packaging` are imported at the top, so that a missing package is a line, not an error.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from covid_utils.core.files import PROJECT, display_path, home, resolve

GIB = 2**30
BUSY = 50  # percent of the processor used by other programs: notebooks then take about twice as long
MEMORY, DISK = 2.0, 1.0  # GiB: a notebook takes up to 1.8 (docs/teaching.md), a run with its data 0.5
INSTALL = "run 'make tutorial', or 'python -m pip install -c constraints.txt -e .', in the project's folder"


class Check(NamedTuple):
    """One line: what was checked, whether it suffices, what was found, and what to do if it does not suffice."""

    name: str
    ok: bool
    what: str
    what_to_do: str = ""


def project() -> dict:
    """The `project` table of pyproject.toml, the one list of dependencies."""
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def python() -> Check:
    """Whether this Python is one that the course supports."""
    found, wanted = ".".join(map(str, sys.version_info[:3])), project()["requires-python"]
    to_do = f"install one of {wanted} and run 'make tutorial' with it: make PYTHON=/path/to/python"
    return Check("Python", SpecifierSet(wanted).contains(found), found, to_do)


def unmet(requirements: Iterable[str]) -> list[str]:
    """Which of some requirements, such as "numpy>=2.0", are missing or installed in another version."""
    wrong = []
    for wanted in map(Requirement, requirements):
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found}, not {wanted.specifier}")
    return wrong


def packages() -> Check:
    """Whether the packages of pyproject.toml are installed, in versions that it and these two packages ask for."""
    listed = project()["dependencies"]
    wrong = unmet(listed) or unmet(each for name in ("torchvision", "ipywidgets") for each in metadata.requires(name))
    pairs = (f"{name} {metadata.version(name)}" for name in ("torch", "torchvision", "ipywidgets"))
    found = "; ".join(wrong) if wrong else f"all {len(listed)}, among them {', '.join(pairs)}"
    return Check("packages", not wrong, found, f"{INSTALL}; then restart JupyterLab")


def memory() -> Check:
    """Whether the largest notebook fits into the free memory."""
    from covid_utils.core.memory import free_memory

    free = free_memory() / GIB
    to_do = "close other programs, and other notebooks' kernels; on a JupyterHub ask for more memory"
    return Check("memory", free >= MEMORY, f"{free:.1f} GB free, {MEMORY} GB needed", to_do)


def _existing(path: str | Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(folder for folder in (resolve(path), *resolve(path).parents) if folder.exists())


def disk(path: str = "runs") -> Check:
    """Whether a run fits on the disk."""
    free = shutil.disk_usage(_existing(path)).free / GIB
    to_do = "delete what you do not need, old runs in runs/ first, or set COVID_UTILS_HOME to a folder elsewhere"
    return Check("disk", free >= DISK, f"{free:.1f} GB free, {DISK:.0f} GB needed", to_do)


def folders(names: Iterable[str] = ("data", "runs")) -> Check:
    """Whether the folders for data and runs are writable, by writing a temporary file."""
    for name in names:
        try:
            tempfile.TemporaryFile(dir=_existing(name)).close()
        except OSError as error:
            to_do = f"make {display_path(name)} writable, or set COVID_UTILS_HOME to a folder that is ({home()} now)"
            return Check("folders", False, f"{display_path(name)} cannot be written to: {error.strerror}", to_do)
    return Check("folders", True, f"{' and '.join(names)} can be written to")


def processor() -> Check:
    """How many cores this process may use (in a container fewer than there are), and what other programs use."""
    import joblib
    import psutil
    import torch

    cores, usable = os.cpu_count() or 1, joblib.cpu_count()
    threads, others = min(torch.get_num_threads(), usable), psutil.cpu_percent(interval=1)
    found = f"{usable} of {cores} cores may be used; threads the course starts: {threads}; "
    to_do = "close other programs that compute, stop other notebooks, and check again"
    return Check("processor", others <= BUSY, f"{found}used by other programs: {others:.0f} %", to_do)


def graphics(device: str = "auto") -> Check:
    """Which device the notebooks will use, and whether it computes."""
    import torch

    from covid_utils.core.device import pick_device

    try:
        chosen = pick_device(device)
        torch.ones(8, 8, device=chosen).matmul(torch.ones(8, 8, device=chosen)).sum().item()
    except (RuntimeError, ValueError) as error:
        to_do = "set device = 'cpu' in the parameters of each notebook, or update the driver"
        return Check("graphics card", False, str(error).splitlines()[0], to_do)
    if chosen.type == "cpu":
        return Check("graphics card", True, "none is used, and none is needed")
    return Check("graphics card", True, f"the course uses device '{chosen.type}'")


CHECKS = (python, packages, memory, disk, folders, processor, graphics)


def looked(checks: Iterable[Callable[[], Check | list[Check]]]) -> Iterator[Check]:
    """The results of each check; one whose own packages are missing or broken says so."""
    for check in checks:
        try:
            found = check()
            yield from [found] if isinstance(found, Check) else found
        except (ImportError, OSError, RuntimeError) as error:
            yield Check(check.__name__, False, f"cannot be checked: {error}", INSTALL)


def text(check: Check) -> str:
    """A check as a line of plain text, as for a bug report."""
    line = f"{'ok' if check.ok else 'fix this:':<12}{check.name:<16}{check.what}"
    return line if check.ok else f"{line}: {check.what_to_do}"


def table(checks: Iterable[Check]) -> str:
    """Checks as a Markdown table: green or red, and the same in words."""
    lines = ["| | | found |", "| --- | --- | --- |"]
    for check in checks:
        state, to_do = ("🟢 ok", "") if check.ok else ("🔴 **fix this**", f"<br>**To do:** {check.what_to_do}")
        lines.append(f"| {state} | {check.name} | {check.what}{to_do} |")
    return "\n".join(lines)


def report(checks: Iterable[Callable[[], Check | list[Check]]] = CHECKS) -> int:
    """Print the checks as they come. Returns the exit code: 1 if one is not ok."""
    ready = True
    for check in looked(checks):
        print(text(check), flush=True)
        ready &= check.ok
    return int(not ready)
