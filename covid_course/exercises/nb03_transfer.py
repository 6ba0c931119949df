"""Exercises of notebook 3: what learns, freezing with batch norm still, features computed once, a paired interval."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import torch
from scipy.stats import t
from torch import nn

from .grading import WrongAnswer, array, call, mistake, same


class _Small(nn.Module):
    """A network with a trunk and a head, both with batch norm."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 1), nn.Flatten(0))

    def forward(self, x):
        return self.head(self.trunk(x))


def _count(answer) -> str:
    """Networks whose first layers are frozen."""
    for frozen in (1, 2):
        model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3), nn.Linear(3, 1))
        model[:frozen].requires_grad_(False)
        sizes = {True: 0, False: 0}
        for part in model.parameters():
            sizes[part.requires_grad] += part.numel()
        said = array(call(answer, model), (), "one whole number")
        kinds = {
            "all": sum(sizes.values()),
            "frozen": sizes[False],
            "tensors": sum(part.requires_grad for part in model.parameters()),
            "share": sizes[True] / sum(sizes.values()),
        }
        if said != sizes[True]:
            raise WrongAnswer(mistake(said, kinds, np.isclose))
    return "Frozen numbers stay in the network, but nothing moves them."


def _freeze(answer) -> str:
    """Two epochs of a few batches, with an evaluation between; then: what moved?"""
    torch.manual_seed(0)
    model = _Small()
    for epoch in (1, 2):
        model.eval()  # as after a validation
        if not callable(answer):
            raise WrongAnswer("function")
        if answer(model) is ...:
            raise WrongAnswer("untried")
        learns = {name: any(p.requires_grad for p in getattr(model, name).parameters()) for name in ("trunk", "head")}
        before = copy.deepcopy(model)
        if not learns["head"] or not all(p.requires_grad for p in model.head.parameters()):
            raise WrongAnswer("head frozen")
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (model(torch.randn(8, 1, 6, 6) + 2) - 1).pow(2).mean().backward()
            optimizer.step()
        drifts = not torch.equal(model.trunk[1].running_mean, before.trunk[1].running_mean)
        if learns["trunk"]:
            raise WrongAnswer("untried" if drifts and epoch == 1 and model.head[2].training else "weights")
        if drifts:
            raise WrongAnswer("drift")
        if torch.equal(model.head[2].running_mean, before.head[2].running_mean):
            raise WrongAnswer("head still")
    return "The trunk stood still, weights and running means alike, and the head learned."


class _Counted(nn.Module):
    """A trunk that notes how many pictures it was shown at a time."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return self.layers(x)


def _features(answer) -> str:
    """Ten pictures in batches of four: the last is smaller. The trunk comes in train mode."""
    torch.manual_seed(0)
    trunk, images = _Counted(), torch.randn(10, 1, 8, 8) * 3 + 1
    truth = copy.deepcopy(trunk).eval()(images).detach().numpy()
    out = call(answer, trunk, images.clone(), 4)
    if isinstance(out, (list, tuple)):
        raise WrongAnswer("list")
    if getattr(out, "shape", (10,))[:1] == (8,):
        raise WrongAnswer("lost")
    found = array(out, truth.shape, f"one tensor of shape {truth.shape}")
    if trunk.layers[1].num_batches_tracked:
        raise WrongAnswer("train mode")
    if not same(found, truth):
        shuffled = same(np.sort(found.reshape(10, -1), 0), np.sort(truth.reshape(10, -1), 0))
        raise WrongAnswer("order" if shuffled else "wrong")
    if max(trunk.seen) > 4:
        raise WrongAnswer("at once")
    if out.requires_grad:
        raise WrongAnswer("gradient")
    return "The same features as ever, in their order, and no gradient kept."


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
        value, low, high = array(call(answer, a.copy(), b.copy(), patients.copy()), (3,), "gain, low and high")
        difference = b.astype(float) - a
        if np.isclose(value, -difference.mean()):
            raise WrongAnswer("sign")
        if np.isclose(value, 100 * difference.mean()):
            raise WrongAnswer("points")
        if not np.isclose(value, difference.mean()):
            raise WrongAnswer("gain")
        if not low < value < high:
            raise WrongAnswer("ends")
        half = (high - low) / 2
        right = t.ppf(0.975, len(np.unique(patients)) - 1) * standard_error(difference, patients)
        apart = 2 * np.hypot(*(standard_error(each.astype(float), patients) for each in (a, b)))
        if half < 0.8 * right:
            error = standard_error(difference, patients)
            kinds = {"one error": error, "no root": 2 * error / len(np.unique(patients)) ** 0.5}
            kind = mistake(half, kinds, partial(np.isclose, rtol=0.1), otherwise="slices")
            raise WrongAnswer(kind, times=f"{right / half:.1f}")
        if half > 1.25 * right:
            unpaired = np.isclose(half, apart, rtol=0.2)
            raise WrongAnswer("unpaired" if unpaired else "deviation", times=f"{half / right:.1f}")
    return "Patients counted, not slices, and both models on the same ones."


GRADERS = {"count": _count, "freeze": _freeze, "features": _features, "paired": _paired}
