"""Where each finding is drawn and how bright it is: the rules that a label stands for, measured on healthy canvases."""

import dataclasses
import itertools
from functools import cache

import cv2
import numpy as np
import pytest
from numpy.random import default_rng

from ct_phantom.anatomy import Slice
from ct_phantom.disease import DRAW, FINDINGS
from ct_phantom.patients import COVID, SCATTERED, VISIBLE, draw_healthy, plan_patient

SEEDS, FEW, MUCH = range(12), 0.2, 0.8  # FEW and MUCH are severities


@cache
def canvases() -> list[Slice]:
    """Healthy slices of four patients at four levels, each the middle one of its patient's."""
    plans = {level: plan_patient(patient) for patient, level in ((0, 0.3), (2, 0.45), (4, 0.55), (6, 0.7))}
    centred = {level: dataclasses.replace(p, habitus=p.habitus | {"middle": level}) for level, p in plans.items()}
    return [draw_healthy(plan, level, 96)[0] for level, plan in centred.items()]


def change(name: str, s: Slice, seed: int, severity: float) -> np.ndarray:
    """By how many HU a finding changes a healthy canvas, float32 (n, n); the canvas stays as it was."""
    healthy = s.hu.copy()
    DRAW[name](s, default_rng(seed), severity)
    changed, s.hu = s.hu - healthy, healthy
    return changed


@cache
def look(name: str, severity: float | None = None) -> dict[str, float]:
    """What a finding looks like on average: where its change of HU lies, and how strong it is.

    depth: distance from the chest wall, in units; the lungs' own is 0.25.
    outer: share of the change within 0.15 of the wall; the lungs' own is 0.33.
    behind: share behind the middle of the chest; the lungs' own is 0.48.
    other: share in the lung that has less of it; 0 = one lung only.
    hu: change where it is visible.
    kept: how much of the healthy contrast, vessels first of all, is left there (1 = all, 0 = none).
    area: share of the lungs where it is visible.
    """
    if severity is None:
        return {
            key: (few + much) / 2
            for (key, few), much in zip(look(name, FEW).items(), look(name, MUCH).values(), strict=True)
        }
    rows = []
    for seed, s in itertools.product(SEEDS, canvases()):
        changed, lung = change(name, s, seed, severity), s.lung > 0.5
        part, seen = np.abs(changed) / np.abs(changed).sum(), (np.abs(changed) > VISIBLE) & lung
        left = part[:, s.n // 2 :].sum()
        row = {
            "depth": (part * s.depth).sum(),
            "outer": part[s.depth < 0.15].sum(),
            "behind": (part * (s.y > 0.1)).sum(),
            "other": min(left, 1 - left),
            "hu": changed[seen].mean(),
            "kept": 1 + np.polyfit(s.hu[seen], changed[seen], 1)[0] if seen.sum() > 100 else np.nan,
            "area": seen.sum() / lung.sum(),
        }
        rows.append(row)
    return {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}


ALONG, FREE, ONE, BOTH = (0.54, 1.0), (0.18, 0.4), (-0.01, 0.01), (0.18, 0.5)
LOOKS = {  # from where to where each may lie: depth, outer, behind, other, hu
    "ground_glass": ((0.09, 0.17), ALONG, (0.57, 0.85), (0.22, 0.5), (160, 290)),
    "crazy_paving": ((0.09, 0.17), ALONG, (0.57, 0.85), (0.22, 0.5), (205, 310)),
    "consolidation": ((0.08, 0.16), (0.62, 1.0), (0.57, 0.85), (0.2, 0.5), (410, 560)),
    "lobar_consolidation": ((0.19, 0.29), FREE, (0.38, 0.65), ONE, (360, 600)),
    "perihilar_haze": ((0.31, 0.45), (-0.01, 0.07), (0.45, 0.75), (0.05, 0.4), (260, 430)),
    "nodules": ((0.21, 0.31), FREE, (0.38, 0.66), BOTH, (540, 670)),
    "mass": ((0.17, 0.28), FREE, (0.35, 0.58), ONE, (720, 870)),
    "cavity": ((0.17, 0.28), FREE, (0.35, 0.58), ONE, (280, 460)),
    "emphysema": ((0.21, 0.31), (0.26, 0.42), (0.4, 0.6), (0.33, 0.5), (-220, -140)),
    "effusion": ((0.12, 0.2), (0.43, 0.6), (0.98, 1.01), (0.05, 0.4), (650, 780)),
    "atelectasis": ((0.21, 0.31), (0.15, 0.34), (0.58, 0.85), (0.15, 0.4), (590, 730)),
    "bronchiectasis": ((0.28, 0.39), (-0.01, 0.13), (0.42, 0.78), ONE, (660, 800)),
    "scattered_haze": ((0.21, 0.31), FREE, (0.36, 0.62), BOTH, (170, 280)),
    "reticulation": ((0.21, 0.31), FREE, (0.36, 0.62), BOTH, (175, 290)),
    "scattered_consolidation": ((0.21, 0.31), FREE, (0.36, 0.62), BOTH, (400, 560)),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_each_finding_lies_where_it_belongs_and_is_as_dense_and_as_large(name):
    found = look(name)
    for key, (low, high) in zip(("depth", "outer", "behind", "other", "hu"), LOOKS[name], strict=True):
        assert low < found[key] < high, f"{name}: {key} {found[key]:.3f}"
    slow = 1.1 if name in ("lobar_consolidation", "perihilar_haze", "bronchiectasis") else 1.4
    assert look(name, MUCH)["area"] > slow * look(name, FEW)["area"] > 0.01


@pytest.mark.parametrize("name", FINDINGS)
def test_only_lung_changes_by_the_same_draws_at_every_level(name):
    """Or the neighbouring slices of a patient would show another disease."""
    states = []
    for s in canvases():
        rng, healthy = default_rng(0), s.hu.copy()
        DRAW[name](s, rng, MUCH)
        assert np.array_equal(s.hu[s.lung == 0], healthy[s.lung == 0])
        s.hu = healthy
        states.append(rng.bit_generator.state)
    assert all(state == states[0] for state in states)


def test_covid_lies_along_the_pleura_and_what_is_scattered_does_not():
    """The label's own rule: a network that learns it has learnt the disease."""
    for covid in COVID:
        assert min(look(name)["depth"] for name in SCATTERED) > 1.5 * look(covid)["depth"]
        assert look(covid)["outer"] > 1.6 * max(look(name)["outer"] for name in SCATTERED)


def test_consolidation_is_denser_than_ground_glass_and_hides_the_vessels():
    for haze, dense in (("ground_glass", "consolidation"), ("scattered_haze", "scattered_consolidation")):
        assert look(dense)["hu"] > 1.7 * look(haze)["hu"]
        assert look(haze)["kept"] > 0.62 and look(dense)["kept"] < 0.5


def test_a_patients_consolidation_lies_inside_the_ground_glass():
    """As both get the same seed."""
    inside = []
    for seed, s in itertools.product(SEEDS, canvases()):
        glass, dense = (change(name, s, seed, 0.5) > VISIBLE for name in ("ground_glass", "consolidation"))
        inside.append((glass & dense).sum() / dense.sum())
    assert np.mean(inside) > 0.93


def test_nets_are_rougher_than_haze():
    """How far the change of HU departs from its own blur, as a part of it."""

    def rough(name: str) -> float:
        parts = []
        for seed, s in itertools.product(SEEDS[:6], canvases()):
            changed = change(name, s, seed, 0.5)
            fine = np.abs(changed - cv2.GaussianBlur(changed, (0, 0), 2))
            parts.append(fine[changed > VISIBLE].mean() / changed[changed > VISIBLE].mean())
        return np.mean(parts)

    assert rough("crazy_paving") > 1.25 * rough("ground_glass")
    assert rough("reticulation") > 1.6 * rough("scattered_haze")
