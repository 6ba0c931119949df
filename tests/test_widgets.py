import time

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from covid_utils.labs import widgets
from covid_utils.models import Net
from covid_utils.phantom.patients import draw_patient
from covid_utils.runs.clean import clean_notebook

HEALTHY = [patient for patient in range(0, 24, 2) if not draw_patient(patient).findings.any()]
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
    monkeypatch.setattr(widgets.Picture, "draw", lambda _self, figure: figures.append(figure))
    return figures


@pytest.mark.parametrize("patient", HEALTHY)
def test_without_a_lesion_the_lab_draws_the_phantoms_own_bytes(patient):
    image, lesion = widgets.draw_with_lesion(patient)
    assert np.array_equal(image, draw_patient(patient).images[0]) and not lesion.any()


def test_a_lesion_grows_where_it_is_put():
    areas = [widgets.draw_with_lesion(2, size=size, lungs="both")[1].sum() for size in (0.0, 0.15, 0.3, 0.45)]
    assert areas == sorted(areas) and areas[0] == 0 < areas[1] < areas[3]
    for lungs, half in (("left", np.s_[:, 48:]), ("right", np.s_[:, :48])):
        lesion = widgets.draw_with_lesion(2, size=0.3, lungs=lungs)[1]
        assert lesion[half].sum() > 0.95 * lesion.sum() > 0
    image, lesion = widgets.draw_with_lesion(2, size=0.3)
    assert image[lesion].mean() > widgets.draw_with_lesion(2)[0][lesion].mean() + 10


def test_moving_a_slider_redraws(drawn):
    controls = widgets.lesion_lab({"one": Net("resnet18").eval()}, 100)
    assert len(drawn) == 1
    controls["size"].value = 0.0
    assert len(drawn) == 2 and drawn[1].axes[0].get_title() == "lesion: 0.0% of the slice"
    assert "p(COVID) = 0." in drawn[1].axes[1].get_title()


def test_the_explorer_shows_what_is_chosen(drawn):
    models = {"one": Net("resnet18").eval(), "two": Net("resnet18").eval()}
    controls = widgets.cam_explorer(models, SLICES, ["a", "b", "c", "d"])
    assert [axis.get_title().split("\n")[0] for axis in drawn[-1].axes] == ["a", "GradCAM, one", "GradCAM, two"]
    for name, value in {"number": 2, "model": "two", "method": "LayerCAM", "layer": "layer2", "target": 0}.items():
        controls[name].value = value
    assert [axis.get_title().split("\n")[0] for axis in drawn[-1].axes] == ["c", "LayerCAM, two"]
    assert "ScoreCAM" not in controls["method"].options  # it takes seconds


def test_a_change_takes_less_than_a_second():
    controls = widgets.lesion_lab({"one": Net("resnet18").eval(), "two": Net("resnet18").eval()}, 100)
    seconds = []
    for size in (0.1, 0.2, 0.4):
        start = time.perf_counter()
        controls["size"].value = size
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1


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
