"""Scores with intervals, paired comparisons, baselines."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .data import CTData

REPEATS = 2000


def evaluate(logits, labels, patients, seed: int = 0) -> dict[str, dict[str, float]]:
    """Accuracy, sensitivity, specificity and AUC on the test slices, with 95 % intervals.

    The intervals are percentiles of a cluster bootstrap (Field and Welsh 2007,
    https://doi.org/10.1111/j.1467-9868.2007.00593.x): whole patients are drawn with replacement, since the
    slices of one patient resemble each other and count as less than as many independent ones.

    Args:
        logits: float (N,); above 0 means COVID.
        labels: 0 or 1, (N,).
        patients: (N,), the group of each slice.
        seed: of the bootstrap's random numbers.

    Returns:
        {"accuracy": {"value", "low", "high"}, …}, shares from 0 to 1.
    """
    rates = _rates(np.asarray(logits), np.asarray(labels).astype(int), _patient_weights(patients, seed))
    return {name: _with_interval(values) for name, values in rates.items()}


def compare(logits_a, logits_b, labels, patients, seed: int = 0) -> dict:
    """How much better B is than A on the same slices, paired.

    Args: as for `evaluate`, with the logits of two models.

    Returns:
        accuracy and auc: B minus A, with the 95 % interval of the patient bootstrap;
        only_a, only_b: how many slices only one of them got right;
        p_mcnemar: exact McNemar test of these two (https://doi.org/10.1007/BF02295996); it takes the
            slices as independent.
    """
    a, b, labels = np.asarray(logits_a), np.asarray(logits_b), np.asarray(labels).astype(int)
    weights = _patient_weights(patients, seed)
    rates_a, rates_b = _rates(a, labels, weights), _rates(b, labels, weights)
    result = {name: _with_interval(rates_b[name] - rates_a[name]) for name in ("accuracy", "auc")}
    right_a, right_b = (a > 0) == labels, (b > 0) == labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return result | {"only_a": only_a, "only_b": only_b, "p_mcnemar": float(p)}


def _patient_weights(patients, seed: int) -> np.ndarray:
    """How often each slice counts, (REPEATS + 1, N): once in the first row, in the others as its patient is drawn."""
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    count = group.max() + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=REPEATS)
    return np.vstack([np.ones(count), draws])[:, group]


def _rates(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The four scores for each row of weights, (REPEATS + 1,); nan where a class is missing."""
    right, covid = ((logits > 0) == labels).astype(float), labels == 1
    # the share of pairs in which the COVID slice has the higher logit; a tie counts half
    pairs = logits[covid][:, None] - logits[~covid][None, :]
    higher = (pairs > 0) + 0.5 * (pairs == 0)
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": weights @ right / weights.sum(1),
            "sensitivity": weights[:, covid] @ right[covid] / weights[:, covid].sum(1),
            "specificity": weights[:, ~covid] @ right[~covid] / weights[:, ~covid].sum(1),
            "auc": ((weights[:, covid] @ higher) * weights[:, ~covid]).sum(1)
            / (weights[:, covid].sum(1) * weights[:, ~covid].sum(1)),
        }


def _with_interval(values: np.ndarray) -> dict[str, float]:
    """The first value, and the 2.5 and 97.5 percentiles of the others."""
    low, high = (
        np.percentile(drawn, [2.5, 97.5]) if len(drawn := values[1:][~np.isnan(values[1:])]) else (np.nan, np.nan)
    )
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def percent(score: dict[str, float], signed: bool = False) -> str:
    """A score as a reader wants it: "84.5 % (80.1 to 88.6)"; differences in points with their sign."""
    number = "{:+.1f}" if signed else "{:.1f}"
    value, low, high = (number.format(100 * score[name]) for name in ("value", "low", "high"))
    return f"{value} {'points' if signed else '%'} ({low} to {high})"


# ------------------------------------------------------------------------------------------------ baselines


def nearest_neighbour(data: CTData) -> np.ndarray:
    """Decisions, 0 or 1, of a pixel 1-nearest-neighbour on the test slices.

    It compares 32 × 32 thumbnails with those of the training slices and learns nothing: where it scores high,
    test slices have near-copies among the training slices.
    """
    pixels = np.stack([cv2.resize(i, (32, 32), interpolation=cv2.INTER_AREA) for i in data.images.numpy()])
    features = pixels.reshape(len(pixels), -1).astype(np.float32)
    features -= features.mean(1, keepdims=True)
    features /= features.std(1, keepdims=True) + 1e-6  # correlation rather than brightness
    return _decide(KNeighborsClassifier(n_neighbors=1), features, data)


def grey_histogram(data: CTData) -> np.ndarray:
    """Decisions, 0 or 1, of a logistic regression on the test slices' 32-bin grey histograms (no shapes at all)."""
    features = np.stack([np.bincount(i.ravel() // 8, minlength=32) / i.size for i in data.images.numpy()])
    return _decide(make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)), features, data)


def _decide(classifier, features: np.ndarray, data: CTData) -> np.ndarray:
    """Fit on the training slices, decide on the test slices."""
    learn, test = (data.table.split == "train").to_numpy(), (data.table.split == "test").to_numpy()
    labels = data.table.label.to_numpy()
    return classifier.fit(features[learn], labels[learn]).predict(features[test])
