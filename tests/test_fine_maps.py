"""Maps finer than a layer's cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from covid_utils import models
from covid_utils.labs import fine_maps

CELL = 16  # pixels
SLICES = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def coarse(model, images, method, layer, targets):
    """A stand-in for `explain.cam` that knows the answer as well as its cells allow: the mean of each cell."""
    pooled = torch.nn.functional.avg_pool2d(images[:, None].float(), CELL)
    maps = torch.nn.functional.interpolate(pooled, scale_factor=CELL)[:, 0].numpy()
    return maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-7)


def test_nine_views_tell_which_half_of_a_cell_is_hot(monkeypatch):
    """A patch as large as half a cell each way: one view can only say which cell it lies in."""
    monkeypatch.setattr(fine_maps, "cam", coarse)
    image = torch.zeros(1, 96, 96, dtype=torch.uint8)
    image[0, 40:48, 32:40] = 200
    one = coarse(None, image, "", "", None)[0]
    fine = fine_maps.fine_cam(models.Net(), image, targets=[1])[0]
    assert (one == one.max()).sum() == CELL**2
    hottest = fine == fine.max()
    assert hottest[40:48, 32:40].all() and hottest.sum() == 8 * 8
    assert fine.max() == pytest.approx(1) and fine.shape == (96, 96)
    flat = fine_maps.fine_cam(models.Net(), torch.full((1, 96, 96), 100, dtype=torch.uint8), targets=[1])
    assert (flat == 1).all(), "no lower where fewer views overlap"


def test_views_repeat_the_edge_and_explain_the_decision_for_the_slice_itself(monkeypatch):
    given = []
    monkeypatch.setattr(fine_maps, "cam", lambda *each: given.extend(each) or np.ones(tuple(each[1].shape)))
    model = models.Net().eval()
    fine_maps.fine_cam(model, SLICES)
    views = given[1].split(3)
    assert len(views) == 9 and torch.equal(views[4], SLICES)  # the middle one is not shifted
    assert torch.equal(views[0][:, 0], views[0][:, 7]) and torch.equal(views[0][:, 8:, 8:], SLICES[:, :-8, :-8])
    assert given[-1] == (fine_maps.predict(model, SLICES) > 0).int().tolist() * 9


def test_maps_of_two_layers_are_multiplied():
    model = models.Net().eval()
    both = fine_maps.named_map(model, SLICES[:1], "layer3 × layer2 HiResCAM, nine views", [1])
    one, other = (fine_maps.fine_cam(model, SLICES[:1], "HiResCAM", layer, [1]) for layer in ("layer3", "layer2"))
    np.testing.assert_allclose(both, np.sqrt(one * other), atol=1e-6)
    plain = fine_maps.named_map(model, SLICES[:1], "layer4 GradCAM", [1])
    np.testing.assert_array_equal(plain, fine_maps.cam(model, SLICES[:1], "GradCAM", "layer4", [1]))
    with pytest.raises(ValueError, match="did you mean 'layer3 HiResCAM'"):
        fine_maps.named_map(model, SLICES, "layer3 HiresCAM")
