"""Knobs of fine-tuning: learning rate, a rate for each stage, precision, size of a batch."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from itertools import chain, islice, repeat

import pandas as pd
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import binary_cross_entropy_with_logits

from ..core.device import has_bfloat16, seeded
from ..core.settings import Settings
from ..data import CTData, loader
from ..models import STAGES, FeatureHead, Net, freeze, train_with_frozen_bn
from ..training import predict


def range_test(
    model: Net, data: CTData, settings: Settings, lowest: float = 1e-5, highest: float = 1.0, steps: int = 60
) -> pd.DataFrame:
    """The training loss while the learning rate grows from step to step.

    The learning-rate range test (Smith 2017, https://arxiv.org/abs/1506.01186, section 3.3), here in equal factors as
    fastai does it. A good rate lies where the loss falls fastest, well before it rises. The network is spoilt by it:
    give one that is not needed any more.

    Returns:
        a row a step: `rate`, `loss`, and `smooth`, the mean of the last five or so. It ends early once the loss is four
        times the lowest, or NaN.
    """
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lowest, weight_decay=0.05)
    faster = torch.optim.lr_scheduler.ExponentialLR(optimizer, (highest / lowest) ** (1 / (steps - 1)))
    batches = chain.from_iterable(repeat(loader(data, "train", settings.batch_size, shuffle=True, augmented=True)))
    rows, device = [], next(model.parameters()).device
    with seeded(settings.seed):
        train_with_frozen_bn(model)
        for images, labels in islice(batches, steps):
            loss = binary_cross_entropy_with_logits(model(images.to(device)), labels.to(device))
            rows.append({"rate": optimizer.param_groups[0]["lr"], "loss": loss.item()})
            if not rows[-1]["loss"] < 4 * min(row["loss"] for row in rows):
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            faster.step()
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


def precisions(model: Net, images: Tensor, repeats: int = 3) -> tuple[pd.DataFrame, Tensor]:
    """A copy of the network in float32 and in bfloat16: how fast, and how far the logits lie apart.

    Where the processor does not multiply in bfloat16, both are computed in float32 and equal.

    Args:
        images: uint8 (N, H, H).

    Returns:
        milliseconds a slice for "inference" and "training" (forward and backward), a row a precision, the fastest of
        `repeats`; and the logits of both, float32 (2, N).
    """
    device = next(model.parameters()).device
    images, rows, logits = images.to(device), {}, []
    for name, wanted in (("float32", False), ("bfloat16", has_bfloat16(device))):
        trial = copy.deepcopy(model)
        with torch.autocast(device.type, torch.bfloat16, enabled=wanted):
            logits.append(predict(trial, images))
            inference = [_seconds(predict, trial, images) for _ in range(repeats)]
            train_with_frozen_bn(trial)
            training = [_seconds(_step, trial, images) for _ in range(repeats)]
        rows[name] = {"inference": 1000 * min(inference) / len(images), "training": 1000 * min(training) / len(images)}
    return pd.DataFrame.from_dict(rows, orient="index"), torch.stack(logits)


def _step(model: Net, images: Tensor) -> None:
    model(images).sum().backward()


def _seconds(function: Callable, *arguments) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def time_answers(ways: dict[str, tuple[Net | FeatureHead, Tensor]]) -> pd.DataFrame:
    """The same slices predicted in several ways: how long each takes, and whether the logits are the same.

    Args:
        ways: {title: (network, what it takes)}, first the one that the others are compared with; may be empty.

    Returns:
        a row a way: `seconds`, `times as fast` as the first, `logits differ by` at most so much from the first's.
    """
    answers, seconds = {}, {}
    for title, (network, inputs) in ways.items():
        started = time.perf_counter()
        answers[title] = predict(network, inputs)
        seconds[title] = time.perf_counter() - started
    first = next(iter(ways), None)
    rows = {
        title: {
            "seconds": round(took, 2),
            "times as fast": round(seconds[first] / took, 1),
            "logits differ by": (answers[title] - answers[first]).abs().max().item(),
        }
        for title, took in seconds.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def kept_per_slice(model: Net, images: Tensor) -> float:
    """How many bytes of each slice a forward pass keeps for the backward pass.

    It is what a larger batch costs: so many slices fit as these bytes fit beside weights, gradients and optimizer.

    Args:
        images: uint8 (N, H, W), an even number of them: half of them is taken off, and with it what no slice brings.
    """
    half = len(images) // 2
    return (_kept(model, images) - _kept(model, images[:half])) / half


def batch_sizes(model: Net, images: Tensor) -> pd.DataFrame:
    """What a slice of a batch costs, by the first stage that learns: megabytes kept, and slices that fit into 4 GB.

    Args:
        images: as for `kept_per_slice`.
    """
    trial = copy.deepcopy(model)
    kept = {stage: kept_per_slice(freeze(trial, stage), images) / 1e6 for stage in ("last", "layer3", "layer2", "all")}
    rows = {
        stage: {
            "megabytes a slice": f"{size:.1f}",
            "slices in 4 GB": f"{4000 / size:,.0f}",
            "times the last stage's": f"{size / kept['last']:.1f}",
        }
        for stage, size in kept.items()
    }
    return pd.DataFrame(rows).T.rename_axis("learns")


def _kept(model: Net, images: Tensor) -> int:
    """The bytes of all that a forward pass keeps, each piece of memory once."""
    sizes = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    train_with_frozen_bn(model)
    with saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(
            images.to(next(model.parameters()).device)
        )  # holds the graph, so that no memory is freed and used again
    del logits
    return sum(sizes.values())
