"""Figures of kernels, heat maps and their scores hold what they say."""

import dataclasses

import numpy as np
import pytest
import torch

from covid_utils.labs import cam_figures
from covid_utils.models import Net

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
    cells = {"A": 3}
    cam_figures.show_cams(IMAGES, ["a", "b"], {"A": HEAT, "B": [HEAT[0], None]}, LESIONS, cells=cells)
    axes = shown[0].axes[:6]
    assert [axis.get_title() for axis in axes] == ["slice", "A", "B", "", "", ""]
    assert [axes[i].get_ylabel() for i in (0, 3)] == ["a", "b"]
    for row in (0, 1):
        under, over = axes[3 * row + 1].images
        assert np.array_equal(under.get_array(), IMAGES[row]) and np.array_equal(over.get_array(), HEAT[row])
        assert under.get_clim() == (0, 255) and over.get_clim() == (0, 1) and over.get_alpha() == 0.55
    assert [len(axis.lines) for axis in axes] == [0, 4, 0] * 2, "cells are a grid"
    assert [axis.axison for axis in axes] == [True] * 5 + [False], "a missing map leaves its place empty"
    assert [len(axis.collections) for axis in axes] == [0, 0, 0, 1, 1, 0]
    (path,) = axes[3].collections[0].get_paths()
    assert path.vertices.min() == pytest.approx(1.5) and path.vertices.max() == pytest.approx(4.5)
    cam_figures.show_cams(IMAGES, ["a", "b"], {"A": HEAT})
    assert not any(axis.collections for axis in shown[1].axes[:4])


def test_an_empty_map_says_so():
    figure = cam_figures.panels(IMAGES[0], {"empty": HEAT[0] * 0, "full": HEAT[0]})
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [[], ["empty map"], []]


def test_class_activation_maps_share_one_scale_and_lie_where_each_network_looked(shown, monkeypatch):
    whole, cropped = Net().eval(), Net().eval()
    cropped.preprocess = dataclasses.replace(cropped.preprocess, crop_fraction=0.5)
    values = {whole: np.full((2, 3, 3), 1.0), cropped: np.full((2, 3, 3), -4.0)}
    monkeypatch.setattr(cam_figures, "contributions", lambda model, images: values[model])
    cam_figures.show_evidence({"one": whole, "other": cropped}, IMAGES, ["a", "b"])
    drawn = [axis.images[1] for axis in shown[0].axes[2:6]]
    assert {image.get_clim() for image in drawn} == {(-4.0, 4.0)} and (drawn[3].get_array() == -4).all()
    assert drawn[0].get_extent() == [-0.5, 31.5, 31.5, -0.5] and drawn[2].get_extent() == [7.5, 23.5, 23.5, 7.5]


def test_each_network_is_named_once_and_is_hollow_before_its_training(shown):
    rows = {"GradCAM": {"scratch": SCORE, "transfer": SCORE, "transfer, not trained": SCORE}, "random": {"": SCORE}}
    cam_figures.show_scores({"first": rows, "second": rows}, alt="")
    names = [text.get_text() for text in shown[0].legends[0].get_texts()]
    assert names == ["scratch", "transfer", "transfer, not trained", "no network"]
    intervals, marks = ([line for line in shown[0].axes[0].lines if len(line.get_xdata()) == n] for n in (2, 1))
    assert [tuple(line.get_xdata()) for line in intervals] == [(0.25, 0.75)] * 4
    trained, fresh = marks[1:3]
    assert trained.get_color() == fresh.get_color() == trained.get_markerfacecolor() != fresh.get_markerfacecolor()
    cam_figures.show_scores({}, alt="")
    assert len(shown) == 1


def test_curves_are_means_over_slices(shown):
    curves = {"left": {"A": [[0.2, 0.4], [0.1, 0.2]], "B": [0.5, 0.6]}, "right": {"A": [0, 1]}}
    cam_figures.show_curves(curves, ("intact", "head"), "x", "y", "")
    left, right = shown[0].axes
    assert [line.get_label() for line in left.lines] == ["A", "B"] and right.get_title() == "right"
    np.testing.assert_allclose([line.get_ydata() for line in left.lines], [[0.3, 0.15], [0.5, 0.6]])
    assert list(left.lines[0].get_xdata()) == ["intact", "head"]
    assert (left.get_xlabel(), left.get_ylabel()) == ("x", "y")


def test_kernels_lie_side_by_side_each_scaled_by_itself(shown):
    model = Net("resnet50")
    kernels = cam_figures.first_convolution(model).weight.detach()
    cam_figures.show_kernels({"a": model})
    canvas = shown[0].axes[0].images[0].get_array()
    assert canvas.shape == (65, 65, 3)  # eight kernels of 7 x 7 in a row, a white pixel around each
    last = kernels[63].permute(1, 2, 0)
    torch.testing.assert_close(torch.tensor(canvas[57:64, 57:64].data), (last - last.min()) / (last.max() - last.min()))
    assert (canvas[56] == 1).all()


def test_names_stand_under_their_picture(shown):
    cam_figures.show_names([IMAGES[0]], [{"cat": 0.75, "dog": 0.25}], "a picture")
    top, bottom = shown[0].axes
    assert [bar.get_width() for bar in bottom.patches] == [0.75, 0.25] and bottom.yaxis_inverted()
    assert [text.get_text() for text in bottom.texts] == ["cat  75%", "dog  25%"] and len(top.images) == 1
