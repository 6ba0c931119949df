"""The lesion lab's patch: ground glass at a place that is chosen instead of drawn."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import SeedSequence, default_rng

from .anatomy import AIR, MUSCLE, Slice, draw_anatomy, ramp
from .patients import HOSPITALS, VISIBLE, choose_frame, choose_habitus, scan


def draw_with_lesion(
    patient: int, place: float = 0.5, depth: float = 0.05, size: float = 0.0, density: float = 0.4, lungs="left",
    level: float | None = None, seed: int = 0, hospital: str = "A", image_size: int = 96, n_slices: int = 4,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A healthy slice of an imaginary patient with patches of ground glass, drawn and scanned as the phantom's are.

    Args:
        patient, seed, hospital, image_size, n_slices: as for `phantom.draw_patient`; its findings are left out.
        place: where along the chest wall, -1.2 (front) over 0 (side) to 1.4 (back).
        depth: how far inside, 0 (at the pleura) to 0.7 (near the middle of the chest).
        size: half the length of a patch, in halves of the chest's width; 0 draws none.
        density: how much of the air is replaced, 0 to 1.
        lungs: "left" (the right side of the image), "right", or "both".
        level: 0 top of the lungs, 1 their base; None for the patient's first slice.

    Returns:
        image uint8 (H, W), and where the patches can be seen, bool (H, W).
    """
    h = HOSPITALS[hospital]
    body, _, _, grain = (default_rng(child) for child in SeedSequence([seed, h.number, patient]).spawn(4))
    step = body.uniform(*h.step)
    levels = body.uniform(h.levels[0], h.levels[1] - step * (n_slices - 1)) + step * np.arange(n_slices)
    habitus = choose_habitus(body, h, levels)
    anatomy, frame, settings = (int(n) for n in body.integers(2**31, size=3))
    s = draw_anatomy(anatomy, image_size, levels[0] if level is None else level, habitus)
    where = choose_frame(default_rng(frame), h, s, image_size)
    lung, healthy = cv2.remap(s.lung, *where, cv2.INTER_LINEAR) > 0.5, s.hu.copy()
    if size > 0:
        _ground_glass(s, default_rng(patient), place, depth, size, density, lungs)
    change = cv2.remap(np.abs(s.hu - healthy), *where, cv2.INTER_LINEAR)
    image = scan(cv2.remap(s.hu, *where, cv2.INTER_LINEAR, borderValue=AIR), default_rng(settings), grain, h)
    return image, (change > VISIBLE) & lung


def _ground_glass(s: Slice, rng, place: float, depth: float, size: float, density: float, lungs: str) -> None:
    """Blend in patches as `disease.ground_glass` does, at a place that is chosen instead of drawn."""
    wall = np.arctan2(s.outline[:, 1], s.outline[:, 0])
    field = np.full((s.n, s.n), -2.0, np.float32)
    for angle in {"left": [place], "right": [np.pi - place], "both": [place, np.pi - place]}[lungs]:
        angle = (angle + np.pi) % (2 * np.pi) - np.pi
        x, y = s.outline[np.argmin(np.abs(wall - angle))] * (1 - depth)
        field = np.maximum(field, 1 - s.blob(x, y, 0.6 * size, size, angle))
    field = field + 0.6 * s.texture(rng, 0.24, 4)
    s.blend(density * ramp(field, -0.1, 0.8) * (1 + 0.5 * s.texture(rng, 0.12)), MUSCLE)
