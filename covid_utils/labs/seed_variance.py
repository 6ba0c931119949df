"""What the table of a sweep tells: its figure, differences in pairs, and where the spread comes from."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import norm

from ..evaluation import mean_over_seeds, percent
from ..plotting import BLUE, RED, styled
from .calibration import verdict

ACCURACY = "network.test.accuracy"  # a column of results.csv, a share; its interval's ends are ….low and ….high
LOOKS = {"scratch": (BLUE, "o"), "bundled": (RED, "s"), "imagenet": ("#555555", "^")}


@styled
def draw_starts(table: pd.DataFrame) -> Figure:
    """Test accuracy by number of patients: a small mark a run, a large one the mean over seeds, with its interval.

    Args:
        table: a row a run, with columns patients, weights, seed and `ACCURACY`.
    """
    figure, axis = plt.subplots(figsize=(8, 4))
    scores = 100 * table.pivot(index="patients", columns=["weights", "seed"], values=ACCURACY)
    for place, (start, (colour, mark)) in enumerate(LOOKS.items()):
        means = pd.DataFrame([mean_over_seeds(runs.dropna()) for _, runs in scores[start].iterrows()])
        x, arms = np.arange(len(scores)) + 0.22 * (place - 1), (means.value - means.low, means.high - means.value)
        axis.plot(x + 0.07, scores[start], mark, color=colour, alpha=0.5, ms=4)
        axis.errorbar(x, means.value, arms, fmt=mark, ms=9, color=colour, capsize=4, label=start)
    axis.set(xlabel="patients", ylabel="test accuracy, %", ylim=(20, 102))
    axis.set_xticks(range(len(scores)), scores.index)
    axis.axhline(50, color="grey", linewidth=0.8, linestyle=":")
    axis.legend(loc="lower right")
    axis.grid(axis="y", alpha=0.3)
    return figure


def paired_gains(scores: pd.DataFrame, start: str) -> pd.DataFrame:
    """What an initialization gains over scratch with each number of patients, paired over the seeds.

    Args:
        scores: accuracies as shares: rows patients and seed, columns initializations.

    Returns:
        A row a number of patients: gain (points, with its 95 % interval by Student's t), and what that is.
    """
    rows = {}
    for size, difference in (scores[start] - scores.scratch).groupby("patients"):
        change = mean_over_seeds(difference)
        rows[size] = {f"{start} minus scratch": percent(change, signed=True), "that is": verdict(change)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("patients")


def held(table: pd.DataFrame, accuracy: str = ACCURACY) -> pd.Series:
    """For each run, whether its interval holds the mean over the seeds of its `weights` and number of `patients`."""
    mean = table.groupby(["patients", "weights"])[accuracy].transform("mean")
    return mean.between(table[f"{accuracy}.low"], table[f"{accuracy}.high"])


def seeds_needed(gains: np.ndarray, reach: float) -> int:
    """How many seeds, at least 2, narrow the 95 % interval of a mean gain to ± `reach`.

    Args:
        gains: of some seeds, paired, float (seeds,), at least two; they tell how much gains spread.
        reach: in the same unit, above 0.
    """
    return max(2, int(np.ceil((norm.ppf(0.975) * np.std(gains, ddof=1) / reach) ** 2)))


def analysis_of_variance(values: pd.Series, source: pd.Series, patients: pd.Series) -> pd.DataFrame:
    """Shares of the spread of `values`: two causes, both together, and the rest.

    Args:
        values: a score a run; equally many runs for each pair of source and patients.
        source, patients: which start and which draw of patients a run had.

    Returns:
        Rows source, patients, source × patients, network's seed; columns sum of squares, degrees of freedom,
        mean square, share (%). The sums of squares add up to that of `values` about their mean.

    R. A. Fisher, Statistical Methods for Research Workers, 1925, chapter VII.
    """
    mean = values.mean()
    of_source, of_patients, of_both = (
        values.groupby(key).transform("mean") for key in (source, patients, [source, patients])
    )
    parts = {
        "source": of_source - mean,
        "patients": of_patients - mean,
        "source × patients": of_both - of_source - of_patients + mean,
        "network's seed": values - of_both,
    }
    table = pd.DataFrame({"sum of squares": {name: (part**2).sum() for name, part in parts.items()}})
    free, drawn = source.nunique() - 1, patients.nunique() - 1
    rest = len(values) - (free + 1) * (drawn + 1)
    table["degrees of freedom"] = [free, drawn, free * drawn, rest]
    table["mean square"] = table["sum of squares"] / table["degrees of freedom"]
    table["share, %"] = 100 * table["sum of squares"] / ((values - mean) ** 2).sum()
    return table
