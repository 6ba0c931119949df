"""Which slices to show: one of each outcome, the most confident ones, and never two of the same patient."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor

from ..io.folders import CLASSES

OUTCOMES = {  # label, and whether the decision is COVID
    "COVID, found": (1, True),
    "COVID, missed": (1, False),
    "non-COVID, cleared": (0, False),
    "false alarm": (0, True),
}


def surest_of_each_outcome(logits: Tensor, labels: Tensor) -> dict[str, int]:
    """The position of the most confident slice of each of OUTCOMES that occurs.

    Args:
        logits: float (N,); labels: 0 or 1, (N,).

    >>> surest_of_each_outcome(torch.tensor([2.0, 5.0, -1.0]), torch.tensor([1, 1, 1]))
    {'COVID, found': 1, 'COVID, missed': 2}
    """
    chosen = {}
    for name, (truth, decision) in OUTCOMES.items():
        candidates = ((labels == truth) & ((logits > 0) == decision)).nonzero().flatten()
        if len(candidates):
            chosen[name] = candidates[logits[candidates].abs().argmax()].item()
    return chosen


def of_different_patients(ranked: Iterable[int], patients: pd.Series, count: int = 2) -> list[int]:
    """The first positions of a ranking, best first, that belong to different `patients`, (N,): at most `count`."""
    ranked = [int(position) for position in ranked]
    owners = patients.iloc[ranked].reset_index(drop=True)
    return [ranked[place] for place in owners.drop_duplicates().index[:count]]


def confident(logits: Tensor, labels: Tensor, patients: pd.Series, count: int = 2) -> dict[str, int]:
    """The most confident correct and incorrect slices, each kind of at most `count` different patients.

    Args: as for the functions above.

    Returns:
        {"right: COVID, p(COVID) 0.98": position, …}, a line break before the p.
    """
    right, chances, chosen = (logits > 0) == labels.bool(), torch.sigmoid(logits), {}
    order = logits.abs().argsort(descending=True)
    for kind, ranked in {"right": order[right[order]], "wrong": order[~right[order]]}.items():
        for number, i in enumerate(of_different_patients(ranked, patients, count)):
            again = " " * number  # titles are keys: two equal ones must differ
            chosen[f"{kind}: {CLASSES[int(labels[i])]}\np(COVID) {chances[i]:.2f}{again}"] = i
    return chosen
