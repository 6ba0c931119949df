"""Which number format a network computes faster in, measured."""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor

from ..models import Net, Tail, ask, first_to_learn, prepare, train_mode
from .device import has_bfloat16, repeatable

PIXELS = 6 * 96 * 96  # in the slices of one step, so that all steps together take about a second
MEASURED: dict[tuple, bool] = {}  # one answer for a network and a direction as long as the program runs


def choose_formats(model: Net, images: Tensor, kept: bool) -> None:
    """Time a few steps in float32 and in bfloat16, and set `model.bfloat16` to what was faster.

    Convolutions with a kernel for each channel, as in an EfficientNet, are fast in bfloat16 forwards and slow backwards
    (42 against 65 images a second on two cores); a ResNet is faster both ways. Where the processor does not multiply in
    bfloat16, and on a GPU, nothing is measured.

    Args:
        model: on its device, frozen as it will learn.
        images: slices, uint8 (N, H, W); a few are used, nothing is learned from them.
        kept: whether only the stages that learn are trained, on the features of the others.
    """
    device = next(model.parameters()).device
    if device.type != "cpu" or not has_bfloat16(device):
        return
    few = images[: max(2, PIXELS // images[0].numel())]
    key = (model.backbone, first_to_learn(model), kept, few.shape, torch.get_num_threads())
    for direction in ("answering", "learning"):
        if (*key, direction) not in MEASURED:
            MEASURED[*key, direction] = _faster(model, few, kept, direction)
        model.bfloat16[direction] = MEASURED[*key, direction]


@repeatable(0)
def _faster(model: Net, images: Tensor, kept: bool, direction: str) -> bool:
    """Whether the steps of a copy of the network take less time in bfloat16 than in float32."""
    trial = copy.deepcopy(model).eval()
    learning = direction == "learning"
    if learning and kept:
        with torch.no_grad():
            images = trial.trunk(prepare(trial, images), until=first_to_learn(trial))
        trial = Tail(trial)
    if learning:
        train_mode(trial)
    seconds: dict[bool, list] = {False: [], True: []}
    with torch.set_grad_enabled(learning):
        for bfloat16 in (False, True) * 2:
            trial.bfloat16[direction] = bfloat16
            started = time.perf_counter()
            logits = ask(trial, images)
            if learning:
                logits.sum().backward()
            seconds[bfloat16].append(time.perf_counter() - started)
    return min(seconds[True]) < 1.1 * min(seconds[False])  # a margin, so that what is equal does not depend on chance
