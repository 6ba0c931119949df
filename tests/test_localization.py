"""Scores of heat maps by hand; maps and networks of known answers stand in for real ones."""

import numpy as np
import pytest

from covid_utils.labs import localization as lo
from ct_phantom.patients import draw_patient

MAPS = np.random.default_rng(0).random((6, 32, 32)).astype(np.float32)
LESIONS = np.zeros((6, 32, 32), bool)
for i in range(6):
    LESIONS[i, 4 + i : 12 + i, 8 : 14 + 2 * i] = True


def test_pointing_game_by_hand():
    lungs = np.zeros((3, 8, 8), bool)
    lungs[:, 2:6, 2:6] = True
    lesions = np.zeros_like(lungs)
    lesions[:, 2:4, 2:6] = True  # half of the lungs
    maps = np.zeros((3, 8, 8), np.float32)
    maps[0, 0, 0], maps[0, 3, 3] = 1, 0.5  # the maximum lies outside the lungs, but the one inside them in the lesion
    maps[1, 5, 5] = 1  # beside the lesion
    # the third map is flat: as good as chance
    assert lo.pointing_game(maps, lesions, lungs).tolist() == [1, 0, 0.5]
    assert lo.pointing_game(maps, lesions, np.zeros_like(lungs)).tolist() == [0, 0, 0]


def test_masks_are_bool_and_as_large_as_the_maps():
    for wrong in (LESIONS.astype(np.uint8) * 255, LESIONS[:1], LESIONS[:, :16]):
        for call in (lo.relevance_mass_accuracy, lo.average_precision, lo.iou_at_lesion_area):
            with pytest.raises(ValueError, match=r"A mask must be bool \(6, 32, 32\) as the maps are"):
                call(MAPS, wrong)


def test_shares_of_the_lesion_by_hand():
    """A map that is empty counts as a flat one: as good as chance."""
    maps, masks = np.zeros((3, 4, 4)), np.zeros((3, 4, 4), bool)
    masks[:, :2] = True
    maps[0, 0, 0], maps[0, 3, 3] = 3, 1
    maps[1, 3] = 1
    assert lo.relevance_mass_accuracy(maps, masks).tolist() == [0.75, 0, 0.5]
    lesion, heat = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4))
    lesion[:, 0] = True
    heat[0, 0, :2], heat[0, 3, :2], heat[1] = 1, 1, lesion[1]  # of the four highest two lie in the lesion; all; one
    assert lo.iou_at_lesion_area(heat, lesion) == pytest.approx([2 / 6, 1, 1 / 7])
    assert lo.average_precision(heat, lesion)[1:] == pytest.approx([1, 1 / 4])
    assert np.isnan(lo.average_precision(MAPS, LESIONS & False)).all()


def test_intervals_draw_whole_patients():
    values = np.array([1, 1, 1, 0, 0, 0, np.nan])
    alone = lo.mean_with_interval(values, range(7))
    together = lo.mean_with_interval(values, [0, 0, 0, 1, 1, 1, 1])
    assert alone["value"] == together["value"] == 0.5
    assert together["high"] - together["low"] > alone["high"] - alone["low"]
    assert np.isnan(lo.mean_with_interval([np.nan], [0])["value"])


def test_baselines_know_only_what_they_may():
    images = np.zeros((2, 32, 32), np.uint8)
    images[:, :, 16:] = 100
    maps = lo.baselines(images, LESIONS[:2])
    assert list(maps) == ["random", "centred blob", "lung mask", "Sobel edges"]
    for each in maps.values():
        assert each.shape == (2, 32, 32) and each.dtype == np.float32 and each.min() >= 0 and each.max() <= 1
    assert maps["centred blob"][0].argmax() in (15 * 32 + 15, 15 * 32 + 16, 16 * 32 + 15, 16 * 32 + 16)
    assert np.array_equal(maps["lung mask"], LESIONS[:2]) and maps["Sobel edges"][0, 4].argmax() in (15, 16)


def dice(one, other):
    return 2 * (one & other).sum((1, 2)) / (one.sum((1, 2)) + other.sum((1, 2)))


def test_lungs_are_found_on_the_phantom():
    drawn = [draw_patient(patient, seed=1) for patient in range(20)]
    images, lungs = (np.concatenate([getattr(d, name) for d in drawn]) for name in ("images", "lungs"))
    overlap = dice(lo.segment_lungs(images), lungs)
    assert overlap.mean() > 0.92 and np.quantile(overlap, 0.1) > 0.85
    threshold = dice(images < 100, lungs)  # the air around the body counts against it
    assert overlap.mean() > threshold.mean() + 0.05
    assert not lo.segment_lungs(np.full((1, 64, 64), 7, np.uint8)).any()
    assert lo.segment_lungs(np.zeros((0, 64, 64), np.uint8)).shape == (0, 64, 64)
