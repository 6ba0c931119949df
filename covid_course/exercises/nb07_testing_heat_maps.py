"""Exercises of notebook 7: which pixels are removed first, whether two maps agree, how much lies in the lungs."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from .grading import expect, result, wrong_if


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


def _agreement(answer) -> str:
    """Maps whose ranks agree more than their values, and one that is turned upside down."""
    one = np.random.default_rng(0).permutation(96).reshape(4, 4, 6) / 95
    other = one**6 + 1e-3 * np.random.default_rng(1).random(one.shape)
    other[3] = -one[3]
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(one, other, strict=True)]
    said = result(answer, one, other, shape=(4,), wanted="a correlation for each of the 4 slices")
    whole = np.corrcoef(rankdata(one), rankdata(other))[0, 1]
    kinds = {
        "values": [np.corrcoef(a, b)[0, 1] for a, b in pairs],
        "places": [np.corrcoef(a.argsort(), b.argsort())[0, 1] for a, b in pairs],
        "all slices": [whole] * 4,
    }
    expect(said, [np.corrcoef(rankdata(a), rankdata(b))[0, 1] for a, b in pairs], kinds)
    return "Only the order of the pixels counts: a map and its square agree completely."


def _beyond(answer) -> str:
    """Lungs of three eighths of the slice."""
    heat, lungs = np.random.default_rng(4).random((8, 6)) ** 3, np.zeros((8, 6), bool)
    lungs[:3] = True
    inside, area = heat[lungs].sum() / heat.sum(), lungs.mean()
    means = heat[lungs].mean() - heat.mean()
    kinds = {"share": inside, "sign": area - inside, "ratio": inside / area, "means": means}
    expect(result(answer, heat, lungs), inside - area, kinds)
    return "A flat map gets 0, and so does any map that ignores where the lungs are."


GRADERS = {"first pixels": _first, "agreement": _agreement, "beyond flat": _beyond}
