"""Figures of all notebooks, in a real kernel and as they are drawn."""

from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from nbclient import NotebookClient

from covid_course.clean import clean_notebook
from covid_utils import plotting

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2], "seconds": [1.0, 1.0], "train_loss": [0.7, 0.5], "val_loss": [0.7, 0.6],
        "train_accuracy": [0.5, 0.8], "val_accuracy": [0.5, 0.7],
    }
)  # fmt: skip
CELLS = (
    f"""
import pandas as pd
from covid_utils import models, plotting
from covid_utils.labs import widgets

history = pd.DataFrame({HISTORY.to_dict("list")})
curves = plotting.LiveCurves(2)
curves.update(history[:1].to_dict("records"))
curves.update(history)""",
    "plotting.source(models.freeze)",
    """
controls = widgets.explore(lambda size: plotting.plt.figure(figsize=(1, size)), "drawn", size=("size", (1, 9, 1), 3))
controls["size"].value = 5""",
)


@pytest.fixture(scope="module")
def notebook():
    """The cells, run by a real kernel and cleaned as the course's notebooks are."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    return clean_notebook(NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=120).execute())


def test_live_curves_and_explorers_leave_one_picture_with_a_description(notebook):
    for cell, kind, alt in ((0, "image/png", "over 2 epochs"), (2, "image/jpeg", "drawn")):
        (output,) = notebook.cells[cell].outputs
        assert output.output_type == "display_data" and alt in output.metadata[kind]["alt"]
    assert "widgets" not in notebook.metadata


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


def test_source_shows_what_runs(notebook):
    assert notebook.cells[1].outputs[0]["data"]["text/markdown"].startswith("```python\ndef freeze(model")


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
    drawn = lesions is not None and bool(lesions.any())
    assert [bool(axis.collections) for axis in figure.axes[:2]] == [drawn] * 2
