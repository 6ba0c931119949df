"""Knobs of fine-tuning: learning rate, a rate for each stage, when to unfreeze, number formats, size of a batch."""

from __future__ import annotations

import time
from itertools import chain, islice, repeat

import pandas as pd
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import binary_cross_entropy_with_logits

from ..data import CTData, loader
from ..models import STAGES, Net, ask, freeze, train_mode
from ..runs.device import repeatable
from ..runs.settings import Settings
from ..training import evaluate, predict, train_one_epoch, update


def range_test(
    model: Net, data: CTData, settings: Settings, lowest: float = 1e-5, highest: float = 1.0, steps: int = 60
) -> pd.DataFrame:
    """The training loss while the learning rate grows from step to step.

    The learning-rate range test (Smith 2017, https://arxiv.org/abs/1506.01186, section 3.3), here in equal factors as
    fastai does it. A good rate lies where the loss falls fastest, well before it rises. The network is spoilt by it:
    give one that is not needed any more.

    Returns:
        a row a step: `rate`, `loss`, and `smooth`, the mean of the last five or so. It ends early once the loss is four
        times the lowest, or no number any more.
    """
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lowest, weight_decay=0.05)
    faster = torch.optim.lr_scheduler.ExponentialLR(optimizer, (highest / lowest) ** (1 / (steps - 1)))
    batches = chain.from_iterable(repeat(loader(data, "train", settings.batch_size, shuffle=True, augmented=True)))
    rows = []
    with repeatable(settings.seed):
        train_mode(model)
        for images, labels in islice(batches, steps):
            logits = ask(model, images).float()
            loss = binary_cross_entropy_with_logits(logits, labels.to(logits.device))
            rows.append({"rate": optimizer.param_groups[0]["lr"], "loss": loss.item()})
            if not rows[-1]["loss"] < 4 * min(row["loss"] for row in rows):
                break
            update(loss, optimizer, faster)
    table = pd.DataFrame(rows)
    return table.assign(smooth=table.loss.ewm(span=5).mean())


def layerwise_rates(model: Net, rate: float, factor: float) -> list[dict]:
    """Parameter groups for an optimizer: the head learns at `rate`, each stage before it at `factor` of the next one's.

    Discriminative fine-tuning (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.2; they take 1/2.6).
    """
    groups = []
    for depth, stage in enumerate(reversed(STAGES)):
        parameters = [p for part in model.parts(stage) for p in part.parameters()]
        groups.append({"params": parameters, "lr": rate * factor**depth})
    return [group for group in groups if group["params"]]


def fine_tune(model: Net, data: CTData, settings: Settings, factor: float = 1.0, unfreeze: tuple = ()) -> pd.DataFrame:
    """Train all stages, each at a rate of its own, or unfrozen one after the other; the last epoch's weights stay.

    Args:
        factor: as for `layerwise_rates`; 1 is one rate for all.
        unfreeze: what learns from each epoch on, as `models.freeze` takes it ("head", "last", …); when the names are
            used up, the last one holds. Empty: all stages from the start.

    Returns:
        the history: `epoch`, `val_accuracy`, `val_loss`.
    """
    batches = loader(data, "train", settings.batch_size, shuffle=True, augmented=True)
    checks, history = loader(data, "val", settings.batch_size), []
    groups = layerwise_rates(model, settings.learning_rate, factor)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=settings.epochs * len(batches)
    )
    stages = [*unfreeze, *[(unfreeze or ("all",))[-1]] * settings.epochs]
    for epoch, stage in enumerate(stages[: settings.epochs], start=1):
        with repeatable(settings.seed * 1_000_003 + epoch):
            train_one_epoch(freeze(model, stage), batches, optimizer, schedule)
            found = evaluate(model, checks)
        history.append({"epoch": epoch, "val_accuracy": found["accuracy"], "val_loss": found["loss"]})
    return pd.DataFrame(history)


@repeatable()
def number_formats(model: Net, images: Tensor, repeats: int = 3) -> tuple[pd.DataFrame, Tensor]:
    """The same network in 32-bit and in 16-bit numbers (bfloat16): how fast, and how far the logits lie apart.

    Where the processor does not multiply in bfloat16, both are computed in 32 bits and equal.

    Args:
        images: uint8 (N, H, W).

    Returns:
        milliseconds a slice for "answering" and "learning" (forwards and backwards), a row a format, the fastest of
        `repeats`; and the logits of both, float32 (2, N).
    """
    before, rows, logits = dict(model.bfloat16), {}, []
    for name, bfloat16 in (("float32", False), ("bfloat16", True)):
        model.bfloat16 = {"answering": bfloat16, "learning": bfloat16}
        seconds: dict[str, list] = {"answering": [], "learning": []}
        for _ in range(repeats):
            started = time.perf_counter()
            answers = predict(model, images)
            middle = time.perf_counter()
            ask(model, images).float().sum().backward()
            seconds["answering"].append(middle - started)
            seconds["learning"].append(time.perf_counter() - middle)
            model.zero_grad()
        rows[name] = {way: 1000 * min(took) / len(images) for way, took in seconds.items()}
        logits.append(answers)
    model.bfloat16 = before
    return pd.DataFrame(rows).T, torch.stack(logits)


def kept_per_slice(model: Net, images: Tensor) -> float:
    """How many bytes of each slice a forward pass keeps for the backward pass.

    It is what a larger batch costs: so many slices fit as these bytes fit beside weights, gradients and optimizer.

    Args:
        images: uint8 (N, H, W), an even number of them: half of them is taken off, and with it what no slice brings.
    """
    half = len(images) // 2
    return (_kept(model, images) - _kept(model, images[:half])) / half


def _kept(model: Net, images: Tensor) -> int:
    """The bytes of all that a forward pass keeps, each piece of memory once."""
    sizes = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    train_mode(model)
    with saved_tensors_hooks(note, lambda tensor: tensor):
        logits = ask(model, images)  # holds the graph, so that no memory is freed and used again
    del logits
    return sum(sizes.values())
