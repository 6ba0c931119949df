"""Figures of scores: thresholds, curves, intervals."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.metrics import confusion_matrix

from ..io.folders import CLASSES
from ..plotting import BLUE, RED, draw_counts, styled
from .calibration import predictive_values


@styled
def draw_threshold(logits, labels, threshold: float, prevalence: float) -> Figure:
    """What a threshold does: the probabilities it divides, the confusion matrix, sensitivity and predictive values.

    Args:
        logits: float (N,).
        labels: 0 or 1, (N,).
        threshold: a probability, 0 to 1; above it means COVID.
        prevalence: share of COVID where the network would be used, 0 to 1.
    """
    probability, covid = expit(np.asarray(logits, float)), np.asarray(labels) == 1
    figure, (histogram, matrix, bars) = plt.subplots(1, 3, figsize=(11, 3.4), width_ratios=(1.3, 1, 1))
    plt.close(figure)
    parts = [probability[~covid], probability[covid]]
    histogram.hist(parts, np.linspace(0, 1, 21), color=[BLUE, RED], label=CLASSES)
    histogram.axvline(threshold, color="black", linestyle="--")
    histogram.set(xlabel="probability of COVID", ylabel="slices", title=f"threshold {threshold:.2f}")
    histogram.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2, frameon=False)
    counts = confusion_matrix(covid, probability > threshold, labels=[False, True])
    draw_counts(matrix, counts, fontsize=15)
    specificity, sensitivity = counts.diagonal() / counts.sum(1)
    values = [sensitivity, specificity, *predictive_values(sensitivity, specificity, prevalence)]
    drawn = bars.barh(["sensitivity", "specificity", "PPV", "NPV"], np.nan_to_num(values), color=(RED, BLUE, RED, BLUE))
    bars.bar_label(drawn, ["no such result" if np.isnan(value) else f"{value:.1%}" for value in values], padding=3)
    bars.set(xlim=(0, 1.3), xticks=(0, 0.5, 1), title=f"prevalence {prevalence:.0%}")
    bars.invert_yaxis()
    figure.tight_layout()
    return figure
