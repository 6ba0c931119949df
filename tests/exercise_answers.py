"""Answers to the exercises: other right ones than the notebooks', and wrong ones with a word of their hint."""

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from scipy.signal import convolve2d, correlate2d
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from covid_utils import training

# ------------------------------------------------------------------------------------------------------ notebook 1


def distances(new, known):
    return np.abs(new[:, None].astype(float) - known).sum(2)


def split(table, seed, by="patient", seeded=True, part=0.15, classes=(0, 1), names=("val", "test")):
    """A right split, with the mistakes that the arguments make."""
    rng = np.random.default_rng(seed if seeded else 0)
    result = pd.Series("train", index=table.index)
    for label in classes:
        mine = rng.permutation(table[by][(table.label == label) | (len(classes) == 1)].unique())
        count = round(part * len(mine))
        result[table[by].isin(mine[:count])] = names[1]
        result[table[by].isin(mine[count : 2 * count])] = names[0]
    return result


def mirror(images, rng, chance=0.5, changed=np.copy, axis=2):
    """A right mirroring, with the mistakes that the arguments make."""
    coins, result = rng.random(len(images)) < chance, changed(images)
    result[coins] = np.flip(images, axis)[coins]
    return result


def undo(x, mean, std):
    return np.rint(x.numpy().mean(1) * (std * 255) + mean * 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------ notebook 2


def step(model, x, labels, optimizer, zero=True, early=False, sign=1, squashed=False, wiped=False):
    """A right step, with the mistakes that the arguments make."""
    if zero:
        optimizer.zero_grad()
    logits = model(x)
    loss = sign * bce(torch.sigmoid(logits) if squashed else logits, labels)
    if early:
        optimizer.step()
    loss.backward()
    if wiped:
        optimizer.zero_grad()
    if not early:
        optimizer.step()
    return abs(loss.item())


def zero_last(model, x, labels, optimizer):
    """Right, too: the gradients are emptied at the end."""
    loss = -(labels * model(x).sigmoid().log() + (1 - labels) * (1 - model(x).sigmoid()).log()).mean()
    loss.backward()
    optimizer.step()
    for parameter in model.parameters():
        parameter.grad = None
    return loss


def update(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def loop(model, batches, checks, optimizer, epochs, rest=True, again=True, learn=False, means=False, factor=1, every=1):
    """A right loop, with the mistakes that the arguments make."""
    history = []
    model.train()
    for epoch in range(epochs):
        if again:
            model.train()
        for x, labels in batches:
            update(bce(model(x), labels), optimizer)
        if (epoch + 1) % every:
            continue
        if rest:
            model.eval()
        right = []
        for x, labels in checks:
            logits = model(x)
            if learn:
                update(bce(logits, labels), optimizer)
            right.append(((logits > 0) == labels.bool()).float())
        found = np.mean([each.mean().item() for each in right]) if means else torch.cat(right).mean().item()
        history.append(factor * found)
    return history


# ------------------------------------------------------------------------------------------------------ notebook 3


def only_batch_norm(model):
    """Right, too: only what drifts is put to rest."""
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith("trunk")
    for part in model.trunk.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()


def freeze(model, frozen="trunk", evaluated="trunk", train_last=False):
    """A frozen trunk, with the mistakes that the arguments make."""
    parts = {"trunk": model.trunk, "all": model, "none": torch.nn.Identity()}
    model.train()
    parts[frozen].requires_grad_(False)
    parts[evaluated].eval()
    if train_last:
        model.train()


@torch.no_grad()
def features(trunk, images, batch_size, rest=True, keep=None):
    if rest:
        trunk.eval()
    count = len(images) // batch_size * batch_size if keep else len(images)
    return torch.cat([trunk(images[i : i + batch_size]) for i in range(0, count, batch_size)])


def bootstrapped_gain(right_a, right_b, patients):
    """Right, too: the percentiles of a bootstrap."""
    drawn = drawn_pairs(right_a, right_b, patients, 1500, np.random.default_rng(0))
    return right_b.mean() - right_a.mean(), *np.quantile(drawn, [0.025, 0.975])


def gain(right_a, right_b, patients, by_patient=True, paired=True, root=True, arms=2, sign=1, squared=False):
    """A right interval, with the mistakes that the arguments make."""
    table = pd.DataFrame(
        {"a": right_a * 1.0, "b": right_b * 1.0, "who": patients if by_patient else range(len(patients))}
    )
    means = sign * table.groupby("who")[["a", "b"]].mean()
    spread = (means.b - means.a).std() if paired else np.hypot(means.a.std(), means.b.std())
    half = arms * spread / (len(means) ** (1 if squared else 0.5) if root else 1)
    value = (means.b - means.a).mean()
    return value, value - half, value + half


# ------------------------------------------------------------------------------------------------------ notebook 4


def gradcam(activations, gradients, target, over=(2, 3), cut=True, own=False, heed=True):
    """A right GradCAM, with the mistakes that the arguments make."""
    sign = 1 if target or not heed else -1
    weights = sign * (gradients if own else gradients.mean(over, keepdim=True))
    raw = torch.einsum("nchw,nchw->nhw", weights.expand_as(activations), activations)
    return raw.relu() if cut else raw


def signed(component, activations):
    strength = (activations**2).sum(0) ** 0.5
    return component * np.sign(((component - component.mean()) * (strength - strength.mean())).sum())


def hits(maps, lesions):
    return [
        bool(lesion[np.unravel_index(heat.argmax(), heat.shape)]) for heat, lesion in zip(maps, lesions, strict=True)
    ]


def first(heat, share):
    count = round(share * heat.size)
    limit = np.sort(heat, axis=None)[-count]
    chosen = heat > limit
    tied = np.argwhere(heat == limit)[: count - chosen.sum()]
    chosen[tuple(tied.T)] = True
    return chosen


# ------------------------------------------------------------------------------------------------------ notebook 5


def drawn_rows(patients, rng, by="patients"):
    """The rows of one draw."""
    names = np.unique(patients)
    if by == "slices":
        return rng.integers(0, len(patients), len(patients))
    drawn = rng.permutation(names) if by == "nobody twice" else rng.choice(names, len(names))
    if by == "once":
        return np.flatnonzero(np.isin(patients, drawn))
    return np.concatenate([np.flatnonzero(patients == each) for each in drawn])


def bootstrap(right, patients, draws, rng, by="patients"):
    return [right[drawn_rows(patients, rng, by)].mean() for _ in range(draws)]


def weighted_bootstrap(right, patients, draws, rng):
    """Right, too: how often each patient is drawn, as a weight."""
    names, who = np.unique(patients, return_inverse=True)
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)[:, who]
    return weights @ right / weights.sum(1)


def drawn_pairs(right_a, right_b, patients, draws, rng, by="patients", apart=False):
    found = []
    for _ in range(draws):
        rows = drawn_rows(patients, rng, by)
        other = drawn_rows(patients, rng, by) if apart else rows
        found.append(right_b[other].mean() - right_a[rows].mean())
    return np.array(found)


def log_loss(logits, labels, t):
    return np.logaddexp(0, -(2 * labels - 1) * logits / t).mean()


def best_temperature(logits, labels):
    return minimize_scalar(lambda t: log_loss(logits, labels, t), bounds=(0.05, 20), method="bounded").x


def from_one_up(logits, labels):
    grid = np.geomspace(1, 20, 400)
    return grid[np.argmin([log_loss(logits, labels, t) for t in grid])]


def counted_threshold(logits, labels, wanted):
    """Right, too: try every logit."""
    return max(value for value in logits if (logits[labels == 1] >= value).mean() >= wanted - 1e-9)


def intervals(table, by=("patients", "weights"), mean=None):
    """How many intervals hold the mean of their group, one after the other."""
    groups = [each for _, each in table.groupby(list(by))]
    means = [mean if mean is not None else each.accuracy.mean() for each in groups]
    return sum(((each.low <= m) & (m <= each.high)).sum() for each, m in zip(groups, means, strict=True))


def counted_seeds(gains, reach, free=1, factor=1.96):
    """By trying one number after the other."""
    n = 2
    while factor * gains.std(ddof=free) / n**0.5 > reach:
        n += 1
    return n


def plan(**changes):
    return {
        "notebooks": ["02"],
        "parameters": {"patients": 40},
        "grid": {"epochs": [1, 2]},
        "seeds": [0, 1, 2],
    } | changes


RIGHT = {  # another way than the notebook's
    "look-up": lambda new, known, labels: (
        KNeighborsClassifier(1).fit(known.astype(float), labels).predict(new.astype(float))
    ),
    "split": split,
    "mirror": mirror,
    "undo": undo,
    "convolution": lambda picture, kernel: correlate2d(picture, kernel, mode="valid"),
    "step": zero_last,
    "loop": loop,
    "best epoch": training.best_epoch,
    "count": lambda model: int(sum(np.prod(p.shape) for p in filter(lambda p: p.requires_grad, model.parameters()))),
    "freeze": only_batch_norm,
    "features": features,
    "paired": bootstrapped_gain,
    "gradcam": gradcam,
    "sign": signed,
    "hits": hits,
    "first pixels": first,
    "bootstrap": weighted_bootstrap,
    "threshold": counted_threshold,
    "temperature": best_temperature,
    "pairs": drawn_pairs,
    "sweep": plan(),
    "stories": lambda scratch, start: [f(np.subtract.outer(start, scratch)) for f in (np.max, np.min)],
    "intervals": intervals,
    "how many seeds": counted_seeds,
}

WRONG = {  # {exercise: {kind of mistake: (answer, a word of the hint)}}
    "look-up": {
        "farthest": (lambda n, k, y: y[distances(n, k).argmax(1)], "least"),
        "number": (lambda n, k, y: distances(n, k).argmin(1), "which"),
        "signed": (lambda n, k, y: y[(n[:, None].astype(float) - k).sum(2).argmin(1)], "cancel"),
        "wraps": (lambda n, k, y: y[((n[:, None] - k) ** 2).sum(2).argmin(1)], "bytes"),
        "wrong": (lambda n, k, y: np.zeros(len(n), int), "of 75"),
        "form": (lambda n, k, y: y, "12"),
    },
    "split": {
        "torn": (lambda table, seed: split(table, seed, by="path"), "torn"),
        "classes": (lambda table, seed: split(table, seed, classes=(0,)), "evenly"),
        "sizes": (lambda table, seed: split(table, seed, part=0.3), "%"),
        "names": (lambda table, seed: split(table, seed, names=("validation", "test")), "validation"),
        "seed": (lambda table, seed: split(table, seed, seeded=False), "another seed"),
        "rows": (
            lambda table, seed: split(table.drop_duplicates("patient").reset_index(drop=True), seed),
            "values for",
        ),
        "not repeatable": (lambda table, seed: split(table, np.random.default_rng().integers(1_000_000)), "same seed"),
        "left out": (lambda table, seed: split(table, seed).replace("train", None), "no part"),
    },
    "mirror": {
        "in place": (lambda images, rng: mirror(images, rng, changed=np.asarray), "given"),
        "all alike": (lambda images, rng: images[:, :, ::-1] if rng.random() < 0.55 else images, "one coin"),
        "always": (lambda images, rng: images[:, :, ::-1], "every slice"),
        "upside down": (lambda images, rng: mirror(images, rng, axis=1), "heads"),
        "same ones": (lambda images, rng: mirror(images, np.random.default_rng(0)), "same slices"),
        "chance": (lambda images, rng: mirror(images, rng, 0.2), "half"),
        "type": (lambda images, rng: mirror(images, rng) / 1.0, "float64"),
    },
    "undo": {
        "order": (lambda x, mean, std: ((x[:, 0] + mean) * std * 255).round().to(torch.uint8), "order"),
        "scale": (lambda x, mean, std: x[:, 0] * std + mean, "between 0 and 1"),
        "rounding": (lambda x, mean, std: ((x[:, 0] * std + mean) * 255).to(torch.uint8), "cuts"),
        "channels": (lambda x, mean, std: ((x * std + mean) * 255).round().to(torch.uint8), "channels"),
        "fixed": (lambda x, mean, std: ((x[:, 0] * 0.3 + 0.6) * 255).round().to(torch.uint8), "others"),
        "type": (lambda x, mean, std: ((x[:, 0] * std + mean) * 255).round(), "float32"),
    },
    "convolution": {
        "border": (lambda p, k: correlate2d(p, k, mode="same"), "as large as"),
        "mean": (lambda p, k: correlate2d(p, k, mode="valid") / k.size, "mean"),
        "flipped": (lambda p, k: convolve2d(p, k, mode="valid"), "turned"),
        "one short": (lambda p, k: correlate2d(p, k, mode="valid")[:-1, :-1], "shape"),
        "no kernel": (lambda p, k: correlate2d(p, k * 0 + 1, mode="valid"), "whatever"),
    },
    "step": {
        "adds up": (lambda *given: step(*given, zero=False), "add up"),
        "too early": (lambda *given: step(*given, early=True, zero=False), "before"),
        "still": (lambda *given: step(*given, wiped=True), "did not move"),
        "uphill": (lambda *given: step(*given, sign=-1), "grows"),
        "sigmoid": (lambda *given: step(*given, squashed=True), "sigmoids"),
        "other loss": (lambda *given: (step(*given), 0.0)[1], "before the step"),
    },
    "loop": {
        "no eval": (lambda *given: loop(*given, rest=False), "remember"),
        "no train": (lambda *given: loop(*given, again=False), "stays in eval"),
        "learns from validation": (lambda *given: loop(*given, learn=True), "judge"),
        "batch means": (lambda *given: loop(*given, means=True), "smaller"),
        "percent": (lambda *given: loop(*given, factor=100), "percent"),
        "passes": (lambda *given: loop(*given[:4], 1) * given[4], "saw 3"),
    },
    "best epoch": {
        "position": (lambda history: history.val_accuracy.idxmax(), "position"),
        "training": (lambda history: history.epoch[history.train_accuracy.idxmax()], "training"),
        "loss": (lambda history: history.epoch[history.val_loss.idxmin()], "lowest validation loss"),
        "tie": (lambda history: history.epoch[history.val_accuracy.idxmax()], "share"),
        "value": (lambda history: history.val_accuracy.max(), "accuracy"),
    },
    "count": {
        "all": (lambda model: sum(p.numel() for p in model.parameters()), "frozen ones too"),
        "tensors": (lambda model: sum(p.requires_grad for p in model.parameters()), "tensors"),
        "frozen": (lambda model: sum(p.numel() for p in model.parameters() if not p.requires_grad), "the frozen"),
    },
    "freeze": {
        "drift": (lambda model: freeze(model, train_last=True), "running mean"),
        "weights": (lambda model: freeze(model, frozen="none"), "weights of the trunk"),
        "head still": (lambda model: freeze(model, evaluated="all"), "head is in eval"),
        "head frozen": (lambda model: freeze(model, frozen="all"), "nothing can learn"),
    },
    "features": {
        "train mode": (lambda *given: features(*given, rest=False), "batch norm"),
        "lost": (lambda *given: features(*given, keep=True), "missing"),
        "gradient": (lambda trunk, x, size: torch.cat([trunk.eval()(batch) for batch in x.split(size)]), "gradient"),
        "list": (lambda trunk, images, size: [trunk.eval()(batch) for batch in images.split(size)], "list"),
        "at once": (lambda trunk, images, size: features(trunk, images, len(images)), "at once"),
        "order": (lambda trunk, images, size: features(trunk, images.flip(0), size), "order"),
    },
    "paired": {
        "slices": (lambda *given: gain(*given, by_patient=False), "as if each were a patient"),
        "unpaired": (lambda *given: gain(*given, paired=False), "other patients"),
        "sign": (lambda *given: gain(*given, sign=-1), "sign"),
        "deviation": (lambda *given: gain(*given, root=False), "wide"),
        "one error": (lambda *given: gain(*given, arms=1), "one standard error"),
        "no root": (lambda *given: gain(*given, squared=True), "divide by the number"),
    },
    "gradcam": {
        "no relu": (lambda *given: gradcam(*given, cut=False), "ReLU"),
        "hirescam": (lambda *given: gradcam(*given, own=True), "HiResCAM"),
        "channels": (lambda *given: gradcam(*given, over=1), "all channels get one weight"),
        "target": (lambda *given: gradcam(*given, heed=False), "class 0"),
        "dimensions": (lambda activations, gradients, target: gradients.mean((2, 3)) * activations, "fit together"),
        "absolute": (lambda *given: gradcam(*given, cut=False).abs(), "against"),
    },
    "sign": {
        "always": (lambda component, activations: -component, "always"),
        "absolute": (lambda component, activations: np.abs(component), "absolute"),
        "largest": (lambda c, activations: c * np.sign(c.flat[np.abs(c).argmax()]), "odd place"),
        "inverted": (lambda component, activations: -signed(component, activations), "wrong way round"),
    },
    "hits": {
        "energy": (lambda maps, lesions: (maps * lesions).sum((1, 2)) > maps.sum((1, 2)) / 2, "most of the heat"),
        "threshold": (lambda maps, lesions: ((maps > 0.5) & lesions).any((1, 2)), "warm"),
        "whole batch": (lambda maps, lesions: ((maps == maps.max()) & lesions).any((1, 2)), "together"),
        "share": (lambda maps, lesions: np.mean(hits(maps, lesions)), "share"),
        "inverted": (lambda maps, lesions: [not each for each in hits(maps, lesions)], "outside"),
    },
    "first pixels": {
        "ties": (lambda heat, share: heat >= np.quantile(heat, 1 - share), "equally hot"),
        "coldest": (lambda heat, share: first(-heat, share), "coldest"),
        "value": (lambda heat, share: heat > share, "different things"),
        "mask": (lambda heat, share: heat * first(heat, share), "True or False"),
    },
    "bootstrap": {
        "slices": (lambda *given: bootstrap(*given, by="slices"), "single slices"),
        "no spread": (lambda *given: bootstrap(*given, by="nobody twice"), "exactly once"),
        "once": (lambda *given: bootstrap(*given, by="once"), "drawn twice"),
        "percent": (lambda *given: 100 * np.array(bootstrap(*given)), "percent"),
    },
    "threshold": {
        "specificity": (lambda x, y, wanted: np.quantile(x[y == 0], wanted), "without"),
        "everybody": (lambda x, y, wanted: np.quantile(x, 1 - wanted), "all slices"),
        "other end": (lambda x, y, wanted: np.quantile(x[y == 1], wanted), "other end"),
        "too low": (lambda x, y, wanted: np.quantile(x[y == 1], 1 - wanted, method="lower"), "higher"),
        "probability": (lambda x, y, wanted: 1 / (1 + np.exp(-counted_threshold(x, y, wanted))), "probability"),
    },
    "temperature": {
        "one": (lambda logits, labels: 1.0, "changes nothing"),
        "inverse": (lambda logits, labels: 1 / best_temperature(logits, labels), "divided"),
        "loss": (lambda x, y: log_loss(x, y, best_temperature(x, y)), "lowest loss"),
        "place": (lambda logits, labels: 256, "place"),
        "logarithm": (lambda logits, labels: np.log(best_temperature(logits, labels)), "logarithm"),
        "narrow": (from_one_up, "below 1"),
    },
    "pairs": {
        "disagreement": (lambda *given: np.abs(drawn_pairs(*given)), "above zero"),
        "unpaired": (lambda *given: drawn_pairs(*given, apart=True), "anew"),
        "sign": (lambda *given: -drawn_pairs(*given), "sign"),
        "slices": (lambda *given: drawn_pairs(*given, by="slices"), "single slices"),
    },
    "sweep": {
        "one value": (plan(grid={"epochs": 2}), "one value"),
        "seeds": (plan(seeds=[0]), "draw"),
        "seeds in a list": (plan(seeds=3), "list"),
        "parameter": (plan(grid={"epoch": [1, 2]}), "epochs"),
        "key": (plan(seed=[1]), "seeds"),
        "value": (plan(grid={"learning_rate": ["1e-3", 1e-4]}), "learning_rate"),
        "twice": (plan(parameters={"epochs": 1}), "two places"),
        "notebooks": (plan(notebooks="02"), "02"),
        "no effect": (plan(notebooks=["01"]), "no effect"),
        "no dict": ([1], "list"),
    },
    "stories": {
        "same seed": (lambda scratch, start: [(start - scratch).max(), (start - scratch).min()], "one seed"),
        "best of both": (lambda a, b: (b.max() - a.max(), b.min() - a.min()), "the best with the best"),
        "order": (lambda a, b: (b.min() - a.max(), b.max() - a.min()), "order"),
        "sign": (lambda a, b: (a.min() - b.max(), a.max() - b.min()), "sign"),
        "subtracted": (lambda a, b: (a.max() - b.min(), a.min() - b.max()), "wrong way round"),
        "second": (lambda a, b: (b.max() - a.min(), b.min() - a.min()), "other one"),
        "percent": (lambda a, b: (100 * (b.max() - a.min()), 100 * (b.min() - a.max())), "points"),
    },
    "intervals": {
        "not counted": (lambda table: table.accuracy > table.low, "how many"),
        "own": (lambda table: (table.accuracy >= table.low).sum(), "all 30"),
        "everybody": (lambda table: intervals(table, mean=table.accuracy.mean()), "all runs"),
        "only patients": (lambda table: intervals(table, by=["patients"]), "all initializations"),
        "only weights": (lambda table: intervals(table, by=["weights"]), "numbers of patients"),
        "the others": (lambda table: len(table) - intervals(table), "not"),
        "share": (lambda table: intervals(table) / len(table), "share"),
    },
    "how many seeds": {
        "rounding": (lambda gains, reach: (1.96 * gains.std(ddof=1) / reach) ** 2, "whole"),
        "more": (lambda gains, reach: counted_seeds(gains, reach) + 1, "one fewer"),
        "root": (lambda gains, reach: 1.96 * gains.std(ddof=1) / reach, "root"),
        "population": (lambda gains, reach: counted_seeds(gains, reach, free=0), "NumPy"),
        "whole width": (lambda gains, reach: counted_seeds(gains, reach / 2), "whole interval"),
        "both sides": (lambda gains, reach: counted_seeds(gains, 2 * reach), "twice"),
        "no factor": (lambda gains, reach: counted_seeds(gains, reach, factor=1), "standard error"),
    },
}
