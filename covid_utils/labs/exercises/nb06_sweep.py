"""Exercise of notebook 6: the plan of a sweep."""

from __future__ import annotations

import itertools

from ...runs.files import did_you_mean
from ...runs.notebooks import declared, find_notebooks
from ...runs.settings import FIELDS, Settings
from .verdicts import Miss

KEYS = ("notebooks", "folder", "parameters", "grid", "list", "seeds")


def _sweep(plan) -> str:
    """A dict with notebooks, parameters, grid and seeds; every run of it must be possible."""
    if not isinstance(plan, dict):
        raise Miss("no dict", got=type(plan).__name__)
    if any(each is ... for each in plan.values()):
        raise Miss("untried")
    for key in plan:
        if key not in KEYS:
            raise Miss("key", key=key, near=did_you_mean(key, KEYS))
    missing = [key for key in ("notebooks", "grid", "seeds") if not plan.get(key)]
    if missing:
        raise Miss("missing", key=missing[0])
    known = _known(plan["notebooks"])
    grid, fixed, seeds = plan["grid"], plan.get("parameters", {}), plan["seeds"]
    if not isinstance(grid, dict) or not isinstance(fixed, dict):
        raise Miss("no dict", got=type(grid if not isinstance(grid, dict) else fixed).__name__)
    for name in [*grid, *fixed]:
        if name not in FIELDS:
            raise Miss("parameter", name=name, near=did_you_mean(name, FIELDS))
        if name not in known:
            raise Miss("no effect", name=name)
    if {"seed", "run_dir"} & {*grid, *fixed} or set(grid) & set(fixed):
        raise Miss("twice", name=next(iter({"seed", "run_dir"} & {*grid, *fixed} or set(grid) & set(fixed))))
    for name, values in grid.items():
        if not isinstance(values, (list, tuple)) or len(set(map(str, values))) < 2:
            raise Miss("one value", name=name, value=values)
    if not isinstance(seeds, (list, tuple, range)):
        raise Miss("seeds in a list", got=type(seeds).__name__)
    if len(set(seeds)) < 3:
        raise Miss("seeds")
    rows = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for row, seed in itertools.product(rows, seeds):
        try:
            Settings(**fixed, **row, seed=seed)
        except ValueError as error:
            raise Miss("value", error=error) from None
    sizes = " × ".join(str(len(values)) for values in grid.values())
    return f"That makes {len(rows) * len(seeds)} runs: {sizes}, times {len(seeds)} seeds."


def _known(notebooks) -> set[str]:
    """The parameters that these notebooks take."""
    if isinstance(notebooks, str) or not isinstance(notebooks, (list, tuple)):
        raise Miss("notebooks", name=notebooks)
    try:
        return set().union(*(declared(path) for path in find_notebooks([str(each) for each in notebooks])))
    except ValueError:
        raise Miss("notebooks", name=", ".join(map(str, notebooks))) from None


JUDGES = {"sweep": _sweep}
