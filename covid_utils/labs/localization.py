"""Where a heat map points: scores against known lesions and lungs, and baseline maps that ignore the network."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
from scipy.ndimage import binary_fill_holes
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from sklearn.metrics import average_precision_score
from torch import Tensor

from ..data import CTData
from ..evaluation import bootstrap_weights, mean_interval


def check_masks(maps: np.ndarray, *masks: np.ndarray) -> None:
    """Raise ValueError if a mask is not bool, or not of the maps' shape, (N, H, W)."""
    for mask in map(np.asarray, masks):
        if mask.dtype != bool or mask.shape != np.shape(maps):
            raise ValueError(f"A mask must be bool {np.shape(maps)} as the maps are, not {mask.dtype} {mask.shape}.")


def pointing_game(maps: np.ndarray, lesions: np.ndarray, board: np.ndarray) -> np.ndarray:
    """Whether the maximum of each map lies in the lesion.

    Zhang et al. 2016, https://arxiv.org/abs/1608.00507, section 4.1, without its tolerance of 15 pixels. Where several
    pixels share the maximum, the score is the share of them in the lesion: a flat map scores like a random point.

    Args: maps, float (N, H, W); lesions, bool (N, H, W); `board`, bool (N, H, W), where the point may lie: the lungs,
    or the whole slice. Returns float (N,), 1 for a hit and 0 for a miss.

    >>> pointing_game(np.array([[[0.1, 0.9]]]), np.array([[[False, True]]]), np.ones((1, 1, 2), bool))
    array([1.])
    """
    check_masks(maps, lesions, board)
    maximum = board & (maps == np.where(board, maps, -np.inf).max((1, 2), keepdims=True))
    return (maximum & lesions).sum((1, 2)) / np.maximum(maximum.sum((1, 2)), 1)


def relevance_mass_accuracy(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of each map's sum that lies inside a mask; an empty map counts as a flat one.

    Relevance mass accuracy (Arras et al. 2022, https://arxiv.org/abs/2003.07258), also called the energy-based pointing
    game (Wang et al. 2020, https://arxiv.org/abs/1910.01279, section 4.3).

    Args: maps, float (N, H, W), not below 0; masks, bool (N, H, W), lesions or lungs. Returns float (N,), 0 to 1.

    >>> relevance_mass_accuracy(np.array([[[3.0, 1.0]]]), np.array([[[True, False]]]))
    array([0.75])
    """
    check_masks(maps, masks)
    empty = maps.sum((1, 2), keepdims=True) == 0
    heat = np.where(empty, 1.0, maps)
    return (heat * masks).sum((1, 2)) / heat.sum((1, 2))


def iou_at_lesion_area(maps: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Intersection over union of each lesion and as many of the map's highest pixels, so that no threshold is chosen.

    Of pixels that tie at the limit, the share that is needed is taken. Args: as for `pointing_game`. Returns float
    (N,), 0 to 1; NaN for a slice without a lesion.
    """
    check_masks(maps, lesions)
    scores = []
    for heat, lesion in zip(maps, lesions, strict=True):
        area = lesion.sum()
        limit = np.sort(heat, axis=None)[-area]
        above, tied = heat > limit, heat == limit
        common = lesion[above].sum() + (area - above.sum()) * lesion[tied].mean()
        scores.append(common / (2 * area - common))
    return np.array(scores)


def average_precision(maps: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Average precision of each map as a detector of lesion pixels; a flat map scores the lesion's share of the slice.

    Args: as for `pointing_game`. Returns float (N,), 0 to 1; NaN for a slice without a lesion.
    """
    check_masks(maps, lesions)
    pairs = zip(lesions.reshape(len(maps), -1), maps.reshape(len(maps), -1), strict=True)
    return np.array([average_precision_score(lesion, heat) if lesion.any() else np.nan for lesion, heat in pairs])


def mean_with_interval(values: np.ndarray, patients, seed: int = 0, share: bool = False) -> dict[str, float]:
    """The mean over slices with its 95 % interval, from the patient-level bootstrap of `metrics_with_intervals`.

    Args: values, float (N,), of which NaN is left out; patients, (N,), of each slice; `share`: the interval ends at 0
    and 1. Returns {"value", "low", "high"}; NaN if there are no values.
    """
    table = pd.DataFrame({"value": np.asarray(values, float), "patient": np.asarray(patients)}).dropna(subset="value")
    if table.empty:
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    weights = bootstrap_weights(table.patient, seed)
    means = weights @ table.value / weights.sum(1)
    found = mean_interval(means[0], means[1:].std(), table.patient.nunique())
    return {name: min(max(value, 0.0), 1.0) if share else value for name, value in found.items()}


def with_lesions(data: CTData, part: str) -> tuple[pd.DataFrame, Tensor, np.ndarray, np.ndarray]:
    """The COVID slices of a split whose lesion mask is not empty: table, slices, lesions and lungs, each (N, …)."""
    table = data.table[(data.table.split == part) & (data.table.label == 1)]
    table = table[data.lesions[table.index].flatten(1).any(1).numpy()]
    lesions, lungs = (each[table.index].numpy() for each in (data.lesions, data.lungs))
    return table, data.images[table.index], lesions, lungs


def baselines(images: np.ndarray, lungs: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Maps that ignore the network: one that scores no better than these has shown nothing.

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


def segment_lungs(images: np.ndarray) -> np.ndarray:
    """A simple lung segmentation: large dark regions that reach no corner of the slice, closed and filled.

    Otsu's threshold (https://doi.org/10.1109/TSMC.1979.4310076), then an opening that separates the lungs from the air
    around the body, which fills the corners. Each region is closed by itself, which takes in vessels and does not
    bridge the mediastinum. Dense disease at the pleura, and fluid, are lost.

    Args:
        images: uint8 (N, H, W), bright body on dark air.

    Returns:
        bool (N, H, W); empty where nothing dark is found.
    """
    masks, size = np.zeros(images.shape, bool), images.shape[1]
    pad, corner = max(1, size // 8), np.r_[: size // 16, -(size // 16) : 0]
    radii = (size // 48, size // 16)
    opening, closing = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2) for radius in radii)
    for image, mask in zip(images, masks, strict=True):
        if image.min() == image.max():
            continue
        dark = np.pad(image < threshold_otsu(image), pad, mode="edge").astype(np.uint8)
        regions = label(cv2.morphologyEx(dark, cv2.MORPH_OPEN, opening)[pad:-pad, pad:-pad], connectivity=1)
        wide, outside = np.pad(regions, pad, mode="edge"), np.unique(regions[np.ix_(corner, corner)])
        for region in regionprops(regions):
            if region.area > 0.01 * image.size and region.label not in outside:  # smaller: trachea, bowel or noise
                closed = cv2.morphologyEx((wide == region.label).astype(np.uint8), cv2.MORPH_CLOSE, closing)
                mask |= binary_fill_holes(closed[pad:-pad, pad:-pad])
    return masks
