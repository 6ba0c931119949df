"""What disease looks like on a slice: one function per finding.

Each gets a slice, a generator and a `severity` from 0 to 1. The generator starts anew for each slice of a patient,
so the draws are the patient's and only the level changes: a function must make the same draws at every level.
How findings look: Hansell et al. 2008, Fleischner Society glossary, https://doi.org/10.1148/radiol.2462070712;
COVID-19: Simpson et al. 2020, RSNA consensus, https://doi.org/10.1148/ryct.2020200152.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from .anatomy import MUSCLE, Slice, oval, ramp


def at_pleura(s: Slice, side: int, angle: float, inward: float, across: float, along: float) -> np.ndarray:
    """An oval patch at the chest wall, float (n, n): 1 at its middle, 0 on its edge, below 0 outside.

    Args:
        side: 1 the patient's left, -1 the right.
        angle: where along the wall, 0 is the side, 1.57 the back, -1.57 the front.
        inward: how far inside its middle lies, 0 at the wall to 1 in the middle of the chest.
        across, along: its radii, in units, from the wall inwards and along the wall.
    """
    angle = angle if side > 0 else np.pi - angle
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    wall = np.arctan2(s.outline[:, 1], s.outline[:, 0])
    x, y = s.outline[np.argmin(np.abs(wall - angle))] * (1 - inward)
    return 1 - s.blob(x, y, across, along, angle)


def haze(s: Slice, field: np.ndarray, strength: float, full: float, texture: np.ndarray) -> None:
    """Haze of uneven `strength`, 0 to 1, where `field` (n, n) is above 0; all of it where that reaches `full`."""
    s.blend(strength * ramp(field, -0.1, full) * (1 + 0.5 * texture), MUSCLE)


def foci(s: Slice, rng: Generator, severity: float) -> np.ndarray:
    """Patches along the pleura, mostly behind and below and in both lungs: above 0 inside, about 1 at their middle."""
    count = 2 + round(7 * severity)
    side = rng.choice((-1, 1)) * np.where(np.arange(12) % 2, -1, 1) * np.where(rng.random(12) < 0.2, -1, 1)
    angle = np.clip(rng.normal(0.55, 0.65, 12), -1.2, 1.35)  # 0 is the side, 1.57 the back
    z, reach = rng.normal(0, 0.06, 12), rng.uniform(0.08, 0.25, 12)
    along, across, inward = rng.uniform(0.16, 0.45, 12), rng.uniform(0.1, 0.24, 12), rng.uniform(0, 0.16, 12)
    field = np.full((s.n, s.n), -2.0, np.float32)
    big = 0.5 + 0.65 * severity
    for i in range(count):
        off = 0.0 if i < 2 else (s.level - s.habitus["middle"] - z[i]) / reach[i]
        patch = at_pleura(s, side[i], angle[i], inward[i], across[i] * big, along[i] * big)
        field = np.maximum(field, patch - off**2)
    return field + 0.9 * s.texture(rng, 0.24, 4)


def ground_glass(s: Slice, rng: Generator, severity: float) -> None:
    """Hazy patches along the pleura, vessels still visible in them."""
    field, texture = foci(s, rng, severity), s.texture(rng, 0.12)
    haze(s, field, rng.uniform(0.24, 0.48), rng.uniform(0.5, 1.2), texture)


def crazy_paving(s: Slice, rng: Generator, severity: float) -> None:
    """Ground glass with a net of thickened walls in it."""
    field = foci(s, rng, severity)
    net = np.minimum(np.abs(s.texture(rng, 0.13, 1)), np.abs(s.texture(rng, 0.13, 1)))
    s.blend((0.25 + 0.4 * ramp(net, 0.13, 0.04)) * ramp(field, 0.0, 0.5), MUSCLE)


def consolidation(s: Slice, rng: Generator, severity: float) -> None:
    """Patches along the pleura that hide the vessels."""
    field = foci(s, rng, severity)
    clumps = field + 0.4 * s.texture(rng, 0.12) + 0.35 * ramp(s.depth, 0.25, 0.0)
    s.blend(0.9 * ramp(clumps, 0.8 - 0.4 * severity, 1.5 - 0.4 * severity), 20)


def lobar_consolidation(s: Slice, rng: Generator, severity: float) -> None:
    """One lobe filled up to its straight border, air still in its bronchi."""
    side, behind = rng.choice((-1, 1)), rng.random() < 0.6
    tilt, edge, dense = rng.uniform(-0.5, 0.5), rng.uniform(-0.05, 0.35), rng.choice((0.35, 0.5, 0.9))
    sign = 1 if behind else -1
    border = (s.y * np.cos(tilt) + s.x * side * np.sin(tilt)) * sign - edge + 0.25 * severity
    amount = ramp(border + 0.04 * s.texture(rng, 0.2), 0, 0.05) * ramp(s.x * side, 0.0, 0.05)
    amount *= 1 + (1 - dense) * 0.6 * s.texture(rng, 0.16, 3)
    bronchi = np.zeros_like(s.air)
    for heading in rng.uniform(-0.6, 0.6, 4) + sign * 0.9:
        end = (side * (0.25 + 0.55 * np.cos(heading)), 0.6 * np.sin(heading))
        s.line([(side * 0.25, 0.05 * sign), end], 150, 0.016, bronchi)
    s.blend(dense * amount * (1 - bronchi / np.float32(255)), 30)


def perihilar_haze(s: Slice, rng: Generator, severity: float) -> None:
    """Patches of haze in the middle of one or both lungs that spare the pleura, as in congestion."""
    both, side, strength = rng.random() < 0.5, rng.choice((-1, 1)), rng.uniform(0.26, 0.5)
    field = np.full((s.n, s.n), -2.0, np.float32)
    for i in range(2 + round(3 * severity)):
        x, y = rng.uniform(0.25, 0.56), rng.normal(0.12, 0.26)
        wide, high = rng.uniform(0.16, 0.32, 2)
        turned = side if not both or i % 2 else -side
        field = np.maximum(field, 1 - s.blob(turned * x, y, wide, high))
    field += 0.9 * s.texture(rng, 0.24, 4)
    spared = ramp(s.depth, 0.08, 0.2)
    uneven = 1 + 0.5 * s.texture(rng, 0.12)
    s.blend(strength * ramp(field, -0.1, 0.8) * spared * uneven, MUSCLE)
    s.blend(0.9 * ramp(field, 1.1 - 0.3 * severity, 1.6 - 0.3 * severity) * spared, 20)


def nodules(s: Slice, rng: Generator, severity: float) -> None:
    """Small round spots, sharply bounded, anywhere in the lungs."""
    count = 12 + round(40 * severity)
    x, y = rng.uniform(-0.85, 0.85, 60), rng.uniform(-0.8, 0.8, 60)
    z, radius = rng.normal(0, 0.12, 60), rng.uniform(0.035, 0.07, 60)
    cut = radius**2 - ((s.level - s.habitus["middle"] - z) * 1.2) ** 2
    canvas = np.zeros_like(s.air)
    for i in range(count):
        if cut[i] > 0:
            s.polygon(oval(x[i], y[i], cut[i] ** 0.5, cut[i] ** 0.5), 255, canvas)
    s.blend(canvas / np.float32(255), 30)


def mass(s: Slice, rng: Generator, severity: float, hollow: bool = False) -> None:
    """One large lump with a knobbly border."""
    side, angle, far = rng.choice((-1, 1)), rng.uniform(-1.3, 1.3), rng.uniform(0.15, 0.42)
    radius = rng.uniform(0.13, 0.2) + 0.08 * severity
    x, y = side * (0.4 + far * np.cos(angle)), 0.5 * np.sin(angle)
    field = 1 - s.blob(x, y, radius, radius * rng.uniform(0.8, 1.2)) + 0.2 * s.texture(rng, 0.12)
    s.blend(ramp(field, 0.0, 0.15), 30)
    if hollow:
        s.blend(ramp(field, 0.5, 0.6), -960)


def cavity(s: Slice, rng: Generator, severity: float) -> None:
    """A lump with air inside."""
    mass(s, rng, severity, hollow=True)


def emphysema(s: Slice, rng: Generator, severity: float) -> None:
    """Dark holes without vessels."""
    holes = s.texture(rng, 0.12, 2) + 0.6 * s.texture(rng, 0.6, 1)
    s.blend(ramp(holes, 0.4 - 0.5 * severity, 1.2 - 0.5 * severity), -1020)


def effusion(s: Slice, rng: Generator, severity: float) -> None:
    """Fluid that gathers at the back between lung and chest wall."""
    side, both, rise = rng.choice((-1, 1)), rng.random() < 0.3, rng.uniform(0.1, 0.3)
    height = 0.7 - 0.45 * severity
    amount = ramp(s.y + rise * ramp(s.depth, 0.3, 0.0), height, height + 0.03)  # it creeps up along the wall
    s.blend(amount if both else amount * (s.x * side > 0), 10)


def atelectasis(s: Slice, rng: Generator, severity: float) -> None:
    """Bands of collapsed lung, straight or slightly bent."""
    canvas = np.zeros_like(s.air)
    for _ in range(2 + round(2 * severity)):
        side, width, y = rng.choice((-1, 1)), rng.uniform(0.025, 0.05), rng.uniform(-0.1, 0.65)
        start, bend, slope = rng.uniform(0.25, 0.5), rng.normal(0, 0.05), rng.normal(0, 0.25)
        along = np.linspace(0, rng.uniform(0.3, 0.6), 7)
        band = np.stack([side * (start + along), y + slope * along + bend * np.sin(8 * along)], 1)
        s.line(band, 255, width, canvas)
    s.blend(canvas / np.float32(255), 10)


def bronchiectasis(s: Slice, rng: Generator, severity: float) -> None:
    """Widened bronchi: rings with a thick wall, in a cluster."""
    side, x, y = rng.choice((-1, 1)), rng.uniform(0.4, 0.55), rng.uniform(-0.2, 0.45)
    place, radius = rng.normal(0, 0.11, (14, 2)), rng.uniform(0.035, 0.06, 14)
    rings = np.zeros_like(s.air)
    for i in range(7 + round(6 * severity)):
        ring = oval(side * (x + place[i, 0]), y + 1.5 * place[i, 1], radius[i], radius[i])
        s.polygon(ring, 0, rings)
        cv2.polylines(rings, [s.pixels(ring)], True, 255, max(1, round(0.028 * s.scale)), cv2.LINE_AA, 4)
    s.blend(rings / np.float32(255), 20)


def scattered(s: Slice, rng: Generator, severity: float) -> np.ndarray:
    """Patches of any size, shape and unevenness anywhere in the lungs, as `foci` along the pleura."""
    count = 1 + round(8 * severity)
    x, y = rng.uniform(-0.85, 0.85, 12), rng.uniform(-0.75, 0.8, 12)
    rx, ry, angle = rng.uniform(0.07, 0.4, 12), rng.uniform(0.07, 0.4, 12), rng.uniform(0, np.pi, 12)
    z, reach = rng.normal(0, 0.06, 12), rng.uniform(0.08, 0.25, 12)
    field = np.full((s.n, s.n), -2.0, np.float32)
    for i in range(count):
        off = 0.0 if i < 2 else (s.level - s.habitus["middle"] - z[i]) / reach[i]
        field = np.maximum(field, 1 - s.blob(x[i], y[i], rx[i], ry[i], angle[i]) - off**2)
    return field + rng.uniform(0.3, 1.1) * s.texture(rng, rng.uniform(0.15, 0.35), 4)


def scattered_haze(s: Slice, rng: Generator, severity: float) -> None:
    """Haze anywhere, faint or strong, vessels still visible in it."""
    field, texture = scattered(s, rng, severity), s.texture(rng, 0.12)
    haze(s, field, rng.uniform(0.15, 0.5), rng.uniform(0.2, 1.2), texture)


def reticulation(s: Slice, rng: Generator, severity: float) -> None:
    """A net of thickened walls anywhere, with or without haze in it."""
    field, cell = scattered(s, rng, severity), rng.uniform(0.1, 0.2)
    net = np.minimum(np.abs(s.texture(rng, cell, 1)), np.abs(s.texture(rng, cell, 1)))
    s.blend((rng.uniform(0, 0.3) + 0.4 * ramp(net, 0.13, 0.04)) * ramp(field, 0.0, 0.5), MUSCLE)


def scattered_consolidation(s: Slice, rng: Generator, severity: float) -> None:
    """Dense patches anywhere that hide the vessels."""
    clumps = scattered(s, rng, severity) + 0.4 * s.texture(rng, 0.12)
    edge = 0.4 * severity
    s.blend(rng.uniform(0.7, 0.95) * ramp(clumps, 0.5 - edge, rng.uniform(0.7, 1.5) - edge), 20)


DRAW = {f.__name__: f for f in (
    ground_glass, crazy_paving, consolidation, lobar_consolidation, perihilar_haze, nodules, mass, cavity,
    emphysema, effusion, atelectasis, bronchiectasis, scattered_haze, reticulation, scattered_consolidation,
)}  # fmt: skip
FINDINGS: tuple[str, ...] = tuple(DRAW)
