"""From logits to decisions: threshold and temperature."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar


def operating_point(logits, labels, sensitivity: float = 0.95) -> float:
    """The highest threshold (a logit) with at least this sensitivity.

    Choose it on validation slices. Raises ValueError if there is no COVID slice.
    """
    covid = np.sort(np.asarray(logits, float)[np.asarray(labels) == 1])
    if not len(covid):
        raise ValueError("No COVID slice to choose a threshold by: give slices of both classes.")
    missed = int(np.floor((1 - sensitivity) * len(covid) + 1e-9))
    return float(np.nextafter(covid[missed], -np.inf))


def temperature(logits, labels) -> float:
    """The number to divide logits by, so that probabilities are calibrated.

    Temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599): the one that lowers the log loss most.
    Fit it on validation slices; it changes no decision at threshold 0, and no AUC.
    """
    logits, labels = np.asarray(logits, float), np.asarray(labels).astype(int)

    def loss(log_t: float) -> float:
        return np.logaddexp(0, -(2 * labels - 1) * logits / np.exp(log_t)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 5), method="bounded").x))
