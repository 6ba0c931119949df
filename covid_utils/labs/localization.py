"""Where a heat map points: scores against known lesions and lungs, and maps that know nothing to compare with."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.filters import threshold_otsu
from sklearn.metrics import average_precision_score
from torch import Tensor

from ..core.checks import check_masks
from ..data import CTData
from ..evaluation import mean_interval, patient_weights


def pointing_game(maps: np.ndarray, lesions: np.ndarray, board: np.ndarray) -> np.ndarray:
    """Whether the hottest place of each map lies in the lesion.

    Zhang et al. 2016, https://arxiv.org/abs/1608.00507, section 4.1, without its tolerance of 15 pixels. Several
    equally hot pixels count with the share of them that lies in the lesion, so that a flat map is a random point.

    Args:
        maps: float (N, H, W).
        lesions: bool (N, H, W).
        board: bool (N, H, W), where the point may lie: the lungs, or the whole slice.

    Returns:
        float (N,), 1 for a hit and 0 for a miss.

    >>> pointing_game(np.array([[[0.1, 0.9]]]), np.array([[[False, True]]]), np.ones((1, 1, 2), bool))
    array([1.])
    """
    check_masks(maps, lesions, board)
    hottest = board & (maps == np.where(board, maps, -np.inf).max((1, 2), keepdims=True))
    return (hottest & lesions).sum((1, 2)) / np.maximum(hottest.sum((1, 2)), 1)


def names_that_hit(maps: dict[str, np.ndarray], lesions: np.ndarray) -> list[str]:
    """Of several maps, {name: float (N, H, W)}, the names of those whose hottest place lies in the lesion each time."""
    everywhere = np.ones_like(lesions)
    return [name for name, heat in maps.items() if pointing_game(heat, lesions, everywhere).min() > 0]


def relevance_mass_accuracy(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Which share of each map's heat lies inside a mask.

    Relevance mass accuracy (Arras et al. 2022, https://arxiv.org/abs/2003.07258), also called the energy-based pointing
    game of Wang et al. 2020, https://arxiv.org/abs/1910.01279, section 4.3. A map without
    any heat counts as a flat one.

    Args:
        maps: float (N, H, W), not below 0.
        masks: bool (N, H, W), lesions or lungs.

    Returns:
        float (N,), 0 to 1.

    >>> relevance_mass_accuracy(np.array([[[3.0, 1.0]]]), np.array([[[True, False]]]))
    array([0.75])
    """
    check_masks(maps, masks)
    flat = maps.sum((1, 2), keepdims=True) == 0
    heat = np.where(flat, 1.0, maps)
    return (heat * masks).sum((1, 2)) / heat.sum((1, 2))


def iou_at_lesion_area(maps: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Overlap of each lesion with the same number of hottest pixels: intersection over union.

    So no threshold has to be chosen. Of pixels with equal heat at the limit, the share that is needed is taken.

    Args: as for `pointing_game`.

    Returns:
        float (N,), 0 to 1; nan for a slice without a lesion.
    """
    check_masks(maps, lesions)
    scores = []
    for heat, lesion in zip(maps, lesions, strict=True):
        area = lesion.sum()
        limit = np.sort(heat, axis=None)[-area] if area else np.inf
        above, tied = heat > limit, heat == limit
        common = lesion[above].sum() + (area - above.sum()) * (lesion[tied].mean() if area else 0)
        scores.append(common / (2 * area - common) if area else np.nan)
    return np.array(scores)


def average_precision(maps: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Average precision of each map as a detector of lesion pixels; a map that knows nothing gets the lesion's area.

    Args: as for `pointing_game`.

    Returns:
        float (N,), 0 to 1; nan for a slice without a lesion.
    """
    check_masks(maps, lesions)
    pairs = zip(lesions.reshape(len(maps), -1), maps.reshape(len(maps), -1), strict=True)
    return np.array([average_precision_score(lesion, heat) if lesion.any() else np.nan for lesion, heat in pairs])


def localization(maps: np.ndarray, lesions: np.ndarray, lungs: np.ndarray) -> dict[str, np.ndarray]:
    """All scores of each map, {name: float (N,)}; the pointing game is played inside the lungs."""
    return {
        "pointing game": pointing_game(maps, lesions & lungs, lungs),
        "energy in lesion": relevance_mass_accuracy(maps, lesions),
        "energy in lungs": relevance_mass_accuracy(maps, lungs),
        "IoU at lesion area": iou_at_lesion_area(maps, lesions),
        "average precision": average_precision(maps, lesions),
    }


def with_lesions(data: CTData, part: str) -> tuple[pd.DataFrame, Tensor, np.ndarray, np.ndarray]:
    """The COVID slices of a split in which a lesion was drawn: table, slices, lesions and lungs, each (N, …)."""
    table = data.table[(data.table.split == part) & (data.table.label == 1)]
    table = table[data.lesions[table.index].flatten(1).any(1).numpy()]
    lesions, lungs = (each[table.index].numpy() for each in (data.lesions, data.lungs))
    return table, data.images[table.index], lesions, lungs


def localization_with_intervals(maps: np.ndarray, lesions: np.ndarray, lungs: np.ndarray, patients) -> dict[str, dict]:
    """The mean of each score of `localization` with its interval over `patients`, (N,)."""
    found = localization(maps, lesions, lungs)
    return {name: mean_with_interval(values, patients, share=True) for name, values in found.items()}


def mean_with_interval(values: np.ndarray, patients, seed: int = 0, share: bool = False) -> dict[str, float]:
    """The mean over slices, with the 95 % interval of `metrics_with_intervals`' bootstrap, which draws whole patients.

    Args:
        values: float (N,); nan is left out.
        patients: (N,), the group of each slice.
        share: whether the mean can't lie beyond 0 and 1, so that the interval ends there.

    Returns:
        {"value", "low", "high"}; nan if there are no values.
    """
    values, patients = np.asarray(values, float), np.asarray(patients)
    known = ~np.isnan(values)
    if not known.any():
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    weights = patient_weights(patients[known], seed)
    means = weights @ values[known] / weights.sum(1)
    found = mean_interval(means[0], means[1:].std(), len(np.unique(patients[known])))
    return {name: min(max(value, 0.0), 1.0) if share else value for name, value in found.items()}


# ------------------------------------------------------------------------------------------------ baselines


def baselines(images: np.ndarray, lungs: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Maps that know nothing of the network: whoever can't beat them has shown nothing.

    Args:
        images: uint8 (N, H, W).
        lungs: bool (N, H, W).

    Returns:
        {name: float32 (N, H, W) in 0…1}: noise; a blob in the middle; the lungs themselves; edges (Sobel filter).
    """
    n, height, width = images.shape
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    edges = np.stack([np.hypot(*(cv2.Sobel(each, cv2.CV_32F, *d) for d in ((1, 0), (0, 1)))) for each in images])
    return {
        "random": np.random.default_rng(seed).random((n, height, width), dtype=np.float32),
        "centred blob": np.broadcast_to(np.exp(-2 * (x**2 + y**2)), images.shape).astype(np.float32),
        "lung mask": lungs.astype(np.float32),
        "Sobel edges": edges / np.maximum(edges.max((1, 2), keepdims=True), 1e-6),
    }


# ---------------------------------------------------------------------------------------------------- lungs


def segment_lungs(images: np.ndarray) -> np.ndarray:
    """The lungs of grey slices, simply: large dark regions that reach no corner, with what they enclose.

    Otsu's threshold (https://doi.org/10.1109/TSMC.1979.4310076); an opening that cuts the lungs off from the air around
    the body, which fills the corners; a closing that takes in vessels and patches at the border. Dense disease at the
    pleura, and fluid, are lost.

    Args:
        images: uint8 (N, H, W), bright body on dark air.

    Returns:
        bool (N, H, W); empty where nothing dark is found.
    """
    return np.stack([_lungs_of(image) for image in images]) if len(images) else np.zeros(images.shape, bool)


def _lungs_of(image: np.ndarray) -> np.ndarray:
    if image.min() == image.max():
        return np.zeros(image.shape, bool)
    dark = _morph(image < threshold_otsu(image), cv2.MORPH_OPEN, len(image) // 48)
    pieces, count = ndimage.label(dark)
    corner = len(image) // 16
    outside = [pieces[rows, columns] for rows in _ends(corner) for columns in _ends(corner)]
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    large = np.flatnonzero(sizes > 0.01 * image.size)  # smaller ones are the windpipe, the gut or noise
    # each piece by itself, or the closing would bridge what lies between the lungs
    kept = [pieces == piece for piece in np.setdiff1d(large, [0, *np.unique(outside)])]
    closed = [ndimage.binary_fill_holes(_morph(piece, cv2.MORPH_CLOSE, len(image) // 16)) for piece in kept]
    return np.any([np.zeros(image.shape, bool), *closed], axis=0)


def _ends(width: int) -> tuple[slice, slice]:
    return slice(None, width), slice(-width, None)


def _morph(mask: np.ndarray, operation: int, radius: int) -> np.ndarray:
    """Opening or closing with a disk; beyond the image's border lies what lies at it."""
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    wide = np.pad(mask.astype(np.uint8), 2 * radius, mode="edge")
    inner = slice(2 * radius, -2 * radius) if radius else slice(None)
    return cv2.morphologyEx(wide, operation, disk)[inner, inner] > 0


def dice(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Agreement of two masks, bool (N, H, W): twice the common area over the sum of both, float (N,).

    >>> dice(np.array([[[True, True]]]), np.array([[[True, False]]]))
    array([0.66666667])
    """
    return 2 * (one & other).sum((1, 2)) / np.maximum(one.sum((1, 2)) + other.sum((1, 2)), 1)
