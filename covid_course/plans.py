"""What a sweep is asked to do: a YAML file, or a dict, as a list of checked runs."""

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
LONGEST = 90  # characters of what varies in a run's name: the paths below it stay short enough for every system
DIGITS = 12  # of a run's name: among ten thousand runs two alike come up once in five million sweeps


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: of its folder, made of the parameters that vary, and twelve digits of all that makes this run.
        folder: absolute path.
        parameters: checked values of all that was asked for, without `run_dir`.
        notebooks: absolute paths, in order, and the SHA-256 of what their cells say.
    """

    name: str
    folder: str
    parameters: dict[str, Any]
    notebooks: dict[str, str]

    def identity(self) -> dict:
        """What a finished run must have had to count as this one."""
        return {"parameters": self.parameters, "notebooks": list(self.notebooks.values())}


def read_plan(plan: dict | str | Path) -> tuple[Path, list[Run]]:
    """The sweep's folder and its runs, every parameter checked before anything starts.

    Args:
        plan: a YAML file or a dict with `notebooks` (a list: names such as "02_scratch", or files), `folder` (by
            default runs/NAME for NAME.yaml), `parameters` (fixed), `grid` (name: list) or `list` (of dicts), `seeds`.

    Raises ValueError, in one sentence that names the file, if anything in it cannot be run.
    """
    if isinstance(plan, dict):
        return _runs(plan, None, Path.cwd())
    path = Path(plan)
    content = read_yaml(path)  # texts: `typed` reads 1e-4 aright
    if not isinstance(content, dict):
        raise ValueError(f"The sweep {path} must hold {', '.join(KEYS)}, each with a colon.")
    try:
        return _runs(content, f"runs/{path.stem}", path.parent.resolve())
    except ValueError as error:
        raise ValueError(f"Sweep {path}: {error}") from None


def _runs(plan: dict, folder: str | None, here: Path) -> tuple[Path, list[Run]]:
    """`folder`: where runs go if the plan does not say it; `here`: where paths of notebooks begin."""
    for key in plan:
        if key not in KEYS:
            raise ValueError(f"Unknown key {key!r}: {did_you_mean(key, KEYS)}")
    folder = plan.get("folder", folder)
    if not isinstance(folder, str | Path) or not str(folder).strip():
        raise ValueError("A sweep needs a `folder` for its runs, such as runs/starts.")
    paths = [_notebook(name, here) for name in _list(plan, "notebooks")]
    takes, names = {path.name: declared(path) for path in paths}, [path.name for path in paths]
    if len(takes) < len(names):
        raise ValueError(f"Two notebooks have the same name ({', '.join(names)}): in a run's folder one would be lost.")
    notebooks = {str(path): digest(path) for path in paths}
    fixed = _dict(plan, "parameters", plan.get("parameters", {}))
    root, runs, seen = resolve(folder), [], {}
    for varied in _varied(plan):
        both = [name for name in varied if name in fixed]
        if both:
            raise ValueError(f"Parameter {both[0]} is both fixed and varied: say it once.")
        parameters = _checked(fixed | varied, takes)
        key = hashlib.sha256(json.dumps([parameters, names], sort_keys=True).encode()).hexdigest()
        if key in seen:
            raise ValueError(
                f"Runs {seen[key]} and {len(runs) + 1} are the same, {varied or parameters}: leave one out."
            )
        seen[key] = len(runs) + 1
        name = f"{_readable({each: parameters[each] for each in varied})}-{key[:DIGITS]}"
        runs.append(Run(name, str(root / name), parameters, notebooks))
    return root, runs


def _varied(plan: dict) -> list[dict]:
    """The parameters that differ from run to run, one dict a run, seeds last."""
    if "grid" in plan and "list" in plan:
        raise ValueError("Give a `grid` or a `list`, not both.")
    if "list" in plan:
        rows = [_dict(plan, "list", row) for row in _list(plan, "list")]
    elif "grid" in plan:
        grid = _dict(plan, "grid", plan["grid"])
        if not grid:
            raise ValueError("The grid is empty: give `name: [values]`, or leave it out.")
        values = [_list(grid, name) for name in grid]
        rows = [dict(zip(grid, combination, strict=True)) for combination in itertools.product(*values)]
    else:
        rows = [{}]
    if "seeds" not in plan:
        return rows
    if any("seed" in row for row in rows):
        raise ValueError("Give `seeds`, or `seed` in the grid or list, not both.")
    return [row | {"seed": seed} for row in rows for seed in _list(plan, "seeds")]


def _list(plan: dict, name: str) -> list:
    value = plan.get(name)
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, list | tuple | range) or not value:
        raise ValueError(f"`{name}` must be a list of at least one entry, such as [a, b].")
    return list(value)


def _dict(plan: dict, name: str, value: Any) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"`{name}` must hold `parameter: value`, not {value!r}.")
    return value


def _checked(parameters: dict, takes: dict[str, set[str]]) -> dict:
    """Parameters with the types that `Settings` wants; ValueError if one is wrong, or no notebook `takes` it."""
    check_names(parameters)
    if "run_dir" in parameters:
        raise ValueError("A sweep gives each run a run_dir of its own: name the folder of all of them with `folder`.")
    parameters = {name: value.item() if isinstance(value, np.generic) else value for name, value in parameters.items()}
    texts = {name: value for name, value in parameters.items() if isinstance(value, str)}
    parameters = parameters | typed(texts)
    checked, known = Settings(**parameters), set().union(*takes.values())
    for name in parameters:
        if name not in known:
            raise ValueError(f"Parameter {name} has no effect on {', '.join(takes)}: leave it out.")
        _check_there(name, getattr(checked, name))
    return {name: getattr(checked, name) for name in parameters}


def _check_there(name: str, value: Any) -> None:
    """Raise ValueError if this is a dataset or weights, neither known by name nor a folder or file."""
    if name not in ("dataset", "weights") or resolve(value).exists():
        return
    from covid_utils.io.datasets import DATASETS  # here, since PyTorch takes seconds to import
    from covid_utils.io.weights import WEIGHTS

    known = DATASETS if name == "dataset" else WEIGHTS
    if value not in known:
        raise ValueError(f"Unknown {name} {value!r}, and nothing at {resolve(value)}: {did_you_mean(value, known)}")


def _notebook(name: Any, here: Path) -> Path:
    """A notebook's file: a path, which starts `here` or at the project's folder, or how a name in notebooks/ begins."""
    for base in (here, PROJECT):
        path = base / Path(str(name)).expanduser()
        if path.is_file() and path.suffix == ".ipynb":
            return path.resolve()
    there = sorted(NOTEBOOKS.glob("*.ipynb"))
    found = [path for path in there if path.name.startswith(str(name))]
    if len(found) != 1:
        raise ValueError(f"No notebook {name}: give a file, or one of {', '.join(path.stem for path in there)}.")
    return found[0]


def digest(path: Path) -> str:
    """SHA-256 of a notebook's cells, their outputs aside."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(path, 4).cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _readable(varied: dict[str, Any]) -> str:
    """A folder's name: `weights=imagenet,patients=80,seed=1`; of a path its last part. The seed is never cut off."""
    parts = [f"{name}={Path(value).stem if isinstance(value, str) else value}" for name, value in varied.items()]
    last = parts.pop()[:LONGEST] if parts else "run"
    front = ",".join(parts)[: max(0, LONGEST - len(last) - 1)]
    return re.sub(r"[^\w.=,+-]", "-", f"{front},{last}" if front else last, flags=re.ASCII)
