"""What the table of a sweep tells."""

import itertools

import numpy as np
import pandas as pd
import pytest

from covid_utils.labs import seed_variance


def table(score) -> pd.DataFrame:
    """A row for each size, start and seed, with `score(size, start, seed)` as accuracy."""
    keys = itertools.product((40, 80), ("scratch", "bundled", "imagenet"), (0, 1, 2))
    rows = [{"patients": p, "weights": w, "seed": s, seed_variance.ACCURACY: score(p, w, s)} for p, w, s in keys]
    return pd.DataFrame(rows)


def test_gains_are_paired_over_the_seeds():
    """Seeds differ by 30 points, the gain by none: only pairs can tell."""
    found = table(lambda p, w, s: 0.3 + 0.3 * s / 2 + 0.1 * (w == "bundled") * (p == 40))
    scores = found.pivot(index=["patients", "seed"], columns="weights", values=seed_variance.ACCURACY)
    gains = seed_variance.paired_gains(scores, "bundled")
    assert gains["that is"].to_dict() == {40: "a gain beyond chance", 80: "cannot be told from chance"}
    assert gains["bundled minus scratch"][40].startswith("+10.0 points (+10.0 to +10.0")


def test_an_interval_holds_the_mean_of_its_own_start_and_size():
    found = table(lambda p, w, s: p / 100 + 0.1 * s)  # in each group: 0.1 below its mean, at it, 0.1 above
    found[f"{seed_variance.ACCURACY}.low"] = found[seed_variance.ACCURACY] - 0.15
    found[f"{seed_variance.ACCURACY}.high"] = found[seed_variance.ACCURACY] + 0.05
    assert seed_variance.held(found).tolist() == [False, True, True] * 6


def test_as_many_seeds_as_an_interval_takes_and_no_fewer():
    gains = np.random.default_rng(0).normal(3, 5, 4)
    n, spread = seed_variance.seeds_needed(gains, 2), gains.std(ddof=1)
    assert 1.96 * spread / n**0.5 <= 2 < 1.96 * spread / (n - 1) ** 0.5
    assert seed_variance.seeds_needed(gains, 1000) == 2


def test_the_analysis_of_variance_finds_each_cause():
    """Two causes of known size, one for both together, and a rest of plus and minus one: the shares are exact."""
    rows = [(10 * a + 3 * b + 2 * a * b + rest, a, b) for a, b, rest in itertools.product((-1, 1), (-1, 0, 1), (-1, 1))]
    values, source, patients = (pd.Series(column) for column in zip(*rows, strict=True))
    found = seed_variance.analysis_of_variance(values.astype(float), source, patients)
    assert found["sum of squares"].tolist() == pytest.approx([12 * 100, 8 * 9, 8 * 4, 12])
    assert found["degrees of freedom"].tolist() == [1, 2, 2, 6]
    assert found["share, %"].sum() == pytest.approx(100)
