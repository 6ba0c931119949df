import numpy as np
import pytest
import torch

from covid_utils import explain
from covid_utils.models import Net, freeze

torch.manual_seed(0)
SLICES = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)


@pytest.fixture
def model():
    torch.manual_seed(1)
    return Net("resnet18").eval()


def test_gradcam_by_hand(model):
    """Activations times mean gradients, summed, rectified, scaled: the library's map."""
    kept = {}
    layer = model.net.layer4[-1]
    hook = layer.register_forward_hook(lambda _m, _i, out: kept.update(a=out, g=out.retain_grad()))
    logit = model(model.preprocess(SLICES[:1]))
    logit.sum().backward()
    hook.remove()
    weights = kept["a"].grad.mean((2, 3), keepdim=True)
    by_hand = torch.relu((weights * kept["a"]).sum(1))[0].detach().numpy()
    library = explain.cam(model, SLICES[:1], "GradCAM", explained=[1])[0]
    small = library.reshape(2, 32, 2, 32)[:, 16, :, 16]
    assert by_hand.max() > 0
    scaled = (by_hand - by_hand.min()) / (by_hand.max() - by_hand.min())
    assert np.corrcoef(scaled.ravel(), small.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("method", explain.METHODS)
@pytest.mark.parametrize("layer", ["layer2", "layer3", "layer4"])
def test_maps_are_whole_even_with_a_frozen_trunk(model, method, layer):
    maps = explain.cam(freeze(model), SLICES, method, layer, explained=[0, 1, 1])
    assert maps.shape == (3, 64, 64) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1
    assert (maps.max((1, 2)) > 0.9).sum() >= 2  # a map may be empty if nothing speaks for the class


def test_gradcam_follows_the_class_and_eigencam_does_not(model):
    for method, same in (("GradCAM", False), ("EigenCAM", True)):
        one, other = (explain.cam(model, SLICES, method, "layer3", explained=[k] * 3) for k in (1, 0))
        assert np.allclose(one, other) == same


def test_the_models_own_decision_is_explained_by_default(model):
    decisions = (model(model.preprocess(SLICES)) > 0).int().tolist()
    own, given = explain.cam(model, SLICES), explain.cam(model, SLICES, explained=decisions)
    assert np.array_equal(own, given)


def test_eigencam_is_bright_where_activations_are_strong():
    activations = np.zeros((1, 5, 8, 8), np.float32)
    activations[0, :, 2:4, 2:4] = 1 + np.arange(5)[:, None, None]
    for sign in (1, -1):
        library = explain.OrientedEigenCAM(torch.nn.Linear(1, 1), [])
        heat = library.get_cam_image(None, None, None, sign * activations, None, False)
        assert heat[0, 3, 3] > heat[0, 7, 7]


def test_errors_surface_and_hooks_are_removed(model, monkeypatch):
    def broken(*_args, **_kwargs):
        raise IndexError("inside the library")

    monkeypatch.setattr(explain.METHODS["GradCAM"], "get_cam_weights", broken)
    with pytest.raises(IndexError, match="inside the library"):
        explain.cam(model, SLICES)
    assert not model.net.layer4[-1]._forward_hooks


def test_bad_calls_are_named(model):
    with pytest.raises(ValueError, match="Unknown method 'GradCAMM': did you mean 'GradCAM'|Unknown method"):
        explain.cam(model, SLICES, "GradCAMM")
    with pytest.raises(ValueError, match="Unknown layer 'layer5': did you mean"):
        explain.cam(model, SLICES, layer="layer5")
    with pytest.raises(ValueError, match="explained has 1 classes for 3 slices"):
        explain.cam(model, SLICES, explained=[1])


def test_no_slices_no_maps(model):
    assert explain.cam(model, SLICES[:0]).shape == (0, 64, 64)


def test_cropping_preprocess_is_undone():
    placed = explain._on_whole_slice(np.ones((1, 96, 96), np.float32), 96, 224 / 232)
    assert placed.shape == (1, 96, 96) and placed[0, 0].sum() == 0 and placed[0, 48, 48] == 1
    assert placed[0, 48].sum() == round(96 * 224 / 232)


def test_pointing_game_by_hand():
    lungs = np.zeros((3, 8, 8), bool)
    lungs[:, 2:6, 2:6] = True
    lesions = np.zeros_like(lungs)
    lesions[:, 2:4, 2:6] = True  # half of the lungs
    maps = np.zeros((3, 8, 8), np.float32)
    maps[0, 0, 0], maps[0, 3, 3] = 1, 0.5  # hottest outside the lungs, but inside them in the lesion
    maps[1, 5, 5] = 1  # beside the lesion
    # the third map is flat: as good as chance
    assert explain.pointing_game(maps, lesions, lungs) == {"hits": 1.5, "slices": 3, "by_chance": 1.5}


def test_many_slices_go_in_batches(model):
    many = SLICES[:1].repeat(33, 1, 1)
    maps = explain.cam(model, many, explained=[1] * 33)
    assert maps.shape[0] == 33 and np.allclose(maps[0], maps[32], atol=1e-4)


def test_first_kernels():
    kernels = explain.first_kernels(Net("resnet50"))
    assert kernels.shape == (64, 7, 7, 3) and kernels.min() == 0 and kernels.max() == 1
