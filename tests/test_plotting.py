"""Figures of all notebooks, as they are drawn."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from matplotlib.colors import to_hex

from covid_utils import plotting

HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "seconds": 1.0, "train_loss": 0.5, "val_loss": 0.6, "train_accuracy": 0.8})
HISTORY["val_accuracy"] = [0.5, 0.7, 0.6]


def test_live_curves_are_drawn_in_one_place_at_most_once_a_second_and_at_the_end(monkeypatch):
    clock, drawn, curves = [0.0], [], plotting.LiveCurves(4, "frozen")
    monkeypatch.setattr(plotting, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(curves.place, "draw", lambda figure, metadata: drawn.append((figure, metadata)))
    history = pd.concat([HISTORY, HISTORY[2:].assign(epoch=4)]).to_dict("records")
    for clock[0], epochs in ((0.0, 1), (0.9, 2), (1.0, 3), (1.5, 4)):
        curves.update(history[:epochs])
    alts = [f"Curves of loss and accuracy over {n} epochs, training and validation." for n in (1, 3, 4)]
    assert [metadata for _, metadata in drawn] == [{"image/png": {"alt": alt}} for alt in alts]
    assert [figure.get_suptitle()[:22] for figure, _ in drawn] == [f"frozen  epoch {n} of 4, " for n in (1, 3, 4)]


def test_curves_mark_the_best_epoch_and_the_time_left():
    figure = plotting.draw_curves(HISTORY, epochs=6)
    assert "3 left" in figure.get_suptitle().replace("0:03", "3")
    assert "best: epoch 2, 70.0%" in [text.get_text() for text in figure.axes[1].get_legend().get_texts()]


@pytest.mark.parametrize("small", [False, True])
def test_a_photo_is_shown_once_with_a_description(small, monkeypatch):
    displayed, (figure, axis) = [], plotting.plt.subplots()
    monkeypatch.setattr(plotting, "display", displayed.append)
    axis.imshow(np.random.default_rng(0).integers(0, 256, (64, 64)))
    plotting.show(figure, "Noise.", photo=True, small=small)
    (picture,) = displayed
    assert picture.format == "jpeg" and picture.alt == "Noise." and not plotting.plt.fignum_exists(figure.number)
    assert PIL.Image.open(io.BytesIO(picture.data)).format == "JPEG"


TRIANGLES = np.tri(32, dtype=bool)[None].repeat(2, 0)


@pytest.mark.parametrize(
    ("given", "colours"),
    [
        ({}, []),
        ({"outlines": np.zeros((2, 32, 32), bool)}, []),
        ({"outlines": TRIANGLES}, [plotting.LESION] * 2),
        ({"outlines": TRIANGLES, "colours": [plotting.LESION, "#F0E442"]}, [plotting.LESION, plotting.OTHER_FINDING]),
    ],
)
def test_a_grid_with_and_without_outlines(given, colours, monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "show", lambda figure, *_, **__: plotting.plt.close(figure) or shown.append(figure))
    plotting.grid(np.zeros((2, 32, 32), np.uint8), ["a", "b"], **given)
    plotting.grid(np.zeros((0, 32, 32), np.uint8), [])
    (figure,) = shown
    lines = [line for axis in figure.axes for line in axis.collections]
    assert [to_hex(line.get_edgecolor()[0]) for line in lines] == [colour.lower() for colour in colours]
    assert all(list(line.levels) == [0.5] and list(line.get_linewidths()) == [1.3] for line in lines)
