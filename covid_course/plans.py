"""The plan of a sweep: a YAML file or a dict, read as a list of checked runs."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import nbformat

from covid_utils.core.files import PROJECT, did_you_mean, resolve
from covid_utils.core.settings import FIELDS, Settings, check_names, read_yaml, typed

from .notebooks import NOTEBOOKS, declared

LIST, MAPPING = (list, tuple, range), (dict,)
KINDS = {"notebooks": LIST, "folder": (str, Path), "parameters": MAPPING, "grid": MAPPING, "list": LIST, "seeds": LIST}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep; finished runs count as this one if they had the same parameters and notebooks."""

    name: str  # of its folder: the parameters that vary, and a hash of all parameters and notebooks' names
    folder: str  # absolute path
    parameters: dict[str, Any]  # checked values, without `run_dir`
    notebooks: dict[str, str]  # absolute paths, in order, and the SHA-256 of their cells


def read_plan(plan: dict | str | Path) -> tuple[Path, list[Run]]:
    """The sweep's folder and its runs, every parameter checked before anything starts.

    A plan is a YAML file or a dict with `notebooks` (names such as "02_scratch", or files), `folder` (by default
    runs/NAME for NAME.yaml), `parameters` (fixed), `grid` (name: list), `list` (of dicts), `seeds`; every combination
    of these is a run. Raises ValueError, naming the file, if anything in it cannot be run.
    """
    if isinstance(plan, dict):
        return _runs(plan)
    content = read_yaml(plan)
    try:
        _check("A sweep", content, MAPPING)
        return _runs({"folder": f"runs/{Path(plan).stem}"} | content)
    except ValueError as error:
        raise ValueError(f"Sweep {plan}: {error}") from None


def _runs(plan: dict) -> tuple[Path, list[Run]]:
    for key, value in plan.items():
        if key not in KINDS:
            raise ValueError(f"Unknown key {key!r}: {did_you_mean(key, KINDS)}")
        _check(f"`{key}`", value, KINDS[key])
    for key in ("notebooks", "folder"):
        if key not in plan:
            raise ValueError(f"A sweep needs `{key}`, such as `notebooks: [train]` and `folder: runs/my-sweep`.")
    paths, root = [_notebook(name) for name in plan["notebooks"]], resolve(plan["folder"])
    names, known = [path.name for path in paths], set().union(*map(declared, paths))
    notebooks, runs = {str(path): digest(path) for path in paths}, {}
    for fixed, *varied in itertools.product(*_factors(plan)):
        given = [name for part in (fixed, *varied) for name in part]
        for name in given:
            if given.count(name) > 1:
                raise ValueError(f"Parameter {name} is given twice: say it once.")
            if name in FIELDS and name not in known | {"run_dir"}:
                raise ValueError(f"Parameter {name} has no effect on {', '.join(names)}: leave it out.")
        parameters = _checked({name: value for part in (fixed, *varied) for name, value in part.items()})
        key = hashlib.sha256(json.dumps([parameters, names], sort_keys=True).encode()).hexdigest()[:12]
        if key in runs:
            raise ValueError(f"Two runs are the same, {parameters}: leave one out.")
        name = f"{_readable({name: parameters[name] for part in varied for name in part})}-{key}"
        runs[key] = Run(name, str(root / name), parameters, notebooks)
    return root, list(runs.values())


def _factors(plan: dict) -> list[list[dict]]:
    """Lists of parameters, of which a run has one from each; the first are the fixed ones, seeds vary fastest."""
    for row in plan.get("list", []):
        _check("Each entry of `list`", row, MAPPING)
    factors = [[plan.get("parameters", {})], plan.get("list", [{}])]
    for name, values in plan.get("grid", {}).items():
        _check(f"`{name}`", values, LIST)
        factors.append([{name: value} for value in values])
    return [*factors, [{"seed": seed} for seed in plan["seeds"]]] if "seeds" in plan else factors


def _check(name: str, value: Any, kind: tuple[type, ...]) -> None:
    """Raise ValueError if a part of a plan is of another kind, or a list without entries."""
    if not isinstance(value, kind) or (kind is LIST and not value):
        wanted = {LIST: "be a list of at least one entry, such as [a, b]", MAPPING: "hold `name: value`"}
        raise ValueError(f"{name} must {wanted.get(kind, 'be the path of a folder')}, not {value!r}.")


def _checked(given: dict) -> dict:
    """Parameters with their types. Raises ValueError if one is unknown or wrong, or its data are not there."""
    from covid_utils.io.datasets import DATASETS  # here, since PyTorch takes seconds to import
    from covid_utils.io.weights import WEIGHTS

    check_names(given)
    if "run_dir" in given:
        raise ValueError("Each run of a sweep gets its own run_dir: name their common folder with `folder`.")
    settings = Settings(**given | typed({name: value for name, value in given.items() if isinstance(value, str)}))
    for name, known in (("dataset", DATASETS), ("weights", WEIGHTS)):
        value = getattr(settings, name)
        if value not in known and not resolve(value).exists():
            raise ValueError(f"Unknown {name} {value!r}, and nothing at {resolve(value)}: {did_you_mean(value, known)}")
    return {name: getattr(settings, name) for name in given}


def _notebook(name: str | Path) -> Path:
    """A notebook's file: a path from the project's folder, or the beginning of a name in notebooks/."""
    path, known = PROJECT / Path(name).expanduser(), sorted(NOTEBOOKS.glob("*.ipynb"))
    found = [path] if path.is_file() else [each for each in known if each.name.startswith(str(name))]
    if len(found) != 1:
        raise ValueError(f"No notebook {name}: give a file, or one of {', '.join(path.stem for path in known)}.")
    return found[0]


def digest(path: Path) -> str:
    """SHA-256 of a notebook's cells without their outputs."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(path, 4).cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _readable(varied: dict[str, Any]) -> str:
    """The beginning of a folder's name: `weights=imagenet,patients=80,seed=1`; of a path, its last part."""
    parts = [f"{name}={Path(value).stem if isinstance(value, str) else value}" for name, value in varied.items()]
    return re.sub(r"[^\w.=,+-]", "-", ",".join(parts) or "run", flags=re.ASCII)[:90]  # file systems have limits
