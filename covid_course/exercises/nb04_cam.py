"""Exercises of notebook 4: Grad-CAM, the sign of a component, the pointing game."""

from __future__ import annotations

import numpy as np
import torch

from .grading import WrongAnswer, array, call, expect, mistake, result, same, wrong_if


def _gradcam(answer) -> str:
    """Activations and gradients of both signs, for both classes."""
    torch.manual_seed(0)
    activations, gradients = torch.rand(3, 5, 4, 6), torch.randn(3, 5, 4, 6)
    kinds = []
    for target, g in ((1, gradients), (0, -gradients)):
        raw = (g.mean((2, 3), keepdim=True) * activations).sum(1)
        mistakes = {
            "": raw.clamp(min=0),
            "no relu": raw,
            "relu first": (g.mean((2, 3), keepdim=True) * activations).clamp(min=0).sum(1),
            "absolute": raw.abs(),
            "hirescam": (g * activations).sum(1).clamp(min=0),
            "sum": raw.clamp(min=0) * 24,
            "mean of channels": raw.clamp(min=0) / 5,
            "channels": (g.mean(1, keepdim=True) * activations).sum(1).clamp(min=0),
            "no weights": activations.sum(1),
        }
        form = {"shape": (3, 4, 6), "wanted": "one map for each slice, of shape (N, h, w)"}
        try:
            found = result(answer, activations, gradients, target, **form)
        except RuntimeError as error:  # what PyTorch raises for shapes that do not fit
            raise WrongAnswer("dimensions", error=error) from error
        kinds.append(mistake(found, mistakes))
    wrong_if(kinds[0], kinds[0])
    wrong_if(kinds[1], "target")
    return "That is Grad-CAM, for either class, in three lines."


def _sign(answer) -> str:
    """Components of both signs, with one odd place, so that no rule but the right one fits all."""
    found, components, right, largest = [], [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        strong = rng.random((5, 6)) * 3
        activations = rng.random((8, 1, 1)) * strong + 0.05 * rng.random((8, 5, 6))
        strength = np.linalg.norm(activations, axis=0)
        component = strength - strength.mean()
        place = np.unravel_index(component.argmin() if seed % 2 else component.argmax(), component.shape)
        component[place] *= -3 if seed % 3 == 0 else 3
        component = (component - component.mean()) * (1 if seed % 4 < 2 else -1)
        found.append(result(answer, component, activations, shape=(5, 6), wanted="a map of the same shape"))
        components.append(component)
        right.append(component * np.sign(np.corrcoef(component.ravel(), strength.ravel())[0, 1]))
        largest.append(component * np.sign(component.flat[np.abs(component).argmax()]))
    found, components, right = np.array(found), np.array(components), np.array(right)
    wrong_if(not same(np.abs(found), np.abs(components)), "other map")
    kinds = {
        "absolute": np.abs(components),
        "untried": components,
        "always": -components,
        "inverted": -right,
        "largest": largest,
    }
    expect(found, right, kinds, count=sum(map(same, found, right)))
    return "Now the map is the same on every machine."


def _hits(answer) -> str:
    """Maps of noise, each of its own height, with small lesions."""
    rng = np.random.default_rng(3)
    maps = rng.random((40, 7, 9)) * rng.uniform(0.3, 1, (40, 1, 1))
    lesions = rng.random((40, 7, 9)) < 0.4
    hottest = maps.reshape(40, -1).argmax(1)
    right = lesions.reshape(40, -1)[np.arange(40), hottest]
    try:
        out = call(answer, maps.copy(), lesions.copy())
    except IndexError as error:  # an index into the flat map, used for rows
        raise WrongAnswer("rows", error=error) from error
    wrong_if(np.shape(out) == () and same(out, right.mean()), "share")
    energy = (maps * lesions).sum((1, 2)) / maps.sum((1, 2))
    kinds = {
        "inverted": ~right,
        "place": hottest,
        "whole batch": ((maps == maps.max()) & lesions).any((1, 2)),
        "energy": (energy > 0.5, energy),
        "threshold": ((maps > 0.5) & lesions).any((1, 2)),
    }
    expect(array(out, (40,), "40 answers, True or False, one for each map"), right, kinds)
    return "Only the highest pixel of each map counts."


GRADERS = {"gradcam": _gradcam, "sign": _sign, "hits": _hits}
