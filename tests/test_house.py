"""The order of the house: who may import whom, how large the rooms are, and nothing happens at import."""

import ast
import re
import subprocess
import sys

import pytest

from covid_utils.runs.files import PROJECT

PACKAGE = PROJECT / "covid_utils"
TAUGHT = ("data", "models", "training", "evaluation", "explain", "plotting")
# From the ground up: a module imports only from those that stand before it.
ORDER = """
    runs.files runs.hosted runs.checks runs.progress runs.memory runs.device
    sources.pretrained models runs.settings runs.checkpoints runs.records runs.notebooks runs.clean
    runs.handout
    phantom.anatomy phantom.disease phantom.patients phantom.stacks phantom.lesion
    sources.dicom sources.walk sources.nifti sources.images sources.series sources.volumes
    sources.patients sources.folders sources.downloads sources.datasets
    runs.plans runs.cluster runs.sweep runs.commands
    data runs.cached runs.formats training runs.found evaluation explain plotting
    labs.tables labs.decisions labs.recorded labs.audit labs.shortcuts labs.localization labs.faithfulness
    labs.fine_maps labs.photographs labs.picks labs.cam_figures labs.cam_checks labs.score_figures labs.widgets
    labs.craft labs.many_runs
    labs.whole_patients labs.answers labs.answer_patients labs.answer_files labs.model_card labs.export labs.demo
    labs.machine labs.speed
    labs.exercises.verdicts labs.exercises.kept labs.exercises.nb01_data labs.exercises.nb02_scratch
    labs.exercises.nb03_transfer labs.exercises.nb04_cam labs.exercises.nb05_evaluation labs.exercises.nb06_sweep
    labs.exercises.board
    __main__
""".split()
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}
ROOMS = list(PACKAGE.rglob("__init__.py"))


def imported(name: str) -> set[str]:
    """The modules of the package that a module imports, anywhere in its code."""
    found, here = set(), name.split(".")
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("covid_utils")):
            base = here[: len(here) - node.level] if node.level else []
            inside = (node.module or "").removeprefix("covid_utils").strip(".")
            module = ".".join([*base, *filter(None, [inside])])
            found |= {module} if module in MODULES else {f"{module}.{each.name}".strip(".") for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.name.removeprefix("covid_utils.") for each in node.names if each.name.startswith("covid_u")}
    return found


def test_imports_run_one_way():
    assert sorted(ORDER) == sorted(MODULES), "every module has its place in the order above"
    arrows = {name: imported(name) for name in MODULES}
    assert sum(map(len, arrows.values())) > 60
    assert not any("import" in path.read_text(encoding="utf-8").split('"""')[-1] for path in ROOMS)
    for name, below in arrows.items():
        assert below <= set(MODULES), f"{name} imports {below - set(MODULES)}, which is no module"
        above = {each for each in below if ORDER.index(each) >= ORDER.index(name)}
        assert not above, f"{name} imports {above}, which stand above it"
        assert name == "__main__" or name.startswith("labs.") or not any(each.startswith("labs.") for each in below), (
            f"{name} needs a lab"
        )


def test_the_taught_helper_is_small():
    listed = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert len(listed) <= 12, "a listing shows at most a dozen entries"
    assert {f"{name}.py" for name in TAUGHT} == {path.name for path in PACKAGE.glob("[!_]*.py")}
    lines = {name: len(MODULES[name].read_text(encoding="utf-8").splitlines()) for name in MODULES}
    assert max(lines[name] for name in TAUGHT) <= 250 and sum(lines[name] for name in TAUGHT) <= 1100, lines
    for room in filter(lambda path: path.is_dir() and path.name in listed, PACKAGE.iterdir()):
        said = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
        assert said and "\n" not in said, f"{room.name}/__init__.py says in one line what lives there"


def test_what_a_notebook_shows_fits_a_screen():
    """Functions shown with `source`: at most 30 lines of code, their words aside; classes that are shown, 40."""
    shown = set()
    for path in (PROJECT / "notebooks").glob("[0-9]*.ipynb"):
        for call in re.findall(r"source\(([^()]+)\)", path.read_text(encoding="utf-8")):
            shown |= {name.split(".")[-1] for name in re.findall(r"[A-Za-z_.]+", call)}
    assert {"fit", "train_one_epoch", "cam"} <= shown
    found = set()
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in shown:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner):
                        inner.body = inner.body[1:] or [ast.Pass()]
                count = len(ast.unparse(node).splitlines())  # no comments, no empty lines, no docstrings
                assert count <= (40 if isinstance(node, ast.ClassDef) else 30), f"{node.name}: {count} lines"
                found.add(node.name)
    assert found == shown


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


@pytest.mark.parametrize("module", ["all", "runs.notebooks", "plotting", "labs.widgets"])
def test_importing_changes_nothing(module):
    names = [name for name in ORDER if name != "__main__"] if module == "all" else [module]
    third = "import pytorch_grad_cam, sklearn, skimage, torchvision, nbclient, ipywidgets"
    code = STATE.replace("torch.set_num_threads", f"{third}\ntorch.set_num_threads", 1)
    code += "\n".join(f"import covid_utils.{name}" for name in names)
    code += "\nafter = state()\nassert after == before, [(a, b) for a, b in zip(after, before) if a != b]"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
