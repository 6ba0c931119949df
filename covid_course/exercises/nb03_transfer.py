"""Exercises of notebook 3: trainable parameters, freezing with its batch norm, a paired interval."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import torch
from scipy.stats import t
from torch import nn

from .grading import expect, mistake, near, result, same, wrong_if


def _count(answer) -> str:
    """Networks whose first layers are frozen."""
    for frozen in (1, 2):
        model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3), nn.Linear(3, 1))
        model[:frozen].requires_grad_(False)
        parts = list(model.parameters())
        total, right = sum(p.numel() for p in parts), sum(p.numel() for p in parts if p.requires_grad)
        tensors = sum(p.requires_grad for p in parts)
        kinds = {"all": total, "frozen": total - right, "tensors": tensors, "share": right / total}
        expect(result(answer, model, wanted="one whole number"), right, kinds)
    return "Frozen parameters stay in the network, but no optimizer updates them."


def _freeze(answer) -> str:
    """Two epochs of a few batches, with an evaluation between; then: what moved?"""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    head = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 1), nn.Flatten(0))
    model = nn.Sequential(OrderedDict(backbone=backbone, head=head))
    wrong_if(not callable(answer), "function")
    for epoch in (1, 2):
        model.eval()  # as after a validation
        wrong_if(answer(model) is ..., "untried")
        before = copy.deepcopy(model)
        wrong_if(not all(p.requires_grad for p in model.head.parameters()), "head frozen")
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (model(torch.randn(8, 1, 6, 6) + 2) - 1).pow(2).mean().backward()
            optimizer.step()
        drifts = not torch.equal(model.backbone[1].running_mean, before.backbone[1].running_mean)
        trainable = any(p.requires_grad for p in model.backbone.parameters())
        wrong_if(trainable and drifts and epoch == 1 and model.head[2].training, "untried")
        wrong_if(trainable, "weights")
        wrong_if(drifts, "drift")
        wrong_if(torch.equal(model.head[2].running_mean, before.head[2].running_mean), "head still")
    return "The backbone stayed frozen, weights and running means alike, and the head was trained."


def votes(seed: int, patients: int = 40, slices: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether two models are right, bool (N,), and whose slice it is: hard patients are hard for both."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), slices)
    hard, luck = rng.normal(size=patients)[who], rng.normal(size=(2, patients))[:, who]
    noise = rng.normal(size=(2, len(who)))
    right_a, right_b = ((1.6 * hard + 0.5 * luck[i] + 0.35 * noise[i] + shift) > 0 for i, shift in ((0, 0.6), (1, 1.2)))
    order = rng.permutation(len(who))
    return right_a[order], right_b[order], np.array([f"p{each}" for each in who])[order]


def standard_error(values: np.ndarray, patients: np.ndarray) -> float:
    """Of the mean of values, (N,), over patients with as many slices each."""
    means = np.array([values[patients == each].mean() for each in np.unique(patients)])
    return means.std(ddof=1) / len(means) ** 0.5


def _paired(answer) -> str:
    """Any honest 95 % interval over patients passes: a formula as well as a bootstrap."""
    for seed in (2, 3):
        a, b, patients = votes(seed)
        value, low, high = result(answer, a, b, patients, shape=(3,), wanted="gain, low and high")
        difference = b.astype(float) - a
        gain, error, count = difference.mean(), standard_error(difference, patients), len(np.unique(patients))
        wrong_if(not same(value, gain), mistake(value, {"sign": -gain, "points": 100 * gain}, otherwise="gain"))
        wrong_if(not low < value < high, "ends")
        half, right = (high - low) / 2, t.ppf(0.975, count - 1) * error
        kind = mistake(half, {"one error": error, "no root": 2 * error / count**0.5}, near, otherwise="slices")
        wrong_if(half < 0.8 * right, kind, times=f"{right / half:.1f}")
        unpaired = 2 * np.hypot(*(standard_error(each.astype(float), patients) for each in (a, b)))
        kind = "unpaired" if np.isclose(half, unpaired, rtol=0.2) else "deviation"
        wrong_if(half > 1.25 * right, kind, times=f"{half / right:.1f}")
    return "The interval is paired and counts patients, not slices."


GRADERS = {"count": _count, "freeze": _freeze, "paired": _paired}
