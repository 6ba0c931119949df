"""Figures: slices, live curves, confusion matrices, kernels, heat maps."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
from IPython.display import Image, display
from matplotlib.figure import Figure

from .training import best_epoch

# Okabe and Ito's palette: told apart by colour-blind readers too, https://jfly.uni-koeln.de/color/
BLUE, RED = "#0072B2", "#D55E00"
CLASSES = ("non-COVID", "COVID")
LESION = "#00E5FF"

plt.rcParams.update({"figure.dpi": 100, "font.size": 11, "axes.spines.top": False, "axes.spines.right": False})


def source(*functions: Callable) -> None:
    """Show the source of helper functions as it runs, so that what is read is what runs."""
    for function in functions:
        code = inspect.getsource(function).rstrip()
        # Markdown, as IPython's Code brings a style sheet of its own each time: ten times the size
        display({"text/markdown": f"```python\n{code}\n```", "text/plain": code}, raw=True)


def show(figure: Figure, alt: str, photo: bool = False, small: bool = False) -> None:
    """Display a figure once, with a text for those who can't see it, and forget it.

    `photo`: as JPEG, a quarter of the size of a PNG for pictures full of grey values; `small`: coarser still, half
    of that (JPEG), or with 64 colours, a third (PNG), for a notebook of many figures.
    """
    plt.close(figure)
    if small:
        display(Image(compact(figure, photo), format="jpeg" if photo else "png", alt=alt))
        return
    if photo:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="jpeg", bbox_inches="tight", pil_kwargs={"quality": 80})
        display(Image(buffer.getvalue(), format="jpeg", alt=alt))
    else:
        display(figure, metadata={"image/png": {"alt": alt}})


def compact(figure: Figure, photo: bool, dpi: int = 76) -> bytes:
    """The bytes of a figure's picture, small: JPEG, or PNG with 64 colours."""
    raw, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", bbox_inches="tight", dpi=dpi if photo else 100)
    picture = PIL.Image.open(raw).convert("RGB")
    if photo:
        picture.save(buffer, format="jpeg", quality=54, optimize=True)
    else:
        picture.quantize(64, dither=PIL.Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def grid(
    images,
    titles,
    columns: int = 6,
    outlines=None,
    alt: str = "A grid of CT slices.",
    width: float = 1.9,
    small: bool = False,
) -> None:
    """Show grey slices side by side.

    Args:
        images: uint8 (N, H, W); nothing is shown if there is none.
        titles: N texts.
        columns: slices in a row.
        outlines: bool (N, H, W), drawn as a cyan line, or None.
        alt: what the picture shows, for those who can't see it.
        width: of one slice, in inches.
        small: fewer bytes, as for `show`.
    """
    if not len(images):
        return
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, 1.3 * width * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image, title) in enumerate(zip(axes.flat, images, titles, strict=False)):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, fontsize=10)
        if outlines is not None:
            outline(axis, outlines[index])
    figure.tight_layout()
    show(figure, alt, photo=True, small=small)


def outline(axis, mask) -> None:
    """Draw the border of a mask, bool (H, W), if it is not empty."""
    if np.any(np.asarray(mask)):
        axis.contour(np.asarray(mask, float), levels=[0.5], colors=[LESION], linewidths=1.3)


class LiveCurves:
    """Loss and accuracy curves that grow in place after every epoch and leave one figure behind.

    `handle.update` redraws one output, live in JupyterLab; a saved notebook holds the last state only.
    Use it as `fit(…, on_epoch=LiveCurves(epochs))`.
    """

    def __init__(self, epochs: int, title: str = ""):
        self.epochs, self.title, self.handle = epochs, title, None

    def __call__(self, history: pd.DataFrame) -> None:
        """Draw the history so far, a row per epoch."""
        figure = draw_curves(history, self.epochs, self.title)
        alt = f"Curves of loss and accuracy over {len(history)} epochs, training and validation."
        metadata = {"image/png": {"alt": alt}}
        if self.handle is None:
            self.handle = display(figure, display_id=True, metadata=metadata)
        else:
            self.handle.update(figure, metadata=metadata)


def draw_curves(history: pd.DataFrame, epochs: int, title: str = "") -> Figure:
    """A figure with the loss (left) and the accuracy (right) of training and validation by epoch."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    plt.close(figure)
    for axis, score in zip(axes, ("loss", "accuracy"), strict=True):
        for part, colour, style in (("train", BLUE, "o--"), ("val", RED, "s-")):
            name = {"train": "training", "val": "validation"}[part]
            axis.plot(history.epoch, history[f"{part}_{score}"], style, color=colour, label=name, markersize=4)
        axis.set(xlabel="epoch", ylabel=score, xlim=(0.5, epochs + 0.5))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(top=1.01)
    best = best_epoch(history)
    accuracy = history.set_index("epoch").val_accuracy[best]
    axes[1].plot(best, accuracy, "*", color=RED, markersize=15, label=f"best: epoch {best}, {accuracy:.1%}")
    axes[1].legend(loc="lower right", fontsize=9)
    seconds = history.seconds.mean()
    left = round(seconds * (epochs - len(history)))
    time_left = f", {left // 60}:{left % 60:02d} left" if left else ""
    figure.suptitle(f"{title}  epoch {len(history)} of {epochs}, {seconds:.1f} s each{time_left}".strip(), fontsize=11)
    figure.tight_layout()
    return figure


def draw_counts(axis, counts: np.ndarray, fontsize: int) -> None:
    """Draw a confusion matrix, int (2, 2), rows the truth, columns the decision."""
    axis.imshow(counts, cmap="Blues", vmin=0, vmax=counts.sum(1).max())
    for (row, column), count in np.ndenumerate(counts):
        dark = count > counts.sum(1).max() / 2
        axis.text(column, row, count, ha="center", va="center", fontsize=fontsize, color="white" if dark else "black")
    axis.set(xticks=(0, 1), yticks=(0, 1), xticklabels=CLASSES, yticklabels=CLASSES, xlabel="decision")


def show_confusion(confusions: dict[str, list], alt: str) -> None:
    """Show confusion matrices side by side: {title: counts (2, 2)}, rows the truth, columns the decision."""
    figure, axes = plt.subplots(1, len(confusions), figsize=(3.8 * len(confusions), 3.4), squeeze=False)
    for axis, (title, counts) in zip(axes.flat, confusions.items(), strict=True):
        draw_counts(axis, np.asarray(counts), fontsize=16)
        axis.set_title(title)
        axis.set_yticklabels(CLASSES, rotation=90, va="center")
        axis.set_ylabel("truth")
    figure.tight_layout()
    show(figure, alt)


def show_kernels(kernels: dict[str, np.ndarray]) -> None:
    """Show the first layer's kernels of each model: {title: float (64, 7, 7, 3)} in 0…1."""
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
    show(figure, f"The {count} kernels of the first layer of: {', '.join(kernels)}.", small=True)


def overlay(axis, image, heat=None, lesion=None, opacity: float = 0.55, title: str = ""):
    """One grey slice, with a heat map in 0…1 over it (a map of zeros says so) and the lesion outlined.

    Returns the drawn map, or None.
    """
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    drawn = None if heat is None else axis.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=opacity)
    if heat is not None and not heat.any():
        axis.text(0.5, 0.04, "empty map", color="white", fontsize=10, ha="center", transform=axis.transAxes)
    if lesion is not None:
        outline(axis, lesion)
    axis.set(xticks=(), yticks=())
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=11)
    return drawn


def show_cams(images, rows: list[str], maps: dict[str, np.ndarray], lesions=None, alt: str = "") -> None:
    """Show slices in rows, with a column of heat maps per method and model beside each.

    Args:
        images: grey slices, uint8 (N, H, W).
        rows: N texts: what each slice is.
        maps: {column title: float (N, H, W) in 0…1}.
        lesions: bool (N, H, W), outlined in cyan, or None.
        alt: what the picture shows.
    """
    columns = len(maps) + 1
    figure, axes = plt.subplots(len(images), columns, figsize=(2.1 * columns, 2.15 * len(images) + 0.6), squeeze=False)
    for row, (image, text) in enumerate(zip(images, rows, strict=True)):
        pictures = {"slice": None} | {title: each[row] for title, each in maps.items()}
        for axis, (title, heat) in zip(axes[row], pictures.items(), strict=True):
            lesion = None if lesions is None else lesions[row]
            drawn = overlay(axis, image, heat, lesion, title=title if row == 0 else "")
        axes[row][0].set_ylabel(text, fontsize=10)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.3, 0.025, 0.4, 0.012)), orientation="horizontal")
    bar.set_ticks([0, 1], labels=["least in this map", "most in this map"])
    show(figure, alt, photo=True, small=True)


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
