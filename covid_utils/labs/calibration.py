"""From logits to decisions: thresholds, predictive values, temperature, and how many slices a claim takes."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import norm


def operating_point(logits, labels, sensitivity: float = 0.95) -> float:
    """The highest threshold (a logit) with at least this sensitivity.

    Choose it on validation slices. Raises ValueError if there is no COVID slice.
    """
    covid = np.sort(np.asarray(logits, float)[np.asarray(labels) == 1])
    if not len(covid):
        raise ValueError("No COVID slice to choose a threshold by: give slices of both classes.")
    missed = int(np.floor((1 - sensitivity) * len(covid) + 1e-9))
    return float(np.nextafter(covid[missed], -np.inf))


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """Positive and negative predictive value where a share `prevalence` has COVID (Bayes), NaN where none is called so.

    >>> [round(float(value), 3) for value in predictive_values(0.9, 0.9, 0.01)]
    [0.083, 0.999]
    """
    right = np.array([sensitivity * prevalence, specificity * (1 - prevalence)])
    wrong = np.array([(1 - specificity) * (1 - prevalence), (1 - sensitivity) * prevalence])
    with np.errstate(invalid="ignore"):
        return tuple(right / (right + wrong))


def temperature(logits, labels) -> float:
    """The number to divide logits by, so that probabilities are calibrated.

    Temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599): the one that lowers the log loss most.
    Fit it on validation slices; it changes no decision at threshold 0, and no AUC.
    """
    logits, labels = np.asarray(logits, float), np.asarray(labels).astype(int)

    def loss(log_t: float) -> float:
        return np.logaddexp(0, -(2 * labels - 1) * logits / np.exp(log_t)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 5), method="bounded").x))


def sample_size(difference: float, disagree: float, power: float = 0.8) -> int:
    """How many independent test slices it takes to see a difference of two models at the 5 % level.

    For McNemar's test (Connor 1987, https://doi.org/10.2307/2531961).

    Args:
        difference: B's accuracy minus A's, -1 to 1, not 0.
        disagree: share of slices that only one of the two gets right, at least |difference| (else ValueError).
        power: chance to see it.

    >>> sample_size(0.02, 0.1)
    1960
    """
    if not 0 < abs(difference) <= disagree <= 1:
        raise ValueError(f"disagree must lie between |difference|, here {abs(difference)}, and 1, not {disagree}.")
    spread = norm.ppf(0.975) * np.sqrt(disagree) + norm.ppf(power) * np.sqrt(disagree - difference**2)
    return int(np.ceil((spread / difference) ** 2))
