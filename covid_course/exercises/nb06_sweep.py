"""Exercises of notebook 6: the plan of a sweep, two stories, intervals that hold, how many seeds."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pandas as pd

from covid_utils.core.files import did_you_mean
from covid_utils.core.settings import FIELDS, Settings
from covid_utils.labs.seed_variance import held, seeds_needed

from ..notebooks import declared, find_notebooks
from .grading import WrongAnswer, array, call, mistake

KEYS = ("notebooks", "folder", "parameters", "grid", "list", "seeds")


def _sweep(plan) -> str:
    """A dict with notebooks, parameters, grid and seeds; every run of it must be possible."""
    if not isinstance(plan, dict):
        raise WrongAnswer("no dict", got=type(plan).__name__)
    if any(each is ... for each in plan.values()):
        raise WrongAnswer("untried")
    for key in plan:
        if key not in KEYS:
            raise WrongAnswer("key", key=key, near=did_you_mean(key, KEYS))
    missing = [key for key in ("notebooks", "grid", "seeds") if not plan.get(key)]
    if missing:
        raise WrongAnswer("missing", key=missing[0])
    known = _known(plan["notebooks"])
    grid, fixed, seeds = plan["grid"], plan.get("parameters", {}), plan["seeds"]
    if not isinstance(grid, dict) or not isinstance(fixed, dict):
        raise WrongAnswer("no dict", got=type(grid if not isinstance(grid, dict) else fixed).__name__)
    for name in [*grid, *fixed]:
        if name not in FIELDS:
            raise WrongAnswer("parameter", name=name, near=did_you_mean(name, FIELDS))
        if name not in known:
            raise WrongAnswer("no effect", name=name)
    twice = [name for name in [*grid, *fixed] if name in ("seed", "run_dir") or name in grid and name in fixed]
    if twice:
        raise WrongAnswer("twice", name=twice[0])
    for name, values in grid.items():
        if not isinstance(values, (list, tuple)) or len(set(map(str, values))) < 2:
            raise WrongAnswer("one value", name=name, value=values)
    if not isinstance(seeds, (list, tuple, range)):
        raise WrongAnswer("seeds in a list", got=type(seeds).__name__)
    if len(set(seeds)) < 3:
        raise WrongAnswer("seeds")
    rows = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for row, seed in itertools.product(rows, seeds):
        try:
            Settings(**fixed, **row, seed=seed)
        except ValueError as error:
            raise WrongAnswer("value", error=error) from None
    sizes = " × ".join(str(len(values)) for values in grid.values())
    return f"That makes {len(rows) * len(seeds)} runs: {sizes}, times {len(seeds)} seeds."


def _known(notebooks) -> set[str]:
    """The parameters that these notebooks take."""
    if isinstance(notebooks, str) or not isinstance(notebooks, (list, tuple)):
        raise WrongAnswer("notebooks", name=notebooks)
    try:
        return set().union(*(declared(path) for path in find_notebooks([str(each) for each in notebooks])))
    except ValueError:
        raise WrongAnswer("notebooks", name=", ".join(map(str, notebooks))) from None


def _stories(answer) -> str:
    """Accuracies of five seeds; the pairs that matter are of different seeds."""
    for seed, better in ((0, 0.1), (1, -0.05)):
        rng = np.random.default_rng(seed)
        scratch = rng.permutation(np.linspace(0.6, 0.7, 5) + rng.uniform(0, 0.02, 5))
        start = np.roll(scratch, 2) + better + rng.uniform(0, 0.02, 5)
        said = array(call(answer, scratch.copy(), start.copy()), (2,), "a pair of gains")
        most, least = start.max() - scratch.min(), start.min() - scratch.max()
        kinds = {
            "order": (least, most),
            "sign": (-most, -least),
            "subtracted": (-least, -most),
            "percent": (100 * most, 100 * least),
            "same seed": ((start - scratch).max(), (start - scratch).min()),
            "best of both": (start.max() - scratch.max(), start.min() - scratch.min()),
        }
        if not np.allclose(said, (most, least)):
            if np.isclose(said[0], most):
                raise WrongAnswer("second")
            kind = mistake(said, kinds, np.allclose)
            raise WrongAnswer(kind, most=f"{most:+.3f}", said=f"{said[0]:+.3f}")
    return "So much one run of each can promise, and so little: the mean of paired gains lies between."


def _runs(seed: int) -> pd.DataFrame:
    """Two starts, three numbers of patients, five seeds: means far apart, intervals that hold theirs now and then."""
    rng = np.random.default_rng(seed)
    rows = itertools.product((40, 80, 160), ("scratch", "bundled"), range(5))
    table = pd.DataFrame(rows, columns=["patients", "weights", "seed"])
    table["accuracy"] = 0.55 + 0.001 * table.patients + 0.1 * (table.weights == "bundled") + rng.normal(0, 0.06, 30)
    table["low"], table["high"] = table.accuracy - rng.uniform(0.02, 0.1, 30), table.accuracy + rng.uniform(0, 0.1, 30)
    return table.sample(frac=1, random_state=seed)  # nobody may count on the order of the rows


def _held(answer) -> str:
    """How many intervals hold the mean of their own group."""
    for seed in (1, 5):
        table = _runs(seed)
        said = call(answer, table.copy())
        if np.shape(said) == (len(table),):
            raise WrongAnswer("not counted", wanted=len(table))
        said = float(array(said, (), "a single number"))
        named = table.rename(columns={"low": "accuracy.low", "high": "accuracy.high"})
        right = int(held(named, "accuracy").sum())
        if said == right:
            continue
        means = {
            "own": table.accuracy,
            "everybody": table.accuracy.mean(),
            "only patients": table.groupby("patients").accuracy.transform("mean"),
            "only weights": table.groupby("weights").accuracy.transform("mean"),
        }
        kinds = {kind: int(((table.low <= mean) & (mean <= table.high)).sum()) for kind, mean in means.items()}
        kinds["the others"] = len(table) - right
        if np.isclose(said, right / len(table)) or np.isclose(said, 100 * right / len(table)):
            raise WrongAnswer("share", wanted=len(table))
        kind = mistake(said, kinds, operator.eq)
        raise WrongAnswer(kind, said=f"{said:g}", wanted=len(table))
    return "An interval over test patients holds the mean of many seeds less often than it says, if seeds differ much."


def _seeds(answer) -> str:
    """Gains of few seeds, and an interval that is wanted."""
    for gains, reach in (((4.0, -3.0, 8.0), 0.25), ((1.0, 2.5, 0.5, 3.0), 0.3), ((10.0, -4.0, 3.0, 1.0, 7.0), 2.5)):
        gains = np.array(gains)
        said = float(array(call(answer, gains.copy(), reach), (), "a single number"))
        right, exact = seeds_needed(gains, reach), (1.96 * gains.std(ddof=1) / reach) ** 2
        if said == right:
            continue
        if said == right + 1:
            raise WrongAnswer("more", said=f"{said:g}")
        kinds = {
            "rounding": (exact, np.floor(exact), round(exact)),
            "root": (exact**0.5, np.ceil(exact**0.5)),
            "population": [each((1.96 * gains.std() / reach) ** 2) for each in (np.ceil, float, round)],
            "whole width": [each(4 * exact) for each in (np.ceil, float, round)],
            "both sides": [each(exact / 4) for each in (np.ceil, float, round)],
            "no factor": [each(exact / 1.96**2) for each in (np.ceil, float, round)],
        }
        near = (kind for kind, numbers in kinds.items() if np.isclose(said, numbers, rtol=1e-3).any())
        raise WrongAnswer(next(near, "wrong"), said=f"{said:g}")
    return "Four times the seeds make an interval half as wide."


GRADERS = {"sweep": _sweep, "stories": _stories, "intervals": _held, "how many seeds": _seeds}
