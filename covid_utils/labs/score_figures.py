"""Figures of scores: thresholds, curves, intervals."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.metrics import confusion_matrix

from ..evaluation import mean_over_seeds
from ..io.folders import CLASSES
from ..plotting import BLUE, RED, draw_counts, show, styled
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


@styled
def show_points(scores: dict[str, list[float]], name: str, alt: str) -> dict[str, dict[str, float]]:
    """Every run as a point, runs of the same seed joined, and the mean with its 95 % interval (Student's t) beside it.

    Args:
        scores: {row title: shares, one per run, in the order of the seeds}.
        name: of the score, for the axis.
        alt: what the picture shows.

    Returns: {row title: {"value", "low", "high"}}, the means in percent.
    """
    figure, axis = plt.subplots(figsize=(8, 0.75 * len(scores) + 1))
    runs, places = 100 * np.array(list(scores.values())), np.arange(len(scores))
    means = {title: mean_over_seeds(each) for title, each in zip(scores, runs, strict=True)}
    axis.plot(runs, places - 0.12, "o-", color="grey", markerfacecolor=BLUE, linewidth=0.7, label="a seed")
    _intervals(axis, means, places + 0.15, name, label="mean, 95 % interval")
    handles, texts = axis.get_legend_handles_labels()
    axis.legend(handles[-2:], texts[-2:], fontsize=9, loc="lower left")
    figure.tight_layout()
    show(figure, alt)
    return means


@styled
def show_intervals(scores: dict[str, dict], name: str, alt: str, reference: float | None = None) -> None:
    """Show a score of several models as points with 95 % intervals: {model: {"value", "low", "high"}}, in percent."""
    figure, axis = plt.subplots(figsize=(8, 0.7 * len(scores) + 1))
    found = {title: {end: 100 * score[end] for end in ("value", "low", "high")} for title, score in scores.items()}
    _intervals(axis, found, np.arange(len(scores)), name)
    for place, score in enumerate(found.values()):
        axis.annotate(f"{score['value']:.1f}", (score["value"], place), (0, 9), textcoords="offset points", ha="center")
    if reference is not None:
        axis.axvline(reference, color="grey", linestyle=":")
    figure.tight_layout()
    show(figure, alt)


def _intervals(axis: Axes, scores: dict[str, dict], places: np.ndarray, name: str, **look) -> None:
    """Draw {title: {"value", "low", "high"}}, a row each from the top down."""
    value, low, high = (np.array([score[end] for score in scores.values()]) for end in ("value", "low", "high"))
    axis.errorbar(value, places, xerr=(value - low, high - value), fmt="D", color=RED, capsize=4, **look)
    axis.set(yticks=range(len(scores)), yticklabels=list(scores), xlabel=name, ylim=(len(scores) - 0.4, -0.6))
    axis.grid(axis="x", alpha=0.3)
