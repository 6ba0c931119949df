import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from covid_utils import plotting
from covid_utils.labs import cam_figures, score_figures

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2], "seconds": [1.0, 1.0], "train_loss": [0.7, 0.5], "val_loss": [0.7, 0.6],
        "train_accuracy": [0.5, 0.8], "val_accuracy": [0.5, 0.7],
    }
)  # fmt: skip


def run(code: str) -> list[dict]:
    """Outputs of one cell in a real kernel."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    return NotebookClient(notebook, timeout=120).execute().cells[0].outputs


@pytest.fixture(scope="module")
def live() -> list[dict]:
    return run(
        "import pandas as pd\nfrom covid_utils.plotting import LiveCurves\n"
        f"history = pd.DataFrame({HISTORY.to_dict('list')})\n"
        "curves = LiveCurves(2)\ncurves.update(history[:1].to_dict('records'))\ncurves.update(history)"
    )


def test_live_curves_leave_one_picture_with_a_description(live):
    pictures = [output for output in live if "image/png" in output.get("data", {})]
    assert len(pictures) == len(live) == 1
    assert "over 2 epochs" in pictures[0].metadata["image/png"]["alt"]


def test_curves_mark_the_best_epoch_and_the_time_left():
    figure = plotting.draw_curves(HISTORY, epochs=5)
    assert "3 left" in figure.get_suptitle().replace("0:03", "3")
    assert "best: epoch 2, 70.0%" in [text.get_text() for text in figure.axes[1].get_legend().get_texts()]


@pytest.mark.parametrize("lesions", [None, np.zeros((2, 32, 32), bool), np.tri(32, dtype=bool)[None].repeat(2, 0)])
def test_cams_with_and_without_outlines(lesions, monkeypatch):
    shown = []
    for module in (plotting, cam_figures):
        monkeypatch.setattr(module, "show", lambda figure, alt, photo=False, small=False: shown.append(figure))
    images = np.zeros((2, 32, 32), np.uint8)
    cam_figures.show_cams(images, ["a", "b"], {"one": np.zeros((2, 32, 32))}, lesions)
    plotting.grid(images, ["a", "b"], outlines=lesions)
    plotting.grid(images[:0], [])
    assert len(shown) == 2
    assert [axis.get_title() for axis in shown[0].axes[:2]] == ["slice", "one"]
    drawn = lesions is not None and bool(lesions.any())
    assert all(bool(axis.collections) == drawn for axis in [*shown[0].axes[:4], *shown[1].axes[:2]])


def test_source_shows_what_runs():
    outputs = run("from covid_utils import models, plotting\nplotting.source(models.freeze)")
    assert "def freeze(model" in outputs[0]["data"]["text/markdown"]
    assert outputs[0]["data"]["text/markdown"].startswith("```python\ndef freeze")


def test_roc_and_precision_recall_curves(monkeypatch):
    """Perfect logits go through the corner, the dot of a threshold that calls all COVID lies at the end."""
    drawn = {}
    monkeypatch.setattr(score_figures, "show", lambda figure, alt: drawn.update(figure=figure))
    labels = np.array([0, 0, 1, 1])
    score_figures.show_roc({"all yes": np.arange(4) + 1, "perfect": np.arange(4) - 1.5}, labels, "two models")
    roc, recall = drawn["figure"].axes
    dots = [line.get_xydata()[0].tolist() for line in roc.lines if line.get_marker() == "o"]
    assert dots == [[1, 1], [0, 1]]
    dots = [line.get_xydata()[0].tolist() for line in recall.lines if line.get_marker() == "o"]
    assert dots == [[1, 0.5], [1, 1]]
    assert [0, 1] in roc.lines[2].get_xydata().tolist()


def test_an_empty_map_says_so():
    axes = plotting.plt.subplots(1, 2)[1]
    for axis, top in zip(axes, (0.0, 1.0), strict=True):
        cam_figures.overlay(axis, np.zeros((8, 8)), np.full((8, 8), top))
    assert [[text.get_text() for text in axis.texts] for axis in axes] == [["empty map"], []]
    plotting.plt.close("all")
