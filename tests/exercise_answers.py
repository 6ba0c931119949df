"""Answers to the exercises: other right ones than the notebooks', and wrong ones by the kind of their mistake."""

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from scipy.signal import convolve2d, correlate2d
from scipy.stats import spearmanr
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import binary_cross_entropy_with_logits as bce

# Functions with arguments beyond the exercise's own are right, with the mistakes that these arguments make.


def distances(new, known):
    return np.abs(new[:, None].astype(float) - known).sum(2)


def split(table, seed, by="patient", classes=((0,), (1,)), names=pd.unique, size=round):
    rng = np.random.default_rng(seed)
    found = pd.Series("train", index=table.index)
    for labels in classes:
        mine = rng.permutation(names(table[by][table.label.isin(labels)]))
        count = size(0.15 * len(mine))
        found[table[by].isin(mine[:count])] = "test"
        found[table[by].isin(mine[count : 2 * count])] = "val"
    return found


def mirror(images, rng, changed=np.copy, axis=2):
    coins, found = rng.random(len(images)) < 0.5, changed(images)
    found[coins] = np.flip(images, axis)[coins]
    return found


def valid(picture, kernel):
    return correlate2d(picture, kernel, mode="valid")


def convolution(picture, kernel, places):
    k, out = len(kernel), np.zeros(valid(picture, kernel).shape)
    for i, j in np.ndindex(*places):
        out[i, j] = (picture[i : i + k, j : j + k] * kernel).sum()
    return out


def step(model, x, labels, optimizer, zero=True, early=False, squashed=False):
    if zero:
        optimizer.zero_grad()
    logits = model(x)
    loss = bce(torch.sigmoid(logits) if squashed else logits, labels)
    if early:
        optimizer.step()
    loss.backward()
    if not early:
        optimizer.step()
    return loss.item()


def zero_last(model, x, labels, optimizer):
    """Right, too: the gradients are emptied at the end."""
    loss = -(labels * model(x).sigmoid().log() + (1 - labels) * (1 - model(x).sigmoid()).log()).mean()
    loss.backward()
    optimizer.step()
    for parameter in model.parameters():
        parameter.grad = None
    return loss.item()


def loop(model, batches, checks, optimizer, epochs, rest=True, again=True, learn=False, means=False, zero=True):
    history = []
    model.train()
    for _ in range(epochs):
        if again:
            model.train()
        for x, labels in batches:
            step(model, x, labels, optimizer, zero)
        if rest:
            model.eval()
        right = []
        for x, labels in checks:
            logits = model(x)
            if learn:
                bce(logits, labels).backward()
                optimizer.step()
            right.append(((logits > 0) == labels.bool()).float())
        history.append(np.mean([each.mean() for each in right]) if means else torch.cat(right).mean())
    return history


def freeze(model, frozen="backbone", evaluated="backbone", train_last=False):
    parts = {"backbone": model.backbone, "all": model, "none": torch.nn.Identity()}
    model.train()
    parts[frozen].requires_grad_(False)
    parts[evaluated].eval()
    if train_last:
        model.train()


def only_batch_norm(model):
    """Right, too: only what drifts is in eval mode."""
    model.train()
    model.backbone.requires_grad_(False)
    model.backbone[1].eval()


@torch.no_grad()
def features(backbone, images, batch_size, rest=True, count=None):
    if rest:
        backbone.eval()
    return torch.cat([backbone(images[i : i + batch_size]) for i in range(0, count or len(images), batch_size)])


def stage_rates(stages, rate, factor, step=lambda rate, factor, depth: rate * factor**depth):
    depths = [step(rate, factor, depth) for depth in range(len(stages))][::-1]
    return [{"params": list(stage.parameters()), "lr": lr} for stage, lr in zip(stages, depths, strict=True)]


def gain(right_a, right_b, patients, by_patient=True, paired=True, arms=2):
    who = patients if by_patient else range(len(patients))
    means = pd.DataFrame({"a": right_a * 1.0, "b": right_b * 1.0, "who": who}).groupby("who").mean()
    spread = (means.b - means.a).std() if paired else np.hypot(means.a.std(), means.b.std())
    half, value = arms * spread / len(means) ** 0.5, (means.b - means.a).mean()
    return value, value - half, value + half


def bootstrapped_gain(right_a, right_b, patients):
    """Right, too: the percentiles of a bootstrap."""
    drawn = drawn_pairs(right_a, right_b, patients, 1500, np.random.default_rng(0))
    return right_b.mean() - right_a.mean(), *np.quantile(drawn, [0.025, 0.975])


def gradcam(activations, gradients, target, cut=True, own=False, heed=True):
    sign = 1 if target or not heed else -1
    weights = sign * (gradients if own else gradients.mean((2, 3), keepdim=True))
    raw = torch.einsum("nchw,nchw->nhw", weights.expand_as(activations), activations)
    return raw.relu() if cut else raw


def signed(component, activations):
    strength = (activations**2).sum(0) ** 0.5
    return component * np.sign(((component - component.mean()) * (strength - strength.mean())).sum())


def hits(maps, lesions):
    return [bool(each.ravel()[heat.argmax()]) for heat, each in zip(maps, lesions, strict=True)]


def first(heat, share):
    count = round(share * heat.size)
    limit = np.sort(heat, axis=None)[-count]
    chosen = heat > limit
    chosen[tuple(np.argwhere(heat == limit)[: count - chosen.sum()].T)] = True
    return chosen


def drawn_rows(patients, rng, by="patients"):
    """The rows of one resample."""
    if by == "slices":
        return rng.integers(0, len(patients), len(patients))
    rows = np.argsort(patients).reshape(len(np.unique(patients)), -1)  # all have as many slices
    drawn = rng.permutation(len(rows)) if by == "nobody twice" else rng.integers(0, len(rows), len(rows))
    return rows[np.unique(drawn) if by == "once" else drawn].ravel()


def bootstrap(right, patients, draws, rng, by="patients"):
    return np.array([right[drawn_rows(patients, rng, by)].mean() for _ in range(draws)])


def drawn_pairs(right_a, right_b, patients, draws, rng, by="patients", apart=False):
    found = []
    for _ in range(draws):
        rows = drawn_rows(patients, rng, by)
        other = drawn_rows(patients, rng, by) if apart else rows
        found.append(right_b[other].mean() - right_a[rows].mean())
    return np.array(found)


def best_temperature(logits, labels, least=0.05):
    def loss(t):
        return np.logaddexp(0, -(2 * labels - 1) * logits / t).mean()

    return minimize_scalar(loss, bounds=(least, 20), method="bounded").x


def mahalanobis(known, asked):
    """Distances in a space where the known features are uncorrelated and of variance 1."""
    white = np.linalg.cholesky(np.linalg.inv(np.cov(known.T, ddof=0)))
    return np.linalg.norm((asked - known.mean(0)) @ white, axis=1)


def difference(a, b, x="high", y="low", add=np.hypot):
    """Right, with a's end that goes with b's lower and with b's upper one."""
    value, low, high = (b[name] - a[other] for name, other in (("value", "value"), ("low", "value"), ("high", "value")))
    down, up = add(value - low, abs(a[x] - a["value"])), add(high - value, abs(a[y] - a["value"]))
    return [value, value - down, value + up]


def highest_three(logits, who, names):
    return [np.mean(sorted(logits[who == name], reverse=True)[:3]) for name in names]


def seeds(gains, reach, free=1):
    """By trying one number after the other."""
    n = 2
    while 1.96 * gains.std(ddof=free) / n**0.5 > reach:
        n += 1
    return n


def plan(**changes):
    parts = {"notebooks": ["02"], "parameters": {"patients": 40}, "grid": {"epochs": [1, 2]}, "seeds": [0, 1, 2]}
    return parts | changes


RIGHT = {  # another way than the notebook's
    "nearest neighbour": lambda new, known, y: KNeighborsClassifier(1).fit(known * 1.0, y).predict(new * 1.0),
    "split": split,
    "mirror": mirror,
    "undo": lambda x, mean, std: np.rint(x.numpy().mean(1) * (std * 255) + mean * 255).astype(np.uint8),
    "convolution": valid,
    "step": zero_last,
    "loop": loop,
    "count": lambda model: int(sum(np.prod(p.shape) for p in model.parameters() if p.requires_grad)),
    "freeze": only_batch_norm,
    "paired": bootstrapped_gain,
    "gradcam": gradcam,
    "sign": signed,
    "hits": hits,
    "first pixels": first,
    "agreement": lambda one, other: [spearmanr(a, b, axis=None).statistic for a, b in zip(one, other, strict=True)],
    "beyond flat": lambda heat, lungs: (heat / heat.sum() - 1 / heat.size)[lungs].sum(),
    "bootstrap": bootstrap,
    "threshold": lambda x, y, wanted: max(each for each in x if (x[y == 1] >= each).mean() >= wanted - 1e-9),
    "temperature": best_temperature,
    "pairs": drawn_pairs,
    "difference": difference,
    "mahalanobis": mahalanobis,
    "patient score": lambda logits, who: highest_three(logits, who, np.unique(who)),
    "sweep": plan(),
    "stories": lambda scratch, start: [f(np.subtract.outer(start, scratch)) for f in (np.max, np.min)],
    "how many seeds": seeds,
    "features": features,
    "stage rates": stage_rates,
    "batch size": lambda small, low, large, high, limit: next(
        n for n in range(9999) if low + (n + 1 - small) * (high - low) / (large - small) > limit
    ),
}

WRONG = {  # {exercise: {kind of mistake: answer}}
    "nearest neighbour": {
        "axis": lambda n, k, y: y[[np.abs(k.astype(float) - one).sum(0).argmin() for one in n]],
        "farthest": lambda n, k, y: y[distances(n, k).argmax(1)],
        "number": lambda n, k, y: distances(n, k).argmin(1),
        "signed": lambda n, k, y: y[(n[:, None].astype(float) - k).sum(2).argmin(1)],
        "wraps": lambda n, k, y: y[((n[:, None] - k) ** 2).sum(2).argmin(1)],
    },
    "split": {
        "torn": lambda table, seed: split(table, seed, by="path"),
        "classes": lambda table, seed: split(table, seed, classes=((0, 1),)),
        "one class": lambda table, seed: split(table, seed, classes=((1,),)),
        "repeated": lambda table, seed: split(table, seed, names=list),
        "float": lambda table, seed: split(table, seed, size=float),
        "seed": lambda table, seed: split(table, 0),
        "not repeatable": lambda table, seed: split(table, np.random.default_rng().integers(1_000_000)),
    },
    "mirror": {
        "in place": lambda images, rng: mirror(images, rng, changed=np.asarray),
        "all alike": lambda images, rng: images[:, :, ::-1] if rng.random() < 0.55 else images,
        "not repeatable": lambda images, rng: mirror(images, np.random),
        "upside down": lambda images, rng: mirror(images, rng, axis=1),
    },
    "undo": {
        "order": lambda x, mean, std: ((x[:, 0] + mean) * std * 255).round().to(torch.uint8),
        "rounding": lambda x, mean, std: ((x[:, 0] * std + mean) * 255).to(torch.uint8),
        "fixed": lambda x, mean, std: ((x[:, 0] * 0.3 + 0.6) * 255).round().to(torch.uint8),
    },
    "convolution": {
        "border": lambda p, k: correlate2d(p, k, mode="same"),
        "flipped": lambda p, k: convolve2d(p, k, mode="valid"),
        "last": lambda p, k: convolution(p, k, np.subtract(p.shape, len(k))),
        "sticks out": lambda p, k: convolution(p, k, p.shape),
        "one short": lambda p, k: valid(p, k)[:-1, :-1],
    },
    "step": {
        "adds up": lambda *given: step(*given, zero=False),
        "too early": lambda *given: step(*given, early=True, zero=False),
        "sigmoid": lambda *given: step(*given, squashed=True),
        "tensor": lambda *given: torch.tensor(step(*given)),
        "other loss": lambda *given: 0 * step(*given),
    },
    "loop": {
        "adds up": lambda *given: loop(*given, zero=False),
        "no grad": torch.no_grad()(loop),
        "no eval": lambda *given: loop(*given, rest=False),
        "no train": lambda *given: loop(*given, again=False),
        "learns from validation": lambda *given: loop(*given, learn=True),
        "batch means": lambda *given: loop(*given, means=True),
    },
    "count": {
        "all": lambda model: sum(p.numel() for p in model.parameters()),
        "tensors": lambda model: sum(p.requires_grad for p in model.parameters()),
        "frozen": lambda model: sum(p.numel() for p in model.parameters() if not p.requires_grad),
    },
    "freeze": {
        "drift": lambda model: freeze(model, train_last=True),
        "weights": lambda model: freeze(model, frozen="none"),
        "head still": lambda model: freeze(model, evaluated="all"),
        "head frozen": lambda model: freeze(model, frozen="all"),
    },
    "paired": {
        "slices": lambda *given: gain(*given, by_patient=False),
        "unpaired": lambda *given: gain(*given, paired=False),
        "one error": lambda *given: gain(*given, arms=1),
    },
    "gradcam": {
        "no relu": lambda *given: gradcam(*given, cut=False),
        "relu first": lambda a, g, target: (g.mean((2, 3), keepdim=True) * a * (target or -1)).relu().sum(1),
        "sum": lambda activations, gradients, target: gradcam(activations, 24 * gradients, target),
        "hirescam": lambda *given: gradcam(*given, own=True),
        "target": lambda *given: gradcam(*given, heed=False),
        "dimensions": lambda activations, gradients, target: gradients.mean((2, 3)) * activations,
    },
    "sign": {
        "always": lambda component, activations: -component,
        "largest": lambda component, activations: component * np.sign(component.flat[np.abs(component).argmax()]),
        "inverted": lambda component, activations: -signed(component, activations),
    },
    "hits": {
        "energy": lambda maps, lesions: (maps * lesions).sum((1, 2)) > maps.sum((1, 2)) / 2,
        "rows": lambda maps, lesions: [lesion[heat.argmax()] for heat, lesion in zip(maps, lesions, strict=True)],
        "threshold": lambda maps, lesions: ((maps > 0.5) & lesions).any((1, 2)),
        "whole batch": lambda maps, lesions: ((maps == maps.max()) & lesions).any((1, 2)),
    },
    "first pixels": {
        "ties": lambda heat, share: heat >= np.quantile(heat, 1 - share),
        "coldest": lambda heat, share: first(-heat, share),
        "value": lambda heat, share: heat > share,
    },
    "agreement": {
        "values": lambda one, other: [np.corrcoef(a.flat, b.flat)[0, 1] for a, b in zip(one, other, strict=True)],
        "places": lambda one, other: [
            np.corrcoef(a.argsort(axis=None), b.argsort(axis=None))[0, 1] for a, b in zip(one, other, strict=True)
        ],
        "all slices": lambda one, other: [spearmanr(one, other, axis=None).statistic] * len(one),
    },
    "beyond flat": {
        "share": lambda heat, lungs: heat[lungs].sum() / heat.sum(),
        "ratio": lambda heat, lungs: heat[lungs].sum() / heat.sum() / lungs.mean(),
        "means": lambda heat, lungs: heat[lungs].mean() - heat.mean(),
    },
    "bootstrap": {
        "slices": lambda *given: bootstrap(*given, by="slices"),
        "no spread": lambda *given: bootstrap(*given, by="nobody twice"),
        "once": lambda *given: bootstrap(*given, by="once"),
    },
    "threshold": {
        "specificity": lambda x, y, wanted: np.quantile(x[y == 0], wanted),
        "everybody": lambda x, y, wanted: np.quantile(x, 1 - wanted),
        "too low": lambda x, y, wanted: np.quantile(x[y == 1], 1 - wanted, method="lower"),
    },
    "temperature": {
        "one": lambda x, y: 1.0,
        "inverse": lambda x, y: 1 / best_temperature(x, y),
        "narrow": lambda x, y: best_temperature(x, y, least=1),
    },
    "pairs": {
        "disagreement": lambda *given: np.abs(drawn_pairs(*given)),
        "unpaired": lambda *given: drawn_pairs(*given, apart=True),
        "slices": lambda *given: drawn_pairs(*given, by="slices"),
    },
    "difference": {
        "sign": lambda a, b: difference(b, a),
        "same ends": lambda a, b: difference(a, b, "low", "high"),
        "added": lambda a, b: difference(a, b, add=np.add),
    },
    "mahalanobis": {
        "squared": lambda known, asked: mahalanobis(known, asked) ** 2,
        "euclidean": lambda known, asked: np.linalg.norm(asked - known.mean(0), axis=1),
        "one by one": lambda known, asked: np.linalg.norm((asked - known.mean(0)) / known.std(0), axis=1),
        "own": lambda known, asked: mahalanobis(asked, asked),
    },
    "patient score": {
        "all": lambda logits, who: pd.Series(logits).groupby(who).mean(),
        "highest": lambda logits, who: pd.Series(logits).groupby(who).max(),
        "lowest": lambda logits, who: -np.array(highest_three(-logits, who, np.unique(who))),
        "order": lambda logits, who: highest_three(logits, who, dict.fromkeys(who)),
    },
    "sweep": {
        "one value": plan(grid={"epochs": [2]}),
        "seeds": plan(seeds=[0]),
        "plan": plan(grid={"epoch": [1, 2]}),
        "missing": plan(grid={}),
        "no dict": [1],
    },
    "stories": {
        "same seed": lambda a, b: [(b - a).max(), (b - a).min()],
        "best of both": lambda a, b: (b.max() - a.max(), b.min() - a.min()),
        "second": lambda a, b: (b.max() - a.min(), b.min() - a.min()),
    },
    "how many seeds": {
        "rounding": lambda gains, reach: (1.96 * gains.std(ddof=1) / reach) ** 2,
        "population": lambda gains, reach: seeds(gains, reach, free=0),
        "whole width": lambda gains, reach: seeds(gains, reach / 2),
    },
    "features": {
        "train mode": lambda *given: features(*given, rest=False),
        "lost": lambda *given: features(*given, count=8),
        "gradient": lambda net, x, size: torch.cat([net.eval()(batch) for batch in x.split(size)]),
        "order": lambda net, x, size: features(net, x.flip(0), size),
    },
    "stage rates": {
        "reversed": lambda stages, rate, factor: stage_rates(stages[::-1], rate, factor),
        "no power": lambda *given: stage_rates(*given, step=lambda rate, factor, depth: rate * factor * depth),
        "one step": lambda *given: stage_rates(*given, step=lambda rate, factor, depth: rate * factor ** (depth > 0)),
        "missing": lambda stages, rate, factor: stage_rates(stages, rate, factor)[1:],
        "one rate": lambda stages, rate, factor: [{"params": torch.nn.ModuleList(stages).parameters(), "lr": rate}],
    },
    "batch size": {
        "fixed": lambda small, low, large, high, limit: limit // ((high - low) / (large - small)),
        "proportional": lambda small, low, large, high, limit: int(limit / (high / large)),
        "rounding": lambda small, low, large, high, limit: (limit - low) / ((high - low) / (large - small)) + small,
    },
}
