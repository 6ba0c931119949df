"""Figures of all notebooks, as they are drawn."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from matplotlib.colors import to_hex

from covid_utils import plotting

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2], "seconds": [1.0, 1.0], "train_loss": [0.7, 0.5], "val_loss": [0.7, 0.6],
        "train_accuracy": [0.5, 0.8], "val_accuracy": [0.5, 0.7],
    }
)  # fmt: skip


@pytest.fixture
def displayed(monkeypatch):
    """What is given to IPython's display, in place of showing it."""
    calls = []
    monkeypatch.setattr(plotting, "display", lambda *given, **named: calls.append((given, named)))
    return calls


def test_live_curves_draw_the_history_in_one_place_with_a_description():
    curves, drawn = plotting.LiveCurves(2, "frozen"), []
    curves.place = SimpleNamespace(draw=lambda figure, metadata: drawn.append((figure, metadata)))
    for history in (HISTORY[:1].to_dict("records"), HISTORY):
        curves.update(history)
    alt = "Curves of loss and accuracy over 2 epochs, training and validation."
    assert drawn[1][1] == {"image/png": {"alt": alt}}
    assert [figure.get_suptitle()[:22] for figure, _ in drawn] == [f"frozen  epoch {n} of 2, " for n in (1, 2)]


@pytest.mark.parametrize("small", [False, True])
def test_a_photo_is_shown_once_with_a_description(displayed, small):
    figure, axis = plotting.plt.subplots()
    axis.imshow(np.random.default_rng(0).integers(0, 256, (64, 64)))
    plotting.show(figure, "Noise.", photo=True, small=small)
    (((picture,), _),) = displayed
    assert picture.format == "jpeg" and picture.alt == "Noise." and not plotting.plt.fignum_exists(figure.number)
    assert PIL.Image.open(io.BytesIO(picture.data)).format == "JPEG"


def test_short_epochs_are_not_all_drawn_but_the_last_one_is(monkeypatch):
    drawn, curves = [], plotting.LiveCurves(3)
    monkeypatch.setattr(plotting, "time", SimpleNamespace(monotonic=lambda: 0.0))
    monkeypatch.setattr(curves.place, "draw", lambda figure, metadata: drawn.append(metadata["image/png"]["alt"]))
    history = pd.concat([HISTORY, HISTORY[1:].assign(epoch=3)])
    for epochs in (1, 2, 3):
        curves.update(history[:epochs])
    assert [alt.split("over ")[1].split(",")[0] for alt in drawn] == ["1 epochs", "3 epochs"]


def test_outlines_have_the_colours_that_are_given(monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "show", lambda figure, *_, **__: plotting.plt.close(figure) or shown.append(figure))
    masks = np.tri(32, dtype=bool)[None].repeat(2, 0)
    colours = [plotting.LESION, plotting.OTHER_FINDING]
    plotting.grid(np.zeros((2, 32, 32), np.uint8), ["a", "b"], outlines=masks, colours=colours)
    found = [to_hex(axis.collections[0].get_edgecolor()[0]) for axis in shown[0].axes[:2]]
    assert found == [colour.lower() for colour in colours]


def test_curves_mark_the_best_epoch_and_the_time_left():
    figure = plotting.draw_curves(HISTORY, epochs=5)
    assert "3 left" in figure.get_suptitle().replace("0:03", "3")
    assert "best: epoch 2, 70.0%" in [text.get_text() for text in figure.axes[1].get_legend().get_texts()]


@pytest.mark.parametrize("lesions", [None, np.zeros((2, 32, 32), bool), np.tri(32, dtype=bool)[None].repeat(2, 0)])
def test_a_grid_with_and_without_outlines(lesions, monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "show", lambda figure, *_, **__: plotting.plt.close(figure) or shown.append(figure))
    plotting.grid(np.zeros((2, 32, 32), np.uint8), ["a", "b"], outlines=lesions)
    plotting.grid(np.zeros((0, 32, 32), np.uint8), [])
    (figure,) = shown
    lines = [line for axis in figure.axes[:2] for line in axis.collections]
    assert len(lines) == (2 if lesions is not None and lesions.any() else 0)
    for line in lines:
        assert list(line.levels) == [0.5] and to_hex(line.get_edgecolor()[0]) == plotting.LESION.lower()
        assert list(line.get_linewidths()) == [1.3]
