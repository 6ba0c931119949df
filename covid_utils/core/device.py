"""Where a run computes: device, precision, threads, random numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import joblib
import torch
from torch import Tensor, nn

from .memory import MEMORY

BFLOAT16 = True  # `device.BFLOAT16 = False` trains in float32 everywhere, to see the difference


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on; "auto" takes a CUDA GPU where there is one. ValueError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name):
        raise ValueError(f"This machine has no device {name!r}: use device='auto' or 'cpu'.")
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware says that it multiplies in bfloat16, and it is not switched off here."""
    if device.type == "cuda":
        return BFLOAT16 and torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # these two ask the processor (cpuid)
    return BFLOAT16 and device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def use_amp(model: nn.Module, device: torch.device) -> bool:
    """Whether to train a model in bfloat16: its `amp` says that it gains by it, and the hardware multiplies in it.

    Inference stays in float32, so that a slice's logit is the same wherever it is computed.
    """
    return getattr(model, "amp", False) and has_bfloat16(device)


@contextlib.contextmanager
def seeded(seed: int | None = None) -> Iterator[None]:
    """Work that can be repeated bit by bit and leaves torch as it was (but the seed of a GPU not used before).

    Inside, cuDNN chooses the same algorithms every time, random numbers start from `seed` (if one is given), and no
    more threads run than this process may use: a container may be allowed fewer cores than PyTorch sees.
    """
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(gpus):
        try:
            torch.set_num_threads(min(threads, joblib.cpu_count()))
            torch.backends.cudnn.deterministic = True
            if seed is not None:
                torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.deterministic = deterministic


def to_device_if_fits(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor in the GPU's memory, if it fills at most a quarter of what is free there; else where it is."""
    if device.type != "cuda" or tensor.nbytes > MEMORY * torch.cuda.mem_get_info(device)[0]:
        return tensor
    return tensor.to(device)
