"""Which leaks does `audit.near_duplicates` find? Changed copies of training slices, planted among the test slices.

    .venv/bin/python benchmarks/leaks.py

Forty test slices of the phantom are replaced by changed copies of training slices, for each kind and seed; counted are
those that are found (with the right twin), and the other held-out slices that are named too: false alarms, as
nobody's slices are in two splits. Real slices, if they are there, give only the second number, with nothing planted:
groups of file numbers are a guess, so some of these may be real copies. The rows go to benchmarks/results/leaks.csv.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pandas as pd
import torch
from experiment import RESULTS, grid, parser, run

from covid_utils.core.files import resolve
from covid_utils.core.settings import Settings
from covid_utils.data import CTData, load_data
from covid_utils.labs.audit import near_duplicates

PLANTED = 40


def cut(image: np.ndarray, top: float, left: float, share: float) -> np.ndarray:
    """A window of so much of the height and width, enlarged to the slice's size."""
    height, width = image.shape
    rows, columns = (slice(round(at * n), round((at + share) * n)) for at, n in ((top, height), (left, width)))
    return cv2.resize(image[rows, columns], (width, height), interpolation=cv2.INTER_LINEAR)


def noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 10, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def compressed(image: np.ndarray) -> np.ndarray:
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])
    return cv2.imdecode(code, cv2.IMREAD_GRAYSCALE)


KINDS = {
    "unchanged": lambda image: image,
    "JPEG, quality 30": compressed,
    "noise, 10 greys": noisy,
    "brighter by 30, contrast 0.8": lambda image: np.clip(0.8 * image + 30, 0, 255).astype(np.uint8),
    "inverted": lambda image: 255 - image,
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned by 90°": lambda image: np.rot90(image),
    "turned by 180°": lambda image: np.rot90(image, 2),
    "turned by 270° and mirrored": lambda image: np.rot90(image, 3)[:, ::-1],
    "cut to 95 %, middle": lambda image: cut(image, 0.025, 0.025, 0.95),
    "cut to 90 %, middle": lambda image: cut(image, 0.05, 0.05, 0.9),
    "cut to 80 %, middle": lambda image: cut(image, 0.1, 0.1, 0.8),
    "cut to 90 %, middle, and mirrored": lambda image: cut(image, 0.05, 0.05, 0.9)[:, ::-1],
    "cut to 90 %, a corner": lambda image: cut(image, 0, 0, 0.9),
    "cut to 80 %, a corner": lambda image: cut(image, 0, 0, 0.8),
    "cut to 87 %, off the middle": lambda image: cut(image, 0.02, 0.1, 0.87),
    "cut to 70 %, middle": lambda image: cut(image, 0.15, 0.15, 0.7),
}


def plant(data: CTData, kind: str, seed: int) -> tuple[CTData, pd.Series]:
    """The data with changed copies of training slices among its test slices, and the copied row of each of them."""
    rng, split = np.random.default_rng(seed), data.table.split.to_numpy()
    copies, sources = (rng.choice(np.flatnonzero(split == part), PLANTED, replace=False) for part in ("test", "train"))
    images = data.images.clone()
    for copy, source in zip(copies, sources, strict=True):
        images[copy] = torch.from_numpy(np.ascontiguousarray(KINDS[kind](data.images[source].numpy())))
    return dataclasses.replace(data, images=images), pd.Series(sources, copies)


def found(data: CTData, planted: pd.Series) -> dict[str, float]:
    """Share of the planted copies that are named with the right patient as twin, and of other held-out slices named."""
    pairs = near_duplicates(data).set_index("slice")
    there = planted.index.intersection(pairs.index)
    patients = data.table.patient.to_numpy()
    right = patients[pairs.twin[there]] == patients[planted[there]]
    others = (data.table.split != "train").sum() - len(planted)
    return {"found": right.sum() / max(len(planted), 1), "false alarms": (len(pairs) - len(there)) / others}


def measure(seed: int) -> list[dict]:
    """All kinds of copies among the phantom's test slices; and real slices, if they are there, with nothing planted."""
    data = load_data(Settings(seed=seed), progress=False)
    rows = [{"data": "phantom", "kind": kind} | found(*plant(data, kind, seed)) for kind in KINDS]
    if resolve("data/sars-cov-2-ct").is_dir():
        real = load_data(Settings("sars-cov-2-ct", seed=seed), progress=False)
        alarms = found(real, pd.Series(dtype=int))["false alarms"]
        rows.append({"data": "sars-cov-2-ct", "kind": "nothing planted", "false alarms": alarms})
    return rows


def main() -> None:
    run(RESULTS / "leaks.csv", grid(seed=parser(__doc__).parse_args().seeds), measure)


if __name__ == "__main__":
    main()
