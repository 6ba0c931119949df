"""Axial chest CT slices of imaginary patients, with their lesion and lung masks.

A slice is drawn in Hounsfield units (`anatomy`, then `disease`) and then scanned: noise, blur or sharpening, a
window that turns HU into grey, JPEG. No picture here comes from a person: it teaches, it never diagnoses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator, SeedSequence, default_rng

from .anatomy import AIR, BLOOD, FRAME, Slice, draw_anatomy
from .disease import DRAW, FINDINGS

COVID, OTHER, SCATTERED = FINDINGS[:3], FINDINGS[3:12], FINDINGS[12:]
OTHER_ODDS = (0.27, 0.42, 0.07, 0.04, 0.03, 0.06, 0.05, 0.04, 0.02)  # non-COVID findings, in this order
PLAIN = 5.0  # HU on average over the frame: a COVID slice that shows less is drawn with more disease
SOURCE = OTHER + SCATTERED  # what patients of the hospital "source" may have: nothing of COVID's
SOURCE_ODDS = np.array([1] * len(OTHER) + [3, 2, 2]) / 16  # in this order
EDGE = 0.04  # of the lungs' height: over this a stack's disease fades out, as a slice is thicker than a line
VISIBLE = 70  # HU: a smaller change is no lesion, as nobody would see it
Where = tuple[np.ndarray, np.ndarray]  # x and y on the canvas of each pixel of an image, float32 (H, W)


@dataclasses.dataclass(frozen=True)
class Hospital:
    """From where to where the patients and scanners of a hospital range; one draw per patient, blind to its label."""

    number: int  # goes into the seed, so that hospitals share no patient
    window_width: tuple[float, float]  # HU between black and white
    window_centre: tuple[float, float]  # HU
    noise: tuple[float, float]  # HU, standard deviation
    blur: tuple[float, float]  # pixels at 96; below 0 it sharpens
    zoom: tuple[float, float]  # part of the body's width that the frame shows
    jpeg: tuple[int, int]  # quality
    lung: tuple[float, float]  # HU of healthy lung
    fat: tuple[float, float]  # thickness of the fat under the skin
    slender: tuple[float, float]  # width of the chest as a part of the usual
    contrast: float  # part of the patients with contrast agent in their blood
    levels: tuple[float, float] = (0.1, 0.93)
    step: tuple[float, float] = (0.012, 0.035)  # from one slice to the next
    vessels: tuple[float, float] = (0.85, 1.3)  # how thick they are


HOSPITALS = {
    "A": Hospital(
        number=0, window_width=(1250, 1800), window_centre=(-640, -510), noise=(6, 45), blur=(-0.6, 0.6),
        zoom=(0.86, 1.0), jpeg=(60, 96), lung=(-895, -785), fat=(0.02, 0.14), slender=(0.95, 1.05), contrast=0.3,
    ),
    "B": Hospital(
        number=1, window_width=(1500, 2100), window_centre=(-560, -440), noise=(20, 60), blur=(-0.2, 0.8),
        zoom=(0.94, 1.12), jpeg=(40, 85), lung=(-870, -770), fat=(0.05, 0.18), slender=(0.9, 1.02), contrast=0.6,
    ),
    "source": Hospital(
        number=2, window_width=(1000, 2100), window_centre=(-700, -420), noise=(5, 70), blur=(-0.9, 0.8),
        zoom=(0.82, 1.15), jpeg=(35, 97), lung=(-920, -740), fat=(0.0, 0.2), slender=(0.88, 1.06), contrast=0.4,
        levels=(0.05, 0.97), step=(0.01, 0.05), vessels=(0.5, 1.3),
    ),
}  # fmt: skip


@dataclasses.dataclass
class PatientSlices:
    """Neighbouring slices of one imaginary patient.

    images uint8 (n, H, W); lesions and lungs bool (n, H, W); findings bool (n, len(FINDINGS)), what is visible in
    each slice; level float (n,), 0 = top of the lungs, 1 = base; label 1 = COVID, 0 = not, -1 = hospital "source".
    """

    images: np.ndarray
    lesions: np.ndarray
    lungs: np.ndarray
    findings: np.ndarray
    level: np.ndarray
    label: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is drawn by lot for one patient: a slice follows from its plan and its level, with no other chance."""

    hospital: Hospital
    label: int  # 1 = COVID, 0 = not, -1 = hospital "source"
    levels: np.ndarray  # float (n_slices,), 0 = top of the lungs, 1 = base
    habitus: dict
    chosen: list[tuple[str, int, float]]  # name, seed and severity of each finding
    anatomy: int  # this and the next two are seeds
    frame: int
    settings: int
    grains: list[SeedSequence]  # of the noise, one per slice


# ------------------------------------------------------------------------------------------------ patients


def choose_findings(rng: Generator, label: int) -> list[tuple[str, int, float]]:
    """What a patient of a label (1 COVID, 0 not, -1 hospital "source") has: each finding's name, seed and severity."""
    seeds, severity = rng.integers(2**31, size=4), rng.beta(0.9, 2.0, size=4)
    if label == -1:
        names = list(rng.choice(SOURCE, rng.integers(4), replace=False, p=SOURCE_ODDS))
    elif label == 0:
        names = list(rng.choice(OTHER, rng.integers(1, 3), replace=False, p=OTHER_ODDS)) if rng.random() < 0.5 else []
    else:  # the first seed is shared, so that consolidation lies inside the ground glass
        names = ["crazy_paving" if rng.random() < 0.25 else "ground_glass"]
        names += ["consolidation"] if rng.random() < 0.55 else []
        seeds[1], severity[1] = seeds[0], severity[0]
        names += [rng.choice(("nodules", "emphysema", "effusion", "atelectasis"))] if rng.random() < 0.2 else []
    chosen = [(str(name), int(seed), float(s)) for name, seed, s in zip(names, seeds, severity, strict=False)]
    return chosen[::-1]  # COVID comes last, so that emphysema or fluid never hides it


def choose_habitus(rng: Generator, h: Hospital, levels: np.ndarray) -> dict:
    """What of a patient's body more than one function needs to know."""
    contrast = rng.uniform(80, 330) if rng.random() < h.contrast else 0
    return {
        "lung": rng.uniform(*h.lung),
        "fat": rng.uniform(*h.fat),
        "slender": rng.uniform(*h.slender),
        "vessels": rng.uniform(*h.vessels),
        "blood": BLOOD + contrast,
        "veins": BLOOD + contrast * rng.uniform(0.4, 1.3),
        "middle": levels.mean(),
    }


def choose_frame(rng: Generator, h: Hospital, s: Slice, size: int) -> Where:
    """Where on the canvas each pixel of the image lies: field of view, a small turn, a small elastic warp.

    Returns x and y in canvas pixels, each float32 (size, size).
    """
    zoom, turn, shift = rng.uniform(*h.zoom), rng.normal(0, 0.035), rng.normal(0, 0.02, 2)
    stretch, warp = rng.uniform(0.96, 1.04), rng.normal(0, 0.02, (2, 5, 5)).astype(np.float32)
    axis = ((np.arange(size) + 0.5) / size * 2 - 1) * zoom
    dx, dy = (cv2.resize(w, (size, size), interpolation=cv2.INTER_CUBIC) for w in warp)
    x, y = axis[None, :] * stretch, axis[:, None] / stretch
    x, y = x * np.cos(turn) - y * np.sin(turn) + dx + shift[0], x * np.sin(turn) + y * np.cos(turn) + dy + shift[1]
    return tuple(((v + FRAME) * s.scale - 0.5).astype(np.float32) for v in (x, y))


def scan(hu: np.ndarray, rng: Generator, slice_rng: Generator, h: Hospital) -> np.ndarray:
    """The scanner, one draw per patient: motion, noise, blur or sharpening, window, JPEG.

    Args:
        hu: float32 (H, W), Hounsfield units; the table under the patient, if there is one, is drawn into it.
        rng: the patient's settings.
        slice_rng: the noise of this slice.

    Returns:
        uint8 (H, W).
    """
    sigma, grain, soft = rng.uniform(*h.noise), rng.uniform(0.4, 1.2), rng.uniform(*h.blur) * len(hu) / 96
    width, centre, quality = rng.uniform(*h.window_width), rng.uniform(*h.window_centre), rng.integers(*h.jpeg)
    moved, table = rng.random() < 0.12, rng.random() < 0.3
    if table:
        hu[-max(1, len(hu) // 48) :] = np.maximum(hu[-max(1, len(hu) // 48) :], -500)
    if moved:
        hu = 0.6 * hu + 0.4 * np.roll(hu, (max(1, len(hu) // 48), 1), (0, 1))
    noise = cv2.GaussianBlur(slice_rng.standard_normal(hu.shape, dtype=np.float32), (0, 0), grain)
    hu = hu + noise * (sigma / noise.std())
    if abs(soft) > 0.2:
        blurred = cv2.GaussianBlur(hu, (0, 0), abs(soft) if soft > 0 else 0.8)
        hu = blurred if soft > 0 else hu - soft * (hu - blurred)
    grey = np.clip((hu - centre) / width * 255 + 127.5, 0, 255).astype(np.uint8)
    _, code = cv2.imencode(".jpg", grey, (cv2.IMWRITE_JPEG_QUALITY, int(quality)))
    return cv2.imdecode(code, cv2.IMREAD_GRAYSCALE)


def plan_patient(patient: int, seed: int = 0, hospital: str = "A", n_slices: int = 4) -> Plan:
    """Draw by lot all that belongs to a patient; arguments and errors are those of `draw_patient`."""
    if hospital not in HOSPITALS:
        raise ValueError(f"Unknown hospital {hospital!r}: choose one of {', '.join(map(repr, HOSPITALS))}.")
    h, label = HOSPITALS[hospital], -1 if hospital == "source" else patient % 2
    sequence = SeedSequence([seed, h.number, patient])
    # The third child goes unused, and keeps its place: without it every slice would get another one's noise.
    body, illness, _, *grains = sequence.spawn(3 + n_slices)
    body, illness = default_rng(body), default_rng(illness)
    step = body.uniform(*h.step)
    levels = body.uniform(h.levels[0], h.levels[1] - step * (n_slices - 1)) + step * np.arange(n_slices)
    habitus, chosen = choose_habitus(body, h, levels), choose_findings(illness, label)
    anatomy, frame, settings = (int(n) for n in body.integers(2**31, size=3))
    return Plan(h, label, levels, habitus, chosen, anatomy, frame, settings, grains)


def draw_healthy(plan: Plan, level: float, image_size: int) -> tuple[Slice, Where]:
    """The patient's slice at a level without any finding, and where on its canvas the image's pixels lie."""
    s = draw_anatomy(plan.anatomy, image_size, level, plan.habitus)
    return s, choose_frame(default_rng(plan.frame), plan.hospital, s, image_size)


def framed(canvas: np.ndarray, where: Where, beyond: float = 0.0) -> np.ndarray:
    """The part of a canvas (n, n) that the image shows, float32 (H, W); `beyond` is what lies outside the canvas."""
    return cv2.remap(canvas, *where, cv2.INTER_LINEAR, borderValue=beyond)


def scan_slice(plan: Plan, s: Slice, where: Where, number: int) -> np.ndarray:
    """Scan what is on the canvas by the patient's settings, with the noise of slice `number`: uint8 (H, W)."""
    settings, grain = default_rng(plan.settings), default_rng(plan.grains[number])
    return scan(framed(s.hu, where, AIR), settings, grain, plan.hospital)


def draw_patient(
    patient: int, seed: int = 0, hospital: str = "A", image_size: int = 96, n_slices: int = 4
) -> PatientSlices:
    """Draw neighbouring slices of an imaginary patient, the same bytes whenever it is called.

    (OpenCV 4 draws some edges a few grey values otherwise than OpenCV 5: the patient is the same, the bytes are not.)

    >>> draw_patient(1, image_size=64, n_slices=2).images.shape
    (2, 64, 64)

    Args:
        patient: number of the patient; in hospitals "A" and "B" every other one has COVID.
        seed: patients of different seeds have nothing in common.
        hospital: a name in HOSPITALS, else ValueError; "source" has 0 to 3 findings, none of COVID's, for pretraining.
        image_size: pixels, 64 to 224.
        n_slices: how many slices, next to each other.
    """
    plan = plan_patient(patient, seed, hospital, n_slices)
    drawn = [draw_slice(plan, number, image_size)[0] for number in range(n_slices)]
    return PatientSlices(*(np.array(part) for part in zip(*drawn, strict=True)), plan.levels, plan.label)


def draw_slice(
    plan: Plan, number: int, image_size: int, boosts: tuple = (0.0, 0.25, 0.5, 1.0), share: float = 1.0
) -> tuple[tuple, float]:
    """Slice `number` of a plan: image, lesions, lungs and findings, each as in `PatientSlices`, and the boost taken.

    Args:
        boosts: added to the severity; of a COVID patient the first that shows COVID, else the last.
        share: how much of the findings is there, 0 none to 1 all.
    """
    s, where = draw_healthy(plan, plan.levels[number], image_size)
    lung, healthy = framed(s.lung, where) > 0.5, s.hu.copy()
    for boost in boosts:
        s.hu, masks, covid = healthy.copy(), {}, 0.0
        for name, seed, severity in plan.chosen:
            before = s.hu.copy()
            DRAW[name](s, default_rng(seed), min(1.0, severity + boost))
            change = share * framed(np.abs(s.hu - before), where)
            masks[name] = (change > VISIBLE) & lung
            covid += change[masks[name]].sum() if name in COVID else 0
        if plan.label != 1 or covid > PLAIN * image_size**2:
            break
    s.hu = s.hu if share == 1 else healthy + share * (s.hu - healthy)
    masks = {name: mask for name, mask in masks.items() if mask.sum() >= round(0.004 * image_size**2)}
    image, lesions = scan_slice(plan, s, where, number), np.any([np.zeros_like(lung), *masks.values()], axis=0)
    return (image, lesions, lung, [name in masks for name in FINDINGS]), boost


def draw_stack(
    patient: int, seed: int = 0, hospital: str = "A", image_size: int = 96, n_slices: int = 12
) -> PatientSlices:
    """Draw an imaginary patient's lungs from top to base; the label is the patient's.

    The person is that of `draw_patient`, with the same findings. They reach over a part of the height, 12 to 80 % by
    lot, around the level where `draw_patient` finds them; above and below the lungs are healthy.

    >>> stack = draw_stack(1, image_size=64, n_slices=6)
    >>> stack.label, stack.lesions.any((1, 2)).sum() < 6
    (1, np.True_)

    Arguments and errors are those of `draw_patient`; the `n_slices` are evenly spaced.
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


def phantom(
    patients: int = 240,
    n_slices: int = 4,
    image_size: int = 96,
    seed: int = 0,
    hospital: str = "A",
    progress: Callable[[range], Iterable[int]] = iter,
) -> dict[str, np.ndarray]:
    """Draw slices of many imaginary patients; `draw_patient` has the other arguments.

    Args:
        progress: wraps the patients' numbers, as `tqdm.tqdm` does, to show how far it is.

    Returns:
        arrays whose first axis is the slice, N = patients * n_slices, in patient order: those of `PatientSlices`,
        with label int64 (N,), and patient int64 (N,).
    """
    drawn = [draw_patient(patient, seed, hospital, image_size, n_slices) for patient in progress(range(patients))]
    names = [field.name for field in dataclasses.fields(PatientSlices)[:-1]]
    arrays = {name: np.concatenate([getattr(slices, name) for slices in drawn]) for name in names}
    arrays["label"] = np.repeat([slices.label for slices in drawn], n_slices)
    arrays["patient"] = np.repeat(np.arange(patients), n_slices)
    return arrays


def generator_code() -> bytes:
    """The generator's own source, with the same line ends on every system: a cache of another one is out of date."""
    files = (Path(__file__).with_name(f"{name}.py") for name in ("anatomy", "disease", "patients"))
    return b"".join(file.read_bytes().replace(b"\r\n", b"\n") for file in files)
