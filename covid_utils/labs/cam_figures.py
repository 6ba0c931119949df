"""Figures of kernels, of what a network sees in a picture, and of the scores of heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import nn
from torchvision.utils import make_grid

from ..explain import contributions
from ..models import BACKBONES, Net
from ..plotting import BLUE, RED, outline, show, styled

# Okabe and Ito's colours, in an order that also differs in brightness
COLOURS = (BLUE, RED, "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
AGAIN = {"chosen map": 2, "random": 3, "lung mask": 4}  # maps that come up in several figures, and look alike in them


def first_convolution(model: Net) -> nn.Conv2d:
    """The layer that sees the slice itself."""
    return model.net.get_submodule(BACKBONES[model.backbone].first_convolution)


@styled
def show_kernels(models: dict[str, Net]) -> None:
    """Show the first layer's kernels of each model, {title: network}, each scaled to 0…1 by itself."""
    figure, axes = plt.subplots(1, len(models), figsize=(4.8 * len(models), 5), squeeze=False)
    for axis, (title, model) in zip(axes.flat, models.items(), strict=True):
        kernels = first_convolution(model).weight.detach().float().cpu()
        look = {"padding": 1, "pad_value": 1, "normalize": True, "scale_each": True}
        axis.imshow(make_grid(kernels, nrow=math.ceil(len(kernels) ** 0.5), **look).permute(1, 2, 0).numpy())
        axis.set_title(title)
        axis.axis("off")
    figure.tight_layout()
    show(figure, f"The kernels of the first layer of: {', '.join(models)}.", small=True)


def overlay(axis, image, heat=None, lesion=None, opacity: float = 0.55, title: str = "", cells: int = 0):
    """One slice with a heat map in 0…1 over it (a map of zeros says so), the lesion outlined, and a grid of `cells`.

    Returns the drawn map, or None.
    """
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    drawn = None if heat is None else axis.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=opacity)
    if heat is not None and not heat.any():
        axis.text(0.5, 0.04, "empty map", color="white", fontsize=10, ha="center", transform=axis.transAxes)
    for border in np.linspace(0, len(image), cells + 1)[1:-1] - 0.5:
        axis.axhline(border, color="white", linewidth=0.5, alpha=0.7)
        axis.axvline(border, color="white", linewidth=0.5, alpha=0.7)
    if lesion is not None:
        outline(axis, lesion)
    axis.set(xticks=(), yticks=())
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=11)
    return drawn


@styled
def show_cams(
    images, rows: list[str], maps: dict[str, Sequence], lesions=None, alt: str = "", cells: dict | None = None
) -> None:
    """Show slices in rows, each followed by a column of heat maps per method or model.

    Args:
        images: uint8 (N, H, W), with N texts in `rows`.
        maps: {column title: float (N, H, W) in 0…1}, or a list with None where a map is missing.
        lesions: bool (N, H, W), outlined in cyan, or None.
        alt: what the picture shows.
        cells: {column title: locations of the feature map in each direction}, drawn as a grid.
    """
    columns = len(maps) + 1
    figure, axes = plt.subplots(len(images), columns, figsize=(1.85 * columns, 1.9 * len(images) + 0.6), squeeze=False)
    for row, (image, text) in enumerate(zip(images, rows, strict=True)):
        lesion = None if lesions is None else lesions[row]
        overlay(axes[row][0], image, None, lesion, title="" if row else "slice")
        axes[row][0].set_ylabel(text, fontsize=9)
        for axis, (title, heat) in zip(axes[row][1:], maps.items(), strict=True):
            if heat[row] is None:
                axis.axis("off")
                continue
            grid = (cells or {}).get(title, 0)
            drawn = overlay(axis, image, heat[row], lesion, title="" if row else title, cells=grid)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.3, 0.025, 0.4, 0.012)), orientation="horizontal")
    bar.set_ticks([0, 1], labels=["least in this map", "most in this map"])
    show(figure, alt, photo=True, small=True)


@styled
def panels(image, maps: dict[str, np.ndarray], lesion=None, opacity: float = 0.55, title: str = "slice") -> Figure:
    """A slice and its heat maps, {title: float (H, W) in 0…1}, in a row, as a figure."""
    figure, axes = plt.subplots(1, 1 + len(maps), figsize=(3.1 * (1 + len(maps)), 3.6), squeeze=False)
    plt.close(figure)
    overlay(axes[0][0], image, None, lesion, title=title)
    for axis, (name, heat) in zip(axes[0][1:], maps.items(), strict=True):
        overlay(axis, image, heat, lesion, opacity, name)
    figure.tight_layout()
    return figure


@styled
def show_evidence(models: dict[str, Net], images, rows: list[str], lesions=None, alt: str = "") -> None:
    """Show each model's class activation maps (CAM) in logits, all on one scale: red for COVID, blue against it.

    Args:
        models: {row title: network}; the map covers what its preprocessing leaves of the slice.
        images: uint8 (N, H, W), with N titles in `rows`.
        lesions: bool (N, H, W), outlined in cyan, or None.
    """
    maps = {name: contributions(model, images) for name, model in models.items()}
    top = max(np.abs(each).max() for each in maps.values())
    height, size = 1.95 * (1 + len(maps)) + 0.8, images.shape[-1]
    figure, axes = plt.subplots(
        1 + len(maps), len(images), figsize=(2.0 * len(images), height), squeeze=False, layout="constrained"
    )
    for column, image in enumerate(images):
        lesion = None if lesions is None else lesions[column]
        overlay(axes[0][column], image, None, lesion, title=rows[column])
        for axis, (name, model) in zip(axes[1:, column], models.items(), strict=True):
            overlay(axis, image, None, lesion)
            first = size * (1 - model.preprocess.crop_fraction) / 2 - 0.5
            extent = (first, size - 1 - first, size - 1 - first, first)
            drawn = axis.imshow(maps[name][column], "RdBu_r", vmin=-top, vmax=top, alpha=0.6, extent=extent)
            axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    for axis, title in zip(axes[:, 0], ["slice", *maps], strict=True):
        axis.set_ylabel(title, fontsize=11)
    label = "logits: − against, + for COVID"
    figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.5, aspect=40, label=label)
    show(figure, alt, photo=True, small=True)


@styled
def show_names(pictures: list[np.ndarray], names: list[dict[str, float]], alt: str) -> None:
    """Show pictures, and under each as bars what a network takes it for: {name: probability}, the likeliest first."""
    size = (3.6 * len(pictures), 4.4)
    figure, axes = plt.subplots(2, len(pictures), figsize=size, squeeze=False, height_ratios=(2.4, 1))
    for picture, found, (top, bottom) in zip(pictures, names, axes.T, strict=True):
        top.imshow(picture, cmap="gray")
        top.axis("off")
        bottom.barh(range(len(found)), list(found.values()), color=BLUE, alpha=0.35)
        for place, (name, chance) in enumerate(found.items()):
            bottom.text(0.02, place, f"{name}  {chance:.0%}", va="center", fontsize=10)
        bottom.set(xlim=(0, 1), ylim=(len(found) - 0.5, -0.5), yticks=(), xlabel="probability")
    figure.tight_layout()
    show(figure, alt, photo=True, small=True)


@styled
def show_scores(scores: dict[str, dict[str, dict[str, dict]]], alt: str) -> None:
    """Show scores with intervals: {score: {map: {network: {"value", "low", "high"}}}}, a panel per score.

    A network is "scratch", "transfer" or "" (none); with ", not trained" a mark is hollow. No scores, no figure.
    """
    if not scores:
        return
    names = list(next(iter(scores.values())))
    size = (max(2.5 * len(scores), 8), 0.42 * len(names) + 1.4)
    figure, axes = plt.subplots(1, len(scores), figsize=size, sharey=True, squeeze=False)
    styles = {"scratch": (BLUE, "o", -0.2), "transfer": (RED, "s", 0.0)}
    for axis, (title, rows) in zip(axes[0], scores.items(), strict=True):
        for place, name in enumerate(names):
            for network, score in rows[name].items():
                colour, marker, offset = styles.get(network.split(",")[0], ("#555555", "D", 0.0))
                fresh = network.endswith("not trained")
                y, fill = place + offset + 0.1 * fresh, "white" if fresh else colour
                axis.plot((score["low"], score["high"]), (y, y), color=colour, linewidth=1 if fresh else 2)
                axis.plot(score["value"], y, marker, color=colour, mfc=fill, label=network or "no network")
        axis.set(xlim=(0, None), ylim=(len(names) - 0.5, -0.5))
        axis.set_title(title, fontsize=11)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(names)), names)
    handles, labels = axes[0][0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.legend(once.values(), once, loc="lower center", ncols=len(once), frameon=False)
    show(figure, alt, small=True)


@styled
def show_curves(
    curves: dict[str, dict[str, Sequence[float]]], x: Sequence, xlabel: str, ylabel: str, alt: str, ylim=(-0.03, 1.03)
) -> None:
    """Show curves in panels side by side; x may be numbers or names.

    `curves`: {panel title: {name: float (len(x),) or (len(x), N), then the mean over N is drawn}}.
    """
    figure, axes = plt.subplots(1, len(curves), figsize=(4.6 * len(curves), 3.6), sharey=True, squeeze=False)
    for axis, (title, lines) in zip(axes[0], curves.items(), strict=True):
        for place, (name, values) in enumerate(lines.items()):
            look = AGAIN.get(name, place)
            values = np.reshape(values, (len(x), -1)).mean(1)
            axis.plot(x, values, f"{MARKERS[look]}-", color=COLOURS[look], label=name, markersize=5)
        axis.set(title=title, xlabel=xlabel, ylim=ylim)
        axis.grid(alpha=0.3)
        if isinstance(x[0], str):
            axis.tick_params(axis="x", rotation=40)
    axes[0][0].set_ylabel(ylabel)
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=10, frameon=False)
    figure.tight_layout()
    show(figure, alt, small=True)
