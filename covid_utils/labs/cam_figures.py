"""Figures of kernels and heat maps, their scores and their sanity checks."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from ..explain import evidence
from ..models import BACKBONES, Net
from ..plotting import BLUE, RED, outline, show, styled

# Okabe and Ito's colours, in an order that also differs in brightness
COLOURS = (BLUE, RED, "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
AGAIN = {"chosen map": 2, "random": 3, "lung mask": 4}  # maps that come up in several figures, and look alike in them


def first_convolution(model: Net) -> torch.nn.Conv2d:
    """The layer that sees the slice itself."""
    return model.net.get_submodule(BACKBONES[model.backbone].first_convolution)


def first_kernels(model: Net) -> np.ndarray:
    """The first convolution's kernels as colour pictures, float32 (count, h, w, 3), each scaled to 0…1 by itself."""
    kernels = first_convolution(model).weight.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    low, high = kernels.min((1, 2, 3), keepdims=True), kernels.max((1, 2, 3), keepdims=True)
    return (kernels - low) / np.maximum(high - low, 1e-8)


def neighbour_correlation(model: Net) -> float:
    """How far neighbouring numbers of the first layer's kernels resemble each other: their correlation, −1 to 1."""
    kernels = first_convolution(model).weight.detach().float().cpu().numpy()
    ones = np.concatenate([kernels[..., 1:].ravel(), kernels[..., 1:, :].ravel()])
    others = np.concatenate([kernels[..., :-1].ravel(), kernels[..., :-1, :].ravel()])
    return float(np.corrcoef(ones, others)[0, 1])


@styled
def show_kernels(kernels: dict[str, np.ndarray]) -> None:
    """Show the first layer's kernels of each model: {title: float (count, height, width, 3)} in 0…1."""
    figure, axes = plt.subplots(1, len(kernels), figsize=(4.8 * len(kernels), 5), squeeze=False)
    for axis, (title, pictures) in zip(axes.flat, kernels.items(), strict=True):
        count, height, width, _ = pictures.shape
        side = int(np.ceil(np.sqrt(count)))
        canvas = np.ones((side * (height + 1), side * (width + 1), 3))
        for index, picture in enumerate(pictures):
            row, column = divmod(index, side)
            canvas[row * (height + 1) :][:height, column * (width + 1) :][:, :width] = picture
        axis.imshow(canvas)
        axis.set_title(title)
        axis.axis("off")
    figure.tight_layout()
    show(figure, f"The kernels of the first layer of: {', '.join(kernels)}.", small=True)


def overlay(axis, image, heat=None, lesion=None, opacity: float = 0.55, title: str = "", cells: int = 0):
    """One grey slice, with a heat map in 0…1 over it (a map of zeros says so) and the lesion outlined.

    `cells`: draw a grid of so many cells each way. Returns the drawn map, or None.
    """
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    drawn = None if heat is None else axis.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=opacity)
    if heat is not None and not heat.any():
        axis.text(0.5, 0.04, "empty map", color="white", fontsize=10, ha="center", transform=axis.transAxes)
    for border in np.linspace(0, len(image), cells + 1)[1:-1] - 0.5 if cells else ():
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
    images, rows: list[str], maps: dict[str, np.ndarray], lesions=None, alt: str = "", cells: dict | None = None
) -> None:
    """Show slices in rows, with a column of heat maps per method and model beside each.

    Args:
        images: grey slices, uint8 (N, H, W).
        rows: N texts: what each slice is.
        maps: {column title: float (N, H, W) in 0…1}.
        lesions: bool (N, H, W), outlined in cyan, or None.
        alt: what the picture shows.
        cells: {column title: cells each way}, drawn as a grid.
    """
    columns = len(maps) + 1
    figure, axes = plt.subplots(len(images), columns, figsize=(1.85 * columns, 1.9 * len(images) + 0.6), squeeze=False)
    for row, (image, text) in enumerate(zip(images, rows, strict=True)):
        pictures = {"slice": None} | {title: each[row] for title, each in maps.items()}
        for axis, (title, heat) in zip(axes[row], pictures.items(), strict=True):
            lesion = None if lesions is None else lesions[row]
            grid = (cells or {}).get(title, 0)
            drawn = overlay(axis, image, heat, lesion, title=title if row == 0 else "", cells=grid)
        axes[row][0].set_ylabel(text, fontsize=9)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.3, 0.025, 0.4, 0.012)), orientation="horizontal")
    bar.set_ticks([0, 1], labels=["least in this map", "most in this map"])
    show(figure, alt, photo=True, small=True)


@styled
def panels(
    image, maps: dict[str, np.ndarray], lesion=None, opacity: float = 0.55, title: str = "slice", cells=None
) -> Figure:
    """A slice and its heat maps in a row, as a figure; `cells` draws a grid of so many each way on each map."""
    figure, axes = plt.subplots(1, 1 + len(maps), figsize=(3.1 * (1 + len(maps)), 3.6), squeeze=False)
    plt.close(figure)
    overlay(axes[0][0], image, None, lesion, title=title)
    for axis, (name, heat), count in zip(axes[0][1:], maps.items(), cells or [0] * len(maps), strict=True):
        overlay(axis, image, heat, lesion, opacity, name, count)
    figure.tight_layout()
    return figure


@styled
def show_channels(
    image,
    activations,
    weights,
    raw,
    alt: str = "A slice, activation maps with their weights, and the sum of all: red for COVID, blue against.",
    count: int = 5,
) -> None:
    """Show how GradCAM adds up: the channels that add or take most, each with its weight, and the sum.

    Args:
        image: uint8 (H, W).
        activations: float (C, h, w); weights: float (C,); raw: float (h, w), their weighted sum.
    """
    activations, weights, raw = (np.asarray(each) for each in (activations, weights, raw))
    share = weights * activations.mean((1, 2))
    largest = np.argsort(-np.abs(share))[:count]
    figure, axes = plt.subplots(1, count + 2, figsize=(1.9 * (count + 2), 2.5))
    overlay(axes[0], image, title="slice")
    for axis, channel in zip(axes[1:], largest, strict=False):
        axis.imshow(activations[channel], cmap="viridis", vmin=0)
        axis.set_title(f"channel {channel}\n{weights[channel]:+.4f} ×", fontsize=10)
    top = np.abs(raw).max()
    axes[-1].imshow(raw, cmap="RdBu_r", vmin=-top, vmax=top)
    axes[-1].set_title(f"sum of all\n{len(weights)} channels", fontsize=10)
    for axis in axes[1:]:
        axis.axis("off")
    figure.tight_layout()
    show(figure, alt, photo=True, small=True)


@styled
def show_signed(
    images, rows: list[str], maps: dict[str, np.ndarray], lesions=None, alt: str = "", crop_fractions=()
) -> None:
    """Show signed evidence, (N, h, w) by row title, all on one scale: red for COVID, blue against it.

    `crop_fractions`: how much of the slice's width each map's network saw; all of it by default.
    """
    top = max(np.abs(each).max() for each in maps.values())
    columns, size = 1 + len(maps), images.shape[-1]
    figure, axes = plt.subplots(
        columns, len(images), figsize=(2.0 * len(images), 1.95 * columns + 0.8), squeeze=False, layout="constrained"
    )
    for column, image in enumerate(images):
        lesion = None if lesions is None else lesions[column]
        overlay(axes[0][column], image, None, lesion, title=rows[column])
        for axis, each, seen in zip(axes[1:, column], maps.values(), crop_fractions or [1.0] * len(maps), strict=True):
            overlay(axis, image, None, lesion)
            first, last = size * (1 - seen) / 2 - 0.5, size * (1 + seen) / 2 - 0.5
            drawn = axis.imshow(
                each[column], cmap="RdBu_r", vmin=-top, vmax=top, alpha=0.6, extent=(first, last, last, first)
            )
    for axis in axes.flat:
        axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    for axis, title in zip(axes[:, 0], ["slice", *maps], strict=True):
        axis.set_ylabel(title, fontsize=11)
    figure.colorbar(
        drawn, ax=axes, orientation="horizontal", shrink=0.5, aspect=40, label="logits: − against, + for COVID"
    )
    show(figure, alt, photo=True, small=True)


def show_evidence(models: dict[str, Net], images, rows: list[str], lesions=None, alt: str = "") -> None:
    """Show the signed evidence of each model for slices, uint8 (N, H, W) with N titles, on one scale in logits."""
    maps = {name: evidence(model, images) for name, model in models.items()}
    seen = [model.preprocess.crop_fraction for model in models.values()]
    show_signed(images.numpy(), rows, maps, lesions, alt, crop_fractions=seen)


@styled
def show_matrix(image, maps: dict[str, dict[str, np.ndarray]], lesion=None, alt: str = "") -> None:
    """Show heat maps of one slice: {row title: {column title: (H, W) in 0…1}}; a missing one stays empty."""
    names = list(dict.fromkeys(name for row in maps.values() for name in row))
    figure, axes = plt.subplots(len(maps), len(names), figsize=(1.9 * len(names), 2.05 * len(maps)), squeeze=False)
    for row, (title, line) in enumerate(maps.items()):
        for column, name in enumerate(names):
            axis = axes[row][column]
            if name in line:
                overlay(axis, image, line[name], lesion, title=name if row == 0 else "")
            else:
                axis.axis("off")
        axes[row][0].set_ylabel(title, fontsize=11)
    figure.tight_layout()
    show(figure, alt, photo=True, small=True)


@styled
def show_scores(scores: dict[str, dict[str, dict[str, dict]]], alt: str) -> None:
    """Show scores with intervals: {score: {map: {network or "": {"value", "low", "high"}}}}, a panel per score.

    Networks are called "scratch" or "transfer"; with ", not trained" behind it a mark is hollow. No scores, no figure.
    """
    if not scores:
        return
    names = list(next(iter(scores.values())))
    figure, axes = plt.subplots(
        1, len(scores), figsize=(max(2.5 * len(scores), 8), 0.42 * len(names) + 1.4), sharey=True, squeeze=False
    )
    styles = {"scratch": (BLUE, "o", -0.2), "transfer": (RED, "s", 0.0)}
    for axis, (title, rows) in zip(axes[0], scores.items(), strict=True):
        for place, name in enumerate(names):
            for network, score in rows[name].items():
                colour, marker, offset = styles.get(network.split(",")[0], ("#555555", "D", 0.0))
                fresh = network.endswith("not trained")
                place_y = place + offset + 0.1 * fresh
                axis.plot((score["low"], score["high"]), (place_y,) * 2, color=colour, linewidth=1 if fresh else 2)
                label = network or "no network"
                label = None if label in axis.get_legend_handles_labels()[1] else label  # once in the legend
                fill = "white" if fresh else colour
                axis.plot(
                    score["value"], place_y, marker, color=colour, markerfacecolor=fill, markersize=6, label=label
                )
        axis.set(title=title, xlim=(0, None), ylim=(len(names) - 0.5, -0.5))
        axis.title.set_fontsize(11)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(names)), names)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    show(figure, alt, small=True)


@styled
def show_curves(
    curves: dict[str, dict[str, Sequence[float]]], x: Sequence, xlabel: str, ylabel: str, alt: str, ylim=(-0.03, 1.03)
) -> None:
    """Show curves in panels side by side: {panel title: {name: values (len(x),)}}; x may be numbers or names."""
    figure, axes = plt.subplots(1, len(curves), figsize=(4.6 * len(curves), 3.6), sharey=True, squeeze=False)
    for axis, (title, lines) in zip(axes[0], curves.items(), strict=True):
        for place, (name, values) in enumerate(lines.items()):
            look = AGAIN.get(name, place)
            axis.plot(x, values, f"{MARKERS[look]}-", color=COLOURS[look], label=name, markersize=5)
        axis.set(title=title, xlabel=xlabel, ylim=ylim)
        axis.grid(alpha=0.3)
        if isinstance(x[0], str):
            axis.tick_params(axis="x", rotation=40)
    axes[0][0].set_ylabel(ylabel)
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=10, frameon=False)
    figure.tight_layout()
    show(figure, alt, small=True)


def show_removal(curves: dict[str, dict[str, np.ndarray]], shares: Sequence[float], alt: str, done="removed") -> None:
    """Show how the probability changes as pixels are removed: {panel title: {map: float (len(shares), N)}}."""
    means = {title: {name: curve.mean(1) for name, curve in each.items()} for title, each in curves.items()}
    show_curves(means, shares, f"share of pixels {done}", "probability of the decision", alt)


def show_growth(growth: dict[str, dict[str, Sequence[float]]], sizes: Sequence[float]) -> None:
    """Show the probability as patches grow, as `cam_checks.grow_patches` returns it; nothing if there is none."""
    if growth:
        xlabel = "half a patch's length, in halves\nof the chest's width"
        show_curves(growth, sizes, xlabel, "mean p(COVID)", "Probability as patches grow.")


def show_agreement(agreement: dict[str, dict[str, Sequence[float]]], stages: Sequence[str]) -> None:
    """Show how far maps agree with the intact network's, first intact, then with each of `stages` random as well."""
    alt = "Agreement of maps with the intact network's, as stages become random from the head down."
    names = ["intact", *stages]
    show_curves(agreement, names, "random down to", "agreement with the intact map", alt, ylim=(-0.5, 1.05))


def with_chances(chosen: dict[str, int], logits: dict[str, torch.Tensor]) -> list[str]:
    """A text for each chosen slice, {name: position}: its name, and each model's probability of COVID."""
    texts = []
    for name, i in chosen.items():
        chances = [f"{model} {torch.sigmoid(each[i]):.2f}" for model, each in logits.items()]
        texts.append("\n".join([name, "p(COVID)", *chances]))
    return texts
