"""Figures of heat maps and their scores hold what they say; explorers redraw what their controls say."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from covid_utils.labs import cam_figures, widgets
from covid_utils.models import Net
from ct_phantom.patients import draw_patient

IMAGES = np.arange(2 * 32 * 32).reshape(2, 32, 32).astype(np.uint8)
HEAT = np.random.default_rng(0).random((2, 32, 32))
LESIONS = np.zeros((2, 32, 32), bool)
LESIONS[1, 2:5, 2:5] = True
SCORE = {"value": 0.5, "low": 0.25, "high": 0.75}


@pytest.fixture
def shown(monkeypatch):
    figures = []
    monkeypatch.setattr(cam_figures, "show", lambda figure, alt, photo=False, small=False: figures.append(figure))
    return figures


def test_a_heat_map_lies_over_its_slice_from_0_to_1_and_the_lesion_is_outlined(shown):
    cam_figures.show_cams(IMAGES, ["a", "b"], {"A": HEAT, "B": HEAT}, LESIONS, colours=["cyan", "yellow"])
    axes = shown[0].axes[:6]
    assert [axis.get_title() for axis in axes] == ["slice", "A", "B", "", "", ""]
    assert [axes[i].get_ylabel() for i in (0, 3)] == ["a", "b"]
    for row in (0, 1):
        under, over = axes[3 * row + 1].images
        assert np.array_equal(under.get_array(), IMAGES[row]) and np.array_equal(over.get_array(), HEAT[row])
        assert under.get_clim() == (0, 255) and over.get_clim() == (0, 1) and over.get_alpha() == 0.5
    assert [len(axis.collections) for axis in axes] == [0, 0, 0, 1, 1, 1], "an empty mask has no border"
    (path,) = axes[3].collections[0].get_paths()
    assert to_hex(axes[3].collections[0].get_edgecolor()[0]) == "#ffff00"
    assert path.vertices.min() == pytest.approx(1.5) and path.vertices.max() == pytest.approx(4.5)
    cam_figures.show_cams(IMAGES, ["a", "b"], {"A": HEAT})
    assert not any(axis.collections for axis in shown[1].axes[:4])


def test_an_empty_map_says_so():
    figure = cam_figures.panels(IMAGES[0], {"empty": HEAT[0] * 0, "full": HEAT[0]})
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [[], ["no evidence: empty map"], []]


def test_scores_have_intervals_and_a_line_at_the_one_to_beat(shown):
    rows = {"Grad-CAM": SCORE, "lung mask": SCORE | {"value": 0.375}}
    cam_figures.show_scores({"first": rows, "second": rows}, "lung mask", alt="")
    for axis in shown[0].axes:
        *drawn, line = axis.lines
        assert [list(each.get_xdata()) for each in drawn] == [[0.25, 0.75], [0.5], [0.25, 0.75], [0.375]]
        assert list(line.get_xdata()) == [0.375, 0.375]
    assert [text.get_text() for text in shown[0].axes[0].get_yticklabels()] == list(rows)


# ---- explorers

SLICES = torch.from_numpy(draw_patient(1, image_size=64).images)


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(widgets, "compact", lambda figure, photo, small: figures.append(figure) or b"")
    return figures


def test_moving_a_slider_redraws(drawn):
    controls = widgets.lesion_lab({"one": Net("resnet18").eval()}, {"one": "layer2 GradCAM"}, 100, image_size=64)
    assert len(drawn) == 1
    controls["size"].value = 0.0
    assert len(drawn) == 2 and drawn[1].axes[0].get_title() == "lesion: 0.0% of the slice"
    assert "p(COVID) = 0." in drawn[1].axes[1].get_title()


def test_the_explorer_shows_what_is_chosen(drawn, monkeypatch):
    def cam(model, one, method, layer, targets):
        explained.append((method, layer, targets))
        return torch.zeros(1, 64, 64).numpy()

    explained = []
    monkeypatch.setattr(widgets, "cam", cam)
    models = {"one": Net("resnet18").eval(), "two": Net("resnet18").eval()}
    controls = widgets.cam_explorer(models, SLICES, ["a", "b", "c", "d"], None, 1, "layer3 HiResCAM")
    titles = [axis.get_title().split("\n")[0] for axis in drawn[-1].axes]
    assert titles == ["b", "two: HiResCAM, layer3", "two: GradCAM, layer4"]  # the finer map first
    assert explained == [("HiResCAM", "layer3", None), ("GradCAM", "layer4", None)]
    for name, value in {"number": 2, "model": "one", "method": "LayerCAM", "layer": "layer2", "target": 0}.items():
        controls[name].value = value
    titles = [axis.get_title().split("\n")[0] for axis in drawn[-1].axes]
    assert titles == ["c", "one: LayerCAM, layer2", "two: GradCAM, layer4"]
    assert explained[-2:] == [("LayerCAM", "layer2", [0]), ("GradCAM", "layer4", [0])]
