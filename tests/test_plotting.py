"""Figures of all notebooks, as they are drawn."""

import io
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import pytest
from matplotlib.colors import to_hex

from covid_utils import plotting

HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "seconds": 1.0, "train_loss": 0.5, "val_loss": 0.6, "train_accuracy": 0.8})
HISTORY["val_accuracy"] = [0.5, 0.7, 0.6]


@pytest.fixture
def shown(monkeypatch):
    """The figures that are shown, as they were when shown."""
    figures = []
    monkeypatch.setattr(plotting, "show", lambda figure, *_, **__: plt.close(figure) or figures.append(figure))
    return figures


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


def ends(line) -> tuple[list, list]:
    return [np.round(each, 6).tolist() for each in line.get_data()]


def test_curves_show_training_and_validation_the_best_epoch_and_the_time_left():
    figure = plotting.draw_curves(HISTORY, epochs=6)
    assert "3 left" in figure.get_suptitle().replace("0:03", "3")
    for axis, name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        train, val = axis.lines[:2]
        assert (train.get_label(), val.get_label()) == ("training", "validation")
        assert ends(train) == [[1, 2, 3], HISTORY[f"train_{name}"].tolist()]
        assert ends(val) == [[1, 2, 3], HISTORY[f"val_{name}"].tolist()]
        assert (train.get_color(), val.get_color()) == (plotting.BLUE, plotting.RED)
    assert ends(axis.lines[2]) == [[2], [0.7]]  # the star
    assert "best: epoch 2, 70.0%" in [text.get_text() for text in axis.get_legend().get_texts()]


def test_a_confusion_matrix_has_the_truth_in_rows_and_a_readers_own_figures_stay_as_they_are(shown):
    before = dict(plt.rcParams)
    plotting.show_confusion({"a": [[1, 2], [3, 4]]}, "counts")
    (axis,) = shown[0].axes
    places = {text.get_text(): text.get_position() for text in axis.texts}  # (column, row)
    assert places == {"1\n33%": (0, 0), "2\n67%": (1, 0), "3\n43%": (0, 1), "4\n57%": (1, 1)}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    assert [label.get_text() for label in axis.get_yticklabels()] == ["non-COVID", "COVID"]
    assert axis.images[0].get_array().sum(1).tolist() == [1, 1] and axis.images[0].get_clim() == (0, 1)
    assert not axis.spines["top"].get_visible() and dict(plt.rcParams) == before


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
def test_a_grid_with_and_without_outlines(given, colours, shown):
    plotting.grid(np.zeros((2, 32, 32), np.uint8), ["a", "b"], **given)
    plotting.grid(np.zeros((0, 32, 32), np.uint8), [])
    (figure,) = shown
    lines = [line for axis in figure.axes for line in axis.collections]
    assert [to_hex(line.get_edgecolor()[0]) for line in lines] == [colour.lower() for colour in colours]
    assert all(list(line.levels) == [0.5] and list(line.get_linewidths()) == [1.3] for line in lines)
