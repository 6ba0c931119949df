"""What the table of a sweep tells: differences in pairs, and where the spread comes from."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from ..evaluation import mean_over_seeds, percent
from .calibration import verdict

ACCURACY = "network.test.accuracy"  # a column of results.csv, a share; its interval's ends are ….low and ….high


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
