"""Figures of scores: thresholds, calibration, what chance alone would do."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from ..data import CTData
from ..evaluation import mean_over_seeds
from ..io.folders import CLASSES
from ..plotting import BLUE, RED, draw_counts, grid, show, styled
from .calibration import predictive_values
from .cam_figures import COLOURS


@styled
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
    axes[0].legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2, frameon=False)
    counts = confusion_matrix(covid, called, labels=[False, True])
    draw_counts(axes[1], counts, fontsize=15)
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


@styled
def show_roc(models: dict[str, np.ndarray], labels, alt: str) -> None:
    """ROC and precision-recall curves of {title: logits}; a dot stands at the threshold 0.5, a dotted line at chance.

    Args:
        models: logits of each model on the same slices, float (N,).
        labels: 0 or 1, (N,).
        alt: what the picture shows.
    """
    labels = np.asarray(labels).astype(int)
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4))
    for (title, logits), colour, style in zip(models.items(), (BLUE, RED), ("--", "-"), strict=False):
        false_alarms, sensitivity, _ = roc_curve(labels, logits)
        axes[0].plot(false_alarms, sensitivity, style, color=colour, label=title)
        precision, recall, _ = precision_recall_curve(labels, logits)
        axes[1].step(recall, precision, style, color=colour, label=title, where="post")
        (true_no, false_yes), (false_no, true_yes) = confusion_matrix(labels, np.asarray(logits) > 0, labels=[0, 1])
        found = true_yes / (true_yes + false_no)
        axes[0].plot(false_yes / (true_no + false_yes), found, "o", color=colour, markersize=8)
        axes[1].plot(found, true_yes / max(true_yes + false_yes, 1), "o", color=colour, markersize=8)
    axes[0].plot((0, 1), (0, 1), ":", color="grey", label="chance")
    axes[1].plot((0, 1), (labels.mean(), labels.mean()), ":", color="grey", label="chance")
    axes[0].set(title="ROC", xlabel="false alarms: 1 - specificity", ylabel="sensitivity")
    axes[1].set(title="precision-recall", xlabel="recall = sensitivity", ylabel="precision", ylim=(0, 1.02))
    for axis, place in zip(axes, ("lower right", "lower left"), strict=True):
        axis.legend(fontsize=9, loc=place)
    figure.tight_layout()
    show(figure, alt)


@styled
def show_calibration(tables: dict[str, pd.DataFrame], alt: str) -> None:
    """Reliability diagrams: {title: table of `decisions.calibration`}; on the diagonal, probabilities are honest."""
    figure, axis = plt.subplots(figsize=(5, 4.2))
    axis.plot((0, 1), (0, 1), ":", color="grey", label="honest")
    for (title, table), colour, style in zip(tables.items(), (RED, BLUE), "so", strict=False):
        points = (table.predicted, table.fraction_of_positives)
        axis.plot(*points, style, color=colour, fillstyle="none", markersize=9, label=title)
    axis.set(
        xlabel="probability that the network gives",
        ylabel="fraction of positives (COVID)",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axis.legend(fontsize=9)
    figure.tight_layout()
    show(figure, alt)


@styled
def show_points(scores: dict[str, list[float]], name: str, alt: str) -> dict[str, dict[str, float]]:
    """Every run as a point, runs of the same seed joined, and the mean with its 95 % interval (Student's t) beside it.

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
        mean = means[title] = mean_over_seeds(values)
        first = place == 0  # one entry in the legend
        axis.plot(
            values, np.full(len(values), place - 0.12), "o", color=BLUE, alpha=0.6, label="a seed" if first else None
        )
        axis.errorbar(
            mean["value"], place + 0.15, xerr=mean["high"] - mean["value"], fmt="D", color=RED, capsize=4,
            label="mean, 95 % interval" if first else None,
        )  # fmt: skip
    axis.plot(100 * np.array(list(scores.values())), np.arange(len(scores)) - 0.12, color="grey", linewidth=0.7)
    axis.legend(fontsize=9, loc="lower left")
    axis.set(yticks=range(len(scores)), yticklabels=list(scores), xlabel=name, ylim=(-0.6, len(scores) - 0.4))
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    show(figure, alt)
    return means


@styled
def show_intervals(scores: dict[str, dict], name: str, alt: str, reference: float | None = None) -> None:
    """Show a score of several models as points with 95 % intervals: {model: {"value", "low", "high"}}, in percent."""
    figure, axis = plt.subplots(figsize=(8, 0.7 * len(scores) + 1))
    for place, score in enumerate(scores.values()):
        value, low, high = (100 * score[key] for key in ("value", "low", "high"))
        axis.plot((low, high), (place, place), color=BLUE, linewidth=3)
        axis.plot(value, place, "o", color=BLUE, markersize=9)
        axis.annotate(f"{value:.1f}", (value, place), xytext=(0, 9), textcoords="offset points", ha="center")
    if reference is not None:
        axis.axvline(reference, color="grey", linestyle=":")
    axis.set(yticks=range(len(scores)), yticklabels=list(scores), xlabel=name, ylim=(-0.5, len(scores) - 0.2))
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    show(figure, alt)


@styled
def show_starts(histories: dict[str, pd.DataFrame], alt: str) -> None:
    """Show the validation accuracy by epoch of several runs: {title: history as `training.fit` returns it}."""
    figure, axis = plt.subplots(figsize=(7, 3.4))
    for (title, history), colour, style in zip(histories.items(), COLOURS, ("s-", "o--", "^:"), strict=False):
        axis.plot(history.epoch, 100 * history.val_accuracy, style, color=colour, label=title)
    axis.axhline(50, color="grey", linewidth=1, linestyle=":")
    axis.set(xlabel="epoch", ylabel="validation accuracy, %")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    show(figure, alt, small=True)


@styled
def show_range(table: pd.DataFrame, chosen: float, alt: str) -> None:
    """The loss by learning rate, as `craft.range_test` measured it, and the rate that was `chosen` for the training."""
    figure, axis = plt.subplots(figsize=(7, 3))
    axis.plot(table.rate, table.loss, ".", color=BLUE, alpha=0.5, label="one batch")
    axis.plot(table.rate, table.smooth, color=BLUE, label="smoothed")
    axis.axvline(chosen, color="black", linestyle="--", label="chosen")
    top = 1.1 * max(table.smooth.iloc[0], table.loss.iloc[: len(table) // 2].max())
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss", ylim=(0, top))
    axis.legend(frameon=False)
    show(figure, alt, small=True)


def show_disagreement(data: CTData, rows, models: dict[str, np.ndarray], labels, alt: str, few: int = 6) -> None:
    """Show up to `few` slices that only the second of two models got right, then as many that only the first did.

    Args:
        data: slices; rows: those of `labels`, (N,).
        models: logits of both, {title: float (N,)}.
        labels: 0 or 1, (N,).
        alt: what the picture shows.
    """
    labels = np.asarray(labels).astype(int)
    first, second = ((np.asarray(logits) > 0) == labels for logits in models.values())
    changed = np.concatenate([np.flatnonzero(second & ~first)[:few], np.flatnonzero(first & ~second)[:few]])
    names = list(models)
    titles = [f"{CLASSES[labels[i]]}\n{names[int(second[i])]} is right" for i in changed]
    places = np.asarray(rows)[changed]
    outlines = None if data.lesions is None else data.lesions[places]
    grid(data.images[places], titles, outlines=outlines, alt=alt, small=True)


def show_twins(data: CTData, pairs: pd.DataFrame, alt: str, few: int = 6) -> None:
    """Show the most similar pairs of an audit: held-out slices above, and below each its near-copy in training."""
    pairs = pairs[:few]
    titles = [f"held out\nsimilarity {each:.3f}" for each in pairs.similarity] + ["in training"] * len(pairs)
    grid(data.images[[*pairs.slice, *pairs.twin]], titles, columns=max(len(pairs), 1), alt=alt)
