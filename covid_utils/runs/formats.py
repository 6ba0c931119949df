"""Which number format a network computes faster in, measured."""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor

from ..core.device import has_bfloat16, repeatable
from ..core.files import read_json, resolve, write_json
from ..core.memory import enough_memory
from ..models import Net, Tail, ask, first_to_learn, prepare, train_mode

PIXELS = 6 * 96 * 96  # in the slices of one step, so that all steps together take about a second
MEASURED = "data/cache/number_formats.json"  # measured once, so that the same seed gives the same bits the next time


def choose_formats(model: Net, images: Tensor, kept: bool) -> None:
    """Set `model.bfloat16` to the faster format, by timing a few steps in each, or as this machine measured it before.

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
    machine = f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    network = f"{model.backbone} from {first_to_learn(model)}{', features kept' if kept else ''}, {[*few.shape]}"
    for direction in ("answering", "learning"):
        known = _known()
        key = f"{machine}, {network}, {direction}"
        if key not in known:
            measured = _faster(model, few, kept, direction)
            known = _known()
            known.setdefault(key, measured)  # another process that starts the same run may have measured first
            write_json(resolve(MEASURED), known)
        model.bfloat16[direction] = known[key]


def _known() -> dict[str, bool]:
    """What was measured on this machine so far."""
    return read_json(resolve(MEASURED)) if resolve(MEASURED).exists() else {}


@enough_memory("image_size or batch_size")
@repeatable(0)
def _faster(model: Net, images: Tensor, kept: bool, direction: str) -> bool:
    """Whether the steps of a copy of the network take less time in bfloat16 than in float32."""
    trial = copy.deepcopy(model).eval()
    if direction == "learning" and kept:
        with torch.no_grad():
            images = trial.trunk(prepare(trial, images), until=first_to_learn(trial))
        trial = Tail(trial)
    seconds = time_steps(trial, images, direction)
    return min(seconds[True]) < 1.1 * min(seconds[False])  # a margin, so that what is equal does not depend on chance


def time_steps(model: Net | Tail, images: Tensor, direction: str, repeats: int = 2) -> dict[bool, list[float]]:
    """The seconds of each of a few steps, {False: in float32, True: in bfloat16}.

    Args:
        model: a copy, in eval mode: its mode, its running means and its gradients change.
        images: what it takes.
        direction: "answering" (forwards only) or "learning" (and backwards, in train mode).
        repeats: steps in each format.
    """
    learning = direction == "learning"
    if learning:
        train_mode(model)
    seconds: dict[bool, list] = {False: [], True: []}
    with torch.set_grad_enabled(learning):
        for bfloat16 in (False, True) * repeats:
            model.bfloat16[direction] = bfloat16
            started = time.perf_counter()
            logits = ask(model, images)
            if learning:
                logits.sum().backward()
            seconds[bfloat16].append(time.perf_counter() - started)
    return seconds
