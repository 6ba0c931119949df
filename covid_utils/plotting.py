"""Figures that all notebooks share: slices, live curves and confusion matrices."""

from __future__ import annotations

import io
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, display
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay
from tqdm import tqdm

from .core.progress import InPlace
from .io.folders import CLASSES
from .training import best_epoch

# Okabe and Ito's palette: told apart by colour-blind readers too, https://jfly.uni-koeln.de/color/
BLUE, RED = "#0072B2", "#D55E00"
LESION, OTHER_FINDING = "#00E5FF", "#F0E442"

# `@styled` on a function that draws: inside it only, so that a reader's own figures stay as they are
STYLE = {"figure.dpi": 100, "font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "text.usetex": False}
styled = plt.rc_context(STYLE)


@styled
def show(figure: Figure, alt: str, photo: bool = False, small: bool = False) -> None:
    """Display a figure once, with an alternative text, and close it.

    `photo`: as JPEG, a quarter of a PNG's size for CT slices; `small`: half of that again.
    """
    plt.close(figure)
    if photo:
        display(Image(compact(figure, photo, small), format="jpeg", alt=alt))
    else:
        display(figure, metadata={"image/png": {"alt": alt}})


@styled
def compact(figure: Figure, photo: bool, small: bool = True) -> bytes:
    """The bytes of a figure's picture: JPEG for photos, of lower quality if `small`, else PNG."""
    buffer = io.BytesIO()
    look = {"format": "jpeg", "pil_kwargs": {"quality": 50 if small else 80}} if photo else {"format": "png"}
    figure.savefig(buffer, bbox_inches="tight", dpi=100, **look)
    return buffer.getvalue()


@styled
def grid(images, titles, columns=6, outlines=None, alt="A grid of CT slices.", width=1.9, colours=None) -> None:
    """Show grey slices side by side.

    Args:
        images: uint8 (N, H, W), with N titles; nothing is shown if there is none.
        columns: slices in a row, each `width` inches wide.
        outlines: bool (N, H, W), drawn as a line, or None.
        colours: of these lines, N names; by default LESION.
        alt: the alternative text for a reader who can't see it.
    """
    if not len(images):
        return
    rows, lines = -(-len(images) // columns), 1 + max(title.count("\n") for title in titles)
    height = max(1.3 * width, width + 0.15 + 0.19 * lines)  # inches of a row: long titles touch no picture above
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image, title) in enumerate(zip(axes.flat, images, titles, strict=False)):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, fontsize=10)
        if outlines is not None:
            outline(axis, outlines[index], colours[index] if colours else LESION)
    figure.tight_layout()
    show(figure, alt, photo=True)


def outline(axis, mask, colour=LESION) -> None:
    """Draw the border of a mask, bool (H, W), if it is not empty."""
    if np.any(np.asarray(mask)):
        axis.contour(np.asarray(mask, float), levels=[0.5], colors=[colour], linewidths=1.3)


class LiveCurves:
    """Loss and accuracy curves that grow in place after every epoch and leave one figure behind.

    Live in JupyterLab; a saved notebook holds the last state only. Call `update(history)` after each epoch; of epochs
    shorter than a second not every one is drawn.
    """

    def __init__(self, epochs: int, title: str = ""):
        self.epochs, self.title, self.place, self.drawn = epochs, title, InPlace(), -math.inf

    def update(self, history: pd.DataFrame | list[dict]) -> None:
        """Draw the history so far, a row per epoch."""
        if len(history) < self.epochs and time.monotonic() < self.drawn + 1:
            return
        history = pd.DataFrame(history)
        alt = f"Curves of loss and accuracy over {len(history)} epochs, training and validation."
        self.place.draw(draw_curves(history, self.epochs, self.title), metadata={"image/png": {"alt": alt}})
        self.drawn = time.monotonic()


@styled
def draw_curves(history: pd.DataFrame, epochs: int, title: str = "") -> Figure:
    """A figure with the loss (left) and the accuracy (right) of training and validation by epoch."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    plt.close(figure)
    for axis, score in zip(axes, ("loss", "accuracy"), strict=True):
        for part, name, colour, style in (("train", "training", BLUE, "o--"), ("val", "validation", RED, "s-")):
            axis.plot(history.epoch, history[f"{part}_{score}"], style, color=colour, label=name, markersize=4)
        axis.set(xlabel="epoch", ylabel=score, xlim=(0.5, epochs + 0.5))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(top=1.01)
    best = best_epoch(history)
    accuracy = history.set_index("epoch").val_accuracy[best]
    axes[1].plot(best, accuracy, "*", color=RED, markersize=15, label=f"best: epoch {best}, {accuracy:.1%}")
    axes[1].legend(loc="best", fontsize=9)
    seconds = history.seconds.mean()
    left = epochs - len(history)
    text = f"{title}  epoch {len(history)} of {epochs}, {seconds:.1f} s each"
    text += f", {tqdm.format_interval(round(seconds * left))} left" if left else ""
    figure.suptitle(text.strip(), fontsize=11)
    figure.tight_layout()
    return figure


def draw_counts(axis, counts, fontsize: int) -> None:
    """Draw a confusion matrix, int (2, 2), rows the true class, columns the predicted one.

    Colours are shares of each row, from 0 to 1, so that matrices can be compared.
    """
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    matrix = ConfusionMatrixDisplay(shares, display_labels=CLASSES)
    look = {"cmap": "Blues", "colorbar": False, "im_kw": {"vmin": 0, "vmax": 1}, "text_kw": {"fontsize": fontsize}}
    matrix.plot(ax=axis, **look)
    for text, count, share in zip(matrix.text_.flat, counts.flat, shares.flat, strict=True):
        text.set_text(f"{count}\n{share:.0%}")
    axis.set(xlabel="predicted", ylabel="true")


@styled
def show_confusion(confusions: dict[str, list], alt: str) -> None:
    """Show confusion matrices side by side: {title: counts (2, 2)}, rows the true class, columns the predicted one."""
    figure, axes = plt.subplots(1, len(confusions), figsize=(3.8 * len(confusions), 3.4), squeeze=False)
    for axis, (title, counts) in zip(axes.flat, confusions.items(), strict=True):
        draw_counts(axis, counts, fontsize=16)
        axis.set_title(title)
        axis.set_yticklabels(CLASSES, rotation=90, va="center")
    figure.tight_layout()
    show(figure, alt)
