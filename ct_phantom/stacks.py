"""All of a patient's lungs, from top to base: in an ill patient only some slices show the disease."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.random import SeedSequence, default_rng

from .patients import PatientSlices, draw_slice, plan_patient

EDGE = 0.04  # of the lungs' height: over this the disease fades out, as a slice is thicker than a line


def draw_stack(
    patient: int, seed: int = 0, hospital: str = "A", image_size: int = 96, n_slices: int = 12
) -> PatientSlices:
    """Draw an imaginary patient's lungs from top to base; the label is the patient's.

    The person is that of `draw_patient`, with the same findings. They reach over a part of the height, 12 to 80 % by
    lot, around the level where `draw_patient` finds them; above and below the lungs are healthy.

    >>> stack = draw_stack(1, image_size=64, n_slices=6)
    >>> stack.label, stack.lesions.any((1, 2)).sum() < 6
    (1, np.True_)

    Args: as for `draw_patient`; `n_slices`: how many, evenly spaced.

    Raises:
        ValueError: unknown hospital.
    """
    plan = plan_patient(patient, seed, hospital)
    lot = SeedSequence([seed, plan.hospital.number, patient, 1])  # one more number than a patient's own seed has
    half = default_rng(lot).uniform(0.06, 0.4)
    top, base = plan.hospital.levels
    middle = float(np.clip(plan.habitus["middle"], top + half / 2, base - half / 2))
    levels = np.linspace(top, base, n_slices)
    levels += middle - levels[np.argmin(np.abs(levels - middle))]  # one slice goes right through the middle
    plan = dataclasses.replace(
        plan, levels=levels, grains=lot.spawn(n_slices), habitus=plan.habitus | {"middle": middle}
    )
    away = np.abs(levels - middle)
    _, boost = draw_slice(plan, int(np.argmin(away)), image_size)
    shares = np.clip((half - away) / EDGE, 0, 1)
    drawn = [draw_slice(plan, number, image_size, (boost,), float(share))[0] for number, share in enumerate(shares)]
    return PatientSlices(*(np.array(part) for part in zip(*drawn, strict=True)), levels, plan.label)
