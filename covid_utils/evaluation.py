"""Metrics with intervals that respect patients, and paired comparisons."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit
from scipy.stats import binomtest, t

REPEATS = 2000  # bootstrap resamples


def metrics_with_intervals(logits, labels, patients, threshold: float = 0.0, seed: int = 0) -> dict[str, dict]:
    """Metrics on slices, with 95 % intervals.

    The standard error of each metric comes from a cluster bootstrap (Field and Welsh 2007,
    https://doi.org/10.1111/j.1467-9868.2007.00593.x): whole patients are resampled with replacement, since the slices
    of one patient carry less information than as many independent ones. The interval is symmetric in the metric's
    log-odds, with Student's t for few patients; in simulations it held the truth in 86 to 97 of 100 (docs/results.md).

    Args:
        logits: float (N,).
        labels: 0 or 1, (N,).
        patients: (N,), the group of each slice; `range(N)` gives the intervals of independent slices.
        threshold: a logit above it means COVID.
        seed: of the bootstrap's random numbers.

    Returns:
        {"accuracy": {"value", "low", "high"}, …}, shares from 0 to 1, of: accuracy, sensitivity, specificity,
        precision, f1 (harmonic mean of precision and sensitivity), auc (area under the ROC curve) and
        average_precision (area under the precision-recall curve); nan where a class is missing.
    """
    logits, labels = checked_scores(logits, labels)
    found = _metrics(logits, labels, bootstrap_weights(patients, seed), threshold)  # each (1 + resamples,)
    everyone = np.ones(len(labels), bool)
    # the slices whose patients count
    counted = {"sensitivity": labels == 1, "specificity": labels == 0, "precision": logits > threshold}
    return {
        name: share_interval(values[0], values[1:], len(np.unique(np.asarray(patients)[counted.get(name, everyone)])))
        for name, values in found.items()
    }


def compare(logits_a, logits_b, labels, patients, seed: int = 0) -> dict:
    """How much better B is than A on the same slices, paired.

    Args: as for `metrics_with_intervals`, with the logits of two models; the threshold is 0.

    Returns:
        accuracy and auc: B minus A, with the 95 % interval of the patient bootstrap;
        only_a, only_b: how many slices only one of them classified correctly;
        p_mcnemar: exact McNemar test of these two (https://doi.org/10.1007/BF02295996); it takes the
        slices as independent.
    """
    (a, labels), (b, _) = checked_scores(logits_a, labels), checked_scores(logits_b, labels)
    weights, groups = bootstrap_weights(patients, seed), len(np.unique(np.asarray(patients)))
    metrics_a, metrics_b = _metrics(a, labels, weights), _metrics(b, labels, weights)
    differences = {name: metrics_b[name] - metrics_a[name] for name in ("accuracy", "auc")}
    result = {name: mean_interval(values[0], np.nanstd(values[1:]), groups) for name, values in differences.items()}
    right_a, right_b = (a > 0) == labels, (b > 0) == labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return result | {"only_a": only_a, "only_b": only_b, "p_mcnemar": p}


def checked_scores(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    """Logits as float (N,) and labels as int (N,); ValueError if a logit is NaN or a label not 0 or 1."""
    logits, labels = np.asarray(logits, float), np.asarray(labels)
    if logits.shape != labels.shape:
        raise ValueError(f"There are {logits.shape} logits for {labels.shape} labels: give one of each for each slice.")
    if np.isnan(logits).any():
        raise ValueError(f"{int(np.isnan(logits).sum())} of {logits.size} logits are NaN: the network is broken.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("Labels must be 0 (non-COVID) or 1 (COVID).")
    return logits, labels.astype(int)


def percent(score: dict[str, float], signed: bool = False) -> str:
    """A metric as a reader wants it, in percent; differences in points, with their sign.

    >>> percent({"value": 0.845, "low": 0.801, "high": 0.886})
    '84.5 % (80.1 to 88.6)'
    """
    number = "{:+.1f}" if signed else "{:.1f}"
    value, low, high = (number.format(100 * score[name]) for name in ("value", "low", "high"))
    return f"{value} {'points' if signed else '%'} ({low} to {high})"


def bootstrap_weights(patients, seed: int) -> np.ndarray:
    """How often each slice counts, (REPEATS + 1, N): once in the first row, in the others as often as its patient."""
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    count = group.max() + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=REPEATS)
    return np.vstack([np.ones(count), draws])[:, group]


def _metrics(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, threshold: float = 0.0) -> dict:
    """The metrics of `metrics_with_intervals` for each row of weights, (REPEATS + 1,); nan where a class is missing."""
    predicted, covid = logits > threshold, labels == 1
    correct = (predicted == covid).astype(float)
    # the share of pairs in which the COVID slice has the higher logit; a tie counts half
    pairs = logits[covid][:, None] - logits[~covid][None, :]
    higher = (pairs > 0) + 0.5 * (pairs == 0)
    # slices from the highest logit down; equal logits come in together
    order = np.argsort(-logits, kind="stable")
    last = np.searchsorted(-logits[order], -logits[order], side="right") - 1
    hits = np.cumsum(weights[:, order] * covid[order], axis=1)[:, last]
    precision_there = hits / np.maximum(np.cumsum(weights[:, order], axis=1)[:, last], 1e-9)
    true_positives = weights @ (predicted & covid)
    positives, called = weights[:, covid].sum(1), weights[:, predicted].sum(1)
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": weights @ correct / weights.sum(1),
            "sensitivity": true_positives / positives,
            "specificity": weights[:, ~covid] @ correct[~covid] / weights[:, ~covid].sum(1),
            "precision": true_positives / called,
            "f1": 2 * true_positives / (positives + called),
            "auc": ((weights[:, covid] @ higher) * weights[:, ~covid]).sum(1) / (positives * weights[:, ~covid].sum(1)),
            "average_precision": (precision_there * weights[:, order] * covid[order]).sum(1) / positives,
        }


def share_interval(value: float, drawn: np.ndarray, groups: int) -> dict[str, float]:
    """A share with its 95 % interval, from how it varied in a bootstrap over `groups` patients.

    A metric of 0 or 1 gets the exact binomial interval of `groups` trials; one that no resample changes gets NaN.
    """
    if np.isnan(value) or groups < 2 or (0 < value < 1 and np.nanstd(drawn) < 1e-12):
        return {"value": float(value), "low": float("nan"), "high": float("nan")}
    if value in (0, 1):
        low, high = binomtest(round(value * groups), groups).proportion_ci()
    else:
        # of the log-odds, by the delta method; the root corrects for few patients
        error = np.nanstd(drawn) * np.sqrt(groups / (groups - 1)) / (value * (1 - value))
        low, high = expit(logit(value) + t.ppf([0.025, 0.975], groups - 1) * error)
    return {"value": float(value), "low": float(low), "high": float(high)}


def mean_interval(value: float, error: float, groups: int) -> dict[str, float]:
    """A mean or difference with its 95 % interval (Student's t), from its bootstrap standard error over `groups`."""
    half = t.ppf(0.975, groups - 1) * error * np.sqrt(groups / (groups - 1)) if groups > 1 else np.nan
    return {"value": float(value), "low": float(value - half), "high": float(value + half)}


def mean_over_seeds(values) -> dict[str, float]:
    """The mean of a score, or of a paired difference, over seeds, (n,), with its 95 % interval (Student's t)."""
    values = np.asarray(values, float)
    return mean_interval(values.mean(), values.std() / len(values) ** 0.5, len(values))
