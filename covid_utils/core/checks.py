"""Whether scores and masks are what the functions that judge them take."""

from __future__ import annotations

import numpy as np


def checked_scores(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    """Logits as float (N,) and labels as int (N,); ValueError if a logit is NaN or a label not 0 or 1."""
    logits, labels = np.asarray(logits, float), np.asarray(labels)
    if logits.shape != labels.shape:
        raise ValueError(f"There are {logits.shape} logits for {labels.shape} labels: give one of each for each slice.")
    if np.isnan(logits).any():
        raise ValueError(f"{int(np.isnan(logits).sum())} of {logits.size} logits are NaN: the network is broken.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("Labels must be 0 (non-COVID) or 1 (COVID).")
    return logits, labels.astype(int)


def check_masks(maps: np.ndarray, *masks: np.ndarray) -> None:
    """Raise ValueError if a mask is not bool, or not of the maps' shape, (N, H, W)."""
    for mask in map(np.asarray, masks):
        if mask.dtype != bool or mask.shape != np.shape(maps):
            raise ValueError(f"A mask must be bool {np.shape(maps)} as the maps are, not {mask.dtype} {mask.shape}.")
