"""A healthy axial slice of the chest: a canvas in Hounsfield units, and the organs drawn on it.

Places are in units of half a frame: x from -1 to 1 runs to the patient's left (the right side of the image), y
from -1 (breastbone) to 1 (back), and the slice's `level` from 0 (top of the lungs) to 1 (their base).
Hounsfield units (HU): air -1000, water 0, bone 300 and more.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator, default_rng

AIR, FAT, MUSCLE, BLOOD, BONE = -1000, -90, 50, 45, 350
FRAME = 1.2  # the canvas reaches a little beyond the frame, so that the frame can move on it


class Slice:
    """A canvas in HU, `n` pixels on a side, and what the findings need to know of the anatomy drawn on it."""

    def __init__(self, size: int, level: float, habitus: dict):
        self.scale = 0.65 * size  # canvas pixels per unit
        self.n = int(2 * FRAME * self.scale)
        self.level, self.habitus = level, habitus
        axis = ((np.arange(self.n) + 0.5) / self.scale - FRAME).astype(np.float32)
        self.x, self.y = axis[None, :], axis[:, None]
        self.ink = np.zeros((self.n, self.n), np.uint8)  # HU / 8 + 128, as OpenCV smooths edges in 8 bits only
        self.air = np.zeros((self.n, self.n), np.uint8)  # 255 inside the lungs

    def pixels(self, points) -> np.ndarray:
        """Points (…, 2) in units, as OpenCV wants them: 1/16 canvas pixels."""
        return (np.asarray(points) * (16 * self.scale) + 16 * (FRAME * self.scale - 0.5)).astype(np.int32)

    def fill(self, points: np.ndarray, hu: float, lung: int | None = 0) -> None:
        """Fill a polygon with `hu`; `lung` says what becomes of the lung mask there (0, 255, None = nothing)."""
        self.polygon(points, ink(hu), self.ink)
        if lung is not None:
            self.polygon(points, lung, self.air)

    def polygon(self, points: np.ndarray, value: int, canvas: np.ndarray) -> None:
        """Fill a polygon on any canvas, uint8 (n, n), with a value from 0 to 255."""
        cv2.fillPoly(canvas, [self.pixels(points)], value, cv2.LINE_AA, 4)

    def line(self, points, hu: float, width: float, canvas: np.ndarray | None = None) -> None:
        """A line through points, `width` in units; on a canvas of its own, `hu` is the value 0 to 255."""
        value = ink(hu) if canvas is None else int(hu)
        canvas = self.ink if canvas is None else canvas
        thick = max(1, round(width * self.scale))
        cv2.polylines(canvas, [self.pixels(points)], False, value, thick, cv2.LINE_AA, 4)

    def finish(self) -> None:
        """Turn the ink into HU and measure how far each pixel is from the chest wall."""
        self.hu = (self.ink.astype(np.float32) - 128) * 8
        self.lung = self.air.astype(np.float32) / 255
        self.depth = cv2.distanceTransform(self.cage, cv2.DIST_L2, 3) / self.scale

    def blend(self, amount: np.ndarray, hu: float) -> None:
        """Let the lung become `hu` where `amount` is 1, and partly so where it lies between 0 and 1."""
        self.hu += np.clip(amount, 0, 1) * self.lung * (hu - self.hu)

    def blob(self, x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> np.ndarray:
        """Squared distance (n, n) from (x, y), 1 on an ellipse of these radii."""
        dx, dy, c, s = self.x - x, self.y - y, np.cos(angle), np.sin(angle)
        return ((dx * c + dy * s) / rx) ** 2 + ((dy * c - dx * s) / ry) ** 2

    def texture(self, rng: Generator, cell: float, octaves: int = 2) -> np.ndarray:
        """Smooth noise (n, n), about -1 to 1, with bumps of size `cell`, that changes slowly with the level."""
        total, turn = np.zeros((self.n, self.n), np.float32), 2 * self.level / cell
        for octave in range(octaves):
            count = max(3, round(2 * FRAME / cell * 2**octave))
            front, back = rng.standard_normal((2, count, count), dtype=np.float32)
            grid = np.cos(turn) * front + np.sin(turn) * back
            total += cv2.resize(grid, (self.n, self.n), interpolation=cv2.INTER_CUBIC) * 0.6**octave
        return total * 0.6


def ink(hu: float) -> int:
    """HU as an 8-bit ink, 0 to 255, in steps of 8 HU: 0 HU is 128."""
    return int(np.clip(hu / 8 + 128, 0, 255))


def ramp(x, low: float, high: float):
    """0 below `low`, 1 above `high`, straight in between (or the other way round, if `low` is above `high`).

    >>> ramp(np.array([0, 3, 9]), 2, 4)
    array([0. , 0.5, 1. ])
    """
    return np.clip((x - low) / (high - low), 0, 1)


def oval(x: float, y: float, rx: float, ry: float, angle: float = 0.0, power: float = 2.0) -> np.ndarray:
    """An ellipse as a polygon (48, 2), squarer the higher its `power`; radii in units, `angle` in radians."""
    t = np.arange(48) * (2 * np.pi / 48)
    c, s = np.cos(t), np.sin(t)
    px, py = rx * np.sign(c) * np.abs(c) ** (2 / power), ry * np.sign(s) * np.abs(s) ** (2 / power)
    return np.stack([x + px * np.cos(angle) - py * np.sin(angle), y + px * np.sin(angle) + py * np.cos(angle)], 1)


def smooth(points) -> np.ndarray:
    """A closed Catmull-Rom curve through `points` (k, 2), as a polygon (8 k, 2)."""
    p = np.asarray(points, float)
    a, b, c = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.arange(8)[None, :, None] / 8
    p, a, b, c = (q[:, None] for q in (p, a, b, c))
    curve = 2 * p + (b - a) * t + (2 * a - 5 * p + 4 * b - c) * t**2 + (3 * p - a - 3 * b + c) * t**3
    return (curve / 2).reshape(-1, 2)


# ------------------------------------------------------------------------------------------------ anatomy
# Each function gets a generator that starts anew for each slice of a patient: the draws are the patient's, and only
# the level changes. So a function must make the same draws at every level.

LEVELS = (0.05, 0.3, 0.5, 0.75, 1.0)
CAGE = np.array(  # outline of the right half of the chest cavity at these levels, from the breastbone to the spine
    [
        [(0.05, -0.55), (0.35, -0.66), (0.62, -0.38), (0.74, 0.1), (0.68, 0.52), (0.44, 0.78), (0.2, 0.72)],
        [(0.05, -0.84), (0.38, -0.8), (0.71, -0.45), (0.83, 0.1), (0.74, 0.6), (0.46, 0.88), (0.22, 0.8)],
        [(0.05, -0.92), (0.42, -0.86), (0.76, -0.46), (0.88, 0.1), (0.76, 0.62), (0.48, 0.91), (0.23, 0.82)],
        [(0.08, -0.9), (0.46, -0.84), (0.8, -0.44), (0.91, 0.12), (0.77, 0.64), (0.48, 0.92), (0.24, 0.84)],
        [(0.1, -0.78), (0.52, -0.74), (0.85, -0.38), (0.92, 0.14), (0.77, 0.65), (0.48, 0.92), (0.24, 0.84)],
    ]
)
COLUMN_Y = (-1.0, -0.8, -0.6, -0.35, -0.1, 0.1, 0.26, 0.4, 0.55, 0.72, 1.0)
COLUMN = np.array(  # half width of what lies between the lungs, at these y and levels
    [
        (0.22, 0.24, 0.24, 0.22, 0.18, 0.14, 0.11, 0.1, 0.14, 0.21, 0.34),
        (0.02, 0.025, 0.08, 0.17, 0.2, 0.16, 0.1, 0.08, 0.12, 0.18, 0.32),
        (0.02, 0.04, 0.16, 0.22, 0.23, 0.16, 0.08, 0.06, 0.11, 0.17, 0.3),
        (0.05, 0.1, 0.16, 0.17, 0.15, 0.1, 0.05, 0.055, 0.11, 0.16, 0.29),
        (0.12, 0.16, 0.16, 0.14, 0.12, 0.08, 0.05, 0.055, 0.11, 0.16, 0.29),
    ]
)
HEART = (  # outline around its middle
    (-0.3, -0.12), (-0.2, -0.42), (0.04, -0.58), (0.26, -0.44), (0.42, -0.08), (0.38, 0.22), (0.14, 0.4), (-0.16, 0.3),
)  # fmt: skip


def at_level(level: float, table: np.ndarray) -> np.ndarray:
    """A table of shapes, the first axis LEVELS, at a level in between."""
    weights = [np.interp(level, LEVELS, row) for row in np.eye(len(LEVELS))]
    return np.tensordot(weights, table, 1)


def chest_wall(s: Slice, rng: Generator) -> None:
    """Skin, fat, breasts, muscle, and the two lungs' cavity inside them."""
    fat, asym, jitter = s.habitus["fat"], rng.normal(0, 0.015, 2), rng.normal(0, 0.018, (2, 7, 2))
    depth, breast, arms = rng.uniform(0.97, 1.03), rng.uniform(-0.25, 0.3), rng.random() < 0.25
    half = at_level(s.level, CAGE) * (s.habitus["slender"], depth)
    right, left = (half + jitter[i] for i in (0, 1))
    cage = smooth(np.concatenate([right * (-1 - asym[0], 1), [(0, 0.7)], (left * (1 + asym[1], 1))[::-1]]))
    width, height = np.abs(cage).max(0) + 0.09
    body = oval(0, 0.0, width + fat, height + 0.6 * fat + 0.03, power=2.3)
    back = oval(0, 0.0, width + fat, height + 0.6 * fat + 0.03, power=3.5)  # flat, as the patient lies on it
    body = np.where(back[:, 1:] > 0, back, body)
    s.fill(body, 20)
    s.fill(body * 0.985, FAT)
    for side in (-1, 1):
        if breast > 0:
            s.fill(oval(side * 0.5, -0.93, 0.36, 0.1 + breast, side * 0.3), FAT)
            s.fill(oval(side * 0.52, -0.98, 0.16, 0.12 * breast, side * 0.3), 10)
        if arms and s.level < 0.35:
            s.fill(oval(side * 1.17, 0.05, 0.16, 0.22), MUSCLE)
            s.fill(oval(side * 1.19, 0.05, 0.06, 0.06), BONE)
    s.fill(cage * 1.07 + (0, 0.02), MUSCLE)
    muscles(s, rng, width, height)
    s.cage = np.zeros_like(s.air)
    s.polygon(cage, 255, s.cage)
    s.outline = cage
    s.fill(cage * 1.012, -30)  # a thin film of fat inside the ribs
    ribs(s, rng, cage)
    s.fill(cage, s.habitus["lung"], 255)


def muscles(s: Slice, rng: Generator, width: float, height: float) -> None:
    """Breast and back muscles, and the shoulder blade at upper levels."""
    thick, upper = rng.uniform(0.05, 0.09), ramp(s.level, 0.75, 0.2)
    for side in (-1, 1):
        s.fill(oval(side * 0.45, -height + 0.07, 0.33, thick * (0.5 + upper), side * 0.28), MUSCLE)
        s.fill(oval(side * (width - 0.1), 0.5, 0.09 + 0.05 * upper, 0.3, side * 0.5), MUSCLE)
        s.fill(oval(side * 0.3, height - 0.06, 0.22, 0.09, side * -0.15), MUSCLE)
        if s.level < 0.6:
            x, y = side * (width - 0.06 - 0.15 * s.level), 0.45 + 0.3 * s.level
            s.line([(x, y - 0.25), (x - side * 0.06, y), (x - side * 0.17, y + 0.2)], BONE, 0.035)


def ribs(s: Slice, rng: Generator, cage: np.ndarray) -> None:
    """Six to eight ribs cut across on each side: bright arcs with a darker marrow, sliding with the level."""
    start, length = rng.uniform(0, 1, 2), rng.uniform(0.012, 0.035, 16)
    k = len(cage)
    for side, offset in enumerate(start):
        for i in range(7):
            place = (i + (offset + 9 * s.level) % 1) / 7  # along the wall, from front to back
            centre = (0.03 + 0.42 * place) if side == 0 else 1 - (0.03 + 0.42 * place)
            near = np.arange(round(centre * k - length[i] * k * 0.7), round(centre * k + length[i] * k * 0.7)) % k
            if len(near) > 1:
                arc = cage[near] * 1.045
                s.line(arc, BONE, 0.045)
                s.line(arc[1:-1] if len(arc) > 4 else arc, 120, 0.012)


def spine_and_sternum(s: Slice, rng: Generator) -> None:
    """Vertebra with canal and processes, breastbone with its marrow."""
    wide, high = rng.uniform(0.1, 0.13), rng.uniform(0.1, 0.13)
    y, marrow, turn = rng.uniform((0.54, 200, 0), (0.6, 300, 6))
    phase = 0.5 + 0.5 * np.sin(60 * s.level + turn)  # ribs join the spine at some levels only
    s.fill(oval(0, y + 0.33, 0.035, 0.16), BONE, None)  # spinous process
    for side in (-1, 1):
        s.line([(side * 0.07, y + 0.2), (side * (0.2 + 0.1 * phase), y + 0.24 + 0.06 * phase)], BONE, 0.05)
        s.line([(side * 0.08, y), (side * 0.08, y + 0.2), (0, y + 0.28)], BONE, 0.05)
    s.fill(oval(0, y + 0.16, 0.06, 0.05), 30, None)  # canal
    s.fill(oval(0, y, wide, high, power=2.3), BONE + 80)
    s.fill(oval(0, y - 0.005, wide - 0.025, high - 0.025), marrow)
    top = s.outline[:, 1].min() - 0.045
    s.fill(oval(0, top, 0.15 - 0.05 * s.level, 0.038, power=3), BONE - 60)
    s.fill(oval(0, top, 0.12 - 0.05 * s.level, 0.016, power=3), 100)


def mediastinum(s: Slice, rng: Generator) -> None:
    """What lies between the lungs: fat, then great vessels and heart in it."""
    wide, fatty, wobble = rng.uniform(0.85, 1.15), rng.uniform(-80, 40), rng.normal(0, 0.012, (2, len(COLUMN_Y)))
    half = at_level(s.level, COLUMN) * wide
    half[6:] = half[6:] / wide
    left, right = half + wobble[0] + 0.01, half + wobble[1]
    column = np.concatenate([np.stack([-right, COLUMN_Y], 1), np.stack([left, COLUMN_Y], 1)[::-1]])
    s.fill(smooth(column), MUSCLE)
    s.fill(smooth(np.concatenate([column[1:7], column[-7:-1]]) * 0.85), fatty, None)
    great_vessels(s, rng)
    heart(s, rng)


def great_vessels(s: Slice, rng: Generator) -> None:
    """Branches and arch of the aorta, its ascending and descending part, pulmonary trunk, upper great veins."""
    t, blood, r = s.level, s.habitus["blood"], rng.uniform(0.85, 1.2)
    x, y, tilt = rng.normal((0.13, 0.4, 0.0), (0.02, 0.03, 0.1))
    if t < 0.24:
        for px, py, pr in ((-0.13, -0.3, 0.06), (-0.04, -0.2, 0.05), (0.09, -0.14, 0.045), (0.14, 0.02, 0.05)):
            s.fill(oval(px, py, pr * r, pr * r), blood)
    if 0.2 < t < 0.37:
        arch = np.sin(np.pi * ramp(t, 0.19, 0.38)) ** 0.5
        s.fill(oval(0.07, -0.06, 0.1 * r, 0.4 * arch, -0.35 + tilt), blood)
    if t >= 0.33:
        s.fill(oval(x, y + 0.05 * t, 0.095 * r, 0.095 * r), blood)
        s.fill(oval(-0.07, -0.27, 0.12 * r, 0.13 * r), blood)
        s.fill(oval(-0.2, -0.2, 0.06 * r, 0.075 * r), s.habitus["veins"])
    if 0.42 < t < 0.66:
        s.fill(oval(0.1, -0.24, 0.1 * r, 0.15 * r, 0.5), s.habitus["veins"])
        s.fill(oval(0.05, -0.08, 0.25 * r, 0.06 * r, -0.3 + tilt), s.habitus["veins"])


def heart(s: Slice, rng: Generator) -> None:
    """The heart, bulging to the patient's left, with its chambers if there is contrast agent."""
    size, x, y, tilt = rng.normal((1.0, 0.12, -0.24, 0.0), (0.08, 0.03, 0.03, 0.12))
    grow = size * np.interp(s.level, (0.5, 0.58, 0.75, 0.9, 1.0), (0, 0.72, 1, 0.98, 0.8))
    if s.level <= 0.5:
        return
    outline = smooth(np.array(HEART) * grow @ np.array(((np.cos(tilt), np.sin(tilt)), (-np.sin(tilt), np.cos(tilt)))))
    s.fill(outline * 1.04 + (x, y - 0.02), FAT if s.habitus["fat"] > 0.07 else MUSCLE)
    s.fill(outline + (x, y), MUSCLE)
    s.fill(oval(x + 0.12, y - 0.03, 0.18 * grow, 0.28 * grow, -0.4 + tilt), s.habitus["blood"])
    s.fill(oval(x - 0.2, y + 0.02, 0.15 * grow, 0.22 * grow, -0.4 + tilt), s.habitus["veins"])


def diaphragm(s: Slice, rng: Generator) -> None:
    """Liver and, a little lower, spleen and stomach rise into the lungs' bases."""
    start, gap, gas = rng.uniform(0.72, 0.82), rng.uniform(0.03, 0.1), rng.random() < 0.5
    x, y, shape = rng.normal((0.44, -0.02, 1.0), (0.03, 0.05, 0.1))
    for side, first in ((-1, start), (1, start + gap)):
        rise = np.sqrt(max(0.0, s.level - first) / 0.24)
        if rise > 0:
            cx = side * (x - 0.1 * ramp(rise, 0.3, 1))
            s.fill(oval(cx, y - 0.12 * rise, (0.5 * rise + 0.04) * shape, 0.68 * rise + 0.04, side * 0.25, 2.2), 60)
            if side == 1 and gas and rise > 0.45:
                s.fill(oval(cx, y - 0.3, 0.2 * rise, 0.16 * rise), -700, None)
    low = ramp(s.level, start + gap, 1.1)
    s.fill(oval(0, y - 0.25, 0.2 + 0.4 * low, 0.2 + 0.5 * low), 50)


def airways(s: Slice, rng: Generator) -> None:
    """Windpipe, its fork, the main bronchi and their first branches, and the gullet behind."""
    x, y, r, fork = rng.normal((-0.02, -0.02, 0.075, 0.44), (0.02, 0.02, 0.008, 0.015))
    s.fill(oval(x + 0.07, y + 0.16, 0.045, 0.035), MUSCLE, None)
    y += 0.08 * ramp(s.level, 0.2, 0.5)
    past = s.level - fork
    if past < 0:
        wide = r * (1 + 0.5 * ramp(past, -0.04, 0))
        s.fill(oval(x, y, wide + 0.02, r * 1.15 + 0.02), MUSCLE, None)
        s.fill(oval(x, y, wide, r * 1.15), AIR, None)
    elif past < 0.15:
        away, small = 0.09 + 1.3 * past, r * (0.8 - 2.2 * past)
        for side in (-1, 1):
            place = oval(x + side * away, y + 0.12 * past, small * (1.6 - 4 * past), small, side * 0.3)
            s.fill(place + (place - place.mean(0)) * 0.3, MUSCLE, None)
            s.fill(place, AIR + 30, None)


def lung_vessels(s: Slice, rng: Generator) -> None:
    """Vessels: most are cut across and show as dots, some run in the slice and fork; thicker near the hilum."""
    count = 2600
    side, z, reach = rng.choice((-1, 1), count), rng.uniform(0, 1, count), rng.uniform(0.012, 0.05, count)
    angle, far, turn = rng.uniform(-np.pi, np.pi, count), rng.uniform(0.08, 1, count), rng.normal(0, 0.5, count)
    long, thick, fork = rng.exponential(0.045, count), rng.lognormal(0, 0.3, count), rng.random(count) < 0.4
    sign = rng.choice((-0.8, 0.8), count)
    radius = far**0.75 * (0.75 + 0.1 * np.abs(np.sin(angle))) + (s.level - z) * sign
    width = s.habitus["vessels"] * thick * (0.009 + 0.022 * np.exp(-3.5 * np.abs(radius)))
    fade = 1 - ((s.level - z) / reach) ** 2
    cut = np.flatnonzero(fade > 0)
    cut = cut[np.argsort(width[cut], kind="stable")]  # thick ones last, on top
    side, angle, turn, long, fork, radius, width, fade = (
        a[cut] for a in (side, angle, turn, long, fork, radius, width, fade)
    )
    begin = np.stack([side * 0.27 + radius * np.cos(angle), 0.02 + radius * np.sin(angle) * 1.05], 1)
    stretch = np.minimum(long, 0.3) * fade

    def ahead(start: np.ndarray, bend: float, part: float) -> np.ndarray:
        heading = angle + turn + bend
        return start + part * stretch[:, None] * np.stack([np.cos(heading), np.sin(heading)], 1)

    middle = ahead(begin, 0, 1)
    tips = (ahead(middle, bend, 0.6) for bend in (-0.5, 0.4))
    begin, middle, *tips = (s.pixels(p).tolist() for p in (begin, middle, *tips))
    value = (255 * np.clip(width * s.scale / 1.1 * (0.4 + 0.6 * fade), 0, 1)).tolist()
    thickness = np.maximum(1, np.round(width * 0.9 * s.scale)).astype(int).tolist()
    canvas = np.zeros_like(s.air)
    for i in range(len(cut)):
        cv2.line(canvas, begin[i], middle[i], value[i], thickness[i], cv2.LINE_AA, 4)
        if fork[i] and stretch[i] > 0.06:
            for tip in tips:
                cv2.line(canvas, middle[i], tip[i], value[i], max(1, thickness[i] - 1), cv2.LINE_AA, 4)
    hilum(s, rng, canvas)
    amount = canvas.astype(np.float32) / 255 * ramp(s.depth, 0.02, 0.12)
    s.blend(amount, s.habitus["veins"])


def hilum(s: Slice, rng: Generator, canvas: np.ndarray) -> None:
    """Thick vessels that leave the middle of the chest, at levels around the heart's top."""
    z, angles = rng.normal(0.58, 0.1, (2, 7)), rng.uniform(-1.3, 1.5, (2, 7))
    longest, bends = rng.uniform(0.15, 0.5, (2, 7)), rng.normal(0, 0.25, (2, 7, 3))
    for i, side in enumerate((-1, 1)):
        for j in range(7):
            shown = 1 - ((s.level - z[i, j]) / 0.1) ** 2
            if shown <= 0:
                continue
            point, heading = np.array((side * 0.2, 0.0)), angles[i, j]
            for k in range(3):
                heading += bends[i, j, k]
                end = point + longest[i, j] * shown / 3 * np.array((side * np.cos(heading), np.sin(heading)))
                s.line([point, end], 255, s.habitus["vessels"] * (0.05, 0.032, 0.018)[k], canvas)
                point = end


def healthy_lung(s: Slice, rng: Generator) -> None:
    """What is no finding but can look like one: uneven air, and weight on the back of the lungs."""
    uneven, heavy, texture = rng.uniform(5, 45), rng.exponential(0.24), s.texture(rng, 0.7)
    s.hu += uneven * texture * s.lung
    weight = ramp(s.y, 0.1, 0.85) ** 2 * ramp(s.depth, 0.4, 0.0) * (1 + 0.4 * s.texture(rng, 0.3))
    s.blend(min(heavy, 0.5) * weight, MUSCLE)


ANATOMY = (chest_wall, mediastinum, diaphragm, spine_and_sternum, airways)


def draw_anatomy(seed: int, size: int, level: float, habitus: dict) -> Slice:
    """A healthy slice, before it is scanned.

    Args:
        seed: the patient's; slices of the same seed and habitus at levels close to each other look alike.
        size: pixels of the image that will be made of it; the canvas has 1.56 times as many on a side.
        level: 0 = top of the lungs, 1 = base.
        habitus: what `patients.choose_habitus` returns.

    Returns:
        a canvas with `hu` and `lung` (0 to 1), float32 (n, n), `depth`, float32 (n, n): distance from the chest wall
        in units, and `outline`, float (k, 2): the wall itself.
    """
    s = Slice(size, level, habitus)
    for number, part in enumerate(ANATOMY):
        part(s, default_rng((seed, number)))
    s.finish()
    lung_vessels(s, default_rng((seed, 10)))
    healthy_lung(s, default_rng((seed, 11)))
    return s
