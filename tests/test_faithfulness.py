import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget

from covid_utils.labs import faithfulness
from covid_utils.models import Net
from ct_phantom.patients import draw_patient

IMAGES = torch.from_numpy(np.concatenate([draw_patient(p, image_size=64, n_slices=2).images for p in range(3)]))
MAPS = np.random.default_rng(0).random((6, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return Net("resnet18").eval()


def test_road_agrees_with_the_librarys(model):
    """Removed on the network's input there, on the slice here: rounding and other noise are all that differs."""
    x = model.preprocess(IMAGES)
    targets = [BinaryClassifierOutputTarget(1)] * len(x)
    with torch.no_grad():
        before = model(x).numpy()
    for order, metric in (("MoRF", ROADMostRelevantFirst(60)), ("LeRF", ROADLeastRelevantFirst(60))):
        theirs = before + metric(x, MAPS, targets, model)
        ours = faithfulness.removal_curves(model, IMAGES, {"a": MAPS}, [0.4], [1] * len(x), order)["a"][0]
        assert np.abs(ours - 1 / (1 + np.exp(-theirs))).max() < 0.02


def test_the_right_pixels_go_and_the_others_stay():
    heat = np.zeros((1, 64, 64), np.float32)
    heat[0, :16] = 1
    noise = torch.randint(0, 256, (1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for order, share, gone in (("MoRF", 0.25, slice(0, 16)), ("LeRF", 0.75, slice(16, 64))):
        changed = (faithfulness.remove(noise, heat, share, order) != noise)[0]
        assert changed[gone].float().mean() > 0.9 and changed.sum() == changed[gone].sum()
    assert torch.equal(faithfulness.remove(IMAGES, MAPS, 0.0), IMAGES)
    tied = faithfulness.remove(noise, np.zeros((1, 64, 64), np.float32), 0.25)
    assert 0.2 < (tied != noise).float().mean() <= 0.25, "ties don't remove the whole slice"
    with pytest.raises(ValueError, match="order='hottest'"):
        faithfulness.remove(IMAGES, MAPS, 0.1, order="hottest")


def test_agreement_of_maps():
    assert np.allclose(faithfulness.rank_correlation(MAPS, MAPS**3), 1)
    assert np.allclose(faithfulness.rank_correlation(MAPS, -MAPS), -1)
    assert (faithfulness.rank_correlation(MAPS, np.zeros_like(MAPS)) == 0).all()
