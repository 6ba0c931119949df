import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from covid_course.clean import clean_notebook
from covid_utils.labs import widgets
from covid_utils.models import Net
from ct_phantom.patients import draw_patient

LAB = """
import torch
from covid_utils.labs import widgets
from covid_utils.models import Net

controls = widgets.lesion_lab({"one": Net("resnet18").eval()}, 100)
"""
SLICES = torch.from_numpy(draw_patient(1).images)


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(widgets, "compact", lambda figure, photo: figures.append(figure) or b"")
    return figures


def test_moving_a_slider_redraws(drawn):
    controls = widgets.lesion_lab({"one": Net("resnet18").eval()}, 100)
    assert len(drawn) == 1
    controls["size"].value = 0.0
    assert len(drawn) == 2 and drawn[1].axes[0].get_title() == "lesion: 0.0% of the slice"
    assert "p(COVID) = 0." in drawn[1].axes[1].get_title()


def test_the_explorer_shows_what_is_chosen(drawn):
    models = {"one": Net("resnet18").eval(), "two": Net("resnet18").eval()}
    controls = widgets.cam_explorer(models, SLICES, ["a", "b", "c", "d"])
    titles = [axis.get_title().split("\n")[0] for axis in drawn[-1].axes]
    assert titles == ["a", "two: HiResCAM, layer3", "two: HiResCAM, layer4"]  # fine cells first, the article's beside
    for name, value in {"number": 2, "model": "one", "method": "LayerCAM", "layer": "layer2", "target": 0}.items():
        controls[name].value = value
    titles = [axis.get_title().split("\n")[0] for axis in drawn[-1].axes]
    assert titles == ["c", "one: LayerCAM, layer2", "two: HiResCAM, layer4"]
    assert not any(axis.lines for axis in drawn[-1].axes)
    controls["grid"].value = True
    borders = [len(axis.lines) // 2 + 1 for axis in drawn[-1].axes[1:]]
    assert borders == [widgets.cells(models["one"], layer, SLICES.shape[-1]) for layer in ("layer2", "layer4")]
    for name in ("model", "method", "layer"):
        controls[f"{name}2"].value = controls[name].value
    assert len(drawn[-1].axes) == 3  # the same map twice is still two pictures
    assert "ScoreCAM" not in controls["method"].options  # it takes seconds


def test_a_saved_notebook_keeps_one_picture_and_no_widget():
    cell = nbformat.v4.new_code_cell(LAB + "controls['size'].value = 0.1\ncontrols['size'].value = 0.5")
    notebook = NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=120).execute()
    (output,) = clean_notebook(notebook).cells[0].outputs
    assert "drawn ground glass" in output.metadata["image/jpeg"]["alt"]
    assert "widgets" not in notebook.metadata and output.output_type == "display_data"


def test_the_threshold_explorer_counts(drawn):
    logits, labels = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 1, 0, 1])
    controls = widgets.threshold_explorer(logits, labels, threshold=0.5, prevalence=0.1)
    controls["threshold"].value = 0.8  # between the probabilities of logits 1 and 2
    counts = [[int(text.get_text()) for text in figure.axes[1].texts] for figure in drawn]
    assert counts == [[1, 1, 1, 1], [2, 0, 1, 1]]
