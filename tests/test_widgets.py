"""Explorers redraw what their controls say; tests/test_plotting.py looks at what a saved notebook keeps of them."""

import pytest
import torch

from covid_utils.labs import widgets
from covid_utils.models import Net
from ct_phantom.patients import draw_patient

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
    for name in ("model", "method", "layer"):
        controls[f"{name}2"].value = controls[name].value
    assert len(drawn[-1].axes) == 3, "the same map twice is still two pictures"
