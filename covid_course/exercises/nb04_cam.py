"""Exercises of notebook 4: GradCAM, the sign of a component, the pointing game, and which pixels go first."""

from __future__ import annotations

import numpy as np
import torch

from .grading import WrongAnswer, array, call, mistake, same

PLACES = "one map for each slice, of shape (N, h, w)"


def _gradcam(answer) -> str:
    """Activations and gradients of both signs, for both classes."""
    torch.manual_seed(0)
    activations, gradients = torch.rand(3, 5, 4, 6), torch.randn(3, 5, 4, 6)
    found, wrong = {}, {}
    for target in (1, 0):
        g = gradients if target else -gradients
        raw = (g.mean((2, 3), keepdim=True) * activations).sum(1)
        try:
            said = call(answer, activations.clone(), gradients.clone(), target)
        except RuntimeError as error:
            raise WrongAnswer("dimensions" if "must match the size" in str(error) else "wrong") from error
        found[target] = array(said, (3, 4, 6), PLACES)
        wrong[target] = {
            "": raw.clamp(min=0),
            "no relu": raw,
            "absolute": raw.abs(),
            "hirescam": (g * activations).sum(1).clamp(min=0),
            "mean of channels": raw.clamp(min=0) / 5,
            "channels": (g.mean(1, keepdim=True) * activations).sum(1).clamp(min=0),
            "no weights": activations.sum(1),
        }
    kinds = [mistake(found[target], wrong[target]) for target in (1, 0)]
    if kinds[0]:
        raise WrongAnswer(kinds[0])
    if kinds[1]:
        raise WrongAnswer("target")
    return "That is GradCAM, for either class, in three lines."


def _sign(answer) -> str:
    """Components of both signs, with one odd place, so that no rule but the right one fits all."""
    kept = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        strong = rng.random((5, 6)) * 3
        activations = rng.random((8, 1, 1)) * strong + 0.05 * rng.random((8, 5, 6))
        component = np.linalg.norm(activations, axis=0)
        component = component - component.mean()
        place = np.unravel_index(component.argmin() if seed % 2 else component.argmax(), component.shape)
        component[place] *= -3 if seed % 3 == 0 else 3
        truth = (component - component.mean()) * (1 if seed % 4 < 2 else -1)
        right = truth if np.corrcoef(truth.ravel(), np.linalg.norm(activations, axis=0).ravel())[0, 1] > 0 else -truth
        out = array(call(answer, truth.copy(), activations.copy()), (5, 6), "a map of the same shape")
        if not same(np.abs(out), np.abs(truth)):
            raise WrongAnswer("other map")
        if same(out, np.abs(truth)):
            raise WrongAnswer("absolute")
        kept.append(
            (same(out, right), same(out, truth), same(out, truth * np.sign(truth.flat[np.abs(truth).argmax()])))
        )
    right, unturned, largest = (np.array(each) for each in zip(*kept, strict=True))
    if right.all():
        return "Now the picture is the same on every machine."
    for kind, told in (("untried", unturned), ("always", ~unturned), ("inverted", ~right), ("largest", largest)):
        if told.all():
            raise WrongAnswer(kind)
    raise WrongAnswer("wrong", count=int(right.sum()))


def _hits(answer) -> str:
    """Maps of noise, each of its own height, with small lesions."""
    rng = np.random.default_rng(3)
    maps = rng.random((40, 7, 9)) * rng.uniform(0.3, 1, (40, 1, 1))
    lesions = rng.random((40, 7, 9)) < 0.4
    hottest = maps.reshape(40, -1).argmax(1)
    truth = lesions.reshape(40, -1)[np.arange(40), hottest]
    out = call(answer, maps.copy(), lesions.copy())
    if np.shape(out) == () and np.isclose(float(out), truth.mean()):
        raise WrongAnswer("share")
    found = array(out, (40,), "40 answers, True or False, one for each map")
    if np.array_equal(found, truth):
        return "A hit is a hit of the hottest pixel, and of nothing else."
    energy = (maps * lesions).sum((1, 2)) / maps.sum((1, 2))
    kinds = {
        "inverted": ~truth,
        "place": hottest,
        "whole batch": ((maps == maps.max()) & lesions).any((1, 2)),
        "energy": energy > 0.5,
        "how much": energy,
        "threshold": ((maps > 0.5) & lesions).any((1, 2)),
    }
    raise WrongAnswer(mistake(found, kinds, np.array_equal))


def _first(answer) -> str:
    """A smooth map, one that is zero nearly everywhere, and one that is zero everywhere."""
    rng = np.random.default_rng(0)
    smooth = rng.permutation(np.linspace(0, 1, 80) ** 2).reshape(8, 10)
    cut = np.where(smooth > 0.8, smooth, 0)
    for heat, share in ((smooth, 0.3), (smooth, 0.1), (cut, 0.3), (cut * 0, 0.25)):
        out = array(call(answer, heat.copy(), share), heat.shape, "True or False for each pixel, of the map's shape")
        if not np.isin(out, (0, 1)).all():
            raise WrongAnswer("mask")
        chosen, wanted, tied = out.astype(bool), round(share * heat.size), len(np.unique(heat)) < 50
        if not tied and chosen.sum() == heat.size - wanted and heat[chosen].max() < heat[~chosen].min():
            raise WrongAnswer("coldest")
        if not tied and np.array_equal(chosen, heat > share):
            raise WrongAnswer("value")
        if abs(int(chosen.sum()) - wanted) > (0 if tied else 1):
            raise WrongAnswer("ties" if tied else "count", got=int(chosen.sum()), wanted=wanted, all=heat.size)
        if heat[chosen].min() < heat[~chosen].max():
            raise WrongAnswer("coldest" if heat[chosen].max() <= heat[~chosen].min() else "wrong")
    return "As many pixels as asked for, also where most of the map is zero."


GRADERS = {"gradcam": _gradcam, "sign": _sign, "hits": _hits, "first pixels": _first}
