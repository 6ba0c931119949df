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
import numpy as np

from covid_utils.core.files import PROJECT, did_you_mean, resolve
from covid_utils.core.settings import Settings, check_names, read_yaml, typed

from .notebooks import NOTEBOOKS, declared

KEYS = ("notebooks", "folder", "parameters", "grid", "list", "seeds")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep; finished runs count as this one if they had the same parameters and notebooks.

    Attributes:
        name: of its folder: the parameters that vary, and a hash of all parameters and notebooks' names.
        folder: absolute path.
        parameters: checked values, without `run_dir`.
        notebooks: absolute paths, in order, and the SHA-256 of their cells.
    """

    name: str
    folder: str
    parameters: dict[str, Any]
    notebooks: dict[str, str]


def read_plan(plan: dict | str | Path) -> tuple[Path, list[Run]]:
    """The sweep's folder and its runs, every parameter checked before anything starts.

    Args:
        plan: a YAML file or a dict with `notebooks` (a list: names such as "02_scratch", or files), `folder` (by
            default runs/NAME for NAME.yaml), `parameters` (fixed), `grid` (name: list), `list` (of dicts), `seeds`;
            every combination of these is a run.

    Raises ValueError, in one sentence that names the file, if anything in it cannot be run.
    """
    if isinstance(plan, dict):
        return _runs(plan)
    content = _mapping(read_yaml(plan), f"The sweep {plan}")
    try:
        return _runs({"folder": f"runs/{Path(plan).stem}"} | content)
    except ValueError as error:
        raise ValueError(f"Sweep {plan}: {error}") from None


def _runs(plan: dict) -> tuple[Path, list[Run]]:
    for key in plan:
        if key not in KEYS:
            raise ValueError(f"Unknown key {key!r}: {did_you_mean(key, KEYS)}")
    if not str(plan.get("folder") or "").strip():
        raise ValueError("A sweep needs a `folder` for its runs, such as runs/my-sweep.")
    root, notebooks, known = resolve(plan["folder"]), {}, set()
    for path in map(_notebook, _list(plan, "notebooks")):
        if path.name in [Path(other).name for other in notebooks]:
            raise ValueError(f"Two notebooks have the same name, {path.name}: a run's folder has room for one.")
        known |= declared(path)
        notebooks[str(path)] = digest(path)
    names = [Path(path).name for path in notebooks]
    runs = {}
    for fixed, *varied in itertools.product(*_factors(plan)):
        given = [name for part in (fixed, *varied) for name in part]
        for name in given:
            if given.count(name) > 1:
                raise ValueError(f"Parameter {name} is given twice: say it once.")
            if name in Settings.__dataclass_fields__ and name not in known | {"run_dir"}:
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
    factors = [[_mapping(plan.get("parameters", {}), "`parameters`")]]
    if "list" in plan:
        factors.append([_mapping(row, "`list`") for row in _list(plan, "list")])
    grid = _mapping(plan.get("grid", {}), "`grid`")
    factors += [[{name: value} for value in _list(grid, name)] for name in grid]
    if "seeds" in plan:
        factors.append([{"seed": seed} for seed in _list(plan, "seeds")])
    return factors


def _list(plan: dict, name: str) -> list:
    value = plan.get(name)
    if not isinstance(value, list | tuple | range | np.ndarray) or not len(value):
        raise ValueError(f"`{name}` must be a list of at least one entry, such as [a, b].")
    return list(value)


def _mapping(value: Any, name: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must hold `name: value`, not {value!r}.")
    return value


def _checked(parameters: dict) -> dict:
    """Parameters with their types. Raises ValueError if one is unknown or wrong."""
    check_names(parameters)
    if "run_dir" in parameters:
        raise ValueError("Each run of a sweep gets its own run_dir: name their common folder with `folder`.")
    given = {name: value.item() if isinstance(value, np.generic) else value for name, value in parameters.items()}
    settings = Settings(**given | typed({name: value for name, value in given.items() if isinstance(value, str)}))
    for name in parameters:
        _check_there(name, getattr(settings, name))
    return {name: getattr(settings, name) for name in parameters}


def _check_there(name: str, value: Any) -> None:
    """Raise ValueError for a dataset, or weights, that are neither known by name nor a folder or file."""
    if name not in ("dataset", "weights") or resolve(value).exists():
        return
    from covid_utils.io.datasets import DATASETS  # here, since PyTorch takes seconds to import
    from covid_utils.io.weights import WEIGHTS

    known = DATASETS if name == "dataset" else WEIGHTS
    if value not in known:
        raise ValueError(f"Unknown {name} {value!r}, and nothing at {resolve(value)}: {did_you_mean(value, known)}")


def _notebook(name: str | Path) -> Path:
    """A notebook's file: a path from the project's folder, or the beginning of a name in notebooks/."""
    path = PROJECT / Path(name).expanduser()
    if path.is_file() and path.suffix == ".ipynb":
        return path
    known = sorted(NOTEBOOKS.glob("*.ipynb"))
    found = [path for path in known if path.name.startswith(str(name))]
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
