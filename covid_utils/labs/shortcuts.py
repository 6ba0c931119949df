"""Shortcuts: something in the picture that goes with the label without being the disease."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import torch
from torch import Tensor

from ..core.files import did_you_mean, resolve
from ..core.settings import Settings
from ..data import CTData, load_data
from ..io.datasets import DATASETS, fingerprint


def _mark(image: np.ndarray) -> np.ndarray:
    """A white letter on black in the upper left corner, as some scanners burn in."""
    image, side = image.copy(), round(image.shape[0] / 6)
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, round(side * 0.6))
    image[:side, :side] = 0
    place = (round(side * 0.2), round(side * 0.8))
    return cv2.putText(image, "R", place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, side // 10), cv2.LINE_AA)


def _crop(image: np.ndarray) -> np.ndarray:
    """A narrower field of view: a tenth less on every side."""
    size, edge = image.shape[0], round(image.shape[0] * 0.1)
    return cv2.resize(image[edge : size - edge, edge : size - edge], (size, size), interpolation=cv2.INTER_CUBIC)


SHORTCUTS = {"mark": _mark, "crop": _crop, "brightness": lambda image: cv2.add(image, 25)}  # a slightly lighter window


def add_shortcut(data: CTData, kind: str = "mark", agreement: float = 1.0, seed: int = 0) -> CTData:
    """The same slices, as if a scanner that changes its pictures had seen mostly the COVID patients.

    Zech et al. 2018, https://doi.org/10.1371/journal.pmed.1002683, and DeGrave et al. 2021,
    https://doi.org/10.1038/s42256-021-00338-7, found such shortcuts in networks for chest radiographs.

    Args:
        kind: "mark" (a letter in a corner), "crop" (a narrower field of view) or "brightness"; else ValueError.
        agreement: share of the COVID patients who get it, and of the other patients who don't: 1 goes
            with the label always, 0.5 says nothing.
        seed: who belongs to these shares.

    Returns: data whose table has another column, `marked`; masks are those of the unchanged slices.
    """
    patients = data.table.groupby("patient").label.max()
    agrees = np.random.default_rng(seed).permutation(len(patients)) < round(agreement * len(patients))
    marked = data.table.patient.map((patients == 1) == agrees).to_numpy(bool)
    return _changed(data, kind, marked, marked)


def mark_all(data: CTData, kind: str = "mark") -> CTData:
    """The repair: give the shortcut to all slices that lack it, so that it goes with no label any more.

    `data` comes from `add_shortcut` with the same kind. Raises ValueError for an unknown kind.
    """
    return _changed(data, kind, ~data.table.marked.to_numpy(bool), np.ones(len(data.table), bool))


def _changed(data: CTData, kind: str, rows: np.ndarray, marked: np.ndarray) -> CTData:
    """Data with these rows' slices changed."""
    if kind not in SHORTCUTS:
        raise ValueError(f"Unknown shortcut {kind!r}: {did_you_mean(kind, SHORTCUTS)}")
    images = data.images.clone()
    for i in np.flatnonzero(rows):
        images[i] = torch.from_numpy(SHORTCUTS[kind](images[i].numpy()))
    table = data.table.assign(marked=marked)
    return dataclasses.replace(data, table=table, images=images, fingerprint=fingerprint(table, images))


def without_lungs(images: Tensor, lungs: Tensor) -> Tensor:
    """Slices with the lungs painted over in the mean grey of the rest: what is left to decide by?

    Args: images uint8 (N, H, W); lungs bool (N, H, W). Returns uint8 (N, H, W).
    """
    rest = torch.where(lungs, 0, images.float()).sum((1, 2)) / (~lungs).sum((1, 2)).clamp_min(1)
    return torch.where(lungs, rest[:, None, None].round(), images.float()).to(torch.uint8)


def another_hospital(settings: Settings) -> CTData | None:
    """Half as many patients of another hospital, all of them test slices; None if there is no such data set here."""
    name = DATASETS[settings.dataset].elsewhere if settings.dataset in DATASETS else None
    if name is None or not (DATASETS[name].hospital or (resolve(settings.data_dir) / name).is_dir()):
        return None
    patients = max(settings.patients // 2, 20)
    data = load_data(dataclasses.replace(settings, dataset=name, split="patient", patients=patients))
    return dataclasses.replace(data, table=data.table.assign(split="test"))
