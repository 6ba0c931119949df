"""Class activation maps: by hand and by the library, for any layer, and what they leave behind."""

import copy

import cv2
import numpy as np
import pytest
import torch
from pytorch_grad_cam import EigenCAM
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget

from covid_utils import explain
from covid_utils.io.preprocessing import Preprocessing
from covid_utils.models import LAYERS, Net, freeze

torch.manual_seed(0)
SLICES = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)


@pytest.fixture(scope="module")
def untouched():
    torch.manual_seed(1)
    return Net("resnet18").eval()


@pytest.fixture
def model(untouched):
    return copy.deepcopy(untouched)


def activations_and_gradients(model, images, layer="layer4"):
    """What `gradients_at_layer` returns of slices."""
    module = explain.find_layer(model, layer)
    return explain.gradients_at_layer(model.eval(), explain.network_input(model, images), module)


def scaled(maps):
    """As the library scales each map."""
    maps = maps - maps.min((1, 2), keepdims=True)
    return maps / (1e-7 + maps.max((1, 2), keepdims=True))


def test_gradcam_by_hand(model):
    """Activations times mean gradients, summed, rectified, scaled, enlarged: the library's map, for either class."""
    activations, gradients, logits = activations_and_gradients(model, SLICES)
    assert activations.shape == gradients.shape == (3, 512, 2, 2)
    assert torch.equal(logits, model(SLICES).detach()) and not logits.requires_grad
    by_hand = (gradients.mean((2, 3), keepdim=True) * activations).sum(1).numpy()
    assert np.array_equal(explain.grad_cam(activations, gradients).numpy(), by_hand)
    for explained, part in ((1, by_hand), (0, -by_hand)):
        library = explain.cam(model, SLICES, targets=[explained] * 3)
        ours = scaled(np.stack([cv2.resize(each, (64, 64)) for each in scaled(np.maximum(part, 0))]))
        assert ours.max() > 0 and np.abs(ours - library).max() < 1e-5


def test_evidence_and_bias_make_the_logit(model):
    logits = model(SLICES).detach().numpy()
    for layer, exact in (("layer4", True), ("layer3", False)):  # only where pooling and a linear head follow
        total = explain.grad_cam(*activations_and_gradients(model, SLICES, layer)[:2]).sum((1, 2))
        assert np.allclose(total + model.net.fc.bias.item(), logits, atol=1e-4) == exact


def test_the_library_alone_gives_the_same_maps(model):
    """Without the leaf that spares the way back through the trunk."""
    one = SLICES[:1]
    x, targets = model.preprocess(one), [BinaryClassifierOutputTarget(1)]
    for layer in ("layer2", "layer4"):
        for method in ("GradCAM", "GradCAM++", "HiResCAM", "LayerCAM"):
            library = explain.METHODS[method](model=model, target_layers=[getattr(model.net, layer)[-1]])
            plain = library(input_tensor=x, targets=targets)
            library.activations_and_grads.release()
            assert np.allclose(plain, explain.cam(model, one, method, layer, targets=[1]), atol=1e-5), method


@pytest.mark.parametrize("method", explain.METHODS)
def test_maps_are_whole_with_a_frozen_trunk(model, method):
    freeze(model)
    for layer in LAYERS:
        maps = explain.cam(model, SLICES[:2], method, layer, targets=[0, 1])
        assert maps.shape == (2, 64, 64) and maps.dtype == np.float32
        assert maps.min() >= 0 and 0.9 < maps.max() <= 1


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_maps_need_no_gradients_of_the_caller(model, off):
    maps, parts = explain.cam(model, SLICES), activations_and_gradients(model, SLICES)
    with off():
        assert np.allclose(explain.cam(model, SLICES), maps, atol=1e-5)
        assert all(map(torch.allclose, activations_and_gradients(model, SLICES), parts))


def test_the_models_own_decision_is_explained_by_default(model):
    logits = model(SLICES).detach()
    for cut, decisions in ((logits.median() + 1e-6, (logits > logits.median()).int()), (logits.min() - 0.1, [1] * 3)):
        shifted = copy.deepcopy(model)
        shifted.net.fc.bias.data -= cut
        own, given = explain.cam(shifted, SLICES), explain.cam(shifted, SLICES, targets=decisions)
        assert np.array_equal(own, given) and len(set(map(int, decisions))) == 1 + (cut > logits.min())


@pytest.mark.parametrize("size", [1.0, 1e-3])
@pytest.mark.parametrize("flip", [1, -1])
def test_eigencam_is_the_librarys_and_bright_where_activations_are_strong(flip, size, monkeypatch):
    """Whichever sign the decomposition happens to give its component."""
    svd = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda *a, **k: [flip * part for part in svd(*a, **k)])
    activations = size * np.random.default_rng(0).random((5, 6, 8), np.float32)
    activations[:, 2:4, 2:4] += size * (3 + np.arange(5)[:, None, None])
    for sign in (1, -1):
        heat = explain.first_component(sign * activations)
        assert heat[3, 3] > heat[5, 7] and heat.shape == (6, 8) and heat.dtype == np.float32
    (library,) = EigenCAM.get_cam_image(None, *[None] * 3, activations[None], None, False)
    assert np.allclose(np.abs(library), np.abs(heat), atol=1e-5 * size)


def test_the_model_is_left_as_it_was_and_nothing_before_the_layer_is_kept(model, monkeypatch):
    """Also where the library fails, whose `with` block would swallow the error."""
    freeze(model, "layer2")
    asked, before = [], [parameter.requires_grad for parameter in model.parameters()]
    model.net.layer3.register_forward_hook(lambda _module, _input, output: asked.append(output.requires_grad))

    def broken(*_args, **_kwargs):
        raise IndexError("inside the library")

    explain.cam(model, SLICES)
    activations_and_gradients(model, SLICES)
    assert asked == [False] * 3  # for the decision, for its map, and for what it is made of
    monkeypatch.setattr(explain.METHODS["GradCAM"], "get_cam_weights", broken)
    with pytest.raises(IndexError, match="inside the library"):
        explain.cam(model, SLICES)
    assert not model.net.layer4._forward_hooks and all(parameter.grad is None for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == before


TARGETS = ([1], 1, [2, 0, 1], [0.9, 0, 1], ["COVID", 0, 1], [-1, 0, 1])  # none of them a class for each slice
NO_SLICES = (SLICES / 255, SLICES[:, None], SLICES[0], SLICES[:, :, :48], SLICES.int())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "GradCAMM"}, "Unknown method 'GradCAMM': choose one of 'GradCAM', 'EigenCAM'"),
        ({"layer": "layer5"}, "Unknown layer 'layer5': did you mean 'layer4'"),
        ({"layer": "net.bm1"}, "Unknown layer 'net.bm1': did you mean 'net.bn1'"),
        *[({"targets": each}, "^targets must be a list with 0 or 1 for each of 3 slices") for each in TARGETS],
        *[({"images": each}, r"Slices must be a torch tensor, uint8 \(N, H, H\) from 0 to 255") for each in NO_SLICES],
    ],
)
def test_bad_calls_are_named(model, given, words):
    with pytest.raises(ValueError, match=words):
        explain.cam(model, **{"images": SLICES} | given)


def test_a_layer_is_a_module_or_its_name(model):
    given = {"targets": [1] * 3}
    by_name = explain.cam(model, SLICES, layer="layer3", **given)
    for layer in (model.net.layer3[-1], "net.layer3", model.net.layer3):
        assert np.array_equal(explain.cam(model, SLICES, layer=layer, **given), by_name)
    plain, x = model.net, model.preprocess(SLICES)  # any network, which takes its input as it is
    assert np.allclose(explain.cam(plain, x, layer="layer3", **given), by_name, atol=1e-5)
    mirrored = explain.cam(model, SLICES, layer="layer3", reshape_transform=lambda y: y.flip(-1), **given)
    assert np.allclose(mirrored[:, :, ::-1], by_name, atol=1e-5)


def test_cropping_preprocess_is_undone(model):
    x = model.preprocess(SLICES)
    whole = explain.cam(model, x, "EigenCAM")
    for crop, first, last in ((0.5, 16, 48), (224 / 232, 1, 63), (0.7, 9, 54)):
        model.preprocess = Preprocessing(crop_fraction=crop)
        placed = explain.cam(model, x, "EigenCAM")  # the same input, said to be the middle of a slice
        assert placed.shape == (3, 64, 64) and placed.dtype == np.float32
        middle = np.stack([cv2.resize(each, (last - first,) * 2) for each in whole])
        assert np.array_equal(placed[:, first:last, first:last], middle) and middle.any()
        assert placed.sum() == pytest.approx(middle.sum())  # 0 around it
    model.preprocess = Preprocessing(crop_fraction=0.5)
    maps = explain.cam(model, SLICES, targets=[0] * 3)
    seen = explain.cam(model, model.preprocess(SLICES), targets=[0] * 3)
    assert np.array_equal(maps, seen) and not maps[:, :16].any() and maps[:, 16:48, 16:48].any()


def test_any_number_of_slices_goes_in_batches(model, monkeypatch):
    whole = explain.cam(model, SLICES, targets=[1, 0, 1])
    monkeypatch.setattr(explain, "BATCH", 2)
    assert np.allclose(explain.cam(model, SLICES, targets=[1, 0, 1]), whole, atol=1e-4)
    none = explain.cam(model, SLICES[:0])
    assert none.shape == (0, 64, 64) and none.dtype == np.float32
