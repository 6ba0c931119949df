"""Exercises of notebook 6: the interval of a difference, the Mahalanobis distance, one score for a patient."""

from __future__ import annotations

import numpy as np

from .grading import expect, result, same


def _difference(answer) -> str:
    """Two scores of other patients, whose intervals are wider on one side."""
    (a, low_a, high_a), (b, low_b, high_b) = scores = (0.9, 0.8, 0.95), (0.85, 0.78, 0.87)
    given = [dict(zip(("value", "low", "high"), score, strict=True)) for score in scores]
    said = result(answer, *given, shape=(3,), wanted="three numbers: the difference, its lower and its upper end")
    d = b - a
    right = np.array([d, d - np.hypot(b - low_b, high_a - a), d + np.hypot(high_b - b, a - low_a)])
    kinds = {
        "sign": (-right, -right[[0, 2, 1]]),
        "same ends": np.array([d, d - np.hypot(b - low_b, a - low_a), d + np.hypot(high_b - b, high_a - a)]),
        "added": np.array([d, low_b - high_a, high_b - low_a]),
        "order": right[[0, 2, 1]],
    }
    expect(said, right, kinds)
    return "Wider than each of the two intervals, and narrower than both together: errors partly cancel."


def _mahalanobis(answer) -> str:
    """Features that vary together, and by different amounts."""
    rng = np.random.default_rng(0)
    mixing = np.array([[3.0, 2.5, 0.0], [0.0, 1.0, 0.4], [0.0, 0.0, 0.2]])
    known = rng.normal(size=(400, 3)) @ mixing + np.array([5.0, -2.0, 1.0])
    asked = rng.normal(size=(30, 3)) @ mixing * 2 + np.array([6.0, -2.0, 1.5])
    said = result(answer, known, asked, shape=(30,), wanted="a distance for each of the 30 asked slices")
    covariance, beyond = np.cov(known.T), asked - known.mean(0)
    squared = ((beyond @ np.linalg.inv(covariance)) * beyond).sum(1)
    own, other = asked - asked.mean(0), np.linalg.inv(np.cov(asked.T))
    mistakes = {
        "squared": squared,
        "euclidean": np.linalg.norm(beyond, axis=1),
        "one by one": np.linalg.norm(beyond / known.std(0), axis=1),
        "own": (
            np.sqrt(((own @ np.linalg.inv(covariance)) * own).sum(1)),
            np.sqrt(((beyond @ other) * beyond).sum(1)),
            np.sqrt(((own @ other) * own).sum(1)),
        ),
    }
    # up to 2 %, as the covariance may be divided by n or by n - 1
    expect(said, np.sqrt(squared), mistakes, lambda one, other: np.allclose(one, other, rtol=0.02))
    return "Far is what the training slices' own spread makes far, in each direction."


def _patient_scores(answer) -> str:
    """Patients with two to nine slices, whose rows and names are out of order."""
    rng = np.random.default_rng(1)
    patients = rng.permutation(np.repeat([f"p{i:02d}" for i in range(12)], [2, 3, 9, 5, 4, 7, 2, 6, 8, 3, 5, 6]))
    logits = rng.normal(0, 3, len(patients))
    said = result(answer, logits, patients, shape=(12,), wanted="a score for each of the 12 patients")
    names, own = np.unique(patients), [logits[patients == name] for name in np.unique(patients)]
    right = np.array([np.sort(each)[-3:].mean() for each in own])
    met = [np.flatnonzero(names == name)[0] for name in dict.fromkeys(patients)]
    mistakes = {
        "all": np.array([each.mean() for each in own]),
        "highest": np.array([each.max() for each in own]),
        "lowest": np.array([np.sort(each)[:3].mean() for each in own]),
        "order": right[met],
    }
    expect(said, right, mistakes, same)
    return "Three slices that show the disease are enough, however many do not."


GRADERS = {"difference": _difference, "mahalanobis": _mahalanobis, "patient score": _patient_scores}
