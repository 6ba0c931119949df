"""Exercises of notebook 8: features computed once, a learning rate for each stage, the largest batch."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from .grading import array, call, expect, mistake, result, same, wrong_if


def _features(answer) -> str:
    """Ten slices in batches of four: the last is smaller. The backbone comes in train mode."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    images, sizes = torch.randn(10, 1, 8, 8) * 3 + 1, []
    right = copy.deepcopy(backbone).eval()(images).detach().numpy()
    backbone.register_forward_hook(lambda module, inputs, features: sizes.append(len(inputs[0])))
    out = call(answer, backbone, images.clone(), 4)
    wrong_if(isinstance(out, (list, tuple)), "list")
    wrong_if(getattr(out, "shape", ())[:1] == (8,), "lost")
    found = array(out, right.shape, f"one tensor of shape {right.shape}")
    wrong_if(backbone[1].num_batches_tracked, "train mode")
    shuffled = same(np.sort(found.reshape(10, -1), 0), np.sort(right.reshape(10, -1), 0))
    wrong_if(not same(found, right), "order" if shuffled else "wrong")
    wrong_if(max(sizes) > 4, "at once")
    wrong_if(out.requires_grad, "gradient")
    return "The same features as ever, in their order, and no gradient kept."


def _groups(answer) -> str:
    """Three stages, the last one first in nothing but its rate; every parameter in exactly one group."""
    stages = [nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(2, 1)]
    groups = call(answer, stages, 0.01, 0.5)
    listed = isinstance(groups, list) and all(isinstance(each, dict) for each in groups)
    wrong_if(not listed or not all({"params", "lr"} <= set(each) for each in groups), "groups")
    groups = [each | {"params": list(each["params"])} for each in groups]
    rates = {id(p): each["lr"] for each in groups for p in each["params"]}
    wrong_if(len(groups) == 1 and len(rates) > 2, "one rate")
    wrong_if(any(id(p) not in rates for stage in stages for p in stage.parameters()), "missing")
    found = [rates[id(stage.weight)] for stage in stages]
    kinds = {"reversed": [0.01, 0.005, 0.0025], "no power": [0.01, 0.005, 0.0], "one step": [0.005, 0.005, 0.01]}
    wrong_if(not same(found, [0.0025, 0.005, 0.01]), mistake(found, kinds))
    torch.optim.AdamW(groups)
    return "Each stage at half the rate of the next one, and AdamW takes the groups as they are."


def _batch(answer) -> str:
    """Memory that grows by 3 MB a slice, beyond 180 MB."""
    fixed, each, limit = 180, 3.0, 1000
    right, high = (limit - fixed) // each, fixed + 32 * each
    kinds = {
        "fixed": limit // each,
        "proportional": limit // (high / 32),
        "rounding": ((limit - fixed) / each, right + 1),
    }
    expect(result(answer, 8, fixed + 8 * each, 32, high, limit), right, kinds)
    return "Two measurements tell both: what is always there, and what each slice adds."


GRADERS = {"features": _features, "stage rates": _groups, "batch size": _batch}
