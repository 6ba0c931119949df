"""What stands in more than one file of the project says the same, and what others' machines run is there."""

import importlib
import os
import re
import subprocess
import sys
import tomllib

import pytest
import resolve
import yaml
from packaging.requirements import Requirement

from covid_course import colab
from covid_utils.core.files import PROJECT

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OLDEST = (3, 11)
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))


def text(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def test_one_version():
    newest = re.search(r"^## \[(\S+)\] - (\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), re.MULTILINE)
    citation = yaml.safe_load(text("CITATION.cff"))
    assert newest[1] == citation["version"] == PYPROJECT["version"]
    assert newest[2] == str(citation["date-released"])
    assert citation["license"] == PYPROJECT["license"]


def test_one_range_of_pythons():
    """Makefile, pyproject.toml, pages, conda, workflows and `make resolve` start at one Python, and none has an end."""
    oldest = ".".join(map(str, OLDEST))
    assert PYPROJECT["requires-python"] == f">={oldest}"
    assert f"sys.version_info < {OLDEST})" in text("Makefile")
    tried = re.search(r"for p in python3 (.*); do", text("Makefile"))[1].split()
    tested = yaml.safe_load(text(".github/workflows/tests.yml"))["jobs"]["unit"]["strategy"]["matrix"]["python"]
    assert [f"python{each}" for each in tested[::-1]] == tried
    assert [".".join(each.split(".")[:2]) for each in resolve.PYTHONS] == tested and tested[0] == oldest
    for page in ("README.md", "CONTRIBUTING.md", ".ci/run", "Makefile"):
        assert f"Python {oldest} or newer" in text(page), page
    for version in (yaml.safe_load(text("environment.yml"))["dependencies"][0], text(".binder/runtime.txt").strip()):
        assert re.split("[=-]+", version)[1] in tested


def test_dependencies_are_listed_once():
    """conda, Binder and Codespaces install this project under constraints.txt, and name no package of it."""
    conda = yaml.safe_load(text("environment.yml"))["dependencies"]
    assert conda[1:] == ["pip", {"pip": ["--constraint constraints.txt", "--editable ."]}]
    names = {Requirement(each).name for each in PYPROJECT["dependencies"]}
    for name in (".binder/requirements.txt", ".binder/postBuild", ".devcontainer/install"):
        installed = re.findall(r"^\s*(?:uv )?pip install (.*)$", text(name), re.MULTILINE) or [text(name)]
        assert not names & set(re.split(r"[\s\"=<>]+", " ".join(installed))), name
        assert ("-c constraints.txt -e" in text(name)) == (name != ".binder/requirements.txt")
        assert name.endswith(".txt") or subprocess.run(["bash", "-n", PROJECT / name]).returncode == 0
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in text("constraints.txt").splitlines()[1:])


@pytest.mark.skipif(os.name == "nt", reason="scripts of a shell")
@pytest.mark.parametrize("terminal", [True, False])
def test_an_installation_says_what_it_fetches_and_pip_shows_its_bar_in_a_terminal(tmp_path, terminal):
    """With a pip that only says how it was called."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho called "$@"\n')
    python.chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    ours, theirs = os.openpty() if terminal else os.pipe()
    make = ["make", "-f", PROJECT / "Makefile", ".venv/test", f"PYTHON={python}"]
    assert subprocess.run(make, cwd=tmp_path, stdout=theirs, timeout=60).returncode == 0
    lines = os.read(ours, 9999).decode().splitlines()
    first, pip, _, again = (line for line in lines if line.startswith(("Fetching", "called -m pip")))
    assert "PyTorch" in first and "3 GB" in first and pip.endswith("-e .") and again.endswith("-e .[test]")
    assert ("--quiet" in pip) == ("--quiet" in again) != terminal
    os.close(ours), os.close(theirs)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_careful_and_find_what_they_run(path):
    workflow, said = yaml.safe_load(text(path)), text(path)
    targets = re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE)
    assert workflow["permissions"] == {"contents": "read"} and workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] and "permissions" not in job, name
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), f"{step['uses']}: pin a commit"
            for target in re.findall(r"make ([\w-]+)", step.get("run", "")):
                assert target in targets, f"{name}: there is no 'make {target}'"
            for file in re.findall(r"[\w./]+\.(?:py|txt|sh)\b", step.get("run", "")):
                assert (PROJECT / file).exists(), f"{name}: there is no {file}"
    assert "secrets." not in said and "pull_request_target" not in said


# --------------------------------------------------------------------------------- Colab and Kaggle


def run_cell(folder, address: str, **environment: str) -> subprocess.CompletedProcess:
    """The first cell in a folder, with another address, and then where covid_utils comes from."""
    code = re.search(r"```python\n(.*?)```", text("docs/anywhere.md"), re.DOTALL)[1]
    code = code.replace("https://github.com/OWNER/REPO", address)
    code += "\nimport covid_utils.core.files as files\nprint(files.PROJECT)\n"
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("COLAB_", "KAGGLE_"))}
    call = [sys.executable, "-c", code]
    return subprocess.run(call, cwd=folder, env=plain | environment, capture_output=True, text=True)


def test_the_first_cell_fetches_the_course_on_a_hosted_machine(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "empty"
    for name in ("covid_utils/__init__.py", "covid_utils/core/files.py", "covid_course/colab.py"):
        (source / name).parent.mkdir(parents=True)
        (source / name).write_text(text(name), encoding="utf-8")
    (source / "pyproject.toml").write_text('[project]\ndependencies = ["pytest>=99"]', encoding="utf-8")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(source)]
    for call in (["init", "-q"], ["add", "."], ["commit", "-qm", "course"]):
        subprocess.run([*git, *call], check=True)
    folder.mkdir()
    ended = run_cell(folder, "file:///nowhere", PYTHONPATH=str(PROJECT))  # elsewhere it does nothing
    assert ended.returncode == 0 and ended.stdout.strip() == str(PROJECT) and not list(folder.iterdir())
    ended = run_cell(folder, "file:///nowhere", KAGGLE_KERNEL_RUN_TYPE="Interactive")
    assert ended.stderr.strip().endswith("OSError: The course could not be fetched: is Internet switched on?")
    for variable in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):  # the second time it is there
        ended = run_cell(folder, source.as_uri(), **{variable: "x"})
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.splitlines()[-1] == str((folder / "course").resolve())


def test_only_what_is_lacking_is_installed(monkeypatch):
    """What is there is held at its version, also if it is older than asked for; JupyterLab is not wanted."""
    calls = []

    def pip(call, **_):
        calls.append((call, open(call[call.index("--constraint") + 1]).read().splitlines()))
        return subprocess.CompletedProcess(call, len(calls) - 1, "", "first line\nERROR: no such version\n")

    there = [type("Distribution", (), {"name": name, "version": "0.1"}) for name in ("Torch", "scikit_learn", "numpy")]
    monkeypatch.setattr(colab, "distributions", lambda: there)
    monkeypatch.setattr(colab.subprocess, "run", pip)
    colab.install()
    (call, held) = calls[0]
    asked = call[call.index("--constraint") + 2 :]
    kept = ("torch", "scikit-learn", "numpy", "jupyterlab")
    assert asked == [each for each in PYPROJECT["dependencies"] if Requirement(each).name not in kept]
    assert held == ["Torch==0.1", "scikit_learn==0.1", "numpy==0.1"]
    with pytest.raises(RuntimeError, match=r"could not install .*papermill.*: ERROR: no such version$"):
        colab.install()


@pytest.mark.parametrize("path", sorted(PROJECT.glob("benchmarks/*.py")), ids=lambda path: path.stem)
def test_every_benchmark_finds_what_it_imports(path):
    assert importlib.import_module(path.stem).__doc__
