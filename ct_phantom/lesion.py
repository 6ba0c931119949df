"""The lesion lab's patch: ground glass at a place that is chosen instead of drawn."""

from __future__ import annotations

import numpy as np
from numpy.random import default_rng

from .disease import at_pleura, haze
from .patients import VISIBLE, draw_healthy, framed, plan_patient, scan_slice


def draw_with_lesion(
    patient: int, place: float = 0.5, depth: float = 0.05, size: float = 0.0, density: float = 0.4, lungs="left",
    level: float | None = None, seed: int = 0, hospital: str = "A", image_size: int = 96, n_slices: int = 4,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A healthy slice of an imaginary patient with patches of ground glass, drawn and scanned as the phantom's are.

    >>> image, lesion = draw_with_lesion(2, size=0.3, image_size=64)
    >>> image.shape, bool(lesion.any())
    ((64, 64), True)

    Args:
        patient, seed, hospital, image_size, n_slices: as for `draw_patient`, which raises the same; no findings.
        place: where along the chest wall, -1.2 (front) over 0 (side) to 1.4 (back).
        depth: how far inside, 0 (at the pleura) to 0.7 (near the middle of the chest).
        size: half the length of a patch, in halves of the chest's width; 0 draws none.
        density: how much of the air is replaced, 0 to 1.
        lungs: "left" (the right side of the image), "right", or "both".
        level: 0 top of the lungs, 1 their base; None for the patient's first slice.

    Returns:
        image uint8 (H, W), and where the patches can be seen, bool (H, W).
    """
    plan = plan_patient(patient, seed, hospital, n_slices)
    s, where = draw_healthy(plan, plan.levels[0] if level is None else level, image_size)
    lung, healthy = framed(s.lung, where) > 0.5, s.hu.copy()
    if size > 0:
        rng, field = default_rng(patient), np.full((s.n, s.n), -2.0, np.float32)
        for side in {"left": [1], "right": [-1], "both": [1, -1]}[lungs]:
            field = np.maximum(field, at_pleura(s, side, place, depth, 0.6 * size, size))
        field = field + 0.6 * s.texture(rng, 0.24, 4)
        haze(s, field, density, 0.8, s.texture(rng, 0.12))
    change = framed(np.abs(s.hu - healthy), where)
    return scan_slice(plan, s, where, 0), (change > VISIBLE) & lung
