"""Figures of scores: thresholds, calibration, what chance alone would do."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.metrics import confusion_matrix

from .evaluation import mean_interval, predictive_values
from .plotting import BLUE, CLASSES, RED, draw_counts, show


def draw_threshold(logits, labels, threshold: float, prevalence: float) -> Figure:
    """What a threshold does: the probabilities it divides, the confusion matrix, and what a yes or no is worth.

    Args:
        logits: float (N,).
        labels: 0 or 1, (N,).
        threshold: a probability, 0 to 1; above it means COVID.
        prevalence: share of COVID where the network would be used, 0 to 1.
    """
    probability, covid = expit(np.asarray(logits, float)), np.asarray(labels) == 1
    called = probability > threshold
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), width_ratios=(1.3, 1, 1))
    plt.close(figure)
    bins = np.linspace(0, 1, 21)
    axes[0].hist(probability[~covid], bins, color=BLUE, alpha=0.6, label=CLASSES[0])
    axes[0].hist(probability[covid], bins, color=RED, alpha=0.6, label=CLASSES[1])
    axes[0].axvline(threshold, color="black", linestyle="--")
    axes[0].set(xlabel="probability of COVID", ylabel="slices", title=f"threshold {threshold:.2f}")
    axes[0].legend(fontsize=9, loc="upper center")
    counts = confusion_matrix(covid, called, labels=[False, True])
    draw_counts(axes[1], counts, fontsize=15)
    axes[1].set_title("truth", fontsize=10, ha="right", position=(-0.05, 1))
    sensitivity, specificity = counts[1, 1] / covid.sum(), counts[0, 0] / (~covid).sum()
    yes, no = predictive_values(sensitivity, specificity, prevalence)
    values = {
        "sensitivity": sensitivity,
        "specificity": specificity,
        f'"yes" is right\n(if {prevalence:.0%} have it)': yes,
        f'"no" is right\n(if {prevalence:.0%} have it)': no,
    }
    axes[2].barh(range(4), [np.nan_to_num(value) for value in values.values()], color=(RED, BLUE, RED, BLUE))
    for place, value in enumerate(values.values()):
        inside = value > 0.3
        text, side = ("never said" if np.isnan(value) else f"{value:.1%}"), -0.03 if inside else 0.03
        alignment = {"ha": "right", "color": "white"} if inside else {"ha": "left", "color": "black"}
        axes[2].text(np.nan_to_num(value) + side, place, text, va="center", **alignment)
    axes[2].set(yticks=range(4), yticklabels=list(values), xlim=(0, 1), xticks=(0, 0.5, 1))
    axes[2].invert_yaxis()
    figure.tight_layout()
    return figure


def show_calibration(tables: dict[str, pd.DataFrame], alt: str) -> None:
    """Reliability diagrams: {title: table of `evaluation.calibration`}; on the diagonal, probabilities are honest."""
    figure, axis = plt.subplots(figsize=(5, 4.2))
    axis.plot((0, 1), (0, 1), ":", color="grey", label="honest")
    for (title, table), colour, style in zip(tables.items(), (RED, BLUE), ("s--", "o-"), strict=False):
        axis.plot(table.predicted, table.observed, style, color=colour, label=title)
    axis.set(
        xlabel="probability that the network gives",
        ylabel="share that is COVID",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axis.legend(fontsize=9)
    figure.tight_layout()
    show(figure, alt)


def show_points(scores: dict[str, list[float]], name: str, alt: str) -> dict[str, dict[str, float]]:
    """Every run as a point, and the mean with its 95 % interval (Student's t) beside it.

    Args:
        scores: {row title: shares, one per run}.
        name: of the score, for the axis.
        alt: what the picture shows.

    Returns: {row title: {"value", "low", "high"}}, the means in percent.
    """
    figure, axis = plt.subplots(figsize=(8, 0.75 * len(scores) + 1))
    means = {}
    for place, (title, values) in enumerate(scores.items()):
        values = 100 * np.asarray(values)
        mean = means[title] = mean_interval(values.mean(), values.std() / np.sqrt(len(values)), len(values))
        axis.plot(values, np.full(len(values), place - 0.12), "o", color=BLUE, alpha=0.6, markersize=8)
        axis.errorbar(
            mean["value"], place + 0.15, xerr=mean["high"] - mean["value"], fmt="D", color=RED, capsize=4, markersize=7
        )
    axis.set(yticks=range(len(scores)), yticklabels=list(scores), xlabel=name, ylim=(-0.6, len(scores) - 0.4))
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    show(figure, alt)
    return means
