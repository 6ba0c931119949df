import dataclasses

import numpy as np
import pytest
import torch

from covid_utils.labs import cam_figures
from covid_utils.models import Net

IMAGES = np.zeros((2, 32, 32), np.uint8)
HEAT = np.random.default_rng(0).random((2, 32, 32))
SCORE = {"value": 0.5, "low": 0.25, "high": 0.75}


@pytest.fixture
def shown(monkeypatch):
    figures = []
    monkeypatch.setattr(cam_figures, "show", lambda figure, alt, photo=False, small=False: figures.append(figure))
    return figures


def test_cells_are_a_grid_and_a_missing_map_leaves_its_place_empty(shown):
    cam_figures.show_cams(IMAGES, ["a", "b"], {"A": HEAT, "B": [HEAT[0], None]}, cells={"A": 3})
    axes = shown[0].axes[:6]
    assert [len(axis.lines) for axis in axes] == [0, 4, 0] * 2
    assert [axis.axison for axis in axes] == [True] * 5 + [False]


def test_class_activation_maps_share_one_scale_and_lie_where_each_network_looked(shown, monkeypatch):
    whole, cropped = Net().eval(), Net().eval()
    cropped.preprocess = dataclasses.replace(cropped.preprocess, crop_fraction=0.5)
    values = {whole: np.full((2, 3, 3), 1.0), cropped: np.full((2, 3, 3), -4.0)}
    monkeypatch.setattr(cam_figures, "evidence", lambda model, images: values[model])
    cam_figures.show_evidence({"one": whole, "other": cropped}, torch.from_numpy(IMAGES), ["a", "b"])
    drawn = [axis.images[1] for axis in shown[0].axes[2:6]]
    assert {image.get_clim() for image in drawn} == {(-4.0, 4.0)} and (drawn[3].get_array() == -4).all()
    assert drawn[0].get_extent() == [-0.5, 31.5, 31.5, -0.5] and drawn[2].get_extent() == [7.5, 23.5, 23.5, 7.5]


def test_each_network_is_named_once_and_intervals_are_drawn(shown):
    rows = {"GradCAM": {"scratch": SCORE, "transfer": SCORE}, "EigenCAM": {"scratch": SCORE}, "random": {"": SCORE}}
    cam_figures.show_scores({"first": rows, "second": rows}, alt="")
    assert [text.get_text() for text in shown[0].legends[0].get_texts()] == ["scratch", "transfer", "no network"]
    lines = [line for line in shown[0].axes[0].lines if len(line.get_xdata()) == 2]
    assert len(lines) == 4 and all(tuple(line.get_xdata()) == (0.25, 0.75) for line in lines)
    cam_figures.show_scores({}, alt="")
    assert len(shown) == 1


def test_networks_before_their_training_have_hollow_marks_in_the_same_colour(shown):
    cam_figures.show_scores({"first": {"GradCAM": {"transfer": SCORE, "transfer, not trained": SCORE}}}, alt="")
    trained, fresh = [line for line in shown[0].axes[0].lines if len(line.get_xdata()) == 1]
    assert trained.get_color() == fresh.get_color() == trained.get_markerfacecolor() != fresh.get_markerfacecolor()


def test_curves_are_means_over_slices(shown):
    cam_figures.show_curves({"left": {"A": [[0.2, 0.4], [0.1, 0.2]]}}, ("intact", "head"), "x", "y", "")
    (line,) = shown[0].axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [0.3, 0.15])
    assert list(line.get_xdata()) == ["intact", "head"]
