"""Exercises of notebook 9: the plan of a sweep, two stories, how many seeds."""

from __future__ import annotations

import numpy as np

from ..plans import read_plan
from .grading import WrongAnswer, expect, mistake, result, wrong_if


def _sweep(plan) -> str:
    """A dict with notebooks, parameters, grid and seeds; every run of it must be possible."""
    wrong_if(not isinstance(plan, dict), "no dict", got=type(plan).__name__)
    wrong_if(any(each is ... for each in plan.values()), "untried")
    for key in ("notebooks", "grid", "seeds"):
        wrong_if(not plan.get(key), "missing", key=key)
    try:
        _, runs = read_plan({"folder": "runs/my-sweep"} | plan)
    except ValueError as error:
        raise WrongAnswer("plan", error=error) from None
    for name, values in plan["grid"].items():
        wrong_if(len(values) < 2, "one value", name=name, value=values)
    wrong_if(len(plan["seeds"]) < 3, "seeds")
    sizes = " × ".join(str(len(values)) for values in plan["grid"].values())
    return f"That makes {len(runs)} runs: {sizes}, times {len(plan['seeds'])} seeds."


def _stories(answer) -> str:
    """Accuracies of five seeds; the pairs that matter are of different seeds."""
    for seed, better in ((0, 0.1), (1, -0.05)):
        rng = np.random.default_rng(seed)
        scratch = rng.permutation(np.linspace(0.6, 0.7, 5) + rng.uniform(0, 0.02, 5))
        start = np.roll(scratch, 2) + better + rng.uniform(0, 0.02, 5)
        said = result(answer, scratch, start, shape=(2,), wanted="a pair of gains")
        right = np.array([start.max() - scratch.min(), start.min() - scratch.max()])
        kinds = {
            "order": right[::-1],
            "sign": -right,
            "same seed": [(start - scratch).max(), (start - scratch).min()],
            "best of both": [start.max() - scratch.max(), start.min() - scratch.min()],
        }
        wrong_if(np.isclose(said[0], right[0]) and not np.allclose(said, right), "second")
        expect(said, right, kinds, np.allclose, most=f"{right[0]:+.3f}", said=f"{said[0]:+.3f}")
    return "So much one run of each can promise, and so little: the mean of paired gains lies between."


def _seeds(answer) -> str:
    """Gains of few seeds, and an interval that is wanted."""
    for gains, reach in (((4.0, -3.0, 8.0), 0.25), ((1.0, 2.5, 0.5, 3.0), 0.3), ((10.0, -4.0, 3.0, 1.0, 7.0), 2.5)):
        gains = np.array(gains)
        exact, population = ((1.96 * gains.std(ddof=free) / reach) ** 2 for free in (1, 0))
        said, right = result(answer, gains, reach), np.ceil(exact)
        kinds = {
            "rounding": (exact, np.floor(exact), round(exact)),
            "population": (population, np.ceil(population), round(population)),
            "whole width": (4 * exact, np.ceil(4 * exact), round(4 * exact)),
            "no factor": (exact / 1.96**2, np.ceil(exact / 1.96**2), round(exact / 1.96**2)),
        }
        kind = mistake(said, kinds, lambda one, other: np.isclose(one, other, rtol=1e-4))
        wrong_if(said != right, kind, said=f"{said:g}")
    return "Four times the seeds make an interval half as wide."


GRADERS = {"sweep": _sweep, "stories": _stories, "how many seeds": _seeds}
