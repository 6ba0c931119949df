"""Which slices to look at: one of each outcome, the surest ones, and never two of the same patient."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor

from ..io.folders import CLASSES

OUTCOMES = {  # label, and whether the network says COVID
    "COVID, found": (1, True),
    "COVID, missed": (1, False),
    "non-COVID, cleared": (0, False),
    "false alarm": (0, True),
}


def surest_of_each_outcome(logits: Tensor, labels: Tensor) -> dict[str, int]:
    """For each of OUTCOMES that occurs, the position of the slice of which the network is surest.

    Args:
        logits: float (N,); labels: 0 or 1, (N,).

    >>> surest_of_each_outcome(torch.tensor([2.0, 5.0, -1.0]), torch.tensor([1, 1, 1]))
    {'COVID, found': 1, 'COVID, missed': 2}
    """
    chosen = {}
    for name, (truth, said) in OUTCOMES.items():
        candidates = ((labels == truth) & ((logits > 0) == said)).nonzero().flatten()
        if len(candidates):
            chosen[name] = candidates[logits[candidates].abs().argmax()].item()
    return chosen


def of_different_patients(ranked: Iterable[int], patients: pd.Series, count: int = 2) -> list[int]:
    """The first positions of a ranking that belong to different patients, at most `count`.

    Args:
        ranked: positions, the best first.
        patients: (N,), the patient of each slice.
    """
    ranked = [int(position) for position in ranked]
    owners = patients.iloc[ranked].reset_index(drop=True)
    return [ranked[place] for place in owners.drop_duplicates().index[:count]]


def confident(logits: Tensor, labels: Tensor, patients: pd.Series, count: int = 2) -> dict[str, int]:
    """Slices on which the network is confidently right and confidently wrong, each kind of different patients.

    Args: as for the functions above.

    Returns:
        {"right: COVID, p(COVID) 0.98": position, …}, a line break before the p.
    """
    right, chances, chosen = (logits > 0) == labels.bool(), torch.sigmoid(logits), {}
    order = torch.where(right, logits.abs(), -logits.abs()).argsort(descending=True).tolist()
    ranked = {"right": [i for i in order if right[i]], "wrong": [i for i in order[::-1] if not right[i]]}
    for kind, positions in ranked.items():
        for number, i in enumerate(of_different_patients(positions, patients, count)):
            again = " " * number  # two alike stay two
            chosen[f"{kind}: {CLASSES[int(labels[i])]}\np(COVID) {chances[i]:.2f}{again}"] = i
    return chosen
