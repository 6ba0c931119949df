import dataclasses

import numpy as np
import pytest
import torch

from covid_utils.labs import cam_figures
from covid_utils.models import Net

IMAGES = np.zeros((2, 32, 32), np.uint8)
HEAT = np.random.default_rng(0).random((2, 32, 32))


@pytest.fixture
def shown(monkeypatch):
    figures = []
    monkeypatch.setattr(cam_figures, "show", lambda figure, alt, photo=False, small=False: figures.append(figure))
    return figures


def test_signed_maps_share_one_scale_and_lie_where_the_network_looked(shown):
    maps = {"one": np.full((2, 3, 3), 1.0), "other": np.full((2, 3, 3), -4.0)}
    cam_figures.show_signed(IMAGES, ["a", "b"], maps, crop_fractions=[1.0, 0.5])
    drawn = [axis.images[1] for axis in shown[0].axes[2:6]]
    assert {image.get_clim() for image in drawn} == {(-4.0, 4.0)}
    assert drawn[0].get_extent() == [-0.5, 31.5, 31.5, -0.5] and drawn[2].get_extent() == [7.5, 23.5, 23.5, 7.5]


def test_a_missing_map_leaves_its_place_empty(shown):
    cam_figures.show_matrix(IMAGES[0], {"layer4": {"A": HEAT[0], "B": HEAT[1]}, "layer3": {"A": HEAT[0]}})
    assert [axis.axison for axis in shown[0].axes] == [True, True, True, False]


def test_each_network_is_named_once_and_intervals_are_drawn(shown):
    score = {"value": 0.5, "low": 0.25, "high": 0.75}
    rows = {"GradCAM": {"scratch": score, "transfer": score}, "EigenCAM": {"scratch": score}, "random": {"": score}}
    cam_figures.show_scores({"first": rows, "second": rows}, alt="")
    assert [text.get_text() for text in shown[0].legends[0].get_texts()] == ["scratch", "transfer", "no network"]
    lines = [line for line in shown[0].axes[0].lines if len(line.get_xdata()) == 2]
    assert len(lines) == 4 and all(tuple(line.get_xdata()) == (0.25, 0.75) for line in lines)


def test_networks_before_their_training_have_hollow_marks_in_the_same_colour(shown):
    score = {"value": 0.5, "low": 0.25, "high": 0.75}
    cam_figures.show_scores({"first": {"GradCAM": {"transfer": score, "transfer, not trained": score}}}, alt="")
    trained, fresh = [line for line in shown[0].axes[0].lines if len(line.get_xdata()) == 1]
    assert trained.get_color() == fresh.get_color() == trained.get_markerfacecolor() != fresh.get_markerfacecolor()


def test_cells_are_drawn_as_a_grid(shown):
    cam_figures.show_cams(IMAGES, ["a", "b"], {"A": HEAT, "B": HEAT}, cells={"B": 3})
    assert [len(axis.lines) for axis in shown[0].axes[:6]] == [0, 0, 4] * 2


def test_the_channels_that_add_most_come_first(shown):
    activations, weights = np.ones((8, 3, 3)), np.array([0.1, -5, 0.2, 3, 0, 0, 0, 0])
    cam_figures.show_channels(IMAGES[0], activations, weights, (weights[:, None, None] * activations).sum(0), "", 2)
    titles = [axis.get_title().split("\n")[0] for axis in shown[0].axes]
    assert titles == ["slice", "channel 1", "channel 3", "sum of all"]


def test_plain_kernels_have_neighbours_alike_and_a_chessboard_has_opposites():
    model = Net()
    weight = cam_figures.first_convolution(model).weight
    row, column = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    with torch.no_grad():
        assert abs(cam_figures.neighbour_correlation(model)) < 0.1
        weight.copy_(((row + column) % 2).float().expand_as(weight))
        assert cam_figures.neighbour_correlation(model) == pytest.approx(-1)
        weight.copy_(torch.randn(64, 3, 1, 1).expand_as(weight))
        assert cam_figures.neighbour_correlation(model) == pytest.approx(1)


def test_evidence_is_drawn_where_each_network_looked(shown):
    model, images = Net().eval(), torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8)
    model.preprocess = dataclasses.replace(model.preprocess, crop_fraction=0.5)
    cam_figures.show_evidence({"one": model}, images, ["a", "b"])
    drawn = shown[0].axes[2].images[1]
    assert drawn.get_extent() == [15.5, 47.5, 47.5, 15.5]
    np.testing.assert_allclose(drawn.get_array(), cam_figures.evidence(model, images)[0], atol=1e-5)


def test_removal_curves_are_means_over_slices(shown):
    curves = {"left": {"A": np.array([[0.2, 0.4], [0.1, 0.2]])}}
    cam_figures.show_removal(curves, (0.1, 0.2), "", done="deleted")
    (axis,) = shown[0].axes
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.3, 0.15])
    assert axis.get_xlabel() == "share of pixels deleted"


def test_agreement_starts_with_the_intact_network(shown):
    cam_figures.show_agreement({"rank": {"A": [1.0, 0.5, 0.0]}}, ("head", "layer4"))
    assert list(shown[0].axes[0].lines[0].get_xdata()) == ["intact", "head", "layer4"]


def test_where_nothing_is_known_nothing_is_drawn(shown):
    cam_figures.show_scores({}, alt="")
    cam_figures.show_growth({}, (0.1, 0.2))
    assert not shown
    cam_figures.show_growth({"p(COVID)": {"A": [0.1, 0.9]}}, (0.1, 0.2))
    assert len(shown) == 1


def test_a_slices_text_has_the_probability_of_each_network():
    logits = {"scratch": torch.tensor([0.0, 3.0]), "transfer": torch.tensor([9.0, -3.0])}
    texts = cam_figures.with_chances({"found": 1, "missed": 0}, logits)
    assert texts == [
        "found\np(COVID)\nscratch 0.95\ntransfer 0.05",
        "missed\np(COVID)\nscratch 0.50\ntransfer 1.00",
    ]
