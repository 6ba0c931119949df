"""An answer for a patient from a stack of slices, with one picture of the slices that say most."""

from __future__ import annotations

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from covid_utils.io.volumes import Stack
from covid_utils.labs.cam_figures import overlay
from covid_utils.labs.predictor import (
    STRANGER,
    WARNING,
    Reader,
    answer_patient,
    answer_slices,
    headline,
    heat_maps,
    slice_logits,
)
from covid_utils.plotting import styled

SHOWN = 3  # slices in the picture of a patient


@dataclasses.dataclass(frozen=True)
class Patient:
    """What a network says of a patient.

    Attributes:
        answer: `slices`, how many; `probability`, `threshold`, `decision`; `strangers`, how many slices are unlike the
            training's; `note`.
        slices: the answer for each slice, with its `file`, `slice` (number from the feet) and `position` in mm.
        telling: which slices have the highest logits, in order along the body.
        images, heats: those slices, uint8 (n, H, H), and their heat maps, float32 (n, H, H) in 0…1.
    """

    answer: dict
    slices: list[dict]
    telling: list[int]
    images: np.ndarray
    heats: np.ndarray


def ask_patient(reader: Reader, stack: Stack) -> Patient:
    """All slices of a stack answered, and the patient; heat maps of the slices that look most like COVID only."""
    images = torch.from_numpy(stack.images)
    logits = slice_logits(reader, images)
    found = answer_slices(reader, images, logits)
    strangers = sum(each["strangeness"] > 1 for each in found)
    notes = [STRANGER] if 2 * strangers > len(found) else []
    answer = {"slices": len(found)} | answer_patient(reader, logits)
    answer |= {"strangers": strangers, "note": "; ".join(notes + [stack.note] * bool(stack.note))}
    telling = sorted(np.argsort(-logits, kind="stable")[:SHOWN].tolist())
    heats = heat_maps(reader, images[telling], [found[i] for i in telling])
    places = [None] * len(found) if stack.places is None else stack.places.tolist()
    which = zip(stack.files, stack.numbers, places, found, strict=True)
    slices = [{"file": str(file), "slice": n, "position": place} | each for file, n, place, each in which]
    return Patient(answer, slices, telling, stack.images[telling], heats)


@styled
def draw_patient(patient: Patient, name: str) -> Figure:
    """The most telling slices, their heat maps (`name`d) below them, and the patient's answer as title."""
    answer, count = patient.answer, len(patient.telling)
    figure, axes = plt.subplots(2, count, figsize=(max(2.9 * count, 6.2), 7), squeeze=False)
    plt.close(figure)
    for (top, below), row, image, heat in zip(axes.T, patient.telling, patient.images, patient.heats, strict=True):
        each = patient.slices[row]
        place = "" if each["position"] is None else f", {each['position']:.0f} mm".replace("-", "−")
        strange = "\nstranger" if each["note"] else ""
        overlay(top, image, title=f"slice {each['slice']}{place}: {each['probability']:.2f}{strange}")
        overlay(below, image, heat)
    axes[1][0].set_ylabel(name, fontsize=9)
    title = headline(answer)
    if count < answer["slices"]:
        title += f"\n{count} of {answer['slices']} slices: those that look most like COVID to the network"
    if STRANGER in answer["note"]:
        title += WARNING
    figure.suptitle(title, fontsize=11, y=0.99)
    figure.tight_layout()
    return figure
