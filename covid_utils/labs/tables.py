"""What a network is made of, as tables."""

from __future__ import annotations

import pandas as pd

from ..models import STAGES, Net


def parameter_table(model: Net) -> pd.DataFrame:
    """A row per parameter tensor: name, shape, how many numbers, and whether they learn."""
    rows = [(n, tuple(p.shape), p.numel(), p.requires_grad) for n, p in model.named_parameters()]
    return pd.DataFrame(rows, columns=["parameter", "shape", "numbers", "trainable"])


def stage_table(model: Net) -> pd.DataFrame:
    """A row per stage of the network: how many numbers it has and how many of them learn."""
    rows = {}
    for stage in STAGES:
        found = [parameter for part in model.parts(stage) for parameter in part.parameters()]
        rows[stage] = [sum(p.numel() for p in some) for some in (found, [p for p in found if p.requires_grad])]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["numbers", "trainable"])
