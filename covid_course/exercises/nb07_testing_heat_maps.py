"""Exercises of notebook 7: which pixels are removed first."""

from __future__ import annotations

import numpy as np

from .grading import result, wrong_if


def _first(answer) -> str:
    """A smooth map, one that is zero nearly everywhere, and one that is zero everywhere."""
    rng = np.random.default_rng(0)
    smooth = rng.permutation(np.linspace(0, 1, 80) ** 2).reshape(8, 10)
    cut = np.where(smooth > 0.8, smooth, 0)
    for heat, share in ((smooth, 0.3), (smooth, 0.1), (cut, 0.3), (cut * 0, 0.25)):
        out = result(answer, heat, share, shape=heat.shape, wanted="True or False for each pixel, of the map's shape")
        wrong_if(not np.isin(out, (0, 1)).all(), "mask")
        chosen, wanted, tied = out.astype(bool), round(share * heat.size), heat is not smooth
        count = int(chosen.sum())
        coldest = count and count < heat.size and heat[chosen].max() <= heat[~chosen].min()
        wrong_if(coldest and not tied and count in (wanted, heat.size - wanted), "coldest")
        wrong_if(not tied and np.array_equal(chosen, heat > share), "value")
        facts = {"got": count, "wanted": wanted, "all": heat.size}
        wrong_if(abs(count - wanted) > (0 if tied else 1), "ties" if tied else "count", **facts)
        wrong_if(heat[chosen].min() < heat[~chosen].max(), "coldest" if coldest else "wrong")
    return "As many pixels as asked for, also where most of the map is zero."


GRADERS = {"first pixels": _first}
