"""Is this machine ready for the course? What was found, whether it will do, and what to do if not.

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
BUSY = 50  # percent of the processor in other hands: notebooks then take about twice as long
MEMORY, DISK = 2.0, 1.0  # GiB: a notebook takes up to 1.8 (docs/teaching.md), a run with its data 0.5
INSTALL = "run 'make tutorial', or 'python -m pip install -c constraints.txt -e .', in the project's folder"


class Check(NamedTuple):
    """One line: what was looked at, whether it will do, what was found, and what to do if it won't do."""

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
    """What is wrong with requirements such as "numpy>=2.0": which packages are missing, or have another version."""
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


def needs(package: str, *others: str) -> list[str]:
    """What an installed package asks of others: those that are published in pairs."""
    return [text for text in metadata.requires(package) or [] if Requirement(text).name in others]


def packages() -> Check:
    """Whether the packages of pyproject.toml are there, each in a version of its range."""
    listed = project()["dependencies"]
    wrong = unmet(listed) or unmet(needs("torchvision", "torch"))
    if wrong:
        return Check("packages", False, "; ".join(wrong), INSTALL)
    pair = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchvision"))
    return Check("packages", True, f"all {len(listed)}, among them {pair}")


def widgets() -> Check:
    """Whether sliders will work: ipywidgets in the kernel, and the version of its partner in JupyterLab's page."""
    wrong = unmet(["ipywidgets"]) or unmet(needs("ipywidgets", "jupyterlab_widgets"))
    if not wrong:
        files = [file for file in metadata.files("jupyterlab_widgets") or [] if file.name == "package.json"]
        wrong = [] if any(file.locate().exists() for file in files) else ["jupyterlab_widgets has lost its files"]
    if wrong:
        mend = "python -m pip install --force-reinstall -c constraints.txt ipywidgets jupyterlab_widgets"
        return Check("widgets", False, "; ".join(wrong), f"{mend}; then start JupyterLab anew")
    pair = (f"{name} {metadata.version(name)}" for name in ("ipywidgets", "jupyterlab_widgets"))
    return Check("widgets", True, " and ".join(pair))


def memory() -> Check:
    """Whether the largest notebook fits into the memory."""
    from covid_utils.core.memory import free_memory

    free = free_memory() / GIB
    to_do = "close other programs, and other notebooks' kernels; on a JupyterHub ask for more memory"
    return Check("memory", free >= MEMORY, f"{free:.1f} GB free, {MEMORY} GB needed", to_do)


def existing(path: str | Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(folder for folder in (resolve(path), *resolve(path).parents) if folder.exists())


def disk(path: str = "runs") -> Check:
    """Whether a run fits on the disk."""
    free = shutil.disk_usage(existing(path)).free / GIB
    to_do = "delete what you do not need, old runs in runs/ first, or set COVID_UTILS_HOME to a folder elsewhere"
    return Check("disk", free >= DISK, f"{free:.1f} GB free, {DISK:.0f} GB needed", to_do)


def folders(names: Iterable[str] = ("data", "runs")) -> Check:
    """Whether the folders for data and runs can be written to, by writing a file that is gone at once."""
    for name in names:
        try:
            tempfile.TemporaryFile(dir=existing(name)).close()
        except OSError as error:
            to_do = (
                f"make {display_path(name)} writable for you, or set COVID_UTILS_HOME to a folder that is "
                f"({home()} now)"
            )
            return Check("folders", False, f"{display_path(name)} cannot be written to: {error.strerror}", to_do)
    return Check("folders", True, f"{' and '.join(names)} can be written to")


def processor() -> Check:
    """How many cores this process may use (a container may be given fewer than there are), and what others take."""
    import joblib
    import psutil
    import torch

    cores, usable = os.cpu_count() or 1, joblib.cpu_count()
    threads, others = min(torch.get_num_threads(), usable), psutil.cpu_percent(interval=1)
    found = f"{usable} of {cores} cores may be used; threads the course starts: {threads}; "
    to_do = "close other programs that compute, stop other notebooks, and look again"
    return Check("processor", others <= BUSY, f"{found}taken by other programs: {others:.0f} %", to_do)


def graphics(device: str = "auto") -> Check:
    """Which device the notebooks will take, and whether it computes."""
    import torch

    from covid_utils.core.device import pick_device

    try:
        chosen = pick_device(device)
        torch.ones(8, 8, device=chosen).matmul(torch.ones(8, 8, device=chosen)).sum().item()
    except (RuntimeError, ValueError) as error:
        to_do = "set device = 'cpu' in the parameters of each notebook, or renew the driver"
        return Check("graphics card", False, str(error).splitlines()[0], to_do)
    said = {"cuda": "an NVIDIA card, which the course uses", "mps": "a Mac's, which the course was told to use"}
    none = "none that is used, and none is needed"
    if chosen.type == "cpu" and torch.backends.mps.is_available():
        none = "a Mac's, used if you set device = 'mps'; none is needed"
    return Check("graphics card", True, said.get(chosen.type, none))


CHECKS = (python, packages, widgets, memory, disk, folders, processor, graphics)


def looked(checks: Iterable[Callable[[], Check]] = CHECKS) -> Iterator[Check]:
    """What each check found; one that cannot even look, as its package is missing or broken, says so."""
    for check in checks:
        try:
            yield check()
        except (ImportError, OSError) as error:
            yield Check(check.__name__, False, f"cannot be looked at: {error}", INSTALL)


def text(check: Check) -> str:
    """A check as a line of plain text, as for a report of a mistake."""
    line = f"{'ok' if check.ok else 'mend this:':<12}{check.name:<16}{check.what}"
    return line if check.ok else f"{line}: {check.what_to_do}"


def table(checks: Iterable[Check]) -> str:
    """Checks as a Markdown table: green or red, and the same in words."""
    lines = ["| | | found |", "| --- | --- | --- |"]
    for check in checks:
        state, to_do = ("🟢 ok", "") if check.ok else ("🔴 **mend this**", f"<br>**To do:** {check.what_to_do}")
        lines.append(f"| {state} | {check.name} | {check.what}{to_do} |")
    return "\n".join(lines)


def report(measured: Callable[[], Iterable[Check]]) -> int:
    """Print all checks, those of `measured` last, as they come. Returns the exit code: 1 if there is one to mend."""
    red = False
    for check in looked():
        print(text(check), flush=True)
        red |= not check.ok
    try:
        last = measured()
    except (ImportError, OSError, RuntimeError) as error:
        last = [Check("speed", False, f"cannot be measured: {error}", "mend what is named above")]
    for check in last:
        print(text(check))
        red |= not check.ok
    return int(red)
