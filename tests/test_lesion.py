"""The lesion lab's patch: the phantom's own slice, and ground glass in it where it was put."""

import numpy as np
import pytest

from ct_phantom.lesion import draw_with_lesion
from ct_phantom.patients import HOSPITALS, draw_patient, plan_patient

ROW, COLUMN = np.mgrid[:96, :96]


@pytest.mark.parametrize("hospital", HOSPITALS)
@pytest.mark.parametrize(("size", "n_slices"), [(96, 4), (64, 1)])
def test_without_a_lesion_it_draws_the_phantoms_own_bytes(hospital, size, n_slices):
    for patient in [patient for patient in range(24) if not plan_patient(patient, 1, hospital).chosen][:3]:
        image, lesion = draw_with_lesion(patient, seed=1, hospital=hospital, image_size=size, n_slices=n_slices)
        slices = draw_patient(patient, 1, hospital, size, n_slices)
        assert np.array_equal(image, slices.images[0])
        assert lesion.dtype == bool and lesion.shape == image.shape and not lesion.any()


def test_it_grows_where_it_is_put():
    areas = [draw_with_lesion(2, size=size, lungs="both")[1].sum() for size in (0.0, 0.15, 0.3, 0.45)]
    assert areas == sorted(areas) and areas[0] == 0 < areas[1] < areas[3]
    for lungs, half in (("left", np.s_[:, 48:]), ("right", np.s_[:, :48])):
        lesion = draw_with_lesion(2, size=0.3, lungs=lungs)[1]
        assert lesion[half].sum() > 0.95 * lesion.sum() > 0


@pytest.mark.parametrize("patient", [2, 4, 8])
def test_it_follows_place_and_depth(patient):
    rows = [ROW[draw_with_lesion(patient, place, size=0.25, density=0.6)[1]].mean() for place in (-1, -0.5, 0, 0.5, 1)]
    assert np.all(np.diff(rows) > 7), "from the front to the back"
    lesions = [draw_with_lesion(patient, 0, depth, size=0.2, density=0.6)[1] for depth in (0.0, 0.2, 0.4)]
    columns = [COLUMN[lesion].mean() for lesion in lesions]
    assert np.all(np.diff(columns) < -2), "from the pleura inwards"


@pytest.mark.parametrize("patient", [2, 4, 8])
def test_it_is_brighter_inside_and_the_rest_stays(patient):
    healthy = draw_with_lesion(patient)[0].astype(float)
    brighter = []
    for density in (0.1, 0.4, 0.8):
        image, lesion = draw_with_lesion(patient, size=0.3, density=density)
        brighter.append((image - healthy)[lesion].mean())
        assert np.abs(image - healthy)[~lesion].mean() < 1.5
    assert brighter[0] > 8 and np.all(np.diff(brighter) > 10)


def test_haze_that_nobody_sees_is_no_lesion():
    """A mask holds changes above VISIBLE, 70 HU: air of -850 HU that becomes muscle by 5 % changes by 45."""
    faint, clear = ([draw_with_lesion(p, size=0.4, density=d)[1].sum() for p in range(12)] for d in (0.05, 0.2))
    assert np.median(faint) == 0 and max(faint) < 40 and min(clear) > 60
