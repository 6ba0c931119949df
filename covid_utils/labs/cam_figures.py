"""Figures of heat maps and of their scores."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ..plotting import BLUE, LESION, show, styled


def overlay(axis, image, heat=None, lesion=None, opacity: float = 0.5, title: str = "", colour: str = LESION):
    """One slice, a heat map in 0…1 over it (a map of zeros says so), and the border of `lesion` in `colour`.

    Returns the drawn map, or None.
    """
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    drawn = None if heat is None else axis.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=opacity)
    if heat is not None and not heat.any():
        axis.text(0.5, 0.04, "no evidence: empty map", color="white", ha="center", transform=axis.transAxes)
    if lesion is not None and np.any(np.asarray(lesion)):
        border = axis.contour(np.asarray(lesion, float), levels=[0.5], colors=[colour], linewidths=1.6)
        border.set_path_effects([withStroke(linewidth=3, foreground="black")])
    axis.set(xticks=(), yticks=())
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=13)
    return drawn


@styled
def show_cams(
    images,
    rows: list[str],
    maps: dict[str, Sequence],
    lesions=None,
    alt: str = "",
    colours: Sequence[str] | None = None,
) -> None:
    """Show slices in rows, each followed by a column of heat maps per method or model.

    Args:
        images: uint8 (N, H, W), with N texts in `rows`.
        maps: {column title: float (N, H, W) in 0…1}.
        lesions: bool (N, H, W), outlined in N `colours`, by default LESION; or None.
        alt: what the picture shows.
    """
    columns = len(maps) + 1
    figure, axes = plt.subplots(
        len(images), columns, figsize=(2.7 * columns, 2.8 * len(images) + 0.6), squeeze=False, layout="constrained"
    )
    for row, (image, text) in enumerate(zip(images, rows, strict=True)):
        lesion = None if lesions is None else lesions[row]
        colour = colours[row] if colours else LESION
        axes[row][0].set_ylabel(text, fontsize=13)
        for axis, (title, heat) in zip(axes[row], [("slice", None), *maps.items()], strict=True):
            heat = None if heat is None else heat[row]
            drawn = overlay(axis, image, heat, lesion, title="" if row else title, colour=colour)
    bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.4, aspect=40, pad=0.01)
    bar.set_ticks([0, 1], labels=["least in this map", "most in this map"], fontsize=13)
    show(figure, alt, photo=True, small=True)


@styled
def panels(image, maps: dict[str, np.ndarray], lesion=None, opacity: float = 0.5, title: str = "slice") -> Figure:
    """A slice and its heat maps, {title: float (H, W) in 0…1}, in a row, as a figure."""
    figure, axes = plt.subplots(1, 1 + len(maps), figsize=(3 * (1 + len(maps)), 3.5), squeeze=False)
    plt.close(figure)
    for axis, (name, heat) in zip(axes[0], [(title, None), *maps.items()], strict=True):
        overlay(axis, image, heat, lesion, opacity, name)
    figure.tight_layout()
    return figure


@styled
def show_scores(scores: dict[str, dict[str, dict]], baseline: str, alt: str) -> None:
    """Show scores with their intervals, a panel per score and a row per map, and a line at the one to beat.

    Args:
        scores: {panel title: {name of the map: {"value", "low", "high"}}}, each panel with the same names.
        baseline: the name whose score is drawn as a line through its panel.
    """
    names = list(next(iter(scores.values())))
    figure, axes = plt.subplots(
        1, len(scores), figsize=(4.2 * len(scores) + 2, 0.36 * len(names) + 1.3), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, (title, rows) in zip(axes[0], scores.items(), strict=True):
        for place, score in enumerate(rows.values()):
            axis.plot((score["low"], score["high"]), (place, place), color=BLUE, linewidth=2)
            axis.plot(score["value"], place, "o", color=BLUE)
        line = axis.axvline(rows[baseline]["value"], color="black", linestyle="--", linewidth=1.5)
        axis.set(xlim=(0, None), ylim=(len(names) - 0.5, -0.5), title=title)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(names)), names)
    figure.legend([line], [f"{baseline}: the bar to beat"], loc="outside lower right", frameon=False)
    show(figure, alt)
