"""The order of the house: who may import whom, how large the rooms are, and nothing happens at import."""

import ast
import graphlib
import subprocess
import sys

from covid_utils.core.files import PROJECT

PACKAGES = ("ct_phantom", "covid_utils", "covid_course")
TAUGHT = ("data", "models", "training", "evaluation", "explain", "plotting")
# From the ground up; a module imports from its own layer and those before it, `covid_utils/__main__.py` from all.
LAYERS = ["ct_phantom", "covid_utils.core", "covid_utils.io", "taught", "covid_utils.runs", "covid_utils.labs"]
LAYERS += ["covid_course", "covid_utils.__main__"]
# Lines of Python that there may be, of the three packages together, and of what is taught.
LIMITS = {"ct_phantom": 950, "covid_utils": 4500, "covid_course": 2750, "tests": 7000, "benchmarks": 1700}
PRODUCT, TOGETHER = 8300, 1000
MODULES = {
    ".".join(path.relative_to(PROJECT).with_suffix("").parts): path
    for package in PACKAGES
    for path in (PROJECT / package).rglob("*.py")
    if path.name != "__init__.py"
}
ROOMS = [path for package in PACKAGES for path in (PROJECT / package).rglob("__init__.py")]


def imported(name: str) -> set[str]:
    """The modules of ours that a module imports, anywhere in its code."""
    found, here = set(), name.split(".")
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            found |= {module if module in MODULES else f"{module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return {each for each in found if each.startswith(PACKAGES)}


def layer(module: str) -> int:
    """Where a module stands in LAYERS."""
    name = "taught" if module.removeprefix("covid_utils.") in TAUGHT else module
    return next(index for index, each in enumerate(LAYERS) if f"{name}.".startswith(f"{each}."))


def test_imports_run_one_way():
    arrows = {name: imported(name) for name in MODULES}
    assert sum(map(len, arrows.values())) > 60
    for name, below in arrows.items():
        assert below <= set(MODULES), f"{name} imports {below - set(MODULES)}, which is no module"
        above = {each for each in below if layer(each) > layer(name)}
        assert not above, f"{name} imports {above}, which stand above it"
    ours = {each for each in arrows["covid_utils.training"] if each.split(".")[-1] not in TAUGHT}
    assert len(ours) <= 2, f"the training loop needs {ours}"
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError if modules import one another in a circle


def lines(place: str) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (PROJECT / place).rglob("*.py"))


def test_the_house_is_small():
    counted = {place: lines(place) for place in LIMITS}
    assert not {place: count for place, count in counted.items() if count > LIMITS[place]}, counted
    assert sum(counted[package] for package in PACKAGES) <= PRODUCT
    taught = {name: len(MODULES[f"covid_utils.{name}"].read_text(encoding="utf-8").splitlines()) for name in TAUGHT}
    assert max(taught.values()) <= 220 and sum(taught.values()) <= TOGETHER, taught
    assert {f"{name}.py" for name in TAUGHT} == {path.name for path in (PROJECT / "covid_utils").glob("[!_]*.py")}
    for room in ROOMS:
        text = room.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)) and "import" not in text.split('"""')[-1]


STATE = """
import logging, os, random
import matplotlib, numpy, papermill, torch
from papermill.engines import papermill_engines
import matplotlib.pyplot

def state():
    return [
        dict(os.environ), dict(matplotlib.rcParams), dict(papermill_engines._engines), torch.get_num_threads(),
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.random.get_rng_state().tolist(),
        str(numpy.random.get_state()), random.getstate(), logging.getLogger("papermill").level,
        torch.get_default_dtype(), matplotlib.get_backend(),
    ]

torch.set_num_threads(5)  # the user's own choice
before = state()
"""


def test_importing_changes_nothing():
    names = [name for name in MODULES if not name.endswith("__main__")]
    third = "import pytorch_grad_cam, sklearn, skimage, torchvision, nbclient, ipywidgets"
    code = STATE.replace("torch.set_num_threads", f"{third}\ntorch.set_num_threads", 1)
    code += "\n".join(f"import {name}" for name in names)
    code += "\nafter = state()\nassert after == before, [(a, b) for a, b in zip(after, before) if a != b]"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
