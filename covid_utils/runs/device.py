"""Where a run computes."""

from __future__ import annotations

import torch


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on; "auto" takes a CUDA GPU where there is one. ValueError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        raise ValueError(f"This machine has no device {name!r}: use device='auto' or 'cpu'.")
    return torch.device(name)
