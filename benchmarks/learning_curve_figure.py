"""The figure of accuracy by the number of real training slices, from what `learning_curve.py` recorded."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from covid_utils.evaluation import mean_over_seeds
from covid_utils.plotting import BLUE, RED, styled

CURVE = {  # what `benchmarks/learning_curve.py` trains, and how it is drawn
    "scratch": ("ResNet-18 from scratch", BLUE, "o"),
    "transfer": ("ResNet-18, bundled weights", RED, "s"),
    "lite0 scratch": ("EfficientNet-Lite0 from scratch", "#56B4E9", "v"),
    "imagenet": ("EfficientNet-Lite0, ImageNet weights", "#E69F00", "D"),
    "grey histogram": ("grey histogram, no network", "grey", "^"),
}


def learning_curve(rows: list[dict], score: str = "accuracy", longer: bool = False) -> pd.DataFrame:
    """Recorded runs of `benchmarks/learning_curve.py` as shares: rows slices and seed, columns models.

    Runs of the common, shortest budget (no epochs: no network); with `longer` the longest of those that had more.
    """
    table = pd.DataFrame(rows).sort_values("epochs")
    table["score"] = table.test.map(lambda test: test[score]["value"])
    shortest = table.slices.map(table[table.epochs > 0].groupby("slices").epochs.min())
    table = table[(table.epochs > shortest) == longer]
    return table.groupby(["slices", "seed", "model"]).score.last().unstack("model")


def paired_gain(table: pd.DataFrame, model: str, against: str) -> dict[int, dict[str, float]]:
    """For each number of slices: mean difference of two models over seeds, with its 95 % interval (Student's t)."""
    gains = {}
    table = table.reindex(columns=[model, against])  # nothing to pair where one was not measured
    for slices, change in (table[model] - table[against]).dropna().groupby("slices"):
        gains[slices] = mean_over_seeds(change)
    return gains


@styled
def draw_learning_curve(rows: list[dict]) -> Figure:
    """Accuracy by the number of training slices, each seed a dot, and what transfer gains, paired over seeds.

    Filled: all networks train equally long; hollow: longer (see `learning_curve`).
    """
    equal, longer = 100 * learning_curve(rows), 100 * learning_curve(rows, longer=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4))
    for model in [name for name in CURVE if name in equal]:
        (title, colour, marker), each = CURVE[model], equal[model].dropna()
        slices = each.index.get_level_values("slices")
        left.plot(slices, each, marker, color=colour, alpha=0.25, markersize=4)
        left.plot(each.groupby("slices").mean(), color=colour, marker=marker, label=title)
    for model in [name for name in ("scratch", "transfer") if name in longer]:
        title, colour, marker = CURVE[model]
        left.plot(
            longer[model].groupby("slices").mean(), marker, color=colour, fillstyle="none", markersize=9,
            label=f"{title}, trained longer",
        )  # fmt: skip
    left.set(xlabel="training slices", ylabel="test accuracy, %")
    figure.legend(*left.get_legend_handles_labels(), fontsize=9, loc="lower center", ncols=3, frameon=False)
    places = (("transfer", equal, 0.94, "full"), ("transfer", longer, 1.0, "none"), ("imagenet", equal, 1.06, "full"))
    for model, found, shift, fill in places:
        (_, colour, marker) = CURVE[model]
        for slices, gain in paired_gain(found, model, "scratch").items():
            right.plot((shift * slices,) * 2, (gain["low"], gain["high"]), color=colour, linewidth=2)
            right.plot(shift * slices, gain["value"], marker, color=colour, fillstyle=fill, markersize=7)
    right.axhline(0, color="grey", linestyle=":")
    right.set(xlabel="training slices", ylabel="minus ResNet-18 from scratch, points")
    right.set_ylim(min(right.get_ylim()[0], -1))  # the line at zero off the axis
    for axis in (left, right):
        axis.set_xscale("log")
        axis.margins(x=0.12)
        counts = equal.index.unique("slices")
        axis.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    figure.tight_layout(rect=(0, 0.12, 1, 1))  # the legend hides no mark
    return figure
